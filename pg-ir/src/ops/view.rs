//! Ops that move or repeat elements without computing: index maps on loads, never kernels.

use smallvec::SmallVec;

use super::{arity, check_axis, no_flops, same};
use crate::causality::{Access, Index};
use crate::interp::{pick, strides};
use crate::op::{Op, Record, RuleError};
use crate::ty::{Axes, Axis, Role, Type};

/// The sequence axes of a type with the number of elements inside each.
fn sequence_axes(ty: &Type) -> Vec<(Axis, usize)> {
    let inner = strides(&ty.shape());
    let is_sequence = |a: &Axis| matches!(a.role, Role::Batch | Role::Time) && a.size > 1;
    ty.axes.iter().copied().zip(inner).filter(|(a, _)| is_sequence(a)).collect()
}

/// Whether elements are at the same positions of the same sequences under both lists of axes. A model's own reshape
/// must keep them. That of a gradient need not: what a parameter's rows gained by meeting a time axis, its
/// gradient loses.
pub(crate) fn keeps_positions(x: &Type, axes: &Axes) -> Result<(), RuleError> {
    let y = Type { dtype: x.dtype, axes: axes.clone() };
    if sequence_axes(x) == sequence_axes(&y) {
        return Ok(());
    }
    Err(format!("a reshape of {x} to {y} would change a batch or time axis"))
}

pub(super) static RESHAPE: Record = Record {
    name: "reshape",
    signature: "x -> y",
    maths: "y has x's elements in row-major order under other axes.",
    infer: |op, operands| {
        let [x] = arity(operands)?;
        let Op::Reshape(axes) = op else { unreachable!("record of another op") };
        let y = Type { dtype: x.dtype, axes: axes.clone() };
        if x.len() != y.len() {
            return Err(format!("{x} has {} elements, {y} has {}", x.len(), y.len()));
        }
        Ok(vec![y])
    },
    // An axis of the same size with as many elements inside has the same indices; of others nothing is said.
    access: |_, operands, result| {
        let (from, to) = (strides(&operands[0].shape()), strides(&result.shape()));
        let index = |(axis, inner): (&Axis, usize)| match axis.size {
            1 => Index::first(),
            size => {
                let is = |i: usize| result.axes[i].size == size && to[i] == inner;
                (0..result.rank()).find(|i| is(*i)).map_or(Index::any(size), Index::along)
            }
        };
        Access::of([operands[0].axes.iter().zip(from).map(index).collect()])
    },
    cases: same,
    vjp: |cx| {
        let axes = cx.b.ty(cx.node.operands[0]).axes.clone();
        vec![cx.cotangents[0].map(|g| cx.b.reshape(g, axes))]
    },
    flops: no_flops,
    eval: |_, x, _, _| vec![x[0].clone()],
};

pub(super) static TRANSPOSE: Record = Record {
    name: "transpose",
    signature: "x -> y",
    maths: "y[i₀, i₁, …] = x with its axis perm[k] at index i_k.",
    infer: |op, operands| {
        let [x] = arity(operands)?;
        let Op::Transpose(perm) = op else { unreachable!("record of another op") };
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        if sorted != (0..x.rank()).collect::<Vec<_>>() {
            return Err(format!("{perm:?} is not a permutation of the axes of {x}"));
        }
        Ok(vec![Type::new(x.dtype, perm.iter().map(|&p| x.axes[p]))])
    },
    access: |op, operands, _| {
        let Op::Transpose(perm) = op else { unreachable!("record of another op") };
        let at = |axis| perm.iter().position(|p| *p == axis).expect("perm is a permutation");
        Access::of([(0..operands[0].rank()).map(|axis| Index::along(at(axis))).collect()])
    },
    cases: same,
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None] };
        let Op::Transpose(perm) = &cx.node.op else { unreachable!("record of another op") };
        let mut inverse: SmallVec<[usize; 4]> = perm.clone();
        perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
        vec![Some(cx.b.op(Op::Transpose(inverse), &[g]))]
    },
    flops: no_flops,
    eval: |op, x, types, results| {
        let Op::Transpose(perm) = op else { unreachable!("record of another op") };
        let from = strides(&types[0].shape());
        let moved: Vec<usize> = perm.iter().map(|&p| from[p]).collect();
        vec![pick(x[0], 0, &results[0].shape(), &moved)]
    },
};

