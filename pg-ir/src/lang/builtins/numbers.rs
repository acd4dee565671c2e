//! Compile-time arithmetic, lists and checks.

use super::{Args, Row, float, get, int, list, text, wrong};
use crate::lang::ast::BinOp;
use crate::lang::interp::{Fault, Interp, Outcome};
use crate::lang::limits::{Budget, Resource};
use crate::lang::span::Span;
use crate::lang::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("len", "list", "number of items", |_, a, _| {
        Ok(Value::Int(list(get(a, 0)?, "the argument of len")?.len() as i64))
    }),
    ("floor", "x", "the largest Int not above x", |_, a, _| rounded(get(a, 0)?, f64::floor)),
    ("ceil", "x", "the smallest Int not below x", |_, a, _| rounded(get(a, 0)?, f64::ceil)),
    ("round", "x", "the nearest Int", |_, a, _| rounded(get(a, 0)?, f64::round)),
    ("pow", "x y", "x to the power y, as a Float", |_, a, _| {
        Ok(Value::Float(float(get(a, 0)?, "the base")?.powf(float(get(a, 1)?, "the exponent")?)))
    }),
    ("contains", "list item", "whether the list has the item", |cx, a, _| {
        Ok(Value::Bool(position(cx, a)?.is_some()))
    }),
    ("index_of", "list item", "position of the item in the list", |cx, a, _| match position(cx, a)? {
        Some(i) => Ok(Value::Int(i as i64)),
        None => Err(format!("{} is not in {}", get(a, 1)?, get(a, 0)?).into()),
    }),
    ("reversed", "list", "the items from last to first", |cx, a, _| {
        let items = list(get(a, 0)?, "the argument of reversed")?;
        cx.budget.charge(Resource::Elements, items.len());
        Ok(Value::list(items.iter().rev().cloned().collect()))
    }),
    ("assert", "cond message", "an error with the message unless the condition holds", assert),
];

fn rounded(x: &Value, how: fn(f64) -> f64) -> Outcome {
    Ok(Value::Int(how(float(x, "the argument")?) as i64))
}

fn position(cx: &Interp<'_>, args: &Args) -> Outcome<Option<usize>> {
    let (items, item) = (list(get(args, 0)?, "the first argument")?, get(args, 1)?);
    Ok(items.iter().position(|i| i.equals(item, cx.budget) == Some(true)))
}

fn assert(cx: &mut Interp<'_>, args: &Args, _: &Span) -> Outcome {
    match get(args, 0)? {
        Value::Bool(true) => Ok(Value::None),
        Value::Bool(false) => {
            cx.give_up();
            Err(text(get(args, 1)?, "the message")?.to_string().into())
        }
        Value::Tensor(_) => Err("an assertion about a tensor: its values are not known yet".into()),
        other => Err(wrong("the condition", "a Bool", other)),
    }
}

/// Most items of a list: far more than a model has layers, far less than memory holds.
pub(crate) const MAX_LIST: usize = 1 << 20;

/// What is said of a longer one.
pub(crate) fn long_list() -> String {
    format!("a list has at most {MAX_LIST} items")
}

/// An operator on compile-time values.
pub(super) fn operator(op: BinOp, a: &Value, b: &Value, budget: &Budget) -> Outcome {
    match (op, a, b) {
        (BinOp::Eq | BinOp::Ne, ..) => match a.equals(b, budget) {
            Some(equal) => Ok(Value::Bool(equal == (op == BinOp::Eq))),
            None => Err(format!("{} and {} cannot be compared", a.kind(), b.kind()).into()),
        },
        (_, Value::Int(x), Value::Int(y)) => integers(op, *x, *y),
        (_, Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            Ok(floats(op, float(a, "left")?, float(b, "right")?))
        }
        (BinOp::Add, Value::Text(x), Value::Text(y)) => {
            budget.charge(Resource::Bytes, x.len() + y.len());
            // What is over budget is not made, and the evaluator says so.
            if budget.exceeded().is_some() {
                return Err(Fault::Poisoned);
            }
            Ok(Value::text(format!("{x}{y}")))
        }
        (BinOp::Add, Value::List(x), Value::List(y)) if x.len() + y.len() > MAX_LIST => {
            Err(long_list().into())
        }
        (BinOp::Add, Value::List(x), Value::List(y)) => {
            budget.charge(Resource::Elements, x.len() + y.len());
            Ok(Value::list(x.iter().chain(y.iter()).cloned().collect()))
        }
        _ => Err(format!("`{}` does not take {} and {}", op.symbol(), a.kind(), b.kind()).into()),
    }
}

fn integers(op: BinOp, x: i64, y: i64) -> Outcome {
    let value = match op {
        BinOp::Add => x.checked_add(y),
        BinOp::Sub => x.checked_sub(y),
        BinOp::Mul => x.checked_mul(y),
        BinOp::Div | BinOp::Rem if y == 0 => {
            return Err(format!("{x} {} 0: division by zero", op.symbol()).into());
        }
        BinOp::Div if x.checked_rem(y).is_some_and(|rest| rest != 0) => {
            let help =
                format!("Int division is exact; {x} % {y} is {}. For a Float, make one side a Float", x % y);
            return Err(Fault::Error(format!("{x} does not divide by {y}"), Some(help)));
        }
        BinOp::Div => x.checked_div(y),
        BinOp::Rem => x.checked_rem_euclid(y),
        BinOp::Lt => return Ok(Value::Bool(x < y)),
        BinOp::Le => return Ok(Value::Bool(x <= y)),
        BinOp::Gt => return Ok(Value::Bool(x > y)),
        BinOp::Ge => return Ok(Value::Bool(x >= y)),
        BinOp::Eq | BinOp::Ne => return Ok(Value::Bool((x == y) == (op == BinOp::Eq))),
    };
    value.map(Value::Int).ok_or_else(|| format!("{x} {} {y} does not fit into 64 bits", op.symbol()).into())
}

fn floats(op: BinOp, x: f64, y: f64) -> Value {
    match op {
        BinOp::Add => Value::Float(x + y),
        BinOp::Sub => Value::Float(x - y),
        BinOp::Mul => Value::Float(x * y),
        BinOp::Div => Value::Float(x / y),
        BinOp::Rem => Value::Float(x.rem_euclid(y)),
        BinOp::Lt => Value::Bool(x < y),
        BinOp::Le => Value::Bool(x <= y),
        BinOp::Gt => Value::Bool(x > y),
        BinOp::Ge => Value::Bool(x >= y),
        BinOp::Eq => Value::Bool(x == y),
        BinOp::Ne => Value::Bool(x != y),
    }
}

/// `max` or `min` of two numbers.
pub(super) fn extremum(a: &Value, b: &Value, max: bool) -> Option<Value> {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => Some(Value::Int(if max { *x.max(y) } else { *x.min(y) })),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            let (x, y) = (float(a, "").ok()?, float(b, "").ok()?);
            Some(Value::Float(if max { x.max(y) } else { x.min(y) }))
        }
        _ => None,
    }
}

/// Item `i` of a list; negative from the end.
pub(super) fn item(items: &[Value], i: &Value) -> Outcome {
    let at = int(i, "an index")?;
    let from_start = if at < 0 { at + items.len() as i64 } else { at };
    usize::try_from(from_start)
        .ok()
        .and_then(|i| items.get(i).cloned())
        .ok_or_else(|| format!("item {at} of a list of {}", items.len()).into())
}
