//! Operators on tensors, and items of lists and tensors.

use super::int;
use super::numbers::item;
use super::tensors::{elementwise, trace, ty};
use crate::lang::ast::BinOp;
use crate::lang::interp::{Fault, Interp, Outcome};
use crate::lang::value::Value;
use crate::op::{Binary, Op};
use crate::ty::Axes;

/// An operator of which one side is a tensor.
pub(super) fn operator(cx: &mut Interp<'_>, op: BinOp, a: &Value, b: &Value) -> Outcome {
    let f = match op {
        BinOp::Add => Binary::Add,
        BinOp::Sub => Binary::Sub,
        BinOp::Mul => Binary::Mul,
        BinOp::Div => Binary::Div,
        BinOp::Rem => Binary::Rem,
        // `x == none` asks whether there is a tensor at all.
        BinOp::Eq | BinOp::Ne if matches!((a, b), (Value::None, _) | (_, Value::None)) => {
            return Ok(Value::Bool(op == BinOp::Ne));
        }
        BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le | BinOp::Gt | BinOp::Ge => {
            let help = "element by element: gt(a, b), lt(a, b), eq(a, b)".to_string();
            return Err(Fault::Error(format!("`{}` compares numbers, not tensors", op.symbol()), Some(help)));
        }
    };
    elementwise(cx, f, a, b)
}

/// -x
pub(crate) fn negate(cx: &mut Interp<'_>, x: &Value) -> Outcome {
    match x {
        Value::Int(i) => {
            i.checked_neg().map(Value::Int).ok_or_else(|| "the result does not fit into 64 bits".into())
        }
        Value::Float(f) => Ok(Value::Float(-f)),
        Value::Tensor(_) => elementwise(cx, Binary::Mul, x, &Value::Int(-1)),
        Value::Poison => Err(Fault::Poisoned),
        other => Err(format!("`-` takes a number or a Tensor, found {}", other.kind()).into()),
    }
}

/// `list[i]`, or row `i` of a tensor's first axis, without that axis.
pub(crate) fn index(cx: &mut Interp<'_>, x: &Value, i: &Value) -> Outcome {
    match (x, i) {
        (Value::Poison, _) | (_, Value::Poison) => Err(Fault::Poisoned),
        (Value::List(items), _) => item(items, i),
        (Value::Tensor(x), _) => {
            let (x, ty) = (*x, ty(cx, *x)?);
            let Some(first) = ty.axes.first() else { return Err("a scalar has no rows".into()) };
            let at = int(i, "an index")?;
            let row = if at < 0 { at + first.size as i64 } else { at };
            let Some(start) = usize::try_from(row).ok().filter(|r| *r < first.size) else {
                return Err(format!("row {at} does not exist in {ty}").into());
            };
            let rest: Axes = ty.axes[1..].into();
            trace(cx, |b| {
                let row = b.try_op(Op::Slice { axis: 0, start, len: 1 }, &[x])?;
                b.try_reshape(row, rest)
            })
        }
        (other, _) => Err(format!("only lists and tensors have items, found {}", other.kind()).into()),
    }
}