pub(super) static BROADCAST: Record = Record {
    name: "broadcast",
    signature: "x -> y",
    maths: "y repeats x along new leading axes and along axes of size 1.",
    infer: |op, operands| {
        let [x] = arity(operands)?;
        let Op::Broadcast(axes) = op else { unreachable!("record of another op") };
        let y = Type { dtype: x.dtype, axes: axes.clone() };
        let lead = y.rank().checked_sub(x.rank()).ok_or_else(|| format!("{x} does not fit into {y}"))?;
        for (from, to) in x.axes.iter().zip(&y.axes[lead..]) {
            let moves =
                matches!(from.role, Role::Batch | Role::Time) && from.size > 1 && from.role != to.role;
            if moves || (from.size != to.size && from.size != 1) {
                return Err(format!("{x} does not broadcast to {y}: {from} against {to}"));
            }
        }
        Ok(vec![y])
    },
    access: |_, operands, result| {
        let lead = result.rank() - operands[0].rank();
        let index = |(axis, a): (usize, &Axis)| match a.size {
            1 => Index::first(),
            _ => Index::along(lead + axis),
        };
        Access::of([operands[0].axes.iter().enumerate().map(index).collect()])
    },
    cases: same,
    vjp: |cx| {
        let axes = cx.b.ty(cx.node.operands[0]).axes.clone();
        vec![cx.cotangents[0].map(|g| cx.b.sum_to(g, &axes))]
    },
    flops: no_flops,
    eval: |_, x, types, results| {
        let lead = results[0].rank() - types[0].rank();
        let mut from = vec![0; lead];
        let inner = strides(&types[0].shape());
        from.extend(types[0].axes.iter().zip(inner).map(|(a, s)| if a.size == 1 { 0 } else { s }));
        vec![pick(x[0], 0, &results[0].shape(), &from)]
    },
};

pub(super) static SLICE: Record = Record {
    name: "slice",
    signature: "x -> y",
    maths: "y[i] = x[start + i] along an axis.",
    infer: |op, operands| {
        let [x] = arity(operands)?;
        let &Op::Slice { axis, start, len } = op else { unreachable!("record of another op") };
        check_axis(axis, x)?;
        if len == 0 || start + len > x.axes[axis].size {
            return Err(format!("elements {start}..{} of axis {axis} do not exist in {x}", start + len));
        }
        let mut y = x.clone();
        y.axes[axis].size = len;
        Ok(vec![y])
    },
    access: |op, operands, _| match *op {
        Op::Slice { axis, start, .. } => moves(operands[0], axis, start as i64),
        _ => unreachable!("record of another op"),
    },
    cases: same,
    vjp: |cx| {
        let &Op::Slice { axis, start, len } = &cx.node.op else { unreachable!("record of another op") };
        let size = cx.b.ty(cx.node.operands[0]).axes[axis].size;
        let pad = Op::Pad { axis, before: start, after: size - start - len };
        vec![cx.cotangents[0].map(|g| cx.b.op(pad, &[g]))]
    },
    flops: no_flops,
    eval: |op, x, types, results| {
        let &Op::Slice { axis, start, .. } = op else { unreachable!("record of another op") };
        let from = strides(&types[0].shape());
        vec![pick(x[0], start * from[axis], &results[0].shape(), &from)]
    },
};

pub(super) static PAD: Record = Record {
    name: "pad",
    signature: "x -> y",
    maths: "y[before + i] = x[i] along an axis, 0 elsewhere.",
    infer: |op, operands| {
        let [x] = arity(operands)?;
        let &Op::Pad { axis, before, after } = op else { unreachable!("record of another op") };
        check_axis(axis, x)?;
        let mut y = x.clone();
        y.axes[axis].size += before + after;
        Ok(vec![y])
    },
    access: |op, operands, _| match *op {
        Op::Pad { axis, before, .. } => Access { padded: true, ..moves(operands[0], axis, -(before as i64)) },
        _ => unreachable!("record of another op"),
    },
    cases: same,
    vjp: |cx| {
        let &Op::Pad { axis, before, .. } = &cx.node.op else { unreachable!("record of another op") };
        let len = cx.b.ty(cx.node.operands[0]).axes[axis].size;
        vec![cx.cotangents[0].map(|g| cx.b.op(Op::Slice { axis, start: before, len }, &[g]))]
    },
    flops: no_flops,
    eval: |op, x, types, results| {
        let &Op::Pad { axis, before, .. } = op else { unreachable!("record of another op") };
        vec![read_moved(x[0], types[0], &results[0], axis, before as i64)]
    },
};

