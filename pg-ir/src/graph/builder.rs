//! Builds graphs: every op is typed as it is added, and one that is there already is not added again.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::{Graph, Node, NodeId, Origin, Output, ValueId};
use crate::op::{Binary, Bits, DotDims, Op, Operands, Reduction, RuleError, Unary};
use crate::slot::{Slot, Space};
use crate::ty::{Axes, Axis, DType, Role, Type};

/// Builds a graph node by node: infers types, reuses equal nodes, carries the current origin.
#[derive(Clone, Debug)]
pub struct Builder {
    graph: Graph,
    /// Nodes to be found again, by [`key`].
    interned: HashTable<NodeId>,
    origin: Origin,
}

/// Results of a node just added. Most ops have one.
pub type Results = SmallVec<[ValueId; 3]>;

impl Default for Builder {
    fn default() -> Self {
        Builder::extending(Graph::default())
    }
}

impl Builder {
    /// Starts from an existing graph, to append to it. Its values keep their ids.
    pub fn extending(graph: Graph) -> Self {
        let mut interned = HashTable::with_capacity(graph.nodes.len());
        for (id, node) in graph.nodes() {
            let is_equal = |other: &NodeId| is(&graph, *other, &node.op, &node.operands);
            let rehash = |other: &NodeId| key_of(&graph, *other);
            match interned.entry(key(&node.op, &node.operands), is_equal, rehash) {
                // Of equal nodes the last one.
                Entry::Occupied(mut found) => *found.get_mut() = id,
                Entry::Vacant(place) => _ = place.insert(id),
            }
        }
        Builder { graph, interned, origin: Origin::pass("build") }
    }

    /// Starts an empty graph that will be about as large as another.
    pub fn rebuilding(graph: &Graph) -> Self {
        let (nodes, values) = (graph.nodes.len(), graph.values.len());
        let empty = Graph {
            nodes: Vec::with_capacity(nodes),
            values: Vec::with_capacity(values),
            ..Graph::default()
        };
        let interned = HashTable::with_capacity(nodes);
        Builder { graph: empty, interned, origin: Origin::pass("build") }
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Ends building.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// Sets the origin of the nodes added from here on and returns the one before.
    pub fn set_origin(&mut self, origin: Origin) -> Origin {
        std::mem::replace(&mut self.origin, origin)
    }

    /// The origin that new nodes get.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        self.graph.ty(value)
    }

    /// Adds a node, or finds the equal one. The error says what the op expected of its operands.
    pub fn push(&mut self, op: Op, operands: &[ValueId]) -> Result<Results, RuleError> {
        let key = key(&op, operands);
        if let Some(&id) = self.interned.find(key, |id| is(&self.graph, *id, &op, operands)) {
            let node = self.graph.node(id);
            return Ok(self.graph.results(node).collect());
        }
        let id = NodeId(self.graph.nodes.len() as u32);
        let results = self.append(op, operands)?;
        self.interned.insert_unique(key, id, |id| key_of(&self.graph, *id));
        Ok(results)
    }

    /// [`Self::push`] without looking for an equal node, and never to be found as one: for a pass that computes
    /// something a second time on purpose, so that its first result need not be kept.
    pub fn push_again(&mut self, op: Op, operands: &[ValueId]) -> Result<Results, RuleError> {
        self.append(op, operands)
    }

    fn append(&mut self, op: Op, operands: &[ValueId]) -> Result<Results, RuleError> {
        let types: SmallVec<[&Type; 4]> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        let result_types = (op.record().infer)(&op, &types)?;
        drop(types);
        let id = NodeId(self.graph.nodes.len() as u32);
        let first = ValueId(self.graph.values.len() as u32);
        let results = result_types.len() as u32;
        self.graph.values.extend(result_types.into_iter().map(|t| (t, id)));
        let operands = Operands::from_slice(operands);
        self.graph.nodes.push(Node { op, operands, first, results, origin: self.origin.clone() });
        Ok((first.0..first.0 + results).map(ValueId).collect())
    }

