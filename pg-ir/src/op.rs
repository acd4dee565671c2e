//! The primitive ops. Each has one [`Record`] (in `ops/`), from which the printer, the parser, the
//! verifier, autodiff, the cost report, the interpreter and the op reference derive.
//!
//! No op is named after a module of a model: norms, gates, rotary embeddings, losses and optimisers
//! are compositions. An op is worth adding only if no composition can say it, or if a composition
//! would hide a reuse that a kernel needs (attention keeps only its log-sum-exp for the backward).

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::causality::{Access, Cases};
use crate::graph::ValueId;
use crate::interp::Tensor;
pub use crate::ops::Unary;
use crate::quant::Grid;
use crate::slot::Slot;
use crate::ty::{Axes, DType, Type};

/// A float that can be hashed and compared: constants are equal when their bits are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bits(u64);

impl Bits {
    /// The bits of `value`. Negative zero is kept apart from zero.
    pub fn new(value: f64) -> Self {
        Bits(value.to_bits())
    }

    /// The float.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// Element-wise functions of two operands of one type. `Rem` and `Xor` take integers, `Gt` and `Eq`
/// give booleans.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the names are the functions")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Rem,
    Xor,
    Gt,
    Eq,
}

/// How a reduction combines elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "the names are the functions")]
pub enum Reduction {
    Sum,
    Max,
}

/// Which axes a [`Op::Dot`] sums over and which it walks in step, as (lhs axis, rhs axis) pairs.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct DotDims {
    /// Axes walked in step; they come first in the result, in this order.
    pub batch: SmallVec<[(usize, usize); 2]>,
    /// Axes summed over.
    pub contract: SmallVec<[(usize, usize); 2]>,
}

impl DotDims {
    /// Contracts `lhs` axis with `rhs` axis, no batch.
    pub fn contract(lhs: usize, rhs: usize) -> Self {
        DotDims { batch: SmallVec::new(), contract: SmallVec::from_slice(&[(lhs, rhs)]) }
    }

    /// Contracts several axis pairs, no batch.
    pub fn contract_all(pairs: &[(usize, usize)]) -> Self {
        DotDims { batch: SmallVec::new(), contract: SmallVec::from_slice(pairs) }
    }

    /// Batched over axis 0 of both operands, contracting `lhs` axis with `rhs` axis.
    pub fn batched(lhs: usize, rhs: usize) -> Self {
        DotDims { batch: SmallVec::from_slice(&[(0, 0)]), ..DotDims::contract(lhs, rhs) }
    }

    /// Axes of a rank-`rank` lhs that are neither batch nor contracted, in order.
    pub fn lhs_free(&self, rank: usize) -> Vec<usize> {
        let used = |a: &usize| self.batch.iter().chain(&self.contract).any(|(l, _)| l == a);
        (0..rank).filter(|a| !used(a)).collect()
    }

    /// Axes of a rank-`rank` rhs that are neither batch nor contracted, in order.
    pub fn rhs_free(&self, rank: usize) -> Vec<usize> {
        let used = |a: &usize| self.batch.iter().chain(&self.contract).any(|(_, r)| r == a);
        (0..rank).filter(|a| !used(a)).collect()
    }
}

