//! The mainloop of attention's gradient: load, scores, gradient of the softmax, accumulate, a streamed tile at a time.
//! The map is in [`super`].

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;
use half::bf16;

use super::epilogue::store;
use super::{BLOCK, MmaAttentionGrad, STAGES};
use crate::kernels::attention::warp::{WarpRows, warp_rows};
use crate::kernels::kernel::has_work;
use crate::kernels::tensor_core::fragments::{left_of, multiply, set, sums_of, zeros};
use crate::kernels::tensor_core::tile::{Operand, fragment_a, load};

/// The tile of own rows of a thread block.
#[derive(CubeType, Clone)]
pub(super) struct WorkTile {
    pub(super) batch: u32,
    pub(super) head: u32,
    /// Its number in the sequence.
    tile: u32,
    /// Its first row.
    pub(super) first: u32,
}

#[cube]
fn work_tile(block_index: u32, #[comptime] p: MmaAttentionGrad) -> WorkTile {
    let own_heads = comptime!(p.own_heads() as u32);
    // What meets the most tiles goes first: the last queries, the first keys.
    let place = block_index % comptime!(p.blocks as u32);
    let tile = if comptime!(p.keys) { place } else { comptime!((p.blocks - 1) as u32) - place };
    let head = (block_index / comptime!(p.blocks as u32)) % own_heads;
    let batch = block_index / comptime!(p.blocks as u32) / own_heads;
    let first = tile * comptime!(BLOCK as u32);
    WorkTile { batch, head, tile, first }
}

/// The first row of the tile that an iteration streams: of keys from the sequence's first on, of queries from own keys
/// on, once for each head of the group. `later` counts the tiles from the own one on.
#[cube]
fn first_streamed(own: &WorkTile, iteration: u32, later: u32, #[comptime] p: MmaAttentionGrad) -> u32 {
    let tile = if comptime!(p.keys) { own.tile + iteration % later } else { iteration };
    tile * comptime!(BLOCK as u32)
}

/// Starts the copies of own rows.
#[cube]
fn load_own<N: Size>(
    own_s: &Array<Vector<bf16, N>>,
    own_dp: &Array<Vector<bf16, N>>,
    tile_s: &mut SharedMemory<Vector<bf16, N>>,
    tile_dp: &mut SharedMemory<Vector<bf16, N>>,
    own: &WorkTile,
    #[comptime] p: MmaAttentionGrad,
) {
    let x_s = comptime!(p.own()[0]);
    let x_dp = comptime!(p.own()[1]);
    let dim = comptime!(p.shape.dim as u32);
    let base = own.batch * comptime!(x_s.batch as u32) + own.head * dim;
    load::<N>(own_s, tile_s, base + comptime!(x_s.offset as u32), own.first, 0u32, dim, 0u32, x_s);
    load::<N>(own_dp, tile_dp, base + comptime!(x_dp.offset as u32), own.first, 0u32, dim, 0u32, x_dp);
}

/// Starts the copies of an iteration's streamed tiles into its stage.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a tile's place in both memories")]
fn load_stage<N: Size>(
    streamed_s: &Array<Vector<bf16, N>>,
    streamed_dp: &Array<Vector<bf16, N>>,
    tile_s: &mut SharedMemory<Vector<bf16, N>>,
    tile_dp: &mut SharedMemory<Vector<bf16, N>>,
    own: &WorkTile,
    iteration: u32,
    later: u32,
    #[comptime] p: MmaAttentionGrad,
) {
    let x_s = comptime!(p.streamed()[0]);
    let x_dp = comptime!(p.streamed()[1]);
    let group = comptime!(p.group() as u32);
    let dim = comptime!(p.shape.dim as u32);
    let head = if comptime!(p.keys) { own.head * group + iteration / later } else { own.head / group };
    let first = first_streamed(own, iteration, later, p);
    let into = iteration % 2 * comptime!(x_s.chunks() as u32);
    let base = own.batch * comptime!(x_s.batch as u32) + head * dim;
    load::<N>(streamed_s, tile_s, base + comptime!(x_s.offset as u32), first, 0u32, dim, into, x_s);
    load::<N>(streamed_dp, tile_dp, base + comptime!(x_dp.offset as u32), first, 0u32, dim, into, x_dp);
}

