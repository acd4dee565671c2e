//! Element-wise ops of several operands, casts and the quantiser. Operands have exactly the same axes: broadcasting is an op of its own.

use super::{along_rows, arity, check_float, no_flops, one_per_element, pointwise, same, unknown};
use crate::autodiff::Adjoint;
use crate::causality::Cases;
use crate::op::{Binary, Op, Record, RuleError};
use crate::ty::{DType, Type};

fn same_axes(a: &Type, b: &Type) -> Result<(), RuleError> {
    if a.axes == b.axes { Ok(()) } else { Err(format!("operands have different axes: {a} and {b}")) }
}

fn infer_float(_: &Op, operands: &[&Type]) -> Result<Vec<Type>, RuleError> {
    let [a, b] = arity(operands)?;
    same_axes(a, b)?;
    match (a.dtype, b.dtype) {
        (DType::I32, DType::I32) => Ok(vec![a.clone()]),
        (p, q) if p.is_float() && q.is_float() => Ok(vec![a.with_dtype(DType::F32)]),
        _ => Err(format!("operands are of different kinds: {a} and {b}; `float(x)` converts one")),
    }
}

fn infer_division(op: &Op, operands: &[&Type]) -> Result<Vec<Type>, RuleError> {
    let [a, _] = arity::<2>(operands)?;
    check_float(a).map_err(|e| format!("{e}; `%` is the integer operation"))?;
    infer_float(op, operands)
}

fn infer_integer(_: &Op, operands: &[&Type]) -> Result<Vec<Type>, RuleError> {
    let [a, b] = arity(operands)?;
    same_axes(a, b)?;
    if a.dtype == DType::I32 && b.dtype == DType::I32 {
        Ok(vec![a.clone()])
    } else {
        Err(format!("operands must be int32, found {a} and {b}"))
    }
}

fn infer_comparison(op: &Op, operands: &[&Type]) -> Result<Vec<Type>, RuleError> {
    Ok(vec![infer_float(op, operands)?[0].with_dtype(DType::Bool)])
}

/// `$eval` is the function in float64, `$grad` the vjp.
macro_rules! binary {
    ($record:ident, $name:literal, $maths:literal, $infer:expr, $cases:expr, $eval:expr, $grad:expr) => {
        pub(super) static $record: Record = Record {
            name: $name,
            signature: "a, b -> y",
            maths: $maths,
            infer: $infer,
            access: pointwise,
            cases: $cases,
            vjp: |cx| {
                let Some(g) = cx.cotangents[0] else { return vec![None, None] };
                let (a, b) = (cx.node.operands[0], cx.node.operands[1]);
                let rule: fn(&mut Adjoint<'_>, _, _, _) -> [Option<_>; 2] = $grad;
                rule(cx, g, a, b).to_vec()
            },
            flops: one_per_element,
            eval: |op, x, types, _| {
                let f: fn(f64, f64) -> f64 = $eval;
                let pairs = x[0].iter().zip(x[1]).map(|(&a, &b)| (a, b));
                vec![match wrapping(op).filter(|_| types[0].dtype == DType::I32) {
                    Some(f) => pairs.map(|(a, b)| f64::from(f(a as i32, b as i32))).collect(),
                    None => pairs.map(|(a, b)| f(a, b)).collect(),
                }]
            },
        };
    };
}

/// int32 arithmetic wraps, as on every device; a product in float64 would be rounded before that.
fn wrapping(op: &Op) -> Option<fn(i32, i32) -> i32> {
    match op {
        Op::Binary(Binary::Add) => Some(i32::wrapping_add),
        Op::Binary(Binary::Sub) => Some(i32::wrapping_sub),
        Op::Binary(Binary::Mul) => Some(i32::wrapping_mul),
        // By zero: 0, as on the CPU executor.
        Op::Binary(Binary::Rem) => Some(|a, b| a.checked_rem(b).unwrap_or(0)),
        _ => None,
    }
}

const ADD_CASES: Cases = |_, at| at.always(at.known[0].plus(1, at.known[1], at.zone, at.dtype));
const SUB_CASES: Cases = |_, at| at.always(at.known[0].plus(-1, at.known[1], at.zone, at.dtype));
const MUL_CASES: Cases = |_, at| at.always(at.known[0].times(at.known[1], at.zone, at.dtype));
const GT_CASES: Cases = |_, at| {
    let [above, not_above] = at.known[0].greater(at.known[1], at.zone);
    at.condition([above], [not_above])
};
const EQ_CASES: Cases = |_, at| {
    let [same, above, below] = at.known[0].equal(at.known[1], at.zone);
    at.condition([same], [above, below])
};

binary!(ADD, "add", "y = a + b.", infer_float, ADD_CASES, |a, b| a + b, |_, g, _, _| [Some(g), Some(g)]);
binary!(SUB, "sub", "y = a − b.", infer_float, SUB_CASES, |a, b| a - b, |cx, g, _, _| {
    let minus = cx.b.scale(-1.0, g);
    [Some(g), Some(minus)]
});
binary!(MUL, "mul", "y = a · b.", infer_float, MUL_CASES, |a, b| a * b, |cx, g, a, b| {
    [Some(cx.b.mul(g, b)), Some(cx.b.mul(g, a))]
});
binary!(
    DIV,
    "div",
    "y = a / b.",
    infer_division,
    |_, at| at.always(at.known[0].over(at.dtype)),
    |a, b| a / b,
    |cx, g, _, b| {
        let y = cx.node.first;
        let da = cx.b.div(g, b);
        let gy = cx.b.mul(da, y);
        let db = cx.b.scale(-1.0, gy);
        [Some(da), Some(db)]
    }
);
binary!(
    MAX,
    "max",
    "y = max(a, b); the gradient goes to a where they are equal.",
    infer_float,
    |_, at| at.always(at.known[0].larger(at.known[1])),
    f64::max,
    |cx, g, a, b| {
        let from_b = cx.b.binary(Binary::Gt, b, a);
        let zero = cx.b.constant_like(0.0, g);
        let da = cx.b.op(Op::Select, &[from_b, zero, g]);
        let db = cx.b.op(Op::Select, &[from_b, g, zero]);
        [Some(da), Some(db)]
    }
);
binary!(
    REM,
    "rem",
    "y = a − b·trunc(a/b), on integers; the sign is a's.",
    infer_integer,
    unknown,
    |a, b| a % b,
    |_, _, _, _| [None, None]
);
binary!(
    XOR,
    "xor",
    "y = a xor b, bitwise, on integers.",
    infer_integer,
    unknown,
    |a, b| ((a as i64) ^ (b as i64)) as f64,
    |_, _, _, _| [None, None]
);
binary!(GT, "gt", "y = a > b.", infer_comparison, GT_CASES, |a, b| f64::from(a > b), |_, _, _, _| [
    None, None
]);
binary!(EQ, "eq", "y = (a = b).", infer_comparison, EQ_CASES, |a, b| f64::from(a == b), |_, _, _, _| [
    None, None
]);

pub(super) static SELECT: Record = Record {
    name: "select",
    signature: "c bool, a, b -> y",
    maths: "y = a where c, else b.",
    infer: |_, operands| {
        let [c, a, b] = arity(operands)?;
        if c.dtype != DType::Bool {
            return Err(format!("the condition must be bool, found {c}"));
        }
        same_axes(c, a)?;
        same_axes(a, b)?;
        if a.dtype == b.dtype { Ok(vec![a.clone()]) } else { Err(format!("branches differ: {a} and {b}")) }
    },
    access: pointwise,
    cases: |_, at| {
        let [c, a, b] = [0, 1, 2].map(|i| at.known[i]);
        match c.truth() {
            None => at.always(a.or(b)),
            Some(holds) => {
                let mut cases = at.always(if holds { a.clone() } else { b.clone() });
                cases[0].reads[if holds { 2 } else { 1 }] = false;
                cases
            }
        }
    },
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None; 3] };
        let c = cx.node.operands[0];
        let zero = cx.b.constant_like(0.0, g);
        let da = cx.b.op(Op::Select, &[c, g, zero]);
        let db = cx.b.op(Op::Select, &[c, zero, g]);
        vec![None, Some(da), Some(db)]
    },
    flops: one_per_element,
    eval: |_, x, _, _| {
        let pick = |i: usize| if x[0][i] != 0.0 { x[1][i] } else { x[2][i] };
        vec![(0..x[0].len()).map(pick).collect()]
    },
};

