//! The verifier: what must hold of every graph, checked between passes.
//!
//! Types follow from operands, operands come before their users, every output's type fits its slot, and
//! quantisation is really there: see [`quantised`]. It must never repair anything.

use std::collections::HashMap;

use crate::graph::{Graph, ValueId};
use crate::op::Op;
use crate::quant::Grid;
use crate::slot::{Slot, Space};
use crate::ty::DType;

/// Checks a graph's invariants. The error names the node and what is wrong with it.
pub fn verify(graph: &Graph) -> Result<(), String> {
    for (_, node) in graph.nodes() {
        let at = |e: String| format!("{} = {} at {}: {e}", node.first, node.op, node.origin.loc);
        if node.operands.iter().any(|v| *v >= node.first) {
            return Err(at("an operand comes after its user".into()));
        }
        let inferred = (node.op.record().infer)(&node.op, &graph.operand_types(node)).map_err(at)?;
        if graph.result_types(node).iter().copied().ne(&inferred) {
            return Err(at(format!("the recorded result types are not {inferred:?}")));
        }
    }
    let mut written: HashMap<&Slot, ValueId> = HashMap::new();
    for output in &graph.outputs {
        let ty = graph.ty(output.value);
        if ty.dtype != DType::F32 || matches!(output.slot.space, Space::Data | Space::Scalar) {
            return Err(format!("output {} of type {ty} cannot be written", output.slot));
        }
        if written.insert(&output.slot, output.value).is_some() {
            return Err(format!("output {} is written twice", output.slot));
        }
    }
    for (slot, value) in graph.inputs() {
        let fits = written.get(slot).is_none_or(|w| graph.ty(*w).len() == graph.ty(value).len());
        if !fits {
            return Err(format!("{slot} is read and written with different sizes"));
        }
    }
    Ok(())
}

/// Proves that every use of the parameter `name` goes through the straight-through quantiser with
/// `grid`: no path reaches it any other way.
///
/// A quantiser read as a run-time flag can be folded away by a compiler (PR #549 lost its QAT so);
/// an op cannot disappear without this proof failing.
pub fn quantised(graph: &Graph, name: &str, grid: Grid) -> Result<(), String> {
    let slot = Slot::new(Space::Param, name);
    let Some((_, param)) = graph.inputs().find(|(s, _)| **s == slot) else {
        return Ok(());
    };
    for (_, node) in graph.nodes().filter(|(_, n)| n.operands.contains(&param)) {
        match node.op {
            Op::FakeQuant(g) if g == grid => {}
            Op::FakeQuant(g) => {
                return Err(format!(
                    "`{name}` is quantised to {g:?} instead of {grid:?} at {}",
                    node.origin.loc
                ));
            }
            ref op => {
                let place = &node.origin.loc;
                return Err(format!(
                    "`{name}` must be quantised ({grid:?}) but `{op}` at {place} reads it raw"
                ));
            }
        }
    }
    Ok(())
}
