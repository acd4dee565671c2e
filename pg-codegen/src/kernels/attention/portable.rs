//! Causal attention in float32, with an online softmax: a thread block has one tile of queries of one head and loops
//! over the tiles of keys up to the diagonal, with a running maximum and sum of each query.
//!
//! The threads of a thread block form a rectangle, one row of threads for each query of the tile. Each thread computes
//! a few of its query's scores, and a few elements of its result. All that threads exchange passes through shared
//! memory, between barriers; there is one stage.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;

use super::LOWEST;
use super::tiling::{THREADS, Tiling, check_types, specs};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated, has_work};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;
use crate::plan::AttentionShape;

/// The description of the forward kernel. Shifts are of q, k, v, o and lse.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Forward {
    tiling: Tiling,
    shifts: [usize; 5],
}

/// Adds the launch of attention.
pub(crate) fn lower(
    shape: &AttentionShape,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    check_types(infos)?;
    let aligned = infos[..3].iter().all(|i| i.shift.is_multiple_of(4));
    let (mut tiling, shared) = Tiling::new(*shape, shape.heads, (3, 1), aligned, machine);
    let grid = tiling.grid("attention", machine)?;
    let shifts = [0, 1, 2, 3, 4].map(|i| infos[i].shift);
    let args = specs(infos, tiling.vector, 3, 3);
    let body = Forward { tiling, shifts };
    let kernel = Generated::new(body, args, (THREADS as u32, shared), machine)?;
    out.push(kernel, (0..5).map(StageArg::Arg).collect(), grid, 1.0);
    Ok(())
}

/// Loads the rows from `first` on of one head of a [batch, time, heads, dim] tensor into a tile, with zeros beyond the
/// end of the sequence and of the head.
#[cube]
pub(crate) fn load_rows<N: Size>(
    from: &Array<Vector<f32, N>>,
    tile: &mut SharedMemory<f32>,
    batch: u32,
    head: u32,
    first: u32,
    #[comptime] heads: usize,
    #[comptime] shift: usize,
    #[comptime] t: Tiling,
) {
    let row_vectors = comptime!(((t.stride - 1).div_ceil(t.vector)) as u32);
    let held = comptime!((t.shape.dim / t.vector) as u32);
    let loads = comptime!((t.block * (t.stride - 1).div_ceil(t.vector)) as u32);
    let time = comptime!(t.shape.time as u32);
    for iteration in 0..comptime!(loads.div_ceil(THREADS as u32)) {
        let load = iteration * comptime!(THREADS as u32) + UNIT_POS;
        if load < loads {
            let row = load / row_vectors;
            let vector = load % row_vectors;
            let mut value = Vector::<f32, N>::new(0.0f32);
            if first + row < time && vector < held {
                let at = ((batch * time + first + row) * comptime!(heads as u32) + head) * held + vector;
                value = from[(at + comptime!((shift / t.vector) as u32)) as usize];
            }
            let to = row * comptime!(t.stride as u32) + vector * comptime!(t.vector as u32);
            #[unroll]
            for i in 0..comptime!(t.vector) {
                if comptime!((t.stride - 1).is_multiple_of(t.vector))
                    || vector * comptime!(t.vector as u32) + comptime!(i as u32)
                        < comptime!((t.stride - 1) as u32)
                {
                    tile[(to + comptime!(i as u32)) as usize] = value[i];
                }
            }
        }
    }
}

/// The product of two rows of tiles.
#[cube]
pub(crate) fn dot(
    a: &SharedMemory<f32>,
    row_a: u32,
    b: &SharedMemory<f32>,
    row_b: u32,
    #[comptime] t: Tiling,
) -> f32 {
    let start_a = row_a * comptime!(t.stride as u32);
    let start_b = row_b * comptime!(t.stride as u32);
    let mut sum = 0.0f32;
    for d in 0..comptime!(t.shape.dim as u32) {
        sum += a[(start_a + d) as usize] * b[(start_b + d) as usize];
    }
    sum
}

