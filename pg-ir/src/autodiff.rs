//! Reverse-mode differentiation as a pass: it appends the gradient to the same graph.
//!
//! Each op's rule stands in its record. The pass walks the nodes that lie between the parameters and
//! the loss, in reverse arena order, and sums cotangents in that fixed order, so the gradient graph is a
//! function of the forward graph alone. It must never change a forward node.

use rustc_hash::FxHashMap;

use crate::graph::{Builder, Node, NodeId, Origin, ValueId};
use crate::op::Op;

/// What an op's gradient rule sees: the forward node's values and the cotangents of its results.
pub struct Adjoint<'a> {
    /// Where the gradient is built.
    pub b: &'a mut Builder,
    /// The forward node.
    pub node: &'a Node,
    /// Cotangent of each result; `None` is zero.
    pub cotangents: &'a [Option<ValueId>],
}

/// Cotangents of the operands, `None` for zero.
pub type Vjp = fn(&mut Adjoint<'_>) -> Vec<Option<ValueId>>;

/// Gradients of the scalar `loss`, times `seed`, with respect to each of `wrt`. A value that the loss
/// does not depend on has the gradient `None`.
///
/// # Panics
/// If `loss` and `seed` are not float scalars: a bug of the caller.
pub fn gradients(b: &mut Builder, loss: ValueId, seed: ValueId, wrt: &[ValueId]) -> Vec<Option<ValueId>> {
    assert!(b.ty(loss).rank() == 0 && b.ty(seed).rank() == 0, "internal error: the loss is a scalar");
    let active = depends_on(b, wrt);
    let mut cotangents: FxHashMap<ValueId, ValueId> = FxHashMap::from_iter([(loss, seed)]);
    let before = b.origin().clone();
    for id in (0..=b.graph().producer_id(loss).index()).rev() {
        let node = b.graph().node(NodeId(id as u32)).clone();
        let results: Vec<ValueId> = b.graph().results(&node).collect();
        if !results.iter().any(|r| active[r.index()]) || matches!(node.op, Op::Input(..)) {
            continue;
        }
        let given: Vec<Option<ValueId>> = results.iter().map(|r| cotangents.get(r).copied()).collect();
        if given.iter().all(Option::is_none) {
            continue;
        }
        b.set_origin(Origin { backward: true, ..node.origin.clone() });
        let parts = (node.op.record().vjp)(&mut Adjoint { b, node: &node, cotangents: &given });
        for (&operand, part) in node.operands.iter().zip(parts) {
            let Some(part) = part.filter(|_| active[operand.index()]) else { continue };
            let sum = match cotangents.get(&operand) {
                Some(&sum) => b.add(sum, part),
                None => part,
            };
            cotangents.insert(operand, sum);
        }
    }
    b.set_origin(before);
    wrt.iter().map(|v| cotangents.get(v).copied()).collect()
}

/// For every value so far: whether it depends on one of `wrt`.
fn depends_on(b: &Builder, wrt: &[ValueId]) -> Vec<bool> {
    let graph = b.graph();
    let mut active = vec![false; graph.value_count()];
    wrt.iter().for_each(|v| active[v.index()] = true);
    for (_, node) in graph.nodes() {
        if node.operands.iter().any(|v| active[v.index()]) {
            graph.results(node).for_each(|r| active[r.index()] = true);
        }
    }
    active
}
