//! Sums of stretches of equal ids among sorted ones, in two launches: every piece of so many positions sums the stretches
//! in it, and an id whose stretch is in several pieces adds these in order.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use half::bf16;
use pg_ir::ty::DType;

use super::{Sizes, Sorted, THREADS};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;

/// Positions of a piece: as many rows as a thread adds one after the other.
const PIECE: usize = 64;

/// Sums the stretches in each piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SegmentSum {
    sizes: Sizes,
    vector: usize,
    /// Whether values are stored in bfloat16.
    bf16: bool,
    values_shift: usize,
    out_shift: usize,
}

/// Adds the pieces of the rows that have several, and clears those that have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SegmentFixup {
    sizes: Sizes,
    vector: usize,
    out_shift: usize,
}

/// Adds the launches of the sums.
pub(super) fn lower(
    sizes: Sizes,
    sorted: Sorted,
    (values, result): (&ArgInfo, &ArgInfo),
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let Sizes { rows, width, count } = sizes;
    let aligned = [width, values.shift, result.shift].iter().all(|n| n.is_multiple_of(4));
    let vector = if aligned { 4 } else { 1 };
    let pieces = count.div_ceil(PIECE);
    // Of each piece two: the stretch that begins before it or with it, and the one that goes on after it.
    let partial = StageArg::Workspace(out.workspace(4 * (2 * pieces * width).max(vector)));
    let int = ArgSpec { dtype: DType::I32, width: 1, writable: false };
    let float = |dtype, writable| ArgSpec { dtype, width: vector, writable };
    let blocks = |vectors: usize| (vectors.div_ceil(THREADS)) as u64;
    let (values_shift, out_shift) = (values.shift, result.shift);
    if count > 0 {
        let body = SegmentSum { sizes, vector, bf16: values.dtype == DType::BF16, values_shift, out_shift };
        let (grid, _) = machine.grid(body.family(), blocks(pieces * width / vector))?;
        let written = float(DType::F32, true);
        let args = vec![int, int, int, float(values.dtype, values.aliased), written, written];
        let kernel = Generated::new(body, args, (THREADS as u32, 0), machine)?;
        let buffers = [sorted.ids, sorted.order, sorted.starts, StageArg::Arg(1), partial, StageArg::Arg(2)];
        out.push(kernel, buffers.to_vec(), grid, 1.0);
    }
    let body = SegmentFixup { sizes, vector, out_shift };
    let (grid, _) = machine.grid(body.family(), blocks(rows * width / vector))?;
    let kernel = Generated::new(
        body,
        vec![int, float(DType::F32, false), float(DType::F32, true)],
        (THREADS as u32, 0),
        machine,
    )?;
    out.push(kernel, vec![sorted.starts, partial, StageArg::Arg(2)], grid, 0.0);
    Ok(())
}

#[cube]
fn segment_sum<E: Numeric, N: Size>(
    sorted: &Array<i32>,
    order: &Array<i32>,
    starts: &Array<i32>,
    values: &Array<Vector<E, N>>,
    partial: &mut Array<Vector<f32, N>>,
    out: &mut Array<Vector<f32, N>>,
    #[comptime] p: SegmentSum,
) {
    let chunks = comptime!((p.sizes.width / p.vector) as u32);
    let me = ABSOLUTE_POS as u32;
    let piece = me / chunks;
    let chunk = me % chunks;
    let valid = starts[comptime!(p.sizes.rows)] as u32;
    let first = piece * comptime!(PIECE as u32);
    if piece < comptime!(p.sizes.count.div_ceil(PIECE) as u32) && first < valid {
        let mut end = first + comptime!(PIECE as u32);
        if end > valid {
            end = valid;
        }
        let to = chunk + comptime!((p.out_shift / p.vector) as u32);
        let mut row = sorted[first as usize];
        // Whether the stretch begins in this piece, and whether it is the piece's first.
        let mut is_begun = true;
        if first > 0 {
            is_begun = sorted[(first - 1) as usize] != row;
        }
        let mut is_first = true;
        let mut total = Vector::<f32, N>::new(0.0f32);
        for at in first..end {
            let next = sorted[at as usize];
            if next != row {
                if is_begun {
                    out[(row as u32 * chunks + to) as usize] = total;
                } else {
                    partial[(2 * piece * chunks + chunk) as usize] = total;
                }
                row = next;
                is_begun = true;
                is_first = false;
                total = Vector::<f32, N>::new(0.0f32);
            }
            let from = order[at as usize] as u32 * chunks + chunk;
            total +=
                Vector::cast_from(values[(from + comptime!((p.values_shift / p.vector) as u32)) as usize]);
        }
        let mut is_ended = true;
        if end < valid {
            is_ended = sorted[end as usize] != row;
        }
        if is_begun && is_ended {
            out[(row as u32 * chunks + to) as usize] = total;
        } else {
            let which = select(is_first, 0u32, 1u32);
            partial[((2 * piece + which) * chunks + chunk) as usize] = total;
        }
    }
}

