//! The reference interpreter: float64, one op at a time, obviously right rather than fast.
//!
//! It defines what every executor and every kernel must compute. It must never share code with them,
//! except the quantiser, which is one function everywhere by design.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::graph::{Graph, Node, ValueId};
use crate::op::{DotDims, Op};
use crate::slot::Slot;
use crate::ty::Type;

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
            values.push(given(env, slot, ty)?.clone());
            continue;
        }
        let operands: Vec<&Tensor> = node.operands.iter().map(|v| &values[v.index()]).collect();
        let results = compute(graph, node, &operands, None);
        values.extend(results);
    }
    Ok(values)
}

/// A contraction by another road than its definition: the same sums in float64, in an order of its own. `None` leaves
/// it to the definition.
pub type Product = fn(&DotDims, [&Tensor; 2], [&Type; 2]) -> Option<Tensor>;

/// Is shown each value as it is computed, and may change what later values are computed from.
pub type Visit<'a> = dyn FnMut(ValueId, &mut Cow<'_, Tensor>) + 'a;

/// Runs a program: what it writes to each of its output slots.
pub fn run(graph: &Graph, env: &Environment) -> Result<Environment, InterpError> {
    run_with(graph, env, None, &mut |_, _| {})
}

/// [`run`] for graphs too large for the definitions alone: contractions go through `product`, a value is forgotten
/// after its last reader, and what no output needs is not computed.
pub fn run_with(
    graph: &Graph,
    env: &Environment,
    product: Option<Product>,
    visit: &mut Visit<'_>,
) -> Result<Environment, InterpError> {
    let last = last_readers(graph);
    let mut values: Vec<Option<Cow<'_, Tensor>>> = vec![None; graph.value_count()];
    for (id, node) in graph.nodes() {
        let given = match &node.op {
            Op::Input(slot, ty) => Some(given(env, slot, ty)?),
            _ => None,
        };
        if graph.results(node).all(|v| last[v.index()].is_none()) {
            continue;
        }
        let results = match given {
            Some(tensor) => vec![Cow::Borrowed(tensor)],
            None => {
                let operand = |v: &ValueId| values[v.index()].as_deref().expect("kept until its last reader");
                let operands: Vec<&Tensor> = node.operands.iter().map(operand).collect();
                compute(graph, node, &operands, product).into_iter().map(Cow::Owned).collect()
            }
        };
        for (value, mut tensor) in graph.results(node).zip(results) {
            visit(value, &mut tensor);
            if last[value.index()].is_some() {
                values[value.index()] = Some(tensor);
            }
        }
        for v in node.operands.iter().filter(|v| last[v.index()] == Some(Reader::Node(id.index()))) {
            values[v.index()] = None;
        }
    }
    // One value may leave through several slots.
    let output = |value: ValueId| values[value.index()].as_deref().expect("outputs are kept").clone();
    Ok(graph.outputs.iter().map(|o| (o.slot.clone(), output(o.value))).collect())
}

/// Who reads a value last.
#[derive(Clone, Copy, PartialEq)]
enum Reader {
    Node(usize),
    Caller,
}

/// By value: its last reader; `None` if no output needs it.
fn last_readers(graph: &Graph) -> Vec<Option<Reader>> {
    let mut last = vec![None; graph.value_count()];
    graph.outputs.iter().for_each(|o| last[o.value.index()] = Some(Reader::Caller));
    for (id, node) in graph.nodes().rev() {
        if graph.results(node).any(|v| last[v.index()].is_some()) {
            node.operands.iter().for_each(|v| {
                last[v.index()].get_or_insert(Reader::Node(id.index()));
            });
        }
    }
    last
}

/// The caller's value of an input.
fn given<'a>(env: &'a Environment, slot: &Slot, ty: &Type) -> Result<&'a Tensor, InterpError> {
    let given = env.get(slot).ok_or_else(|| InterpError::Missing(slot.clone()))?;
    if given.len() == ty.len() {
        return Ok(given);
    }
    let (expected, found) = (ty.len(), given.len());
    Err(InterpError::WrongSize { slot: slot.clone(), expected, found })
}

