//! Cached weights: what is computed of a parameter alone, by quantising and rounding it, before a
//! contraction or a gather reads it.
//!
//! Parameters change once a step and are read by every micro-batch of it. A step's first program writes its cached
//! weights to state; the others read them there, so that their operands are plain loads. This pass must never change
//! the value of a cached weight, only where it is computed. A weight that it cannot name is computed where it stands.
//! Tests hold the programs of a step to the same cached weights.

use pg_ir::graph::{Builder, Graph, ValueId};
use pg_ir::op::{Op, Operands};
use pg_ir::programs::WeightCache;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::CodegenError;
use crate::passes::rewrites::Rewrite;

/// The graph of a program that comes by its cached weights in this way.
pub(crate) fn place(graph: &Graph, weight_cache: WeightCache) -> Result<Graph, CodegenError> {
    if weight_cache == WeightCache::None {
        return Ok(graph.clone());
    }
    let cached = cached(graph);
    let mut b = Builder::rebuilding(graph);
    let mut renamed: Vec<ValueId> = Vec::with_capacity(graph.value_count());
    for (_, node) in graph.nodes() {
        b.set_origin(node.origin.clone());
        match cached.get(&node.first).filter(|_| weight_cache == WeightCache::Read) {
            Some(slot) => {
                Rewrite::ReadCachedWeight.taken();
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
    if weight_cache == WeightCache::Write {
        let mut written: Vec<_> = cached.into_iter().collect();
        written.sort();
        for (value, slot) in written {
            Rewrite::WriteCachedWeight.taken();
            b.output(slot, renamed[value.index()]);
        }
    }
    Ok(b.finish())
}

/// Cached weights that a contraction or a gather reads, with their slots: for these a kernel would have to write
/// them to memory. Everything else that a program computes of a parameter rides on whatever reads it.
fn cached(graph: &Graph) -> FxHashMap<ValueId, Slot> {
    let mut is_read = vec![false; graph.value_count()];
    for (_, node) in graph.nodes().rev() {
        let reads =
            matches!(node.op, Op::Dot(_) | Op::Gather) || node.op.is_view() && is_read[node.first.index()];
        node.operands.iter().filter(|_| reads).for_each(|v| is_read[v.index()] = true);
    }
    let mut named: FxHashSet<&str> = FxHashSet::default();
    let read = graph.nodes().map(|(_, node)| node.first).filter(|v| is_read[v.index()]);
    let form = |value| Some((value, parameter(graph, value)?));
    // A slot is named by its parameter, and holds the first of its cached if there should be several.
    let first = read.filter_map(form).filter(|(_, name)| named.insert(name));
    first.map(|(value, name)| (value, Slot::new(Space::CachedWeight, name))).collect()
}

/// The parameter that a value is a cached weight of.
fn parameter(graph: &Graph, value: ValueId) -> Option<&str> {
    let mut node = graph.producer(value);
    while let Op::FakeQuant(_) | Op::Cast(DType::BF16) = node.op {
        node = graph.producer(node.operands[0]);
        if let Op::Input(slot, _) = &node.op {
            return (slot.space == Space::Param).then_some(&slot.name);
        }
    }
    None
}
