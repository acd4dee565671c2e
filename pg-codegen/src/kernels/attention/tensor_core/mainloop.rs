//! The mainloop of attention: load, scores, online softmax, accumulate, a tile of keys at a time. The map is in
//! [`super`].

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;
use half::bf16;

use super::epilogue::store;
use super::softmax::online_softmax;
use super::{MmaAttention, QUERIES, STAGES};
use crate::kernels::attention::LOWEST;
use crate::kernels::attention::warp::{WarpRows, warp_rows};
use crate::kernels::kernel::has_work;
use crate::kernels::tensor_core::fragments::{left_of, multiply, zeros};
use crate::kernels::tensor_core::tile::{fragment_a, load};

/// The tile of queries of a thread block.
#[derive(CubeType, Clone)]
pub(super) struct WorkTile {
    pub(super) batch: u32,
    pub(super) head: u32,
    /// Its first query.
    pub(super) first: u32,
    /// Elements before the head in q, k and v.
    base_q: u32,
    base_k: u32,
    base_v: u32,
}

#[cube]
fn work_tile(block_index: u32, #[comptime] p: MmaAttention) -> WorkTile {
    let dim = comptime!(p.shape.dim);
    let queries = comptime!((p.fragments * QUERIES) as u32);
    let heads = comptime!(p.shape.heads as u32);
    let group = comptime!((p.shape.heads / p.shape.kv_heads) as u32);
    // The last queries see the most keys: they go first.
    let query_tile = comptime!((p.blocks - 1) as u32) - block_index % comptime!(p.blocks as u32);
    let head = (block_index / comptime!(p.blocks as u32)) % heads;
    let batch = block_index / comptime!(p.blocks as u32) / heads;
    let first = query_tile * queries;
    let base_q =
        batch * comptime!(p.q.batch as u32) + head * comptime!(dim as u32) + comptime!(p.q.offset as u32);
    let base_kv = batch * comptime!(p.k.batch as u32) + head / group * comptime!(dim as u32);
    let base_k = base_kv + comptime!(p.k.offset as u32);
    let base_v = base_kv + comptime!(p.v.offset as u32);
    WorkTile { batch, head, first, base_q, base_k, base_v }
}

/// Starts the copies of a tile of keys and values, to the vectors from `into_k` and `into_v` on. This thread arrives
/// at the barrier when its own copies have.
#[cube]
#[allow(clippy::too_many_arguments, reason = "two tiles' places in both memories")]
fn load_stage<N: Size>(
    k: &Array<Vector<bf16, N>>,
    v: &Array<Vector<bf16, N>>,
    tile_k: &mut SharedMemory<Vector<bf16, N>>,
    tile_v: &mut SharedMemory<Vector<bf16, N>>,
    full: &Shared<Barrier>,
    at: &WorkTile,
    first_key: u32,
    into_k: u32,
    into_v: u32,
    #[comptime] p: MmaAttention,
) {
    let dim = comptime!(p.shape.dim as u32);
    let time = comptime!(p.shape.time as u32);
    load::<N>(k, tile_k, at.base_k, first_key, 0u32, dim, into_k, comptime!(p.k));
    load::<N>(v, tile_v, at.base_v, 0u32, first_key, time, into_v, comptime!(p.v));
    full.commit_copy_async();
    full.arrive();
}

/// S = q kᵀ of this warp's rows, from the stage of keys that begins at vector `stage_k`.
#[cube]
fn scores_of<N: Size, R: Size, C: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    tile_q: &SharedMemory<Vector<bf16, N>>,
    tile_k: &SharedMemory<Vector<bf16, N>>,
    stage_k: u32,
    warp: &WarpRows,
    #[comptime] p: MmaAttention,
) -> Sequence<Array<Vector<f32, C>>> {
    let fragments = comptime!(p.fragments);
    let mut scores = zeros::<C>(comptime!(fragments * p.k.tile / 8));
    #[unroll]
    for step in 0..comptime!(p.shape.dim / 16) {
        let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
        #[unroll]
        for i in 0..comptime!(p.fragments) {
            let row = warp.first + comptime!((i * 16) as u32);
            left.push(fragment_a::<N, R>(def, tile_q, row, 0u32, step, comptime!(p.q)));
        }
        let k = comptime!(p.k);
        multiply::<N, R, C>(def, &left, tile_k, stage_k, &mut scores, step, fragments, p.k.tile, k);
    }
    scores
}

