//! Reductions. Reduced axes stay with size 1, so that a broadcast brings the result back.

use smallvec::SmallVec;

use super::{arity, check_axis, check_float, same};
use crate::causality::{Access, Index};
use crate::interp::{Tensor, flat, for_each_index, strides};
use crate::op::{Binary, Op, Record, Reduction, RuleError};
use crate::ty::{DType, Type};

fn parts(op: &Op) -> (Reduction, &SmallVec<[usize; 4]>) {
    match op {
        Op::Reduce(kind, axes) => (*kind, axes),
        _ => unreachable!("record of another op"),
    }
}

fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>, RuleError> {
    let [x] = arity(operands)?;
    check_float(x)?;
    let mut ty = x.with_dtype(DType::F32);
    for &axis in parts(op).1 {
        check_axis(axis, x)?;
        ty.axes[axis].size = 1;
    }
    if !parts(op).1.is_sorted_by(|a, b| a < b) {
        return Err("reduced axes must be given once each, in ascending order".into());
    }
    Ok(vec![ty])
}

fn access(op: &Op, operands: &[&Type], result: &Type) -> Access {
    let (x, over) = (operands[0], parts(op).1);
    let index = |axis| match over.iter().position(|a| *a == axis) {
        Some(i) => Index::along(result.rank() + i),
        None => Index::along(axis),
    };
    let summed = over.iter().map(|&axis| x.axes[axis].size).collect();
    Access { summed, ..Access::of([(0..x.rank()).map(index).collect()]) }
}

fn flops(_: &Op, operands: &[&Type], _: &[&Type]) -> f64 {
    operands[0].len() as f64
}

fn eval(op: &Op, x: &[&Tensor], types: &[&Type], results: &[Type]) -> Vec<Tensor> {
    let (kind, axes) = parts(op);
    let (start, combine): (f64, fn(f64, f64) -> f64) = match kind {
        Reduction::Sum => (0.0, |a, b| a + b),
        Reduction::Max => (f64::NEG_INFINITY, f64::max),
    };
    let shape = types[0].shape();
    let (from, mut to) = (strides(&shape), strides(&results[0].shape()));
    axes.iter().for_each(|&a| to[a] = 0);
    let mut out = vec![start; results[0].len()];
    let Some((&width, outer)) = shape.split_last() else { return vec![vec![combine(start, x[0][0])]] };
    for_each_index(outer, |index| {
        let (row, at) = (flat(index, &from), flat(index, &to));
        for i in 0..width {
            let slot = &mut out[at + i * to[outer.len()]];
            *slot = combine(*slot, x[0][row + i]);
        }
    });
    vec![out]
}

pub(super) static SUM: Record = Record {
    name: "sum",
    signature: "x -> y",
    maths: "y = Σ x over the axes, which stay with size 1.",
    infer,
    access,
    cases: same,
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None] };
        let axes = cx.b.ty(cx.node.operands[0]).axes.clone();
        vec![Some(cx.b.broadcast(g, axes))]
    },
    flops,
    eval,
};

pub(super) static MAX: Record = Record {
    name: "reduce_max",
    signature: "x -> y",
    maths: "y = max x over the axes, which stay with size 1; equal maxima share the gradient.",
    infer,
    access,
    cases: same,
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None] };
        let (x, y) = (cx.node.operands[0], cx.node.first);
        let is_max = cx.b.binary(Binary::Eq, x, y);
        let mask = cx.b.op(Op::Cast(DType::F32), &[is_max]);
        let (_, axes) = parts(&cx.node.op);
        let ties = cx.b.reduce(Reduction::Sum, mask, axes);
        let share = cx.b.div(g, ties);
        vec![Some(cx.b.mul(mask, share))]
    },
    flops,
    eval,
};