/// Adds `weight` times this thread's elements of a tile's row.
#[cube]
pub(crate) fn add_row(
    acc: &mut Array<f32>,
    weight: f32,
    tile: &SharedMemory<f32>,
    row: u32,
    column: u32,
    #[comptime] t: Tiling,
) {
    let start = row * comptime!(t.stride as u32) + column;
    #[unroll]
    for i in 0..comptime!(t.elements) {
        acc[i] += weight * tile[(start + comptime!((i * t.columns) as u32)) as usize];
    }
}

/// Where a thread is: the tile of its thread block, and its row and first column there.
#[derive(CubeType, Clone)]
pub(crate) struct WorkTile {
    pub(crate) batch: u32,
    pub(crate) head: u32,
    /// The tile's number in the sequence, and its first row.
    pub(crate) tile: u32,
    pub(crate) first: u32,
    pub(crate) row: u32,
    pub(crate) column: u32,
}

/// The tile with the most to do goes first: of queries the last, of keys the first.
#[cube]
pub(crate) fn work_tile(
    block_index: u32,
    #[comptime] heads: usize,
    #[comptime] last_first: bool,
    #[comptime] t: Tiling,
) -> WorkTile {
    let tiles = comptime!(t.blocks as u32);
    let place = block_index % tiles;
    let tile = if comptime!(last_first) { comptime!((t.blocks - 1) as u32) - place } else { place };
    let head = (block_index / tiles) % comptime!(heads as u32);
    let batch = block_index / tiles / comptime!(heads as u32);
    let row = UNIT_POS / comptime!(t.columns as u32);
    let column = UNIT_POS % comptime!(t.columns as u32);
    let first = tile * comptime!(t.block as u32);
    WorkTile { batch, head, tile, first, row, column }
}

/// This thread's scores of its query, masked; those of the query's other threads are beside them in `scores`.
#[cube]
fn scores_of(
    tile_q: &SharedMemory<f32>,
    tile_k: &SharedMemory<f32>,
    scores: &mut SharedMemory<f32>,
    own: &WorkTile,
    first_key: u32,
    #[comptime] t: Tiling,
) -> Array<f32> {
    let block = comptime!(t.block as u32);
    let width = comptime!((t.block + 1) as u32);
    let row = own.row;
    let mut mine = Array::<f32>::new(comptime!(t.scores));
    #[unroll]
    for i in 0..comptime!(t.scores) {
        let key = own.column + comptime!((i * t.columns) as u32);
        mine[i] = LOWEST.runtime();
        if key < block {
            if first_key + key <= own.first + row {
                mine[i] = dot(tile_q, row, tile_k, key, t) * comptime!(t.shape.scale);
            }
            scores[(row * width + key) as usize] = mine[i];
        }
    }
    mine
}

/// Replaces this thread's scores by exp(score − maximum).
#[cube]
fn exponentials(
    scores: &mut SharedMemory<f32>,
    mine: &Array<f32>,
    row_max: f32,
    own: &WorkTile,
    #[comptime] t: Tiling,
) {
    let block = comptime!(t.block as u32);
    let width = comptime!((t.block + 1) as u32);
    #[unroll]
    for i in 0..comptime!(t.scores) {
        let key = own.column + comptime!((i * t.columns) as u32);
        if key < block {
            scores[(own.row * width + key) as usize] = f32::exp(mine[i] - row_max);
        }
    }
}

