//! The reference interpreter: float64, one op at a time, obviously right rather than fast.
//!
//! It defines what every executor and every kernel must compute. It must never share code with them,
//! except the quantiser, which is one function everywhere by design.

use std::collections::HashMap;

use crate::graph::Graph;
use crate::op::Op;
use crate::slot::Slot;

/// Elements of a value in row-major order. Integers and booleans are exact in float64.
pub type Tensor = Vec<f64>;

/// Why a graph could not be interpreted.
#[derive(Debug, PartialEq)]
pub enum InterpError {
    /// The caller gave no value for an input.
    Missing(Slot),
    /// The caller's value has the wrong number of elements.
    WrongSize {
        /// The input.
        slot: Slot,
        /// Elements that the input's type has.
        expected: usize,
        /// Elements that the caller gave.
        found: usize,
    },
}

impl std::fmt::Display for InterpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InterpError::Missing(slot) => write!(f, "no value was given for input {slot}"),
            InterpError::WrongSize { slot, expected, found } => {
                write!(f, "input {slot} has {expected} elements, {found} were given")
            }
        }
    }
}

impl std::error::Error for InterpError {}

/// Values of slots.
pub type Environment = HashMap<Slot, Tensor>;

/// Computes every value of a graph, in arena order.
pub fn evaluate(graph: &Graph, env: &Environment) -> Result<Vec<Tensor>, InterpError> {
    let mut values: Vec<Tensor> = Vec::with_capacity(graph.value_count());
    for (_, node) in graph.nodes() {
        if let Op::Input(slot, ty) = &node.op {
            let given = env.get(slot).ok_or_else(|| InterpError::Missing(slot.clone()))?;
            if given.len() != ty.len() {
                let (expected, found) = (ty.len(), given.len());
                return Err(InterpError::WrongSize { slot: slot.clone(), expected, found });
            }
            values.push(given.clone());
            continue;
        }
        let operands: Vec<&Tensor> = node.operands.iter().map(|v| &values[v.index()]).collect();
        let operand_types = graph.operand_types(node);
        let result_types: Vec<_> = graph.results(node).map(|v| graph.ty(v).clone()).collect();
        let results = (node.op.record().eval)(&node.op, &operands, &operand_types, &result_types);
        assert_eq!(results.len(), result_types.len(), "{}", node.op);
        values.extend(results);
    }
    Ok(values)
}

/// Runs a program: what it writes to each of its output slots.
pub fn run(graph: &Graph, env: &Environment) -> Result<Environment, InterpError> {
    let values = evaluate(graph, env)?;
    Ok(graph.outputs.iter().map(|o| (o.slot.clone(), values[o.value.index()].clone())).collect())
}

/// Row-major strides of a shape, in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Calls `f` with every index of a shape in row-major order.
pub(crate) fn for_each_index(shape: &[usize], mut f: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product::<usize>() {
        f(&index);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// Position of an index in a row-major array.
pub(crate) fn flat(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// A tensor of `shape` from a function of the index.
pub(crate) fn tabulate(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Tensor {
    let mut out = Vec::with_capacity(shape.iter().product());
    for_each_index(shape, |index| out.push(f(index)));
    out
}
