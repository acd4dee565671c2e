//! What is in memory, and how views lead to it.
//!
//! It must agree with emission on what can be loaded: a value that no kernel writes is never located.

use pg_ir::graph::{Graph, Node, ValueId};
use pg_ir::op::Op;

use crate::index::view::{Point, Refused, step};
use crate::passes::fold_constants::Constants;
use crate::region::IndexMap;

/// What emission needs to know of the program.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) constants: &'a Constants,
    /// By value: whether a kernel writes it to memory.
    pub(crate) stored: &'a [bool],
}

impl Context<'_> {
    /// Whether kernels can load the value.
    pub(crate) fn in_memory(&self, value: ValueId) -> bool {
        self.stored[value.index()]
            || self.constants.is_table(value)
            || matches!(self.graph.producer(value).op, Op::Input(..))
    }

    /// The value in memory whose buffer holds exactly the elements of `value`, in the same order.
    pub(crate) fn buffer_of(&self, value: ValueId) -> Option<ValueId> {
        let mut at = value;
        while !self.in_memory(at) {
            let node = self.graph.producer(at);
            let Op::Reshape(_) = node.op else { return None };
            at = node.operands[0];
        }
        Some(at)
    }
}

/// Why a region cannot be emitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blocked {
    /// Unless this value is kept in memory, for this reason.
    Store(ValueId, &'static str),
    /// Unless the domain is finer, see [`Refused::Refine`], or what is reshaped here is kept in memory.
    Refine { axis: usize, inner: usize, reshaped: Option<ValueId> },
    /// Not over this domain, for this reason.
    Misfit(&'static str),
}

/// Follows views from `value` down to a value in memory. Also says where a table's rows lie.
pub(crate) fn locate(
    cx: Context<'_>,
    value: ValueId,
    point: Point,
    sizes: &[usize],
) -> Result<(ValueId, IndexMap), Blocked> {
    let (mut value, mut point) = (value, point);
    loop {
        if let Some(buffer) = cx.buffer_of(value) {
            return Ok((buffer, point.map(cx.graph.ty(value), sizes.len())));
        }
        let node = cx.graph.producer(value);
        if !node.op.is_view() {
            return Err(Blocked::Store(value, "another kernel reads it from memory"));
        }
        let operand = node.operands[0];
        point = descend(cx, node, &point, sizes)?;
        value = operand;
    }
}

/// [`step`] from a node's result to its operand.
pub(crate) fn descend(
    cx: Context<'_>,
    node: &Node,
    point: &Point,
    sizes: &[usize],
) -> Result<Point, Blocked> {
    let operand = node.operands[0];
    step(&node.op, cx.graph.ty(operand), cx.graph.ty(node.first), point, sizes).map_err(|e| match e {
        Refused::Refine { axis, inner } => Blocked::Refine { axis, inner, reshaped: Some(operand) },
        Refused::NotAffine => Blocked::Store(operand, "a reshape of it is not an affine index map"),
    })
}
