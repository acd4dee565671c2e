//! Bounding the global gradient norm, after all gradients are in, never per rank.

use crate::graph::{Builder, ValueId};
use crate::op::{Binary, Op, Unary};

/// The L2 norm of all gradients together, and min(1, bound / (norm + 1e-6)), or `None` without a bound.
pub(super) fn global_norm(b: &mut Builder, grads: &[ValueId], bound: f64) -> (ValueId, Option<ValueId>) {
    let mut total = b.constant(0.0);
    for &g in grads {
        let squares = b.mul(g, g);
        let sum = b.sum_all(squares);
        total = b.add(total, sum);
    }
    let norm = b.unary(Unary::Sqrt, total);
    if bound == 0.0 {
        return (norm, None);
    }
    let (eps, bound, one) = (b.constant(1e-6), b.constant(bound), b.constant(1.0));
    let padded = b.add(norm, eps);
    let ratio = b.div(bound, padded);
    let over = b.binary(Binary::Gt, one, ratio);
    (norm, Some(b.op(Op::Select, &[over, ratio, one])))
}
