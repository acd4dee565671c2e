//! Working forms of parameters: what is computed of a parameter alone, by quantising and rounding it, before a
//! contraction or a gather reads it.
//!
//! Parameters change once a step and are read by every micro-batch of it. A program that leaves its working forms
//! writes them to state as well; one that finds them reads them there, so that its operands are plain loads. This
//! pass must never change what a working form is, only where it is computed, and what it cannot name it leaves
//! where it stands. That the programs of a step have the same forms is a test's business: they differ in gradients only.

use pg_ir::graph::{Builder, Graph, ValueId};
use pg_ir::op::{Op, Operands};
use pg_ir::programs::Working;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::CodegenError;
use crate::rewrites::Rewrite;

/// The graph of a program that comes by its working forms in this way.
pub(crate) fn place(graph: &Graph, working: Working) -> Result<Graph, CodegenError> {
    if working == Working::Own {
        return Ok(graph.clone());
    }
    let forms = forms(graph);
    let mut b = Builder::default();
    let mut renamed: Vec<ValueId> = Vec::with_capacity(graph.value_count());
    for (_, node) in graph.nodes() {
        b.set_origin(node.origin.clone());
        match forms.get(&node.first).filter(|_| working == Working::Find) {
            Some(slot) => {
                Rewrite::FindWeight.taken();
                renamed.push(b.input(slot.clone(), graph.ty(node.first).clone()));
            }
            None => {
                let operands: Operands = node.operands.iter().map(|v| renamed[v.index()]).collect();
                let results = b.push(node.op.clone(), &operands);
                renamed.extend(results.map_err(|why| CodegenError::at(node, why))?);
            }
        }
    }
    for output in &graph.outputs {
        b.output(output.slot.clone(), renamed[output.value.index()]);
    }
    if working == Working::Leave {
        let mut left: Vec<_> = forms.into_iter().collect();
        left.sort();
        for (value, slot) in left {
            Rewrite::LeaveWeight.taken();
            b.output(slot, renamed[value.index()]);
        }
    }
    Ok(b.finish())
}

/// Working forms that a contraction or a gather reads, with their slots: for these a kernel would have to write
/// them to memory. Everything else that a program computes of a parameter rides on whatever reads it.
fn forms(graph: &Graph) -> FxHashMap<ValueId, Slot> {
    let mut is_read = vec![false; graph.value_count()];
    for (_, node) in graph.nodes().rev() {
        let reads =
            matches!(node.op, Op::Dot(_) | Op::Gather) || node.op.is_view() && is_read[node.first.index()];
        node.operands.iter().filter(|_| reads).for_each(|v| is_read[v.index()] = true);
    }
    let mut named: FxHashSet<&str> = FxHashSet::default();
    let read = graph.nodes().map(|(_, node)| node.first).filter(|v| is_read[v.index()]);
    let form = |value| Some((value, parameter(graph, value)?));
    // A slot is named by its parameter, and holds the first of its forms if there should be several.
    let first = read.filter_map(form).filter(|(_, name)| named.insert(name));
    first.map(|(value, name)| (value, Slot::new(Space::Working, name))).collect()
}

/// The parameter that a value is a working form of.
fn parameter(graph: &Graph, value: ValueId) -> Option<&str> {
    let node = graph.producer(value);
    let (Op::FakeQuant(_) | Op::Cast(DType::BF16)) = node.op else { return None };
    match &graph.producer(node.operands[0]).op {
        Op::Input(slot, _) => (slot.space == Space::Param).then_some(&slot.name),
        _ => parameter(graph, node.operands[0]),
    }
}