/// Adds P v to the accumulators: probabilities go from accumulators to left operands without leaving registers.
#[cube]
fn accumulate<N: Size, R: Size, C: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    probs: &Sequence<Array<Vector<f32, C>>>,
    tile_v: &SharedMemory<Vector<bf16, N>>,
    stage_v: u32,
    acc: &mut Sequence<Array<Vector<f32, C>>>,
    #[comptime] p: MmaAttention,
) {
    let dim = comptime!(p.shape.dim);
    let fragments = comptime!(p.fragments);
    #[unroll]
    for step in 0..comptime!(p.k.tile / 16) {
        let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
        #[unroll]
        for i in 0..comptime!(p.fragments) {
            let at = comptime!(i * p.k.tile / 8 + 2 * step);
            left.push(left_of::<R, C>(probs, at));
        }
        multiply::<N, R, C>(def, &left, tile_v, stage_v, acc, step, fragments, dim, comptime!(p.v));
    }
}

#[cube]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn attend<N: Size, R: Size, C: Size>(
    q: &Array<Vector<bf16, N>>,
    k: &Array<Vector<bf16, N>>,
    v: &Array<Vector<bf16, N>>,
    o: &mut Array<Vector<bf16, N>>,
    lse: &mut Array<f32>,
    block_index: u32,
    #[comptime] p: MmaAttention,
) {
    let def = MmaDefinition::<bf16, bf16, f32>::new(16usize, 8usize, 16usize);
    let dim = comptime!(p.shape.dim as u32);
    let fragments = comptime!(p.fragments);
    let queries = comptime!((p.fragments * QUERIES) as u32);
    let time = comptime!(p.shape.time as u32);
    let keys = comptime!(p.k.tile as u32);
    let mut tile_q = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(p.q.chunks()), 128usize);
    let mut tile_k = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(STAGES * p.k.chunks()), 128usize);
    let mut tile_v = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(STAGES * p.v.chunks()), 128usize);
    let full = Barrier::shared(CUBE_DIM, UNIT_POS == 0);
    let at = work_tile(block_index, p);
    let warp = warp_rows(comptime!((p.fragments * 16) as u32));
    load::<N>(q, &mut tile_q, at.base_q, at.first, 0u32, dim, 0u32, comptime!(p.q));
    load_stage::<N>(k, v, &mut tile_k, &mut tile_v, &full, &at, 0u32, 0u32, 0u32, p);
    let mut acc = zeros::<C>(comptime!(fragments * p.shape.dim / 8));
    let mut row_max = Array::<f32>::new(comptime!(2 * fragments));
    let mut row_sum = Array::<f32>::new(comptime!(2 * fragments));
    #[unroll]
    for i in 0..comptime!(2 * fragments) {
        row_max[i] = LOWEST;
        row_sum[i] = 0.0f32;
    }
    let seen = u32::min(at.first + queries, time);
    let count = (seen + comptime!((p.k.tile - 1) as u32)) / keys;
    for key_tile in 0..count {
        full.wait_parity(key_tile % 2);
        // Every warp is done with the stage that is overwritten next.
        sync_cube();
        let first_key = key_tile * keys;
        if key_tile + 1 < count {
            let next = first_key + keys;
            let stage = (key_tile + 1) % 2;
            let into_k = stage * comptime!(p.k.chunks() as u32);
            let into_v = stage * comptime!(p.v.chunks() as u32);
            load_stage::<N>(k, v, &mut tile_k, &mut tile_v, &full, &at, next, into_k, into_v, p);
        }
        let stage_k = key_tile % 2 * comptime!(p.k.chunks() as u32);
        let stage_v = key_tile % 2 * comptime!(p.v.chunks() as u32);
        let mut scores = scores_of::<N, R, C>(&def, &tile_q, &tile_k, stage_k, &warp, p);
        online_softmax::<C>(&mut scores, &mut acc, &mut row_max, &mut row_sum, &at, first_key, &warp, p);
        accumulate::<N, R, C>(&def, &scores, &tile_v, stage_v, &mut acc, p);
    }
    store::<N, C>(o, lse, &mut tile_q, &acc, &row_max, &row_sum, &at, p);
}

#[cube]
pub(super) fn kernel(
    q: &Array<Vector<bf16, Const<8>>>,
    k: &Array<Vector<bf16, Const<8>>>,
    v: &Array<Vector<bf16, Const<8>>>,
    o: &mut Array<Vector<bf16, Const<8>>>,
    lse: &mut Array<f32>,
    #[comptime] p: MmaAttention,
) {
    let block_index = CUBE_POS as u32;
    if has_work(block_index, comptime!(p.thread_blocks), comptime!(p.exact)) {
        attend::<Const<8>, Const<2>, Const<2>>(q, k, v, o, lse, block_index, p);
    }
}
