//! One function per primitive op.

use smallvec::SmallVec;

use super::numbers::extremum;
use super::operators::negate;
use super::{Args, Builtin, Row, float, get, int, list, short_list, size, wrong};
use crate::graph::{Builder, ValueId};
use crate::lang::interp::{Fault, Interp, Outcome};
use crate::lang::limits::Resource;
use crate::lang::value::Value;
use crate::op::{Binary, Bits, DotDims, Op, Reduction, Unary};
use crate::ops::keeps_positions;
use crate::ty::{Axes, Axis, DType, MAX_ELEMENTS, MAX_RANK, Role, Type, is_storable};

/// The functions of one float, of tensors and numbers.
pub(super) fn functions() -> impl Iterator<Item = Builtin> {
    Unary::ALL.iter().map(|&f| Builtin {
        name: Op::Unary(f).record().name,
        params: vec![("x".into(), false)],
        doc: f.doc(),
        run: Box::new(move |cx, args, _| unary(cx, args, f)),
    })
}

pub(super) const ROWS: &[Row] = &[
    ("max", "a b", "the larger, element by element", |cx, a, _| {
        let (a, b) = (get(a, 0)?, get(a, 1)?);
        extremum(a, b, true).map_or_else(|| elementwise(cx, Binary::Max, a, b), Ok)
    }),
    ("min", "a b", "the smaller, element by element", |cx, a, _| {
        let (a, b) = (get(a, 0)?, get(a, 1)?);
        if let Some(value) = extremum(a, b, false) {
            return Ok(value);
        }
        let (a, b) = (negate(cx, a)?, negate(cx, b)?);
        let larger = elementwise(cx, Binary::Max, &a, &b)?;
        negate(cx, &larger)
    }),
    ("gt", "a b", "whether a > b, element by element", |cx, a, _| {
        elementwise(cx, Binary::Gt, get(a, 0)?, get(a, 1)?)
    }),
    ("lt", "a b", "whether a < b, element by element", |cx, a, _| {
        elementwise(cx, Binary::Gt, get(a, 1)?, get(a, 0)?)
    }),
    ("eq", "a b", "whether a = b, element by element", |cx, a, _| {
        elementwise(cx, Binary::Eq, get(a, 0)?, get(a, 1)?)
    }),
    ("xor", "a b", "bitwise exclusive or of int32", |cx, a, _| {
        elementwise(cx, Binary::Xor, get(a, 0)?, get(a, 1)?)
    }),
    ("select", "cond a b", "a where cond holds, else b", select),
    ("sum", "x axis?", "sum over an axis, which stays with size 1; over everything, a scalar", |cx, a, _| {
        reduce(cx, a, Reduction::Sum)
    }),
    ("reduce_max", "x axis", "largest over an axis, which stays with size 1", |cx, a, _| {
        reduce(cx, a, Reduction::Max)
    }),
    (
        "reshape",
        "x shape",
        "the same elements under other axes; sizes keep their roles from both ends",
        reshape,
    ),
    ("broadcast", "x shape", "repeats along axes of size 1 and new leading axes", |cx, a, _| {
        let x = tensor(get(a, 0)?, "x")?;
        let axes = shape_of(cx, x, get(a, 1)?)?;
        trace(cx, |b| b.try_broadcast(x, axes))
    }),
    ("transpose", "x perm", "axis i of the result is axis perm[i] of x", |cx, a, _| {
        let x = tensor(get(a, 0)?, "x")?;
        let perm = short_list(get(a, 1)?, "perm")?.iter().map(|p| axis(cx, x, p)).collect::<Outcome<_>>()?;
        trace(cx, |b| b.try_op(Op::Transpose(perm), &[x]))
    }),
    ("slice", "x axis start len", "elements start .. start + len of an axis", |cx, a, _| {
        let x = tensor(get(a, 0)?, "x")?;
        let (axis, start, len) =
            (axis(cx, x, get(a, 1)?)?, size(get(a, 2)?, "start")?, size(get(a, 3)?, "len")?);
        trace(cx, |b| b.try_op(Op::Slice { axis, start, len }, &[x]))
    }),
    ("pad", "x axis before after", "zeros before and after an axis", |cx, a, _| {
        let x = tensor(get(a, 0)?, "x")?;
        let (axis, before) = (axis(cx, x, get(a, 1)?)?, size(get(a, 2)?, "before")?);
        let after = size(get(a, 3)?, "after")?;
        trace(cx, |b| b.try_op(Op::Pad { axis, before, after }, &[x]))
    }),
    ("shift", "x by axis?", "result[i] = x[i - by], zero outside; along time unless an axis is given", shift),
    ("permute_columns", "x perm", "result[.., j] = x[.., perm[j]]", |cx, a, _| {
        let x = tensor(get(a, 0)?, "x")?;
        let perm = list(get(a, 1)?, "perm")?;
        cx.budget.charge(Resource::Elements, perm.len());
        let perm: Vec<u32> = perm
            .iter()
            .map(|p| Ok(u32::try_from(size(p, "a column")?).unwrap_or(u32::MAX)))
            .collect::<Outcome<_>>()?;
        trace(cx, |b| b.try_op(Op::Permute(perm.into()), &[x]))
    }),
    (
        "dot",
        "a b contract batch?",
        "sums products over pairs of axes: batch, then a's other axes, then b's",
        dot,
    ),
    ("gather", "table ids", "rows of a table by id", |cx, a, _| {
        let (table, ids) = (tensor(get(a, 0)?, "the table")?, tensor(get(a, 1)?, "the ids")?);
        trace(cx, |b| b.try_op(Op::Gather, &[table, ids]))
    }),
    (
        "causal_attention",
        "q k v scale",
        "softmax(scale q kᵀ) v over earlier positions, heads grouped",
        |cx, a, _| {
            let [q, k, v] = [0, 1, 2].map(|i| get(a, i).and_then(|x| tensor(x, "q, k and v")));
            let (q, k, v, scale) = (q?, k?, v?, Bits::new(float(get(a, 3)?, "scale")?));
            trace(cx, |b| b.try_op(Op::Attention { scale }, &[q, k, v]))
        },
    ),
    ("stop_gradient", "x", "x, with no gradient", |cx, a, _| {
        let x = tensor(get(a, 0)?, "x")?;
        trace(cx, |b| b.try_op(Op::StopGradient, &[x]))
    }),
    ("iota", "axis", "0, 1, 2, … along an axis such as time(n), as int32", |cx, a, _| {
        let axis = one_axis(get(a, 0)?)?;
        trace(cx, |b| b.try_op(Op::Iota(axis), &[]))
    }),
    ("float", "x", "x as float32", |cx, a, _| match get(a, 0)? {
        Value::Tensor(x) => {
            let x = *x;
            trace(
                cx,
                |b| if b.ty(x).dtype == DType::F32 { Ok(x) } else { b.try_op(Op::Cast(DType::F32), &[x]) },
            )
        }
        number => Ok(Value::Float(float(number, "x")?)),
    }),
    ("dim", "x axis", "size of an axis", |cx, a, _| {
        let x = tensor(get(a, 0)?, "x")?;
        let axis = axis(cx, x, get(a, 1)?)?;
        Ok(Value::Int(ty(cx, x)?.axes[axis].size as i64))
    }),
    ("rank", "x", "number of axes", |cx, a, _| {
        Ok(Value::Int(ty(cx, tensor(get(a, 0)?, "x")?)?.rank() as i64))
    }),
    ("shape", "x", "sizes of the axes with their roles", |cx, a, _| {
        let ty = ty(cx, tensor(get(a, 0)?, "x")?)?;
        Ok(Value::list(ty.axes.iter().map(|a| Value::Axis(*a)).collect()))
    }),
    ("seq_len", "x", "number of positions", |cx, a, _| {
        let ty = ty(cx, tensor(get(a, 0)?, "x")?)?;
        let time = ty.time_axis().ok_or_else(|| format!("{ty} has no time axis"))?;
        Ok(Value::Int(ty.axes[time].size as i64))
    }),
];

