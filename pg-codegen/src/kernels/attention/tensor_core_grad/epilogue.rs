//! The epilogue of attention's gradient: accumulators leave from registers, four neighbouring columns at a time.

use cubecl::prelude::*;

use super::MmaAttentionGrad;
use super::mainloop::WorkTile;
use crate::kernels::attention::warp::WarpRows;
use crate::kernels::tensor_core::fragments::{four, sums_of};

/// Stores this warp's rows of dq, or of dk and dv.
#[cube]
pub(super) fn store<C: Size, O: Numeric, V: Size>(
    grad_s: &mut Array<Vector<O, V>>,
    grad_dp: &mut Array<Vector<O, V>>,
    acc_s: &Sequence<Array<Vector<f32, C>>>,
    acc_dp: &Sequence<Array<Vector<f32, C>>>,
    own: &WorkTile,
    warp: &WarpRows,
    #[comptime] p: MmaAttentionGrad,
) {
    let time = comptime!(p.shape.time as u32);
    let at = (own.batch * time + own.first + warp.first) * comptime!(p.own_heads() as u32) + own.head;
    store_rows::<C, O, V>(grad_s, acc_s, at, own.first + warp.first, comptime!(p.shifts[2]), p);
    if comptime!(p.keys) {
        store_rows::<C, O, V>(grad_dp, acc_dp, at, own.first + warp.first, comptime!(p.shifts[3]), p);
    }
}

/// Stores 16 rows, of which the first is row `at` of [batch, time, head] and position `first`.
#[cube]
fn store_rows<C: Size, O: Numeric, V: Size>(
    into: &mut Array<Vector<O, V>>,
    acc: &Sequence<Array<Vector<f32, C>>>,
    at: u32,
    first: u32,
    #[comptime] shift: usize,
    #[comptime] p: MmaAttentionGrad,
) {
    let lane = UNIT_POS % 32;
    let heads = comptime!(p.own_heads() as u32);
    #[unroll]
    for half in 0..2usize {
        let row = comptime!((half * 8) as u32) + lane / 4;
        #[unroll]
        for pair in 0..comptime!(p.shape.dim / 16) {
            let left = sums_of::<C>(acc, comptime!(2 * pair), half);
            let right = sums_of::<C>(acc, comptime!(2 * pair + 1), half);
            let value = four::<V, C>(left, right);
            if first + row < comptime!(p.shape.time as u32) {
                let column = comptime!((pair * 16) as u32) + lane % 2 * 8 + lane % 4 / 2 * 4;
                let to =
                    (at + row * heads) * comptime!(p.shape.dim as u32) + column + comptime!(shift as u32);
                into[(to / 4) as usize] = Vector::cast_from(value);
            }
        }
    }
}
