//! Reverse-mode differentiation as a pass: it appends the gradient to the same graph.

use crate::graph::{Builder, Node, ValueId};

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