pub(super) static SHIFT: Record = Record {
    name: "shift",
    signature: "x -> y",
    maths: "y[i] = x[i − by] along an axis, 0 where that is outside.",
    infer: |op, operands| {
        let [x] = arity(operands)?;
        let &Op::Shift { axis, .. } = op else { unreachable!("record of another op") };
        check_axis(axis, x)?;
        Ok(vec![x.clone()])
    },
    access: |op, operands, _| match *op {
        Op::Shift { axis, by } => Access { padded: true, ..moves(operands[0], axis, -by) },
        _ => unreachable!("record of another op"),
    },
    cases: same,
    vjp: |cx| {
        let &Op::Shift { axis, by } = &cx.node.op else { unreachable!("record of another op") };
        vec![cx.cotangents[0].map(|g| cx.b.op(Op::Shift { axis, by: -by }, &[g]))]
    },
    flops: no_flops,
    eval: |op, x, types, results| {
        let &Op::Shift { axis, by } = op else { unreachable!("record of another op") };
        vec![read_moved(x[0], types[0], &results[0], axis, by)]
    },
};

/// Access of an op that reads an element of x `by` further along an axis.
fn moves(x: &Type, axis: usize, by: i64) -> Access {
    let index = |a| if a == axis { Index::shifted(a, by) } else { Index::along(a) };
    Access::of([(0..x.rank()).map(index).collect()])
}

/// result[.., i, ..] = x[.., i − by, ..], zero outside.
fn read_moved(x: &[f64], from: &Type, to: &Type, axis: usize, by: i64) -> Vec<f64> {
    let (size, inner) = (from.axes[axis].size, strides(&from.shape())[axis]);
    let mut out = Vec::with_capacity(to.len());
    // Whatever lies inside the axis moves as one.
    for outer in x.chunks_exact(size * inner) {
        for i in 0..to.axes[axis].size as i64 {
            match usize::try_from(i - by).ok().filter(|&source| source < size) {
                Some(source) => out.extend_from_slice(&outer[source * inner..][..inner]),
                None => out.extend(std::iter::repeat_n(0.0, inner)),
            }
        }
    }
    out
}

fn column_axis(op: &Op, x: &Type) -> Result<usize, RuleError> {
    let Op::Permute(perm) = op else { unreachable!("record of another op") };
    let axis = x.rank().checked_sub(1).ok_or("a scalar has no columns")?;
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if sorted.iter().copied().ne(0..x.axes[axis].size as u32) {
        return Err(format!("not a permutation of the last axis of {x}"));
    }
    Ok(axis)
}

pub(super) static PERMUTE: Record = Record {
    name: "permute_columns",
    signature: "x [.., C] -> y [.., C]",
    maths: "y[.., j] = x[.., perm[j]] for a fixed permutation.",
    infer: |op, operands| {
        let [x] = arity(operands)?;
        column_axis(op, x)?;
        Ok(vec![x.clone()])
    },
    access: |op, operands, _| {
        let Op::Permute(perm) = op else { unreachable!("record of another op") };
        let moved = || perm.iter().enumerate().map(|(j, &p)| i64::from(p) - j as i64);
        let (low, high) = (moved().min().unwrap_or(0), moved().max().unwrap_or(0));
        let last = operands[0].rank().saturating_sub(1);
        let mut access = moves(operands[0], last, 0);
        access.operands[0][last] = Index { axis: Some(last), low, high };
        access
    },
    cases: same,
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None] };
        let Op::Permute(perm) = &cx.node.op else { unreachable!("record of another op") };
        let mut inverse = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(j, &p)| inverse[p as usize] = j as u32);
        vec![Some(cx.b.op(Op::Permute(inverse.into()), &[g]))]
    },
    flops: no_flops,
    eval: |op, x, _, _| {
        let Op::Permute(perm) = op else { unreachable!("record of another op") };
        let rows = x[0].chunks(perm.len());
        vec![rows.flat_map(|row| perm.iter().map(|&p| row[p as usize])).collect()]
    },
};
