//! Segments of k: a sum of dots becomes one dot of several pairs of operands, whose k is theirs one after the other.
//!
//! The gradient of what a layer projects to queries, keys and values is such a sum, dq·Wq + dk·Wk + dv·Wv: as one
//! contraction it is written once, where three results would be written, rounded and read again to be added. The terms
//! of each element are summed in the order of the segments. The pass must take only dots that nothing else reads, and must
//! leave a sum alone whose dots are of different types.

use pg_ir::graph::{Builder, Graph, NodeId, ValueId};
use pg_ir::op::{Binary, DotDims, Op, Operands};
use rustc_hash::FxHashMap;

use crate::CodegenError;
use crate::passes::materialize::readers;
use crate::passes::rewrites::Rewrite;

/// Pairs of operands of one dot: its launch binds their buffers, and has code for each.
const MOST: usize = 4;

/// Rebuilds a canonical graph with sums of dots as dots.
pub(crate) fn concatenate(graph: &Graph) -> Result<Graph, CodegenError> {
    let sums = sums(graph);
    if sums.is_empty() {
        return Ok(graph.clone());
    }
    let mut b = Builder::rebuilding(graph);
    let mut renamed: Vec<ValueId> = Vec::with_capacity(graph.value_count());
    for (_, node) in graph.nodes() {
        b.set_origin(node.origin.clone());
        let rename = |v: &ValueId| renamed[v.index()];
        let results = match sums.get(&node.first) {
            Some((dims, dots)) => {
                Rewrite::ConcatenateK.taken();
                let pairs = dots.iter().flat_map(|&id| &graph.node(id).operands);
                let operands: Operands = pairs.map(rename).collect();
                b.push(Op::Dot(dims.clone()), &operands)
            }
            None => {
                let operands: Operands = node.operands.iter().map(rename).collect();
                b.push(node.op.clone(), &operands)
            }
        };
        renamed.extend(results.map_err(|why| CodegenError::at(node, why))?);
    }
    for output in &graph.outputs {
        b.output(output.slot.clone(), renamed[output.value.index()]);
    }
    Ok(b.finish())
}

/// By value: the dots whose sum it is, in the order in which the graph adds them, and what they sum over.
fn sums(graph: &Graph) -> FxHashMap<ValueId, (DotDims, Vec<NodeId>)> {
    let readers = readers(graph, &vec![true; graph.value_count()]);
    let is_output = |v: ValueId| graph.outputs.iter().any(|o| o.value == v);
    let is_term = |v: ValueId| readers[v.index()].len() == 1 && !is_output(v);
    let mut sums: FxHashMap<ValueId, (DotDims, Vec<NodeId>)> = FxHashMap::default();
    for (_, node) in graph.nodes() {
        let (Op::Binary(Binary::Add), &[x, y]) = (&node.op, &node.operands[..]) else { continue };
        let term = |v: ValueId| match (&graph.producer(v).op, sums.get(&v)) {
            (Op::Dot(dims), _) if graph.producer(v).operands.len() == 2 => {
                Some((dims.clone(), vec![graph.producer_id(v)]))
            }
            (_, found) => found.cloned(),
        };
        let both = if x != y && is_term(x) && is_term(y) { term(x).zip(term(y)) } else { None };
        let Some(((dims, mut dots), (other, more))) = both else { continue };
        if dims != other || dots.len() + more.len() > MOST {
            continue;
        }
        dots.extend(more);
        // What was a sum by itself is part of this one.
        sums.remove(&x);
        sums.remove(&y);
        sums.insert(node.first, (dims, dots));
    }
    sums
}
