//! Rows of a table by id, and the transpose of that.

use super::{arity, check_float, no_flops, one_per_element, unknown};
use crate::causality::{Access, Index};
use crate::op::{Op, Record};
use crate::ty::{Axis, DType, Type};

pub(super) static GATHER: Record = Record {
    name: "gather",
    signature: "table [R, ..], ids [A..] int32 -> y [A.., ..]",
    maths: "y[a] = table[ids[a]].",
    infer: |_, operands| {
        let [table, ids] = arity(operands)?;
        check_float(table)?;
        if ids.dtype != DType::I32 || table.rank() == 0 {
            return Err(format!("`gather` takes a table and int32 ids, found {table} and {ids}"));
        }
        Ok(vec![Type::new(DType::F32, ids.axes.iter().chain(&table.axes[1..]).copied())])
    },
    access: |_, operands, _| {
        let (table, ids) = (operands[0], operands[1].rank());
        let inside = (0..table.rank() - 1).map(|axis| Index::along(ids + axis));
        let row = [Index::any(table.axes[0].size)].into_iter().chain(inside).collect();
        Access::of([row, (0..ids).map(Index::along).collect()])
    },
    cases: unknown,
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None, None] };
        let (table, ids) = (cx.node.operands[0], cx.node.operands[1]);
        let ty = cx.b.ty(table).clone();
        let sums = cx.b.op(Op::ScatterAdd { rows: ty.axes[0].size }, &[ids, g]);
        vec![Some(cx.b.reshape(sums, ty.axes)), None]
    },
    flops: no_flops,
    eval: |_, x, types, _| {
        let width: usize = types[0].axes[1..].iter().map(|a| a.size).product();
        let row = |id: &f64| &x[0][*id as usize * width..][..width];
        vec![x[1].iter().flat_map(|id| row(id).iter().copied()).collect()]
    },
};

pub(super) static SCATTER_ADD: Record = Record {
    name: "scatter_add",
    signature: "ids [A..] int32, x [A.., ..] -> y [rows, ..]",
    maths: "y[r] = Σ x[a] over the positions a with ids[a] = r, in order of position.",
    infer: |op, operands| {
        let [ids, x] = arity(operands)?;
        let &Op::ScatterAdd { rows } = op else { unreachable!("record of another op") };
        check_float(x)?;
        if ids.dtype != DType::I32 || x.rank() < ids.rank() || x.axes[..ids.rank()] != ids.axes[..] {
            return Err(format!("ids and values must agree in their leading axes: {ids} and {x}"));
        }
        let axes = [Axis::channel(rows)].into_iter().chain(x.axes[ids.rank()..].iter().copied());
        Ok(vec![Type::new(DType::F32, axes)])
    },
    access: |_, operands, _| {
        let (ids, x) = (operands[0], operands[1]);
        let any = || ids.axes.iter().map(|a| Index::any(a.size));
        let inside = (0..x.rank() - ids.rank()).map(|axis| Index::along(1 + axis));
        Access::of([any().collect(), any().chain(inside).collect()])
    },
    cases: unknown,
    vjp: |cx| {
        let ids = cx.node.operands[0];
        let axes = cx.b.ty(cx.node.operands[1]).axes.clone();
        let dx = cx.cotangents[0].map(|g| {
            let rows = cx.b.op(Op::Gather, &[g, ids]);
            cx.b.reshape(rows, axes)
        });
        vec![None, dx]
    },
    flops: one_per_element,
    eval: |_, x, types, results| {
        let width: usize = types[1].axes[types[0].rank()..].iter().map(|a| a.size).product();
        let mut out = vec![0.0; results[0].len()];
        for (id, row) in x[0].iter().zip(x[1].chunks(width)) {
            let start = *id as usize * width;
            out[start..start + width].iter_mut().zip(row).for_each(|(o, v)| *o += v);
        }
        vec![out]
    },
};