#[cube]
fn segment_fixup<N: Size>(
    starts: &Array<i32>,
    partial: &Array<Vector<f32, N>>,
    out: &mut Array<Vector<f32, N>>,
    #[comptime] p: SegmentFixup,
) {
    let chunks = comptime!((p.sizes.width / p.vector) as u32);
    let me = ABSOLUTE_POS as u32;
    if me < comptime!((p.sizes.rows * p.sizes.width / p.vector) as u32) {
        let row = me / chunks;
        let chunk = me % chunks;
        let to = me + comptime!((p.out_shift / p.vector) as u32);
        let start = starts[row as usize] as u32;
        let end = starts[(row + 1) as usize] as u32;
        if start == end {
            out[to as usize] = Vector::<f32, N>::new(0.0f32);
        } else {
            let first = start / comptime!(PIECE as u32);
            let last = (end - 1) / comptime!(PIECE as u32);
            if first < last {
                let which = select(start == first * comptime!(PIECE as u32), 0u32, 1u32);
                let mut total = partial[((2 * first + which) * chunks + chunk) as usize];
                for piece in first + 1..last + 1 {
                    total += partial[(2 * piece * chunks + chunk) as usize];
                }
                out[to as usize] = total;
            }
        }
    }
}

define_size!(Width);

impl Body for SegmentSum {
    fn family(&self) -> &'static str {
        "segment_sum"
    }

    fn describe(&self) -> String {
        let Sizes { rows, width, count } = self.sizes;
        format!(
            "row r of {rows} × {width} = Σ of those of {count} rows whose id is r, in order; ids are sorted, in pieces of \
             {PIECE}: what is whole in a piece is written, the ends of a piece are kept"
        )
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        scope.register_size::<Width>(self.vector);
        if self.bf16 {
            self.expand::<bf16>(scope, buffers);
        } else {
            self.expand::<f32>(scope, buffers);
        }
    }
}

impl SegmentSum {
    /// Emits it for values of a type.
    fn expand<E: Numeric>(self, scope: &mut Scope, buffers: &[ManagedVariable]) {
        let [sorted, order, starts, values, partial, out] = [0, 1, 2, 3, 4, 5].map(|i| buffers[i].clone());
        segment_sum::expand::<E, Width>(
            scope,
            sorted.into(),
            order.into(),
            starts.into(),
            values.into(),
            partial.into(),
            out.into(),
            self,
        );
    }
}

impl Body for SegmentFixup {
    fn family(&self) -> &'static str {
        "segment_fixup"
    }

    fn describe(&self) -> String {
        let Sizes { rows, width, .. } = self.sizes;
        format!(
            "rows of {rows} × {width} whose ids are in several pieces of {PIECE} = Σ of these; rows without any = 0"
        )
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        scope.register_size::<Width>(self.vector);
        let [starts, partial, out] = [0, 1, 2].map(|i| buffers[i].clone());
        segment_fixup::expand::<Width>(scope, starts.into(), partial.into(), out.into(), *self);
    }
}