/// The results of a node that is no input.
fn compute(graph: &Graph, node: &Node, operands: &[&Tensor], product: Option<Product>) -> Vec<Tensor> {
    if let (Op::Dot(dims), Some(product)) = (&node.op, product)
        && let Some(found) = products(dims, operands, &graph.operand_types(node), product)
    {
        return vec![found];
    }
    results(graph, node, operands)
}

/// The sum of the products of a dot's pairs; `None` if the caller's function does not take one of them.
fn products(dims: &DotDims, operands: &[&Tensor], types: &[&Type], product: Product) -> Option<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (x, ty) in operands.chunks_exact(2).zip(types.chunks_exact(2)) {
        let found = product(dims, [x[0], x[1]], [ty[0], ty[1]])?;
        sum = Some(match sum {
            None => found,
            Some(sum) => sum.iter().zip(&found).map(|(a, b)| a + b).collect(),
        });
    }
    sum
}

/// The results of a node that is no input, if `operands` were its operands.
///
/// # Panics
/// If they do not have the sizes of its own: a bug of the caller.
pub fn results(graph: &Graph, node: &Node, operands: &[&Tensor]) -> Vec<Tensor> {
    let types = graph.operand_types(node);
    let result_types: Vec<_> = graph.results(node).map(|v| graph.ty(v).clone()).collect();
    let results = (node.op.record().eval)(&node.op, operands, &types, &result_types);
    assert_eq!(results.len(), result_types.len(), "{}", node.op);
    results
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

/// For every index of `shape` in row-major order, the element of `x` that lies there under other strides.
pub(crate) fn pick(x: &[f64], start: usize, shape: &[usize], strides: &[usize]) -> Tensor {
    let Some((&width, outer)) = shape.split_last() else { return vec![x[start]] };
    let step = strides[outer.len()];
    let mut out = Vec::with_capacity(shape.iter().product());
    for_each_index(outer, |index| {
        let row = start + flat(index, strides);
        out.extend((0..width).map(|i| x[row + i * step]));
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Builder;
    use crate::op::Unary;
    use crate::slot::Space;
    use crate::ty::Type;

    /// exp(x) leaves through two slots and is read again; log(x) by nobody.
    fn graph() -> (Graph, Environment) {
        let mut b = Builder::default();
        let slot = Slot::new(Space::Param, "x");
        let x = b.input(slot.clone(), Type::channels(&[3]));
        let exp = b.unary(Unary::Exp, x);
        b.unary(Unary::Log, x);
        let sum = b.add(exp, x);
        for (name, value) in [("a", exp), ("b", exp), ("c", sum)] {
            b.output(Slot::new(Space::Result, name), value);
        }
        (b.finish(), Environment::from([(slot, vec![1.0, 2.0, 3.0])]))
    }

    #[test]
    fn what_no_output_needs_is_not_computed_and_outputs_stay() {
        let (graph, env) = graph();
        let mut seen = Vec::new();
        let out = run_with(&graph, &env, None, &mut |value, tensor| seen.push((value.index(), tensor.len())))
            .unwrap();
        assert_eq!(seen, [(0, 3), (1, 3), (3, 3)]);
        let all = evaluate(&graph, &env).unwrap();
        for (name, value) in [("a", 1), ("b", 1), ("c", 3)] {
            assert_eq!(out[&Slot::new(Space::Result, name)], all[value], "{name}");
        }
        assert!(matches!(run(&graph, &Environment::new()), Err(InterpError::Missing(_))));
    }

    #[test]
    fn later_values_are_computed_of_what_a_visit_leaves() {
        let (graph, env) = graph();
        let out = run_with(&graph, &env, None, &mut |value, tensor| {
            if value.index() == 1 {
                tensor.to_mut().fill(10.0);
            }
        });
        assert_eq!(out.unwrap()[&Slot::new(Space::Result, "c")], [11.0, 12.0, 13.0]);
        assert_eq!(env[&Slot::new(Space::Param, "x")], [1.0, 2.0, 3.0]);
    }
}