/// lse of this lane's two own queries, then delta of both.
#[cube]
fn load_own_stats(
    lse: &Array<f32>,
    delta: &Array<f32>,
    own: &WorkTile,
    warp: &WarpRows,
    #[comptime] p: MmaAttentionGrad,
) -> Array<f32> {
    let time = comptime!(p.shape.time as u32);
    let heads = comptime!(p.shape.heads as u32);
    let mut stats = Array::<f32>::new(4usize);
    if comptime!(!p.keys) {
        #[unroll]
        for half in 0..2usize {
            let row = own.first + warp.first + comptime!((half * 8) as u32) + warp.lane / 4;
            stats[half] = 0.0f32;
            stats[comptime!(2 + half)] = 0.0f32;
            if row < time {
                let at = (own.batch * time + row) * heads + own.head;
                stats[half] = lse[(at + comptime!(p.shifts[0] as u32)) as usize];
                stats[comptime!(2 + half)] = delta[at as usize];
            }
        }
    }
    stats
}

/// What this thread loads of the queries that an iteration streams: lse in the first half of the thread block, delta
/// in the second.
#[cube]
fn load_stat(
    lse: &Array<f32>,
    delta: &Array<f32>,
    own: &WorkTile,
    iteration: u32,
    later: u32,
    #[comptime] p: MmaAttentionGrad,
) -> f32 {
    let group = comptime!(p.group() as u32);
    let time = comptime!(p.shape.time as u32);
    let heads = comptime!(p.shape.heads as u32);
    let query = first_streamed(own, iteration, later, p) + UNIT_POS % comptime!(BLOCK as u32);
    let at = (own.batch * time + query) * heads + own.head * group + iteration / later;
    let mut stat = 0.0f32;
    if query < time {
        if UNIT_POS < comptime!(BLOCK as u32) {
            stat = lse[(at + comptime!(p.shifts[0] as u32)) as usize];
        } else {
            stat = delta[at as usize];
        }
    }
    stat
}

/// The products of this warp's own rows with the streamed tile that begins at vector `start`: S, or dP.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a product's parts")]
fn scores<N: Size, R: Size, C: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    tile_own: &SharedMemory<Vector<bf16, N>>,
    tile_streamed: &SharedMemory<Vector<bf16, N>>,
    start: u32,
    warp: &WarpRows,
    acc: &mut Sequence<Array<Vector<f32, C>>>,
    #[comptime] x: Operand,
) {
    #[unroll]
    for step in 0..comptime!(x.deep / 16) {
        let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
        left.push(fragment_a::<N, R>(def, tile_own, warp.first, 0u32, step, x));
        multiply::<N, R, C>(def, &left, tile_streamed, start, acc, step, 1usize, BLOCK, x);
    }
}