    /// [`Self::push`] for ops with one result.
    pub fn try_op(&mut self, op: Op, operands: &[ValueId]) -> Result<ValueId, RuleError> {
        Ok(self.push(op, operands)?[0])
    }

    /// [`Self::try_op`] where a pass knows that the operands fit.
    ///
    /// # Panics
    /// If they do not: a bug in the pass, not in a model.
    pub fn op(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        match self.try_op(op.clone(), operands) {
            Ok(value) => value,
            Err(e) => panic!("internal error: {} in {:?}: {e}", op, self.origin),
        }
    }

    /// Declares that `value` leaves the program through `slot`.
    pub fn output(&mut self, slot: Slot, value: ValueId) {
        self.graph.outputs.push(Output { slot, value });
    }

    /// The input of a slot.
    pub fn input(&mut self, slot: Slot, ty: Type) -> ValueId {
        self.op(Op::Input(slot, ty), &[])
    }

    /// A run-time scalar.
    pub fn scalar(&mut self, name: &str) -> ValueId {
        self.input(Slot::new(Space::Scalar, name), Type::scalar(DType::F32))
    }

    /// A float constant of rank 0.
    pub fn constant(&mut self, value: f64) -> ValueId {
        self.op(Op::Const(Bits::new(value), DType::F32), &[])
    }

    /// `value` as a constant of the element type and shape of `like`.
    pub fn constant_like(&mut self, value: f64, like: ValueId) -> ValueId {
        let ty = self.ty(like).clone();
        let c = self.op(Op::Const(Bits::new(value), ty.dtype), &[]);
        self.broadcast(c, ty.axes)
    }

    /// Element-wise function of one operand.
    pub fn unary(&mut self, f: Unary, x: ValueId) -> ValueId {
        self.op(Op::Unary(f), &[x])
    }

    /// Element-wise function of two operands, which are broadcast to their common shape first.
    pub fn try_binary(&mut self, f: Binary, a: ValueId, b: ValueId) -> Result<ValueId, RuleError> {
        let (a, b) = self.try_align(a, b)?;
        self.try_op(Op::Binary(f), &[a, b])
    }

    /// [`Self::try_binary`] where a pass knows that the operands fit.
    pub fn binary(&mut self, f: Binary, a: ValueId, b: ValueId) -> ValueId {
        self.try_binary(f, a, b).unwrap_or_else(|e| panic!("internal error: {f:?}: {e}"))
    }