pub(super) static CAST: Record = Record {
    name: "cast",
    signature: "x -> y",
    maths: "y = x as another element type: to bf16 rounding to nearest even, to int32 truncating.",
    infer: |op, operands| {
        let [x] = arity(operands)?;
        let Op::Cast(dtype) = op else { unreachable!("record of another op") };
        Ok(vec![x.with_dtype(*dtype)])
    },
    access: pointwise,
    cases: |_, at| at.always(at.known[0].cast(at.dtype)),
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None] };
        let from = cx.b.ty(cx.node.operands[0]).dtype;
        if !from.is_float() {
            return vec![None];
        }
        // Cotangents are float32 whatever the value's storage.
        vec![Some(g)]
    },
    flops: no_flops,
    eval: |op, x, _, _| {
        let Op::Cast(dtype) = op else { unreachable!("record of another op") };
        let convert: fn(f64) -> f64 = match dtype {
            DType::F32 => |v| v,
            DType::BF16 => round_bf16,
            DType::I32 => |v| f64::from(v as i32),
            DType::Bool => |v| f64::from(v != 0.0),
        };
        vec![x[0].iter().map(|&v| convert(v)).collect()]
    },
};

/// Rounds to bfloat16, to nearest even, going through float32 as hardware does.
fn round_bf16(v: f64) -> f64 {
    let bits = (v as f32).to_bits();
    if v.is_nan() {
        return v;
    }
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    f64::from(f32::from_bits(rounded))
}

pub(super) static STOP_GRADIENT: Record = Record {
    name: "stop_gradient",
    signature: "x -> y",
    maths: "y = x, with gradient zero.",
    infer: |_, operands| {
        let [x] = arity(operands)?;
        Ok(vec![x.clone()])
    },
    access: pointwise,
    cases: same,
    vjp: |_| vec![None],
    flops: no_flops,
    eval: |_, x, _, _| vec![x[0].clone()],
};

pub(super) static FAKE_QUANT: Record = Record {
    name: "fake_quant",
    signature: "w [.., C] -> y [.., C]",
    maths: "y = s·clamp(round(w/s), −clip, clip) with a scale s per row; dy/dw = 1 (straight through).",
    infer: super::unary::infer,
    // A row has one scale.
    access: along_rows,
    cases: unknown,
    vjp: |cx| vec![cx.cotangents[0]],
    flops: |_, _, results| 4.0 * results[0].len() as f64,
    eval: |op, x, _, results| {
        let Op::FakeQuant(grid) = op else { unreachable!("record of another op") };
        let cols = results[0].axes.last().map_or(1, |a| a.size);
        // One float32 order of operations on every device: codes must not depend on who computes them.
        let row32: Vec<f32> = x[0].iter().map(|&v| v as f32).collect();
        let mut out = vec![0f32; row32.len()];
        for (src, dst) in row32.chunks(cols).zip(out.chunks_mut(cols)) {
            grid.fake_quantize_row(src, dst);
        }
        vec![out.into_iter().map(f64::from).collect()]
    },
};