// ---------------------------------------------------------------- operands

fn builder<'a>(cx: &'a mut Interp<'_>) -> Outcome<&'a mut Builder> {
    let help = "constants and settings are numbers; tensor operations belong in `forward` and what it calls";
    let outside = || Fault::Error("there are no tensors here".into(), Some(help.into()));
    cx.tracer.as_mut().map(|t| &mut t.builder).ok_or_else(outside)
}

pub(super) fn trace(
    cx: &mut Interp<'_>,
    build: impl FnOnce(&mut Builder) -> Result<ValueId, String>,
) -> Outcome {
    let b = builder(cx)?;
    let value = build(b)?;
    let rank = b.ty(value).rank();
    if rank > MAX_RANK {
        return Err(format!("a tensor has at most {MAX_RANK} axes, and this one has {rank}").into());
    }
    if !is_storable(b.ty(value).shape()) {
        return Err(format!("{} is too large", b.ty(value)).into());
    }
    Ok(Value::Tensor(value))
}

pub(super) fn ty(cx: &mut Interp<'_>, x: ValueId) -> Outcome<Type> {
    Ok(builder(cx)?.ty(x).clone())
}

fn tensor(value: &Value, what: &str) -> Outcome<ValueId> {
    match value {
        Value::Tensor(id) => Ok(*id),
        other => Err(wrong(what, "a Tensor", other)),
    }
}

