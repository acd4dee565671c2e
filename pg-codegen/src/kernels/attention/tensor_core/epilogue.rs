//! The epilogue of attention: accumulators divided by the softmax's sum, rounded, through shared memory to o; and lse.

use cubecl::prelude::*;
use half::bf16;

use super::MmaAttention;
use super::mainloop::WorkTile;
use super::softmax::across_row;
use crate::kernels::attention::warp::warp_rows;
use crate::kernels::tensor_core::fragments::sums_of;
use crate::kernels::tensor_core::tile::{CHUNK, THREADS, place};

/// Stores a thread block's rows of o and lse. The rows pass through the memory of q, which no warp reads any more, so
/// that they leave in whole vectors of 16 bytes.
#[cube]
#[allow(clippy::too_many_arguments, reason = "what a thread block has at its end")]
pub(super) fn store<N: Size, C: Size>(
    o: &mut Array<Vector<bf16, N>>,
    lse: &mut Array<f32>,
    tile: &mut SharedMemory<Vector<bf16, N>>,
    acc: &Sequence<Array<Vector<f32, C>>>,
    row_max: &Array<f32>,
    row_sum: &Array<f32>,
    work: &WorkTile,
    #[comptime] p: MmaAttention,
) {
    let dim = comptime!(p.shape.dim);
    let time = comptime!(p.shape.time as u32);
    let heads = comptime!(p.shape.heads as u32);
    let warp = warp_rows(comptime!((p.fragments * 16) as u32));
    sync_cube();
    #[unroll]
    for i in 0..comptime!(p.fragments) {
        #[unroll]
        for half in 0..2usize {
            let number = comptime!(2 * i + half);
            let row = warp.first + comptime!((i * 16 + half * 8) as u32) + warp.lane / 4;
            let sum = across_row(row_sum[number], true);
            let at =
                (work.batch * time + work.first + row) * heads + work.head + comptime!(p.shifts[1] as u32);
            // Of the four lanes that share a row, the first.
            let in_row = warp.lane % 4;
            if work.first + row < time && in_row == 0 {
                lse[at as usize] = row_max[number] + f32::ln(sum);
            }
            let scale = 1.0f32 / sum;
            #[unroll]
            for quarter in 0..comptime!(dim / 32) {
                let vector =
                    row_vector::<N, C>(acc, scale, warp.lane, comptime!(i * dim / 8 + quarter * 4), half);
                let column = comptime!((quarter * 4) as u32) + warp.lane % 4;
                tile[place(row, column, comptime!(p.q)) as usize] = vector;
            }
        }
    }
    sync_cube();
    let row_vectors = comptime!((dim / CHUNK) as u32);
    #[unroll]
    for iteration in 0..comptime!(p.q.chunks() / THREADS) {
        let vector = UNIT_POS + comptime!((iteration * THREADS) as u32);
        let row = vector / row_vectors;
        if work.first + row < time {
            let at = ((work.batch * time + work.first + row) * heads + work.head) * row_vectors
                + vector % row_vectors;
            let at = at + comptime!((p.shifts[0] / CHUNK) as u32);
            o[at as usize] = tile[place(row, vector % row_vectors, comptime!(p.q)) as usize];
        }
    }
}

/// Eight neighbouring columns of a row, times its scale, of the four fragments from number `first` on. Lane t of the
/// four that share the row takes the columns of fragment t: it gathers what the others hold of them.
#[cube]
fn row_vector<N: Size, C: Size>(
    acc: &Sequence<Array<Vector<f32, C>>>,
    scale: f32,
    lane: u32,
    #[comptime] first: usize,
    #[comptime] half: usize,
) -> Vector<bf16, N> {
    let mut vector = Vector::<bf16, N>::from_int(0);
    #[unroll]
    for iteration in 0..4u32 {
        let other = (lane % 4) ^ iteration;
        let mut give = Vector::<f32, C>::new(0.0f32);
        #[unroll]
        for j in 0..4usize {
            let x = sums_of::<C>(acc, comptime!(first + j), half);
            if other == comptime!(j as u32) {
                give = x;
            }
        }
        #[unroll]
        for e in 0..2usize {
            let got = bf16::cast_from(plane_shuffle_xor(give[e] * scale, iteration));
            #[unroll]
            for j in 0..4usize {
                if other == comptime!(j as u32) {
                    vector[comptime!(2 * j + e)] = got;
                }
            }
        }
    }
    vector
}
