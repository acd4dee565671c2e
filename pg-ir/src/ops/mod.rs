//! Op records, by family. [`Op::record`] finds the record of an op, [`all`] lists them for the op
//! reference, and [`attributes`] is their text form.

mod attention;
mod attributes;
mod dot;
mod elementwise;
mod gather;
mod reduce;
mod source;
mod unary;
mod view;

use std::sync::LazyLock;

use smallvec::SmallVec;

pub use self::unary::Unary;
pub(crate) use self::view::keeps_positions;
use crate::causality::known::Known;
use crate::causality::{Access, Case, Index, Meeting};
use crate::op::{Binary, Op, Record, RuleError};
use crate::ty::{Axis, Type};

impl Op {
    /// What the compiler knows about this op.
    pub fn record(&self) -> &'static Record {
        match self {
            Op::Input(..) => &source::INPUT,
            Op::Const(..) => &source::CONST,
            Op::Iota(_) => &source::IOTA,
            Op::Unary(f) => f.record(),
            Op::Binary(f) => match f {
                Binary::Add => &elementwise::ADD,
                Binary::Sub => &elementwise::SUB,
                Binary::Mul => &elementwise::MUL,
                Binary::Div => &elementwise::DIV,
                Binary::Max => &elementwise::MAX,
                Binary::Rem => &elementwise::REM,
                Binary::Xor => &elementwise::XOR,
                Binary::Gt => &elementwise::GT,
                Binary::Eq => &elementwise::EQ,
            },
            Op::Select => &elementwise::SELECT,
            Op::Cast(_) => &elementwise::CAST,
            Op::StopGradient => &elementwise::STOP_GRADIENT,
            Op::FakeQuant(_) => &elementwise::FAKE_QUANT,
            Op::Reduce(crate::op::Reduction::Sum, _) => &reduce::SUM,
            Op::Reduce(crate::op::Reduction::Max, _) => &reduce::MAX,
            Op::Reshape(_) => &view::RESHAPE,
            Op::Transpose(_) => &view::TRANSPOSE,
            Op::Broadcast(_) => &view::BROADCAST,
            Op::Slice { .. } => &view::SLICE,
            Op::Pad { .. } => &view::PAD,
            Op::Shift { .. } => &view::SHIFT,
            Op::Permute(_) => &view::PERMUTE,
            Op::Dot(_) => &dot::DOT,
            Op::Gather => &gather::GATHER,
            Op::ScatterAdd { .. } => &gather::SCATTER_ADD,
            Op::Attention { .. } => &attention::ATTENTION,
            Op::AttentionGrad { .. } => &attention::ATTENTION_GRAD,
        }
    }
}

/// Every record, in the order of the op reference.
pub fn all() -> &'static [&'static Record] {
    static ALL: LazyLock<Vec<&'static Record>> = LazyLock::new(|| {
        let unary = Unary::ALL.iter().map(|f| f.record());
        SOURCES.iter().copied().chain(unary).chain(OTHERS.iter().copied()).collect()
    });
    &ALL
}

static SOURCES: [&Record; 3] = [&source::INPUT, &source::CONST, &source::IOTA];

static OTHERS: [&Record; 27] = [
    &elementwise::ADD,
    &elementwise::SUB,
    &elementwise::MUL,
    &elementwise::DIV,
    &elementwise::MAX,
    &elementwise::REM,
    &elementwise::XOR,
    &elementwise::GT,
    &elementwise::EQ,
    &elementwise::SELECT,
    &elementwise::CAST,
    &elementwise::STOP_GRADIENT,
    &elementwise::FAKE_QUANT,
    &reduce::SUM,
    &reduce::MAX,
    &view::RESHAPE,
    &view::TRANSPOSE,
    &view::BROADCAST,
    &view::SLICE,
    &view::PAD,
    &view::SHIFT,
    &view::PERMUTE,
    &dot::DOT,
    &gather::GATHER,
    &gather::SCATTER_ADD,
    &attention::ATTENTION,
    &attention::ATTENTION_GRAD,
];

/// Checks the number of operands.
fn arity<'a, const N: usize>(operands: &[&'a Type]) -> Result<[&'a Type; N], RuleError> {
    operands.try_into().map_err(|_| format!("takes {N} operands, {} were given", operands.len()))
}

/// Checks that an axis exists.
fn check_axis(axis: usize, ty: &Type) -> Result<(), RuleError> {
    if axis < ty.rank() { Ok(()) } else { Err(format!("axis {axis} does not exist in {ty}")) }
}

/// Checks that a type is float.
fn check_float(ty: &Type) -> Result<(), RuleError> {
    if ty.dtype.is_float() { Ok(()) } else { Err(format!("expected a float tensor, found {ty}")) }
}

/// Access of ops whose operands' elements lie where the result's does.
fn pointwise(_: &Op, operands: &[&Type], _: &Type) -> Access {
    Access::of(operands.iter().map(|x| (0..x.rank()).map(Index::along).collect()))
}

/// Access of ops that mix the elements of the last axis, and only those.
fn along_rows(_: &Op, operands: &[&Type], _: &Type) -> Access {
    Access::of(operands.iter().map(|x| {
        let last = x.rank().saturating_sub(1);
        let index =
            |(axis, a): (usize, &Axis)| if axis == last { Index::any(a.size) } else { Index::along(axis) };
        x.axes.iter().enumerate().map(index).collect()
    }))
}

/// Access of ops of whose operands any element may be read.
fn anywhere(_: &Op, operands: &[&Type], _: &Type) -> Access {
    Access::of(operands.iter().map(|x| x.axes.iter().map(|a| Index::any(a.size)).collect()))
}

/// Of a result nothing is known but its type.
fn unknown(_: &Op, at: &Meeting<'_>) -> SmallVec<[Case; 3]> {
    at.always(Known::any(at.dtype))
}

/// The result's element is one of the operand's.
fn same(_: &Op, at: &Meeting<'_>) -> SmallVec<[Case; 3]> {
    at.always(at.known[0].clone())
}

/// FLOPs of ops that only move elements.
fn no_flops(_: &Op, _: &[&Type], _: &[&Type]) -> f64 {
    0.0
}

/// FLOPs of ops that do one operation an element of the result.
fn one_per_element(_: &Op, _: &[&Type], results: &[&Type]) -> f64 {
    results[0].len() as f64
}