/// An axis by index, negative from the end.
fn axis(cx: &mut Interp<'_>, x: ValueId, index: &Value) -> Outcome<usize> {
    let index = int(index, "an axis")?;
    let ty = ty(cx, x)?;
    let from_start = if index < 0 { index + ty.rank() as i64 } else { index };
    match usize::try_from(from_start) {
        Ok(i) if i < ty.rank() => Ok(i),
        _ => Err(format!("axis {index} does not exist in {ty}").into()),
    }
}

fn one_axis(value: &Value) -> Outcome<Axis> {
    match value {
        Value::Axis(a) => Ok(*a),
        Value::Int(n) if *n > 0 => Ok(Axis::channel(size(value, "an axis")?)),
        other => Err(wrong("an axis", "a size from 1 or time(n), head(n), …", other)),
    }
}

/// A number as a constant of the element type of `like`.
fn lift(cx: &mut Interp<'_>, value: &Value, like: Option<ValueId>) -> Outcome<ValueId> {
    if let Value::Tensor(id) = value {
        return Ok(*id);
    }
    let dtype = match like {
        Some(like) => ty(cx, like)?.dtype,
        None => DType::F32,
    };
    let number = match (value, dtype) {
        (Value::Int(i), DType::I32) if i32::try_from(*i).is_err() => {
            return Err(format!("{i} does not fit an int32 tensor").into());
        }
        (Value::Int(i), DType::F32 | DType::BF16 | DType::I32) => *i as f64,
        (Value::Float(f), DType::F32 | DType::BF16) => *f,
        (Value::Float(_), DType::I32) => {
            return Err(Fault::Error(
                "a Float meets an int32 tensor".into(),
                Some("convert with float(x)".into()),
            ));
        }
        (other, dtype) => {
            return Err(
                format!("expected a Tensor or a number, found {} beside {dtype}", other.kind()).into()
            );
        }
    };
    let dtype = if dtype == DType::I32 { DType::I32 } else { DType::F32 };
    Ok(builder(cx)?.try_op(Op::Const(Bits::new(number), dtype), &[])?)
}

fn lift_both(cx: &mut Interp<'_>, a: &Value, b: &Value) -> Outcome<(ValueId, ValueId)> {
    let like = [a, b].into_iter().find_map(|v| if let Value::Tensor(id) = v { Some(*id) } else { None });
    Ok((lift(cx, a, like)?, lift(cx, b, like)?))
}

// ---------------------------------------------------------------- ops

fn unary(cx: &mut Interp<'_>, args: &Args, f: Unary) -> Outcome {
    match get(args, 0)? {
        Value::Tensor(x) => {
            let x = *x;
            trace(cx, |b| b.try_op(Op::Unary(f), &[x]))
        }
        x => Ok(Value::Float(f.of(float(x, "the argument")?))),
    }
}

pub(super) fn elementwise(cx: &mut Interp<'_>, f: Binary, a: &Value, b: &Value) -> Outcome {
    let (a, b) = lift_both(cx, a, b)?;
    trace(cx, |g| g.try_binary(f, a, b))
}

fn select(cx: &mut Interp<'_>, args: &Args, _: &crate::lang::span::Span) -> Outcome {
    let cond = tensor(get(args, 0)?, "the condition")?;
    let (a, b) = lift_both(cx, get(args, 1)?, get(args, 2)?)?;
    trace(cx, |g| g.try_select(cond, a, b))
}

