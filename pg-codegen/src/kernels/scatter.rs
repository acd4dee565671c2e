//! Sums of rows by id without atomics: positions are sorted by id, stably, then each row of the result
//! sums its stretch in order.
//!
//! The sort finds each position's rank by comparing it with every other: quadratic, but of integers in
//! shared memory, and without any order that could vary.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use half::bf16;
use pg_ir::ty::DType;

use super::error::CubeError;
use super::kernel::{ArgSpec, Body, Generated};
use super::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;

const THREADS: usize = 256;

/// Sorts ids: writes them in order, and the position of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rank {
    count: usize,
    shift: usize,
}

/// Sums stretches of equal ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentSum {
    rows: usize,
    width: usize,
    count: usize,
    vector: usize,
    /// Whether values are stored in bfloat16.
    bf16: bool,
    values_shift: usize,
    out_shift: usize,
}

/// Adds the launches of a sum by id.
pub(crate) fn lower(
    (rows, width, count): (usize, usize, usize),
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let malformed = |what: &str| CubeError::Malformed { kernel: "scatter_add".into(), what: what.into() };
    let [ids, values, result] = infos else { return Err(malformed("it takes three arguments")) };
    let fits = matches!(values.dtype, DType::F32 | DType::BF16);
    if (ids.dtype, result.dtype) != (DType::I32, DType::F32) || !fits {
        return Err(malformed("it takes int32 ids and floats, and sums in float32"));
    }
    if rows.max(count) * width > i32::MAX as usize {
        return Err(malformed("an index is beyond 2^31"));
    }
    let int = |writable| ArgSpec { dtype: DType::I32, width: 1, writable };
    let sorted = out.workspace(4 * count);
    let order = out.workspace(4 * count);
    let workspaces = [StageArg::Workspace(sorted), StageArg::Workspace(order)];
    if count > 0 {
        let (grid, _) = machine.grid("rank", count.div_ceil(THREADS) as u64)?;
        let body = Rank { count, shift: ids.shift };
        let args = vec![int(false), int(true), int(true)];
        let kernel = Generated::new(body, args, (THREADS as u32, 4 * THREADS), machine)?;
        out.push(kernel, vec![StageArg::Arg(0), workspaces[0], workspaces[1]], grid, 0.0);
    }
    let aligned = [width, values.shift, result.shift].iter().all(|n| n.is_multiple_of(4));
    let vector = if aligned { 4 } else { 1 };
    let (values_shift, out_shift) = (values.shift, result.shift);
    let sum =
        SegmentSum { rows, width, count, vector, bf16: values.dtype == DType::BF16, values_shift, out_shift };
    let (grid, _) = machine.grid("segment_sum", (rows * width / vector).div_ceil(THREADS) as u64)?;
    let float = |dtype, writable| ArgSpec { dtype, width: vector, writable };
    let args = vec![int(false), int(false), float(values.dtype, values.aliased), float(DType::F32, true)];
    let kernel = Generated::new(sum, args, (THREADS as u32, 0), machine)?;
    let args = vec![workspaces[0], workspaces[1], StageArg::Arg(1), StageArg::Arg(2)];
    out.push(kernel, args, grid, 1.0);
    Ok(())
}

#[cube]
fn rank(ids: &Array<i32>, sorted: &mut Array<i32>, order: &mut Array<i32>, #[comptime] p: Rank) {
    let count = comptime!(p.count as u32);
    let me = ABSOLUTE_POS as u32;
    let mut tile = SharedMemory::<i32>::new(THREADS);
    let mut id = 0i32;
    if me < count {
        id = ids[(me + comptime!(p.shift as u32)) as usize];
    }
    let mut before = 0u32.runtime();
    for iteration in 0..comptime!(p.count.div_ceil(THREADS) as u32) {
        let first = iteration * comptime!(THREADS as u32);
        let mine = first + UNIT_POS;
        let mut other = 0i32;
        if mine < count {
            other = ids[(mine + comptime!(p.shift as u32)) as usize];
        }
        // Written whole, for it is read whole.
        tile[UNIT_POS as usize] = other;
        sync_cube();
        for i in 0..comptime!(THREADS as u32) {
            let other = tile[i as usize];
            let position = first + i;
            let precedes = other < id || (other == id && position < me);
            if position < count && precedes {
                before += 1u32;
            }
        }
        sync_cube();
    }
    if me < count {
        sorted[before as usize] = id;
        order[before as usize] = me as i32;
    }
}

#[cube]
fn segment_sum<E: Numeric, N: Size>(
    sorted: &Array<i32>,
    order: &Array<i32>,
    values: &Array<Vector<E, N>>,
    out: &mut Array<Vector<f32, N>>,
    #[comptime] p: SegmentSum,
) {
    let chunks = comptime!((p.width / p.vector) as u32);
    let me = ABSOLUTE_POS as u32;
    if me < comptime!((p.rows * p.width / p.vector) as u32) {
        let row = (me / chunks) as i32;
        let chunk = me % chunks;
        let count = comptime!(p.count as u32);
        // The first position whose id is not below this row: halving, each time keeping it in between.
        let mut low = 0u32;
        let mut high = count.runtime();
        for _step in 0..comptime!(usize::BITS - p.count.leading_zeros()) {
            if low < high {
                let middle = (low + high) / 2;
                if sorted[middle as usize] < row {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
        }
        let mut total = Vector::<f32, N>::new(0.0f32);
        let mut at = low;
        let mut more = at < count;
        while more {
            more = false;
            if sorted[at as usize] == row {
                let from = order[at as usize] as u32 * chunks + chunk;
                let source = from + comptime!((p.values_shift / p.vector) as u32);
                total += Vector::cast_from(values[source as usize]);
                at += 1u32;
                more = at < count;
            }
        }
        out[(me + comptime!((p.out_shift / p.vector) as u32)) as usize] = total;
    }
}

define_size!(Width);

impl Body for Rank {
    fn family(&self) -> &'static str {
        "rank"
    }

    fn describe(&self) -> String {
        format!("sorts {} ids, stably: each one's rank is how many come before it", self.count)
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        let [ids, sorted, order] = [0, 1, 2].map(|i| buffers[i].clone());
        rank::expand(scope, ids.into(), sorted.into(), order.into(), *self);
    }
}

impl Body for SegmentSum {
    fn family(&self) -> &'static str {
        "segment_sum"
    }

    fn describe(&self) -> String {
        let SegmentSum { rows, width, count, .. } = self;
        format!(
            "row r of {rows} × {width} = Σ of those of {count} rows whose id is r, in order; ids are sorted"
        )
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        scope.register_size::<Width>(self.vector);
        let [sorted, order, values, out] = [0, 1, 2, 3].map(|i| buffers[i].clone());
        let (sorted, order) = (sorted.into(), order.into());
        if self.bf16 {
            segment_sum::expand::<bf16, Width>(scope, sorted, order, values.into(), out.into(), *self);
        } else {
            segment_sum::expand::<f32, Width>(scope, sorted, order, values.into(), out.into(), *self);
        }
    }
}