#[cube]
fn kernel<N: Size>(
    q: &Array<Vector<f32, N>>,
    k: &Array<Vector<f32, N>>,
    v: &Array<Vector<f32, N>>,
    o: &mut Array<f32>,
    lse: &mut Array<f32>,
    #[comptime] p: Forward,
) {
    let t = comptime!(p.tiling);
    let block_index = CUBE_POS as u32;
    if has_work(block_index, comptime!(t.thread_blocks), comptime!(t.exact)) {
        let heads = comptime!(t.shape.heads);
        let kv_heads = comptime!(t.shape.kv_heads);
        let group = comptime!((t.shape.heads / t.shape.kv_heads) as u32);
        let shift_k = comptime!(p.shifts[1]);
        let shift_v = comptime!(p.shifts[2]);
        let block = comptime!(t.block as u32);
        let time = comptime!(t.shape.time as u32);
        let width = comptime!((t.block + 1) as u32);
        let mut tile_q = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut tile_k = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut tile_v = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut scores = SharedMemory::<f32>::new(comptime!(t.block * (t.block + 1)));
        let own = work_tile(block_index, heads, true, t);
        let batch = own.batch;
        let head = own.head;
        let row = own.row;
        load_rows::<N>(q, &mut tile_q, batch, head, own.first, heads, comptime!(p.shifts[0]), t);
        let mut row_max = LOWEST.runtime();
        let mut row_sum = 0.0f32;
        let mut acc = Array::<f32>::new(comptime!(t.elements));
        #[unroll]
        for i in 0..comptime!(t.elements) {
            acc[i] = 0.0f32;
        }
        for key_tile in 0..own.tile + 1 {
            let first_key = key_tile * block;
            // The tiles of the iteration before are read no more.
            sync_cube();
            load_rows::<N>(k, &mut tile_k, batch, head / group, first_key, kv_heads, shift_k, t);
            load_rows::<N>(v, &mut tile_v, batch, head / group, first_key, kv_heads, shift_v, t);
            // The tiles are whole.
            sync_cube();
            let mine = scores_of(&tile_q, &tile_k, &mut scores, &own, first_key, t);
            // The scores are whole.
            sync_cube();
            let before = row_max;
            for key in 0..block {
                row_max = max(row_max, scores[(row * width + key) as usize]);
            }
            let rescale = f32::exp(before - row_max);
            // All threads have their query's maximum: scores may be overwritten.
            sync_cube();
            exponentials(&mut scores, &mine, row_max, &own, t);
            // The probabilities are whole.
            sync_cube();
            row_sum *= rescale;
            #[unroll]
            for i in 0..comptime!(t.elements) {
                acc[i] = acc[i] * rescale;
            }
            for key in 0..block {
                let prob = scores[(row * width + key) as usize];
                row_sum += prob;
                add_row(&mut acc, prob, &tile_v, key, own.column, t);
            }
        }
        if own.first + row < time {
            let at = (batch * time + own.first + row) * comptime!(heads as u32) + head;
            if own.column == 0 {
                lse[(at + comptime!(p.shifts[4] as u32)) as usize] = row_max + f32::ln(row_sum);
            }
            write_row(o, &acc, 1.0f32 / row_sum, at, own.column, comptime!(p.shifts[3]), t);
        }
    }
}

/// Writes this thread's elements of a row, times a factor.
#[cube]
pub(crate) fn write_row(
    to: &mut Array<f32>,
    acc: &Array<f32>,
    factor: f32,
    row: u32,
    column: u32,
    #[comptime] shift: usize,
    #[comptime] t: Tiling,
) {
    let start = row * comptime!(t.shape.dim as u32) + column + comptime!(shift as u32);
    #[unroll]
    for i in 0..comptime!(t.elements) {
        let d = comptime!((i * t.columns) as u32);
        if comptime!(t.stride - 1 == t.shape.dim) || column + d < comptime!(t.shape.dim as u32) {
            to[(start + d) as usize] = acc[i] * factor;
        }
    }
}

define_size!(pub(crate) Width);

impl Body for Forward {
    fn family(&self) -> &'static str {
        "attention"
    }

    fn describe(&self) -> String {
        let shape = self.tiling.describe();
        format!("o = softmax(scale · q kᵀ, keys up to the query) v, lse = log of the softmax's sum\n{shape}")
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        scope.register_size::<Width>(self.tiling.vector);
        let [q, k, v, o, lse] = [0, 1, 2, 3, 4].map(|i| buffers[i].clone());
        kernel::expand::<Width>(scope, q.into(), k.into(), v.into(), o.into(), lse.into(), *self);
    }
}