/// The gradient of the softmax: replaces scores by probabilities, and dP by dS. lse and delta of streamed
/// queries are in a stage of `stats`.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a softmax's state, and where its rows and columns begin")]
fn softmax_grad<C: Size>(
    s: &mut Sequence<Array<Vector<f32, C>>>,
    dp: &mut Sequence<Array<Vector<f32, C>>>,
    own_stats: &Array<f32>,
    stats: &SharedMemory<f32>,
    stage: u32,
    own: &WorkTile,
    first_streamed: u32,
    warp: &WarpRows,
    #[comptime] p: MmaAttentionGrad,
) {
    let time = comptime!(p.shape.time as u32);
    #[unroll]
    for half in 0..2usize {
        let row = own.first + warp.first + comptime!((half * 8) as u32) + warp.lane / 4;
        #[unroll]
        for j in 0..comptime!(BLOCK / 8) {
            let score = sums_of::<C>(s, j, half);
            let product = sums_of::<C>(dp, j, half);
            let mut prob = Vector::<f32, C>::new(0.0f32);
            let mut grad = Vector::<f32, C>::new(0.0f32);
            #[unroll]
            for e in 0..2usize {
                let column = comptime!((j * 8 + e) as u32) + warp.lane % 4 * 2;
                let other = first_streamed + column;
                let mut row_lse = own_stats[half];
                let mut row_delta = own_stats[comptime!(2 + half)];
                let mut visible = other <= row;
                if comptime!(p.keys) {
                    let at = stage * comptime!((2 * BLOCK) as u32) + column;
                    row_lse = stats[at as usize];
                    row_delta = stats[(at + comptime!(BLOCK as u32)) as usize];
                    visible = row <= other && other < time;
                }
                let raw = f32::exp(score[e] * comptime!(p.shape.scale) - row_lse);
                let value = select(visible, raw, 0.0f32);
                prob[e] = value;
                grad[e] = value * (product[e] - row_delta) * comptime!(p.shape.scale);
            }
            set::<C>(s, j, half, prob);
            set::<C>(dp, j, half, grad);
        }
    }
}

/// Adds dS · streamed_s, and where keys are own rows P · streamed_dp: accumulators become left operands without
/// leaving registers.
#[cube]
#[allow(clippy::too_many_arguments, reason = "two products' parts")]
fn accumulate<N: Size, R: Size, C: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    probs: &Sequence<Array<Vector<f32, C>>>,
    ds: &Sequence<Array<Vector<f32, C>>>,
    tile_s: &SharedMemory<Vector<bf16, N>>,
    tile_dp: &SharedMemory<Vector<bf16, N>>,
    start: u32,
    acc_s: &mut Sequence<Array<Vector<f32, C>>>,
    acc_dp: &mut Sequence<Array<Vector<f32, C>>>,
    #[comptime] p: MmaAttentionGrad,
) {
    let dim = comptime!(p.shape.dim);
    let columns = comptime!(across(p.streamed()[0]));
    #[unroll]
    for step in 0..comptime!(BLOCK / 16) {
        let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
        left.push(left_of::<R, C>(ds, comptime!(2 * step)));
        multiply::<N, R, C>(def, &left, tile_s, start, acc_s, step, 1usize, dim, columns);
        if comptime!(p.keys) {
            let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
            left.push(left_of::<R, C>(probs, comptime!(2 * step)));
            multiply::<N, R, C>(def, &left, tile_dp, start, acc_dp, step, 1usize, dim, columns);
        }
    }
}

/// The same rows, summed over: columns become the free axis.
fn across(x: Operand) -> Operand {
    Operand { tile: x.deep, deep: x.tile, along_depth: false, ..x }
}

