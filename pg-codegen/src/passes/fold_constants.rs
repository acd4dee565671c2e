//! Constant folding: what depends on no input is computed here, once, by the interpreter.
//!
//! Scalars and broadcasts of scalars become instructions; index chains that are only arithmetic and
//! comparisons stay instructions too, because an instruction is cheaper than a load. What is left, rope
//! tables for example, becomes a constant buffer of the smallest value: folding must never materialise
//! a broadcast, and never spend noticeable compile time.

use std::sync::Arc;

use pg_ir::graph::{Graph, Node, ValueId};
use pg_ir::interp::{self, Tensor};
use pg_ir::op::{Binary, Op};
use pg_ir::ty::{DType, Type};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::passes::rewrites::Rewrite;

/// Larger constants are computed at run time instead of carried in the plan.
const MAX_ELEMENTS: usize = 1 << 22;

/// What is known at compile time.
pub(crate) struct Constants {
    /// By value: the one number that all its elements are.
    uniform: Vec<Option<f64>>,
    /// By value: whether it is a constant buffer.
    is_table: Vec<bool>,
}

/// Contents of constant buffers, as the bits of float32 or int32 elements.
pub(crate) type Tables = FxHashMap<ValueId, Arc<[u32]>>;

impl Constants {
    /// The number that every element of `value` is, if that is known.
    pub(crate) fn uniform(&self, value: ValueId) -> Option<f64> {
        self.uniform[value.index()]
    }

    /// Whether `value` is a constant buffer.
    pub(crate) fn is_table(&self, value: ValueId) -> bool {
        self.is_table[value.index()]
    }
}

/// What is known of a value that depends on no input.
struct Known {
    /// Axes along which elements really differ.
    varies: SmallVec<[bool; 4]>,
    /// Whether computing it takes more than arithmetic and comparisons.
    costly: bool,
}

/// Finds constants: an analysis, which other passes ask, too. Constant buffers are not computed.
pub(crate) fn find(graph: &Graph) -> Constants {
    let n = graph.value_count();
    let mut constants = Constants { uniform: vec![None; n], is_table: vec![false; n] };
    let mut known: FxHashMap<ValueId, Known> = FxHashMap::default();
    for (_, node) in graph.nodes() {
        if node.results != 1 || !node.operands.iter().all(|v| known.contains_key(v)) {
            continue;
        }
        if let Some(k) = classify(graph, node, &known) {
            known.insert(node.first, k);
            if let Some(value) = uniform_value(graph, node, &constants) {
                Rewrite::FoldUniform.taken();
                constants.uniform[node.first.index()] = Some(value);
            }
        }
    }
    // The frontier: constants that something else reads. Of those, the smallest costly values.
    let mut wanted: Vec<ValueId> = graph.outputs.iter().map(|o| o.value).collect();
    for (_, node) in graph.nodes() {
        if !known.contains_key(&node.first) {
            wanted.extend(&node.operands);
        }
    }
    while let Some(value) = wanted.pop() {
        let Some(k) = known.get(&value) else { continue };
        if !k.costly || constants.uniform(value).is_some() || constants.is_table(value) {
            continue;
        }
        let (ty, node) = (graph.ty(value), graph.producer(value));
        let repeats = ty.axes.iter().zip(&k.varies).any(|(a, v)| a.size > 1 && !v);
        let fits = ty.len() <= MAX_ELEMENTS && matches!(ty.dtype, DType::F32 | DType::I32);
        if node.op.is_view() || repeats || !fits {
            wanted.extend(&node.operands);
        } else {
            constants.is_table[value.index()] = true;
        }
    }
    constants
}

/// What the result of a node with constant operands is like; `None` if folding should leave it alone.
fn classify(graph: &Graph, node: &Node, known: &FxHashMap<ValueId, Known>) -> Option<Known> {
    let ty = graph.ty(node.first);
    let costly_below = node.operands.iter().any(|v| known[v].costly);
    let (varies, costly): (SmallVec<[bool; 4]>, bool) = match &node.op {
        Op::Input(..) => return None,
        op if op.has_kernel() => return None,
        Op::Const(..) => (SmallVec::new(), false),
        Op::Iota(axis) => (SmallVec::from_elem(axis.size > 1, 1), false),
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) | Op::StopGradient => {
            let any = |i: usize| node.operands.iter().any(|v| known[v].varies[i]);
            let costly = matches!(node.op, Op::Unary(_) | Op::Binary(Binary::Div | Binary::Rem));
            ((0..ty.rank()).map(any).collect(), costly)
        }
        Op::Broadcast(_) => {
            let below = &known[&node.operands[0]].varies;
            let lead = ty.rank() - below.len();
            let from = graph.ty(node.operands[0]);
            (
                (0..ty.rank())
                    .map(|i| i >= lead && from.axes[i - lead].size > 1 && below[i - lead])
                    .collect(),
                false,
            )
        }
        Op::Transpose(perm) => (perm.iter().map(|&p| known[&node.operands[0]].varies[p]).collect(), false),
        _ => (ty.axes.iter().map(|a| a.size > 1).collect(), !node.op.is_view()),
    };
    let costly = varies.contains(&true) && costly || costly_below;
    Some(Known { varies, costly })
}

/// The number that all elements of the result are, in float32 mathematics.
fn uniform_value(graph: &Graph, node: &Node, constants: &Constants) -> Option<f64> {
    let values: Option<Vec<Tensor>> =
        node.operands.iter().map(|&v| constants.uniform(v).map(|x| vec![x])).collect();
    let values = values?;
    let ty = graph.ty(node.first);
    match &node.op {
        Op::Const(..) | Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) | Op::StopGradient => {
            let types: Vec<Type> = node.operands.iter().map(|&v| Type::scalar(graph.ty(v).dtype)).collect();
            let result = Type::scalar(ty.dtype);
            let tensors: Vec<&Tensor> = values.iter().collect();
            let types: Vec<&Type> = types.iter().collect();
            let found = (node.op.record().eval)(&node.op, &tensors, &types, &[result])[0][0];
            Some(if ty.dtype.is_float() { f64::from(found as f32) } else { found })
        }
        Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_) | Op::Slice { .. } | Op::Permute(_) => {
            Some(values[0][0])
        }
        Op::Pad { .. } | Op::Shift { .. } if values[0][0] == 0.0 => Some(0.0),
        _ => None,
    }
}

/// Computes constant buffers, in float64.
pub(crate) fn evaluate(graph: &Graph, constants: &Constants) -> Tables {
    let values = graph.nodes().map(|(_, node)| node.first);
    let roots: Vec<ValueId> = values.filter(|&v| constants.is_table(v)).collect();
    let needed = graph.needed(roots.iter().copied());
    let mut values: FxHashMap<ValueId, Tensor> = FxHashMap::default();
    for (_, node) in graph.nodes().filter(|(_, n)| needed[n.first.index()]) {
        let operands: Vec<&Tensor> = node.operands.iter().map(|v| &values[v]).collect();
        values.insert(node.first, interp::results(graph, node, &operands).swap_remove(0));
    }
    let table = |root: ValueId| {
        Rewrite::FoldTable.taken();
        let dtype = graph.ty(root).dtype;
        let bits = |&v: &f64| if dtype == DType::I32 { v as i32 as u32 } else { (v as f32).to_bits() };
        (root, values[&root].iter().map(bits).collect())
    };
    roots.into_iter().map(table).collect()
}