fn reduce(cx: &mut Interp<'_>, args: &Args, kind: Reduction) -> Outcome {
    let x = tensor(get(args, 0)?, "x")?;
    let ty = ty(cx, x)?;
    let Some(axes) = &args[1] else {
        let all = (0..ty.rank()).filter(|&a| ty.axes[a].size > 1).collect::<SmallVec<[usize; 4]>>();
        return trace(cx, |b| {
            let x = if all.is_empty() { x } else { b.try_op(Op::Reduce(kind, all), &[x])? };
            b.try_reshape(x, Axes::new())
        });
    };
    let mut over: SmallVec<[usize; 4]> = match axes {
        Value::List(_) => {
            short_list(axes, "the axes")?.iter().map(|i| axis(cx, x, i)).collect::<Outcome<_>>()?
        }
        one => SmallVec::from_slice(&[axis(cx, x, one)?]),
    };
    over.sort_unstable();
    over.retain(|a| ty.axes[*a].size > 1);
    // Over axes of size 1 there is nothing to do, but the operand must still be a float.
    trace(cx, |b| {
        if over.is_empty() && ty.dtype == DType::F32 { Ok(x) } else { b.try_op(Op::Reduce(kind, over), &[x]) }
    })
}

/// The axes that `shape` asks for. Sizes that agree with `x` from either end keep x's roles; sizes with a
/// role of their own have that; the others are channels.
fn shape_of(cx: &mut Interp<'_>, x: ValueId, shape: &Value) -> Outcome<Axes> {
    let from = ty(cx, x)?.axes;
    let items = short_list(shape, "the shape")?;
    let mut axes: Axes = items.iter().map(one_axis).collect::<Outcome<_>>()?;
    if !is_storable(axes.iter().map(|a| a.size)) {
        return Err(format!("a tensor of shape {shape} is too large").into());
    }
    let plain: Vec<bool> = items.iter().map(|i| matches!(i, Value::Int(_))).collect();
    let inherit = |to: &mut Axis, from: &Axis, plain: bool| {
        let fits = to.size == from.size;
        if fits && plain {
            to.role = from.role;
        }
        fits
    };
    let (n, m) = (axes.len(), from.len());
    let mut front = 0;
    while front < n.min(m) && inherit(&mut axes[front], &from[front], plain[front]) {
        front += 1;
    }
    let mut back = 0;
    while back < n.min(m) - front
        && inherit(&mut axes[n - 1 - back], &from[m - 1 - back], plain[n - 1 - back])
    {
        back += 1;
    }
    Ok(axes)
}

fn reshape(cx: &mut Interp<'_>, args: &Args, _: &crate::lang::span::Span) -> Outcome {
    let x = tensor(get(args, 0)?, "x")?;
    let axes = shape_of(cx, x, get(args, 1)?)?;
    trace(cx, |b| {
        keeps_positions(b.ty(x), &axes)?;
        b.try_reshape(x, axes)
    })
}

fn shift(cx: &mut Interp<'_>, args: &Args, _: &crate::lang::span::Span) -> Outcome {
    let (x, by) = (tensor(get(args, 0)?, "x")?, int(get(args, 1)?, "by")?);
    let ty = ty(cx, x)?;
    let axis = match &args[2] {
        Some(index) => axis(cx, x, index)?,
        None => ty.time_axis().ok_or_else(|| format!("{ty} has no time axis to shift along"))?,
    };
    if by.unsigned_abs() > MAX_ELEMENTS as u64 {
        return Err(format!("a shift by {by} is too large").into());
    }
    if by < 0 && ty.axes[axis].role == Role::Time {
        let help = "a positive shift reads earlier positions".to_string();
        return Err(Fault::Error("a negative shift along time would read the future".into(), Some(help)));
    }
    trace(cx, |b| if by == 0 { Ok(x) } else { b.try_op(Op::Shift { axis, by }, &[x]) })
}

fn dot(cx: &mut Interp<'_>, args: &Args, _: &crate::lang::span::Span) -> Outcome {
    let (a, b) = (tensor(get(args, 0)?, "a")?, tensor(get(args, 1)?, "b")?);
    let mut pairs = |value: &Value| -> Outcome<SmallVec<[(usize, usize); 2]>> {
        short_list(value, "pairs of axes")?
            .iter()
            .map(|pair| match pair {
                Value::List(p) if p.len() == 2 => Ok((axis(cx, a, &p[0])?, axis(cx, b, &p[1])?)),
                other => Err(wrong("a pair of axes", "[axis of a, axis of b]", other)),
            })
            .collect()
    };
    let contract = pairs(get(args, 2)?)?;
    let batch = args[3].as_ref().map_or(Ok(SmallVec::new()), &mut pairs)?;
    trace(cx, |g| g.try_op(Op::Dot(DotDims { batch, contract }), &[a, b]))
}