#[cube]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn gradient<N: Size, R: Size, C: Size, O: Numeric, V: Size>(
    own_s: &Array<Vector<bf16, N>>,
    own_dp: &Array<Vector<bf16, N>>,
    streamed_s: &Array<Vector<bf16, N>>,
    streamed_dp: &Array<Vector<bf16, N>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    grad_s: &mut Array<Vector<O, V>>,
    grad_dp: &mut Array<Vector<O, V>>,
    block_index: u32,
    #[comptime] p: MmaAttentionGrad,
) {
    let def = MmaDefinition::<bf16, bf16, f32>::new(16usize, 8usize, 16usize);
    let streamed = comptime!(p.streamed());
    let dim = comptime!(p.shape.dim);
    let vectors = comptime!(p.rows[0].chunks());
    let mut tile_own_s = SharedMemory::<Vector<bf16, N>>::new_aligned(vectors, 128usize);
    let mut tile_own_dp = SharedMemory::<Vector<bf16, N>>::new_aligned(vectors, 128usize);
    let mut tile_s = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(STAGES * vectors), 128usize);
    let mut tile_dp = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(STAGES * vectors), 128usize);
    let mut stats = SharedMemory::<f32>::new(comptime!(STAGES * 2 * BLOCK));
    let full = Barrier::shared(CUBE_DIM, UNIT_POS == 0);
    let own = work_tile(block_index, p);
    load_own::<N>(own_s, own_dp, &mut tile_own_s, &mut tile_own_dp, &own, p);
    let warp = warp_rows(16u32);
    // Queries see the keys up to their own tile; keys are seen from theirs on, by every head of the group.
    let later = comptime!(p.blocks as u32) - own.tile;
    let count = if comptime!(p.keys) { comptime!(p.group() as u32) * later } else { own.tile + 1 };
    let mut acc_s = zeros::<C>(comptime!(dim / 8));
    let mut acc_dp = zeros::<C>(comptime!(if p.keys { dim / 8 } else { 0 }));
    let own_stats = load_own_stats(lse, delta, &own, &warp, p);
    load_stage::<N>(streamed_s, streamed_dp, &mut tile_s, &mut tile_dp, &own, 0u32, later, p);
    if comptime!(p.keys) {
        let stat = load_stat(lse, delta, &own, 0u32, later, p);
        stats[UNIT_POS as usize] = stat;
    }
    full.commit_copy_async();
    full.arrive();
    for iteration in 0..count {
        full.wait_parity(iteration % 2);
        // Every warp is done with the stage that is overwritten next.
        sync_cube();
        let mut next_stat = 0.0f32;
        if iteration + 1 < count {
            let next = iteration + 1;
            load_stage::<N>(streamed_s, streamed_dp, &mut tile_s, &mut tile_dp, &own, next, later, p);
            if comptime!(p.keys) {
                next_stat = load_stat(lse, delta, &own, iteration + 1, later, p);
            }
            full.commit_copy_async();
            full.arrive();
        }
        let stage = iteration % 2;
        let start = stage * comptime!(vectors as u32);
        let first_streamed = first_streamed(&own, iteration, later, p);
        let mut s = zeros::<C>(comptime!(BLOCK / 8));
        let mut dp = zeros::<C>(comptime!(BLOCK / 8));
        scores::<N, R, C>(&def, &tile_own_s, &tile_s, start, &warp, &mut s, comptime!(streamed[0]));
        scores::<N, R, C>(&def, &tile_own_dp, &tile_dp, start, &warp, &mut dp, comptime!(streamed[1]));
        softmax_grad::<C>(&mut s, &mut dp, &own_stats, &stats, stage, &own, first_streamed, &warp, p);
        accumulate::<N, R, C>(&def, &s, &dp, &tile_s, &tile_dp, start, &mut acc_s, &mut acc_dp, p);
        if comptime!(p.keys) {
            stats[((iteration + 1) % 2 * comptime!((2 * BLOCK) as u32) + UNIT_POS) as usize] = next_stat;
        }
    }
    store::<C, O, V>(grad_s, grad_dp, &acc_s, &acc_dp, &own, &warp, p);
}

#[cube]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
pub(super) fn kernel<O: Numeric>(
    own_s: &Array<Vector<bf16, Const<8>>>,
    own_dp: &Array<Vector<bf16, Const<8>>>,
    streamed_s: &Array<Vector<bf16, Const<8>>>,
    streamed_dp: &Array<Vector<bf16, Const<8>>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    grad_s: &mut Array<Vector<O, Const<4>>>,
    grad_dp: &mut Array<Vector<O, Const<4>>>,
    #[comptime] p: MmaAttentionGrad,
) {
    let block_index = CUBE_POS as u32;
    if has_work(block_index, comptime!(p.thread_blocks), comptime!(p.exact)) {
        gradient::<Const<8>, Const<2>, Const<2>, O, Const<4>>(
            own_s,
            own_dp,
            streamed_s,
            streamed_dp,
            lse,
            delta,
            grad_s,
            grad_dp,
            block_index,
            p,
        );
    }
}
