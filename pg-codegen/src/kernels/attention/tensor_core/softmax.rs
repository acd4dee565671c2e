//! The online softmax on accumulators: a running maximum and sum of each row, and what was summed before rescaled to
//! every new maximum.

use cubecl::prelude::*;

use super::MmaAttention;
use super::mainloop::WorkTile;
use crate::kernels::attention::LOWEST;
use crate::kernels::attention::warp::WarpRows;
use crate::kernels::tensor_core::fragments::{set, sums_of};

/// The maximum or the sum over the four lanes that share a row.
#[cube]
pub(super) fn across_row(x: f32, #[comptime] sum: bool) -> f32 {
    let mut y = x;
    #[unroll]
    for step in 0..2u32 {
        let other = plane_shuffle_xor(y, comptime!(1u32 << step));
        y = if comptime!(sum) { y + other } else { f32::max(y, other) };
    }
    y
}

/// Replaces scores by probabilities relative to each row's maximum so far, and rescales the accumulators and the sum
/// to it. `first_key` is the tile's first key.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a softmax's state, and where its rows and columns begin")]
pub(super) fn online_softmax<C: Size>(
    scores: &mut Sequence<Array<Vector<f32, C>>>,
    acc: &mut Sequence<Array<Vector<f32, C>>>,
    row_max: &mut Array<f32>,
    row_sum: &mut Array<f32>,
    work: &WorkTile,
    first_key: u32,
    warp: &WarpRows,
    #[comptime] p: MmaAttention,
) {
    #[unroll]
    for i in 0..comptime!(p.fragments) {
        #[unroll]
        for half in 0..2usize {
            let number = comptime!(2 * i + half);
            let row = work.first + warp.first + comptime!((i * 16 + half * 8) as u32) + warp.lane / 4;
            // Keys of the tile that the row sees, from this lane's first on.
            let visible = row as i32 - (first_key + warp.lane % 4 * 2) as i32;
            let lane_max = mask::<C>(scores, row_max, visible, i, half, p);
            let new_max = across_row(lane_max, false);
            let rescale = f32::exp(row_max[number] - new_max);
            row_max[number] = new_max;
            let sum = exponentials::<C>(scores, new_max, i, half, p);
            // Each lane keeps the sum of its own columns; the epilogue adds the four.
            row_sum[number] = row_sum[number] * rescale + sum;
            #[unroll]
            for j in 0..comptime!(p.shape.dim / 8) {
                let at = comptime!(i * p.shape.dim / 8 + j);
                let scaled = sums_of::<C>(acc, at, half) * Vector::new(rescale);
                set::<C>(acc, at, half, scaled);
            }
        }
    }
}

/// Scales a row's scores and masks those of later keys. Returns this lane's maximum, of earlier tiles, too.
#[cube]
fn mask<C: Size>(
    scores: &mut Sequence<Array<Vector<f32, C>>>,
    row_max: &Array<f32>,
    visible: i32,
    #[comptime] i: usize,
    #[comptime] half: usize,
    #[comptime] p: MmaAttention,
) -> f32 {
    let mut lane_max = row_max[comptime!(2 * i + half)];
    #[unroll]
    for j in 0..comptime!(p.k.tile / 8) {
        let at = comptime!(i * p.k.tile / 8 + j);
        let score = sums_of::<C>(scores, at, half) * Vector::new(comptime!(p.shape.scale));
        let mut masked = Vector::<f32, C>::new(LOWEST);
        #[unroll]
        for e in 0..2usize {
            // Keys beyond the sequence's end come after every query that is kept.
            masked[e] = select(comptime!((j * 8 + e) as i32) <= visible, score[e], LOWEST);
            lane_max = f32::max(lane_max, masked[e]);
        }
        set::<C>(scores, at, half, masked);
    }
    lane_max
}

/// Replaces a row's scores by exp(score − maximum). Returns the sum of this lane's.
#[cube]
fn exponentials<C: Size>(
    scores: &mut Sequence<Array<Vector<f32, C>>>,
    new_max: f32,
    #[comptime] i: usize,
    #[comptime] half: usize,
    #[comptime] p: MmaAttention,
) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for j in 0..comptime!(p.k.tile / 8) {
        let at = comptime!(i * p.k.tile / 8 + j);
        let prob = Vector::exp(sums_of::<C>(scores, at, half) - Vector::new(new_max));
        sum += prob[0] + prob[1];
        set::<C>(scores, at, half, prob);
    }
    sum
}
