//! Reductions of a region: across the columns of a row, and of rows into a column. Every combination
//! happens in an order fixed by the mapping.

use cubecl::prelude::*;
use pg_ir::op::Reduction;

use super::mapping::Mapping;
use super::scratch::Scratch;
use super::value::{Value, Width};
use crate::kernels::math;

/// What combining with leaves a value as it is. (No back end can write −∞ as a literal.)
pub(super) fn identity(kind: Reduction) -> f32 {
    match kind {
        Reduction::Sum => 0.0,
        Reduction::Max => f32::MIN,
    }
}

#[cube]
pub(super) fn combine<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    #[comptime] sum: bool,
) -> Vector<f32, N> {
    if comptime!(sum) { a + b } else { math::larger::<N>(a, b) }
}

/// All columns of a vector as one element, from the first to the last.
#[cube]
fn across<N: Size>(x: Vector<f32, N>, #[comptime] width: usize, #[comptime] sum: bool) -> f32 {
    let mut total = x[0];
    #[unroll]
    for i in 1..width {
        total = combine_one(total, x[i], sum);
    }
    total
}

#[cube]
fn combine_one(a: f32, b: f32, #[comptime] sum: bool) -> f32 {
    if comptime!(sum) { a + b } else { select(a > b || f32::is_nan(a), a, b) }
}

/// Combines the elements of the threads that share a row, halving their number at each step.
#[cube]
fn row_total(
    scratch: &mut SharedMemory<Vector<f32, Const<1>>>,
    x: f32,
    #[comptime] row_threads: u32,
    #[comptime] sum: bool,
) -> f32 {
    let me = UNIT_POS as usize;
    let thread = UNIT_POS % row_threads;
    scratch[me] = Vector::new(x);
    let steps = comptime!(row_threads.trailing_zeros());
    #[unroll]
    for step in 0..steps {
        let half = comptime!(row_threads >> (step + 1));
        sync_cube();
        if thread < half {
            scratch[me] = combine::<Const<1>>(scratch[me], scratch[me + half as usize], sum);
        }
    }
    sync_cube();
    let total = scratch[me - thread as usize];
    // Nobody may write before everybody has read.
    sync_cube();
    f32::cast_from(total)
}

/// Combines the elements of `row_threads` neighbours within a warp: of pairs, of pairs of pairs, and so on.
#[cube]
fn warp_total(x: f32, #[comptime] row_threads: u32, #[comptime] sum: bool) -> f32 {
    let mut total = x;
    let steps = comptime!(row_threads.trailing_zeros());
    #[unroll]
    for step in 0..steps {
        let other = plane_shuffle_xor(total, comptime!(1u32 << step));
        total = combine_one(total, other, sum);
    }
    total
}

/// Combines the elements of the threads that share a row: within warps, then warp by warp.
#[cube]
fn warps_total(
    scratch: &mut SharedMemory<Vector<f32, Const<1>>>,
    x: f32,
    #[comptime] row_threads: u32,
    #[comptime] warp: u32,
    #[comptime] sum: bool,
) -> f32 {
    let within = warp_total(x, warp, sum);
    let lane = UNIT_POS % warp;
    if lane == 0 {
        scratch[(UNIT_POS / warp) as usize] = Vector::new(within);
    }
    sync_cube();
    let first = UNIT_POS / row_threads * comptime!(row_threads / warp);
    let mut total = f32::cast_from(scratch[first as usize]);
    #[unroll]
    for i in 1..comptime!(row_threads / warp) {
        total = combine_one(total, f32::cast_from(scratch[(first + i) as usize]), sum);
    }
    // Nobody may write before everybody has read.
    sync_cube();
    total
}

/// Combines the accumulators of a thread block's rows into that of the first, in order of rows.
#[cube]
fn block_rows_total<N: Size>(
    scratch: &mut SharedMemory<Vector<f32, N>>,
    x: Vector<f32, N>,
    #[comptime] row_threads: u32,
    #[comptime] block_rows: u32,
    #[comptime] sum: bool,
) -> Vector<f32, N> {
    let me = UNIT_POS as usize;
    scratch[me] = x;
    sync_cube();
    let mut total = x;
    if UNIT_POS < row_threads {
        for block_row in 1..block_rows {
            total = combine::<N>(total, scratch[me + (block_row * row_threads) as usize], sum);
        }
    }
    sync_cube();
    total
}

/// A thread's part of a row reduction to the row's result.
pub(super) fn reduce_row(
    scope: &mut Scope,
    scratch: &mut Scratch,
    kind: Reduction,
    part: &Value,
    s: &Mapping,
) -> NativeExpand<f32> {
    let (row_threads, warp) = (s.row_threads, s.warp);
    let sum = kind == Reduction::Sum;
    let width = part.var.ty.vector_size();
    let one = match width {
        1 => part.var.clone().into(),
        _ => across::expand::<Width>(scope, part.var.clone().into(), width, sum),
    };
    if row_threads == 1 {
        return one;
    }
    if row_threads <= warp {
        return warp_total::expand(scope, one, row_threads as u32, sum);
    }
    if warp > 1 {
        let shared = scratch.warps(scope, s.block_threads / warp);
        return warps_total::expand(scope, shared, one, row_threads as u32, warp as u32, sum);
    }
    let shared = scratch.single(scope, row_threads * s.block_rows);
    row_total::expand(scope, shared, one, row_threads as u32, sum)
}

/// The accumulators of a thread block's rows to that of the first row.
pub(super) fn reduce_block_rows(
    scope: &mut Scope,
    scratch: &mut Scratch,
    kind: Reduction,
    part: &Value,
    (row_threads, block_rows): (usize, usize),
) -> Value {
    if block_rows == 1 {
        return part.clone();
    }
    let (sum, u, s) = (kind == Reduction::Sum, row_threads as u32, block_rows as u32);
    let x = part.var.clone();
    let var = if part.var.ty.vector_size() > 1 {
        let shared = scratch.wide(scope, row_threads * block_rows);
        block_rows_total::expand::<Width>(scope, shared, x.into(), u, s, sum).into()
    } else {
        let shared = scratch.single(scope, row_threads * block_rows);
        block_rows_total::expand::<Const<1>>(scope, shared, x.into(), u, s, sum).into()
    };
    Value { var, ..part.clone() }
}
