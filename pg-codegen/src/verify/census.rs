//! What is computed at all: every live node with a kernel of its own in exactly one launch, with its FLOPs, and
//! launches that say where in the model they come from.
//!
//! Element-wise values need no launch of their own: fusion computes them where they are read, as often as they are.
//! That nothing is missing of them follows from outputs and operands, which are checked one by one.

use pg_ir::graph::{Node, NodeId, ValueId};
use pg_ir::op::Op;

use super::access::products;
use super::{Check, Finding, Subject};
use crate::plan::Kernel;
use crate::plan::witness::Roles;
use crate::report::provenance::{Line, Provenance};

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let live = live(s);
    let mut computed: Vec<Option<usize>> = vec![None; s.graph.nodes().len()];
    let (mut flops, mut want) = (0.0, 0.0);
    for (i, launch, roles) in s.launches() {
        let fault = |message: String| Err(Finding::at(Check::Census, i, message));
        for &id in &roles.library {
            let what = || s.describe(s.graph.node(id).first);
            if let Some(before) = computed[id.index()].replace(i) {
                return fault(format!("computes {}, as launch #{before} does", what()));
            }
            if !live[id.index()] {
                return fault(format!("computes {}, on which no output depends", what()));
            }
        }
        let kernel = s.kernel(launch);
        let of = |m: &crate::plan::Matmul| 2.0 * (m.batch * m.m) as f64 * (m.n as f64) * m.k as f64;
        flops += products(kernel).iter().flat_map(|p| &p.segments).map(of).sum::<f64>();
        if !matches!(kernel, Kernel::Copy { .. })
            && let Some(node) = unsaid(s, &launch.provenance, roles)
        {
            return fault(format!("computes {}, which its provenance does not say", s.describe(node.first)));
        }
    }
    for (id, node) in s.graph.nodes().filter(|(id, n)| live[id.index()] && n.op.has_kernel()) {
        if computed[id.index()].is_none() {
            let message = format!("no launch computes {}", s.describe(node.first));
            return Err(Finding::of(Check::Census, node.first, message));
        }
        if let Op::Dot(_) = node.op {
            want +=
                (node.op.record().flops)(&node.op, &s.graph.operand_types(node), &s.graph.result_types(node));
        }
    }
    if flops != want {
        let message = format!("products take {flops:e} FLOP, in the graph {want:e}");
        return Err(Finding::new(Check::Census, message));
    }
    Ok(())
}

/// By node: whether an output depends on it.
fn live(s: Subject<'_>) -> Vec<bool> {
    let mut live = vec![false; s.graph.nodes().len()];
    s.graph.outputs.iter().for_each(|o| live[s.graph.producer_id(o.value).index()] = true);
    for (id, node) in s.graph.nodes().rev() {
        if live[id.index()] {
            node.operands.iter().for_each(|v| live[s.graph.producer_id(*v).index()] = true);
        }
    }
    live
}

/// A node that a launch computes without saying so: one with a kernel of its own, or what a region writes, unless that
/// is one number.
fn unsaid<'a>(s: Subject<'a>, provenance: &Provenance, roles: &Roles) -> Option<&'a Node> {
    let library: Vec<NodeId> = roles.library.clone();
    let is_result = |v: &ValueId| {
        let mut v = *v;
        loop {
            let id = s.graph.producer_id(v);
            if library.contains(&id) {
                return true;
            }
            match s.graph.producer(v) {
                n if n.op.is_view() || matches!(n.op, Op::Cast(_)) => v = n.operands[0],
                _ => return false,
            }
        }
    };
    // A sum with an old value is the product that adds to it.
    let adds = |at: usize| roles.reads[at].is_some() && !library.is_empty();
    let written = roles.writes.iter().enumerate().filter(|(at, _)| !adds(*at)).filter_map(|(_, v)| *v);
    let written =
        written.filter(|v| !is_result(v) && s.known.uniform(*v).is_none()).map(|v| s.graph.producer_id(v));
    let mut nodes = library.iter().copied().chain(written).map(|id| s.graph.node(id));
    nodes.find(|node| !says(provenance, node))
}

/// Whether provenance names a node: its op, unless that is a view, and its place.
fn says(provenance: &Provenance, node: &Node) -> bool {
    let is_work = !node.op.is_view() && !matches!(node.op, Op::Const(..) | Op::Iota(_));
    let origin = &node.origin;
    let line = Line { file: origin.loc.file.clone(), line: origin.loc.line };
    let named = !is_work || provenance.ops.iter().any(|(name, _)| *name == node.op.record().name);
    named
        && provenance.sites.iter().any(|site| {
            site.scope == origin.scope && site.backward == origin.backward && site.lines.contains(&line)
        })
}
