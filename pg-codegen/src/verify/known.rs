//! Values that depend on no input: one number for all elements where that follows from the ops alone, and any single
//! element on demand.
//!
//! Plans turn the first into instructions and some of the others into constants, whose elements are held to this.

use pg_ir::graph::{Graph, Node, ValueId};
use pg_ir::interp::Tensor;
use pg_ir::op::Op;
use pg_ir::ty::{DType, Type};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::element::{Below, below, ravel, unravel};

/// Elements that one element may be computed of; of more, none is.
const MOST: usize = 1 << 14;

/// What is known of a graph's values without running it.
pub(super) struct Known<'a> {
    graph: &'a Graph,
    known: Vec<bool>,
    uniform: Vec<Option<f64>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        let n = graph.value_count();
        let mut known = Known { graph, known: vec![false; n], uniform: vec![None; n] };
        for (_, node) in graph.nodes() {
            let at = node.first.index();
            let is_computed = !matches!(node.op, Op::Input(..)) && node.results == 1;
            if is_computed && node.operands.iter().all(|v| known.known[v.index()]) {
                known.known[at] = true;
                known.uniform[at] = known.one_number(node);
            }
        }
        known
    }

    /// Whether the value depends on no input.
    pub(super) fn is_known(&self, value: ValueId) -> bool {
        self.known[value.index()]
    }

    /// The number that every element is, in float32 where it is a float.
    pub(super) fn uniform(&self, value: ValueId) -> Option<f64> {
        self.uniform[value.index()]
    }

    fn one_number(&self, node: &Node) -> Option<f64> {
        let mut operands: SmallVec<[f64; 3]> = SmallVec::new();
        for v in &node.operands {
            operands.push(self.uniform(*v)?);
        }
        match &node.op {
            Op::Const(..) | Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) => {
                let number = scalar(self.graph, node, &operands);
                let is_float = self.graph.ty(node.first).dtype.is_float();
                Some(if is_float { f64::from(number as f32) } else { number })
            }
            Op::Pad { .. } | Op::Shift { .. } => (operands[0] == 0.0).then_some(0.0),
            Op::Permute(_) | Op::StopGradient => Some(operands[0]),
            op if op.is_view() => Some(operands[0]),
            _ => None,
        }
    }

    /// One element of a known value, in float64; `None` if it takes too many others.
    pub(super) fn element(&self, value: ValueId, element: usize) -> Option<f64> {
        if let Some(number) = self.uniform(value) {
            return Some(number);
        }
        let mut found: FxHashMap<(ValueId, usize), f64> = FxHashMap::default();
        let mut stack = vec![(value, element)];
        while let Some(&at) = stack.last() {
            let needs = self.needs(at.0, at.1);
            let missing = needs.iter().filter(|n| !found.contains_key(n)).copied();
            let waiting = stack.len();
            stack.extend(missing);
            if stack.len() + found.len() > MOST {
                return None;
            }
            if stack.len() == waiting {
                stack.pop();
                let operands: Vec<f64> = needs.iter().map(|n| found[n]).collect();
                found.insert(at, self.combine(at.0, at.1, &operands));
            }
        }
        found.get(&(value, element)).copied()
    }

    /// The elements that an element is computed of.
    fn needs(&self, value: ValueId, element: usize) -> Vec<(ValueId, usize)> {
        let graph = self.graph;
        let node = graph.producer(value);
        if let Some(step) = below(graph, value, element) {
            return match step {
                Below::At(operand, at) => vec![(operand, at)],
                Below::Outside => Vec::new(),
            };
        }
        let axes = &graph.ty(value).axes;
        match &node.op {
            Op::Reduce(_, over) => {
                let from = &graph.ty(node.operands[0]).axes;
                let mut all = vec![unravel(element, axes)];
                for &axis in over {
                    let along = |at: &super::element::Coords| {
                        let at = at.clone();
                        (0..from[axis].size).map(move |i| {
                            let mut at = at.clone();
                            at[axis] = i;
                            at
                        })
                    };
                    all = all.iter().flat_map(along).collect();
                }
                all.iter().map(|at| (node.operands[0], ravel(at, from))).collect()
            }
            Op::FakeQuant(_) | Op::Permute(_) => {
                let width = axes.last().map_or(1, |a| a.size);
                let row = element / width * width;
                (row..row + width).map(|at| (node.operands[0], at)).collect()
            }
            // Its row depends on the id, which is known by then: see `combine`.
            Op::Gather => {
                let (table, ids) = (graph.ty(node.operands[0]), graph.ty(node.operands[1]));
                let coords = unravel(element, axes);
                let (at, rest) = coords.split_at(ids.rank());
                let rest = ravel(rest, &table.axes[1..]);
                let width: usize = table.axes[1..].iter().map(|a| a.size).product();
                let rows = (0..table.axes[0].size).map(|row| (node.operands[0], row * width + rest));
                [(node.operands[1], ravel(at, &ids.axes))].into_iter().chain(rows).collect()
            }
            _ => node.operands.iter().map(|v| (*v, element)).collect(),
        }
    }

    /// An element from those that it is computed of.
    fn combine(&self, value: ValueId, element: usize, operands: &[f64]) -> f64 {
        let graph = self.graph;
        let node = graph.producer(value);
        match &node.op {
            op if op.is_view() || *op == Op::StopGradient => operands.first().copied().unwrap_or(0.0),
            Op::Iota(_) => element as f64,
            Op::Gather => operands.get(1 + operands[0].max(0.0) as usize).copied().unwrap_or(f64::NAN),
            Op::Permute(perm) => operands[perm[element % perm.len()] as usize],
            Op::Reduce(kind, _) => {
                let ty = row_type(operands.len());
                let op = Op::Reduce(*kind, SmallVec::from_slice(&[0]));
                eval(&op, &[operands.to_vec()], &[ty], row_type(1))[0]
            }
            Op::FakeQuant(_) => {
                let ty = row_type(operands.len());
                eval(&node.op, &[operands.to_vec()], std::slice::from_ref(&ty), ty.clone())
                    [element % operands.len()]
            }
            _ => scalar(graph, node, operands),
        }
    }
}

fn row_type(len: usize) -> Type {
    Type::channels(&[len])
}

/// An element-wise op on numbers.
fn scalar(graph: &Graph, node: &Node, operands: &[f64]) -> f64 {
    let types: Vec<Type> = node.operands.iter().map(|v| Type::scalar(graph.ty(*v).dtype)).collect();
    let operands: Vec<Tensor> = operands.iter().map(|&x| vec![x]).collect();
    eval(&node.op, &operands, &types, Type::scalar(graph.ty(node.first).dtype))[0]
}

/// An op by its definition.
pub(super) fn eval(op: &Op, operands: &[Tensor], types: &[Type], result: Type) -> Tensor {
    let (operands, types): (Vec<&Tensor>, Vec<&Type>) = (operands.iter().collect(), types.iter().collect());
    (op.record().eval)(op, &operands, &types, &[result]).swap_remove(0)
}

/// The bits of a number as a constant buffer holds it.
pub(super) fn bits(number: f64, dtype: DType) -> u32 {
    if dtype == DType::I32 { number as i32 as u32 } else { (number as f32).to_bits() }
}
