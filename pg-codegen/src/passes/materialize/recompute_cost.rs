//! What it would take to recompute a value where it is read, instead of keeping it in memory.
//!
//! Estimates only: they decide what is worth keeping, never what is computed.

use pg_ir::graph::{Graph, ValueId};
use pg_ir::op::{Binary, Op};
use smallvec::SmallVec;

use crate::index::access::Context;
use crate::passes::materialize::is_widening;

/// Values with more instructions below them are kept even if one load would recompute them.
const CHEAP_OPS: u32 = 16;

/// What recomputing a value would take.
#[derive(Clone, Default)]
pub(crate) struct RecomputeCost {
    /// Kept values of which elements are read.
    pub(crate) leaves: SmallVec<[ValueId; 3]>,
    /// Instructions.
    pub(crate) ops: u32,
    /// Longest chain.
    pub(crate) depth: u32,
    /// Elements that a row instruction below reads, 0 if there is none.
    pub(crate) row_work: usize,
    /// Whether an instruction below costs much more than an addition.
    pub(crate) slow: bool,
    /// Whether the value will probably be kept, so that what reads it need not recompute it.
    pub(crate) kept: bool,
}

impl RecomputeCost {
    /// Whether recomputing a value reads no more than loading it would.
    pub(crate) fn is_cheap(&self, graph: &Graph, value: ValueId) -> bool {
        let len = graph.ty(value).len();
        let big = self.leaves.iter().filter(|l| graph.ty(**l).len() * 2 > len).count();
        big <= 1 && self.ops <= CHEAP_OPS && self.row_work == 0
    }

    /// Whether some reader broadcasts the value so that inlining it would repeat slow work.
    pub(crate) fn is_repeated(&self, graph: &Graph, value: ValueId, readers: &[ValueId]) -> bool {
        let ty = graph.ty(value);
        let work = if self.row_work > 0 {
            self.row_work
        } else if self.slow && ty.axes.last().is_some_and(|a| a.size > 1) {
            ty.len()
        } else {
            return false;
        };
        let is_wider =
            |&r: &ValueId| matches!(graph.producer(r).op, Op::Broadcast(_)) && graph.ty(r).len() >= 2 * work;
        readers.iter().any(is_wider)
    }
}

/// The cost of every value, when what is `stored` in `cx` is kept.
pub(crate) fn recompute_costs(cx: Context<'_>, readers: &[Vec<ValueId>]) -> Vec<RecomputeCost> {
    let graph = cx.graph;
    let mut costs = vec![RecomputeCost::default(); graph.value_count()];
    for (_, node) in graph.nodes() {
        let v = node.first;
        if cx.constants.uniform(v).is_some() || matches!(node.op, Op::Iota(_)) {
            continue;
        }
        if cx.in_memory(v) || node.op.has_kernel() {
            graph.results(node).for_each(|r| costs[r.index()].leaves.push(r));
            continue;
        }
        let mut sum = RecomputeCost::default();
        for operand in &node.operands {
            let below = &costs[operand.index()];
            if below.kept {
                sum.leaves.push(*operand);
                continue;
            }
            for leaf in &below.leaves {
                if !sum.leaves.contains(leaf) {
                    sum.leaves.push(*leaf);
                }
            }
            sum.ops = sum.ops.saturating_add(below.ops);
            sum.depth = sum.depth.max(below.depth);
            sum.row_work = sum.row_work.max(below.row_work);
            sum.slow |= below.slow;
        }
        if matches!(node.op, Op::Gather) {
            // It reads as much as it gives, however small the table.
            sum.leaves = SmallVec::from_slice(&[v]);
        }
        let is_free = node.op.is_view() || is_widening(graph, node);
        if !is_free {
            sum.ops = sum.ops.saturating_add(1);
            sum.depth += 1;
            sum.slow |= matches!(node.op, Op::Unary(_) | Op::Binary(Binary::Div));
            if matches!(node.op, Op::Reduce(..) | Op::FakeQuant(_)) {
                sum.row_work = sum.row_work.max(graph.ty(node.operands[0]).len());
            }
        }
        // What mixes several values for several readers will be kept, so that they read it instead.
        sum.kept = readers[v.index()].len() > 1 && !is_free && !sum.is_cheap(graph, v);
        costs[v.index()] = sum;
    }
    costs
}