/// A primitive op with its attributes. Shapes: see the op's [`Record`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// A value from outside the program, of the given type.
    Input(Slot, Type),
    /// A scalar constant.
    Const(Bits, DType),
    /// 0, 1, 2, … along one axis, int32.
    Iota(crate::ty::Axis),
    /// Element-wise function of one operand.
    Unary(Unary),
    /// Element-wise function of two operands.
    Binary(Binary),
    /// cond ? a : b, element-wise.
    Select,
    /// Conversion; to `BF16` it rounds to nearest even.
    Cast(DType),
    /// Identity whose gradient is zero.
    StopGradient,
    /// Identity in gradient; forward rounds each row (last axis) to the grid.
    FakeQuant(Grid),
    /// Combines all elements along `axes`; reduced axes stay with size 1.
    Reduce(Reduction, SmallVec<[usize; 4]>),
    /// The same elements in row-major order under other axes.
    Reshape(Axes),
    /// Axis `i` of the result is axis `perm[i]` of the operand.
    Transpose(SmallVec<[usize; 4]>),
    /// Repeats the operand to the given axes, aligned at the last axis; size-1 axes stretch.
    Broadcast(Axes),
    /// Elements `start .. start + len` of an axis.
    #[allow(missing_docs, reason = "the sentence above names the fields")]
    Slice { axis: usize, start: usize, len: usize },
    /// Zeros before and after an axis.
    #[allow(missing_docs, reason = "the sentence above names the fields")]
    Pad { axis: usize, before: usize, after: usize },
    /// `result[i] = operand[i − by]` along an axis, zero where that is outside.
    #[allow(missing_docs, reason = "the sentence above names the fields")]
    Shift { axis: usize, by: i64 },
    /// Static permutation (or selection) of the last axis: `result[.., j] = operand[.., perm[j]]`.
    Permute(Arc<[u32]>),
    /// Sum of products over the contracted axes: batch axes, then free lhs axes, then free rhs axes.
    Dot(DotDims),
    /// Rows of a table by id.
    Gather,
    /// The transpose of [`Op::Gather`]: sums rows with equal id, in order of position.
    #[allow(missing_docs, reason = "the signature names the field")]
    ScatterAdd { rows: usize },
    /// Causal softmax attention with grouped key/value heads; also gives each row's log-sum-exp.
    #[allow(missing_docs, reason = "the record's formula names the field")]
    Attention { scale: Bits },
    /// Gradient of [`Op::Attention`] with respect to q, k and v, recomputing the probabilities.
    #[allow(missing_docs, reason = "the record's formula names the field")]
    AttentionGrad { scale: Bits },
}

/// Arithmetic and traffic of one execution, before any fusion.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cost {
    /// Floating point operations; a multiply-add counts two, causal attention counts its half.
    pub flops: f64,
    /// Bytes read and written if every operand and result goes through memory once.
    pub bytes: f64,
}

/// An error of a rule: what was expected and what was found, without a place.
pub type RuleError = String;

/// Results from an op, its operands, their types and the result types.
pub type Eval = fn(&Op, &[&Tensor], &[&Type], &[Type]) -> Vec<Tensor>;

/// What the compiler knows about an op.
pub struct Record {
    /// Name in the text form.
    pub name: &'static str,
    /// Operands and results, as in `q [B,T,H,D], k [B,T,K,D] -> o [B,T,H,D]`.
    pub signature: &'static str,
    /// The mathematics in one sentence.
    pub maths: &'static str,
    /// Result types from operand types, or what is wrong with the operands.
    pub infer: fn(&Op, &[&Type]) -> Result<Vec<Type>, RuleError>,
    /// Which elements of its operands, of these types, an element of a result of this type is computed from.
    pub access: fn(&Op, &[&Type], &Type) -> Access,
    /// What it makes of elements of which something is known.
    pub cases: Cases,
    /// The gradient.
    pub vjp: crate::autodiff::Vjp,
    /// Floating point operations of one execution.
    pub flops: fn(&Op, &[&Type], &[&Type]) -> f64,
    /// The definition, in float64.
    pub eval: Eval,
}

impl Op {
    /// FLOPs and unfused bytes for these operand and result types.
    pub fn cost(&self, operands: &[&Type], results: &[&Type]) -> Cost {
        let bytes: usize = operands.iter().chain(results).map(|t| t.bytes()).sum();
        Cost { flops: (self.record().flops)(self, operands, results), bytes: bytes as f64 }
    }

    /// Whether a kernel family of its own computes the op: it is never an instruction of a region.
    pub fn has_kernel(&self) -> bool {
        matches!(self, Op::Dot(_) | Op::Attention { .. } | Op::AttentionGrad { .. } | Op::ScatterAdd { .. })
    }

    /// Whether the op only renames or moves elements: an index map on loads, never a kernel of its own.
    pub fn is_view(&self) -> bool {
        matches!(
            self,
            Op::Reshape(_)
                | Op::Transpose(_)
                | Op::Broadcast(_)
                | Op::Slice { .. }
                | Op::Pad { .. }
                | Op::Shift { .. }
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.record().name)?;
        let attrs = self.attrs();
        if attrs.is_empty() {
            return Ok(());
        }
        f.write_str(" {")?;
        for (i, (key, value)) in attrs.iter().enumerate() {
            write!(f, "{}{key}={value}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("}")
    }
}

/// Operands of a node. Most ops have at most three.
pub type Operands = SmallVec<[ValueId; 3]>;