    /// a + b, broadcasting.
    pub fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Add, a, b)
    }

    /// a − b, broadcasting.
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Sub, a, b)
    }

    /// a · b, broadcasting.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Mul, a, b)
    }

    /// a / b, broadcasting.
    pub fn div(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Div, a, b)
    }

    /// k · x.
    pub fn scale(&mut self, k: f64, x: ValueId) -> ValueId {
        let k = self.constant_like(k, x);
        self.mul(x, k)
    }

    /// cond ? a : b, broadcasting all three.
    pub fn try_select(&mut self, cond: ValueId, a: ValueId, b: ValueId) -> Result<ValueId, RuleError> {
        let (a, b) = self.try_align(a, b)?;
        let (cond, a) = self.try_align(cond, a)?;
        let axes = self.ty(a).axes.clone();
        let b = self.try_broadcast(b, axes)?;
        self.try_op(Op::Select, &[cond, a, b])
    }

    /// Repeats `x` to `axes`; the same value if it already has them.
    pub fn try_broadcast(&mut self, x: ValueId, axes: Axes) -> Result<ValueId, RuleError> {
        if self.ty(x).axes == axes { Ok(x) } else { self.try_op(Op::Broadcast(axes), &[x]) }
    }

    /// [`Self::try_broadcast`] where a pass knows that the shape fits.
    pub fn broadcast(&mut self, x: ValueId, axes: Axes) -> ValueId {
        self.try_broadcast(x, axes).unwrap_or_else(|e| panic!("internal error: broadcast: {e}"))
    }

    /// The same elements under other axes; the same value if it already has them.
    pub fn try_reshape(&mut self, x: ValueId, axes: Axes) -> Result<ValueId, RuleError> {
        if self.ty(x).axes == axes { Ok(x) } else { self.try_op(Op::Reshape(axes), &[x]) }
    }

    /// [`Self::try_reshape`] where a pass knows that the shape fits.
    pub fn reshape(&mut self, x: ValueId, axes: Axes) -> ValueId {
        self.try_reshape(x, axes).unwrap_or_else(|e| panic!("internal error: reshape: {e}"))
    }

    /// Reduces over `axes`, which stay with size 1. Axes of size 1 cost nothing.
    pub fn reduce(&mut self, kind: Reduction, x: ValueId, axes: &[usize]) -> ValueId {
        let ty = self.ty(x);
        let real: SmallVec<[usize; 4]> = axes.iter().copied().filter(|&a| ty.axes[a].size > 1).collect();
        if real.is_empty() { x } else { self.op(Op::Reduce(kind, real), &[x]) }
    }

    /// Sums `x` down to `axes`: the transpose of a broadcast from `axes`.
    pub fn sum_to(&mut self, x: ValueId, axes: &Axes) -> ValueId {
        let from = self.ty(x).axes.clone();
        let lead = from.len() - axes.len();
        let over: Vec<usize> =
            (0..from.len()).filter(|&i| i < lead || (axes[i - lead].size == 1 && from[i].size > 1)).collect();
        let x = self.reduce(Reduction::Sum, x, &over);
        self.reshape(x, axes.clone())
    }

    /// The sum of all elements, as a scalar.
    pub fn sum_all(&mut self, x: ValueId) -> ValueId {
        self.sum_to(x, &Axes::new())
    }

    /// Contraction; see [`Op::Dot`].
    pub fn dot(&mut self, dims: DotDims, a: ValueId, b: ValueId) -> ValueId {
        self.op(Op::Dot(dims), &[a, b])
    }

    /// Broadcasts two values to their common shape, aligned at the last axis.
    pub fn try_align(&mut self, a: ValueId, b: ValueId) -> Result<(ValueId, ValueId), RuleError> {
        let axes = common_axes(self.ty(a), self.ty(b))?;
        Ok((self.try_broadcast(a, axes.clone())?, self.try_broadcast(b, axes)?))
    }
}

/// The axes two values broadcast to: aligned at the last axis, size 1 stretches, and an axis that one
/// side calls a channel takes the other side's role.
pub fn common_axes(a: &Type, b: &Type) -> Result<Axes, RuleError> {
    let rank = a.rank().max(b.rank());
    let at = |t: &Type, i: usize| (i + t.rank()).checked_sub(rank).map(|j| t.axes[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (Some(x), None) | (None, Some(x)) => Ok(x),
            (Some(x), Some(y)) if x.size == y.size || x.size == 1 || y.size == 1 => {
                let size = x.size.max(y.size);
                let role = match (x.role, y.role) {
                    (p, q) if p == q => p,
                    (Role::Channel, q) => q,
                    (p, Role::Channel) => p,
                    (_, q) if x.size == 1 => q,
                    (p, _) if y.size == 1 => p,
                    _ => return Err(format!("axis {x} does not meet axis {y} of {a} and {b}")),
                };
                Ok(Axis::new(size, role))
            }
            (Some(x), Some(y)) => Err(format!("{a} and {b} do not broadcast: {} against {}", x.size, y.size)),
            (None, None) => unreachable!("i < rank, so one side has the axis"),
        })
        .collect()
}

/// What equal nodes have in common.
fn key(op: &Op, operands: &[ValueId]) -> u64 {
    FxBuildHasher.hash_one((op, operands))
}

fn key_of(graph: &Graph, id: NodeId) -> u64 {
    let node = graph.node(id);
    key(&node.op, &node.operands)
}

fn is(graph: &Graph, id: NodeId, op: &Op, operands: &[ValueId]) -> bool {
    let node = graph.node(id);
    node.op == *op && node.operands[..] == *operands
}
