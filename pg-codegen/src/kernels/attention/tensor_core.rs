//! Causal attention on tensor cores, flash style: a thread block owns 128 queries of one head (64 of a short sequence),
//! each warp a quarter of them, and walks blocks of keys up to the diagonal. The next block's keys and values arrive
//! while one is computed; scores, probabilities and sums never leave registers.

use cubecl::cmma::MmaDefinition;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;
use half::bf16;
use pg_ir::ty::DType;

use super::{LOWEST, check_sizes};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::kernels::tensor_core::fragments::{left_of, multiply, set, sums_of, zeros};
use crate::kernels::tensor_core::tile::{CHUNK, Operand, UNITS, fragment_a, load, place};
use crate::machine::Machine;
use crate::plan::AttentionShape;

/// Blocks of keys in shared memory.
const STAGES: usize = 2;
/// Queries of a thread block for each fragment of 16 that a warp has.
const QUERIES: usize = UNITS / 32 * 16;

/// The description of the kernel.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct MmaAttention {
    shape: AttentionShape,
    /// Fragments of 16 queries of a warp.
    fragments: usize,
    q: Operand,
    k: Operand,
    v: Operand,
    /// Blocks of queries.
    blocks: usize,
    /// Elements before o and lse.
    shifts: [usize; 2],
    cubes: usize,
    exact: bool,
}

/// Whether a target can run attention over these arguments here.
pub(crate) fn fits(s: &AttentionShape, infos: &[ArgInfo], machine: &Machine) -> bool {
    let types = infos.iter().map(|i| i.dtype).collect::<Vec<_>>();
    let bf16 = [DType::BF16, DType::BF16, DType::BF16, DType::BF16, DType::F32];
    let aligned = infos.iter().take(4).all(|i| i.shift.is_multiple_of(CHUNK));
    machine.has_tensor_cores() && types == bf16 && aligned && matches!(s.dim, 32 | 64 | 128)
}

/// Adds the launch of attention.
pub(crate) fn lower(
    shape: &AttentionShape,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    check_sizes(shape, infos, "q k v o lse")?;
    let s = *shape;
    let rows = |shift: usize, heads: usize, tile: usize| Operand {
        offset: shift,
        batch: s.time * heads * s.dim,
        free: s.time,
        free_stride: heads * s.dim,
        depth: s.dim,
        depth_stride: 1,
        tile,
        deep: s.dim,
        along_depth: true,
        aligned: true,
    };
    let keys = machine.tuning.flash_keys;
    let k = rows(infos[1].shift, s.kv_heads, keys);
    // Values are summed over keys: the same rows, walked the other way.
    let v = Operand {
        offset: infos[2].shift,
        free: s.dim,
        free_stride: 1,
        depth: s.time,
        depth_stride: k.free_stride,
        tile: s.dim,
        deep: keys,
        along_depth: false,
        ..k
    };
    // Two fragments halve what is read of keys and values; a short sequence has too few queries for that.
    let most = machine.tuning.flash_queries / QUERIES;
    let fragments = if s.time > QUERIES { most } else { 1 };
    let q = rows(infos[0].shift, s.heads, fragments * QUERIES);
    let blocks = s.time.div_ceil(fragments * QUERIES);
    let cubes = s.batch * s.heads * blocks;
    let grid = machine.fold("flash", cubes as u64)?;
    let exact = grid[0] as usize * grid[1] as usize == cubes;
    let shifts = [infos[3].shift, infos[4].shift];
    let shared = 128 + 2 * CHUNK * (q.chunks() + STAGES * (k.chunks() + v.chunks()));
    let body = MmaAttention { shape: s, fragments, q, k, v, blocks, shifts, cubes, exact };
    let spec = |(i, info): (usize, &ArgInfo)| ArgSpec {
        dtype: info.dtype,
        width: if i < 4 { CHUNK } else { 1 },
        writable: i > 2 || info.aliased,
    };
    let args = infos.iter().enumerate().map(spec).collect();
    let kernel = Generated::new(body, args, (UNITS as u32, shared), machine)?;
    out.push(kernel, (0..5).map(StageArg::Arg).collect(), grid, 1.0);
    Ok(())
}

/// The greater or the sum of the four lanes that share a row.
#[cube]
fn across(x: f32, #[comptime] sum: bool) -> f32 {
    let mut y = x;
    #[unroll]
    for step in 0..2u32 {
        let other = plane_shuffle_xor(y, comptime!(1u32 << step));
        y = if comptime!(sum) { y + other } else { f32::max(y, other) };
    }
    y
}

#[cube]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn attend<N: Size, R: Size, C: Size>(
    q: &Array<Vector<bf16, N>>,
    k: &Array<Vector<bf16, N>>,
    v: &Array<Vector<bf16, N>>,
    o: &mut Array<Vector<bf16, N>>,
    lse: &mut Array<f32>,
    cube: u32,
    #[comptime] p: MmaAttention,
) {
    let def = MmaDefinition::<bf16, bf16, f32>::new(16usize, 8usize, 16usize);
    let dim = comptime!(p.shape.dim);
    let fragments = comptime!(p.fragments);
    let queries = comptime!((p.fragments * QUERIES) as u32);
    let time = comptime!(p.shape.time as u32);
    let heads = comptime!(p.shape.heads as u32);
    let group = comptime!((p.shape.heads / p.shape.kv_heads) as u32);
    let mut tile_q = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(p.q.chunks()), 128usize);
    let mut tile_k = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(STAGES * p.k.chunks()), 128usize);
    let mut tile_v = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(STAGES * p.v.chunks()), 128usize);
    let arrived = Barrier::shared(CUBE_DIM, UNIT_POS == 0);
    // The last queries see the most keys: they go first.
    let query_block = comptime!((p.blocks - 1) as u32) - cube % comptime!(p.blocks as u32);
    let head = (cube / comptime!(p.blocks as u32)) % heads;
    let batch = cube / comptime!(p.blocks as u32) / heads;
    let first = query_block * queries;
    let base_q =
        batch * comptime!(p.q.batch as u32) + head * comptime!(dim as u32) + comptime!(p.q.offset as u32);
    let base_kv = batch * comptime!(p.k.batch as u32) + head / group * comptime!(dim as u32);
    let base_k = base_kv + comptime!(p.k.offset as u32);
    let base_v = base_kv + comptime!(p.v.offset as u32);
    let lane = UNIT_POS % 32;
    let warp_row = UNIT_POS / 32 * comptime!((p.fragments * 16) as u32);
    let deep = comptime!(dim as u32);
    load::<N>(q, &mut tile_q, base_q, first, 0u32, deep, 0u32, comptime!(p.q));
    load::<N>(k, &mut tile_k, base_k, 0u32, 0u32, deep, 0u32, comptime!(p.k));
    load::<N>(v, &mut tile_v, base_v, 0u32, 0u32, time, 0u32, comptime!(p.v));
    arrived.commit_copy_async();
    arrived.arrive();
    let mut results = zeros::<C>(comptime!(fragments * dim / 8));
    let mut most = Array::<f32>::new(comptime!(2 * fragments));
    let mut total = Array::<f32>::new(comptime!(2 * fragments));
    #[unroll]
    for i in 0..comptime!(2 * fragments) {
        most[i] = LOWEST;
        total[i] = 0.0f32;
    }
    let seen = u32::min(first + queries, time);
    let count = (seen + comptime!((p.k.tile - 1) as u32)) / comptime!(p.k.tile as u32);
    for block in 0..count {
        arrived.wait_parity(block % 2);
        // Whoever still reads the block that is overwritten next must have finished.
        sync_cube();
        let first_key = block * comptime!(p.k.tile as u32);
        if block + 1 < count {
            let next = first_key + comptime!(p.k.tile as u32);
            let stage = (block + 1) % 2;
            let at_k = stage * comptime!(p.k.chunks() as u32);
            let at_v = stage * comptime!(p.v.chunks() as u32);
            load::<N>(k, &mut tile_k, base_k, next, 0u32, deep, at_k, comptime!(p.k));
            load::<N>(v, &mut tile_v, base_v, 0u32, next, time, at_v, comptime!(p.v));
            arrived.commit_copy_async();
            arrived.arrive();
        }
        let at_k = block % 2 * comptime!(p.k.chunks() as u32);
        let at_v = block % 2 * comptime!(p.v.chunks() as u32);
        let mut scores = zeros::<C>(comptime!(fragments * p.k.tile / 8));
        #[unroll]
        for step in 0..comptime!(dim / 16) {
            let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
            #[unroll]
            for i in 0..comptime!(p.fragments) {
                let row = warp_row + comptime!((i * 16) as u32);
                left.push(fragment_a::<N, R>(&def, &tile_q, row, 0u32, step, comptime!(p.q)));
            }
            multiply::<N, R, C>(
                &def,
                &left,
                &tile_k,
                at_k,
                &mut scores,
                step,
                fragments,
                p.k.tile,
                comptime!(p.k),
            );
        }
        #[unroll]
        for i in 0..comptime!(p.fragments) {
            #[unroll]
            for half in 0..2usize {
                let number = comptime!(2 * i + half);
                let row = first + warp_row + comptime!((i * 16 + half * 8) as u32) + lane / 4;
                // Keys of the block that the row sees, from this lane's first on.
                let visible = row as i32 - (first_key + lane % 4 * 2) as i32;
                let mut greatest = most[number];
                #[unroll]
                for j in 0..comptime!(p.k.tile / 8) {
                    let at = comptime!(i * p.k.tile / 8 + j);
                    let score = sums_of::<C>(&scores, at, half) * Vector::new(comptime!(p.shape.scale));
                    let mut masked = Vector::<f32, C>::new(LOWEST);
                    #[unroll]
                    for e in 0..2usize {
                        // Keys beyond the sequence's end come after every query that is kept.
                        masked[e] = select(comptime!((j * 8 + e) as i32) <= visible, score[e], LOWEST);
                        greatest = f32::max(greatest, masked[e]);
                    }
                    set::<C>(&mut scores, at, half, masked);
                }
                let greatest = across(greatest, false);
                let shrink = f32::exp(most[number] - greatest);
                most[number] = greatest;
                let mut sum = 0.0f32;
                #[unroll]
                for j in 0..comptime!(p.k.tile / 8) {
                    let at = comptime!(i * p.k.tile / 8 + j);
                    let prob = Vector::exp(sums_of::<C>(&scores, at, half) - Vector::new(greatest));
                    sum += prob[0] + prob[1];
                    set::<C>(&mut scores, at, half, prob);
                }
                // Each lane keeps the sum of its own columns; lanes meet at the end.
                total[number] = total[number] * shrink + sum;
                #[unroll]
                for j in 0..comptime!(dim / 8) {
                    let at = comptime!(i * dim / 8 + j);
                    let scaled = sums_of::<C>(&results, at, half) * Vector::new(shrink);
                    set::<C>(&mut results, at, half, scaled);
                }
            }
        }
        #[unroll]
        for step in 0..comptime!(p.k.tile / 16) {
            let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
            #[unroll]
            for i in 0..comptime!(p.fragments) {
                let at = comptime!(i * p.k.tile / 8 + 2 * step);
                left.push(left_of::<R, C>(&scores, at));
            }
            multiply::<N, R, C>(
                &def,
                &left,
                &tile_v,
                at_v,
                &mut results,
                step,
                fragments,
                dim,
                comptime!(p.v),
            );
        }
    }
    finish::<N, C>(o, lse, &mut tile_q, &results, &most, &total, batch, head, first, p);
}

/// Divides by the sums and writes a thread block's rows, through the memory of the queries, which nobody needs any
/// more: from there they leave in whole chunks.
#[cube]
#[allow(clippy::too_many_arguments, reason = "what a thread block has at its end")]
fn finish<N: Size, C: Size>(
    o: &mut Array<Vector<bf16, N>>,
    lse: &mut Array<f32>,
    tile: &mut SharedMemory<Vector<bf16, N>>,
    results: &Sequence<Array<Vector<f32, C>>>,
    most: &Array<f32>,
    total: &Array<f32>,
    batch: u32,
    head: u32,
    first: u32,
    #[comptime] p: MmaAttention,
) {
    let dim = comptime!(p.shape.dim);
    let time = comptime!(p.shape.time as u32);
    let heads = comptime!(p.shape.heads as u32);
    let lane = UNIT_POS % 32;
    let warp_row = UNIT_POS / 32 * comptime!((p.fragments * 16) as u32);
    sync_cube();
    #[unroll]
    for i in 0..comptime!(p.fragments) {
        #[unroll]
        for half in 0..2usize {
            let number = comptime!(2 * i + half);
            let row = warp_row + comptime!((i * 16 + half * 8) as u32) + lane / 4;
            let sum = across(total[number], true);
            let at = (batch * time + first + row) * heads + head + comptime!(p.shifts[1] as u32);
            // Of the four lanes that share a row, the first.
            let in_row = lane % 4;
            if first + row < time && in_row == 0 {
                lse[at as usize] = most[number] + f32::ln(sum);
            }
            let scale = 1.0f32 / sum;
            #[unroll]
            for quarter in 0..comptime!(dim / 32) {
                // Lane t of a row's four takes the chunk t of each four: it gathers what the others hold of it.
                let mut chunk = Vector::<bf16, N>::from_int(0);
                #[unroll]
                for iteration in 0..4u32 {
                    let other = (lane % 4) ^ iteration;
                    let mut give = Vector::<f32, C>::new(0.0f32);
                    #[unroll]
                    for j in 0..4usize {
                        let x = sums_of::<C>(results, comptime!(i * dim / 8 + quarter * 4 + j), half);
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
                                chunk[comptime!(2 * j + e)] = got;
                            }
                        }
                    }
                }
                let column = comptime!((quarter * 4) as u32) + lane % 4;
                tile[place(row, column, comptime!(p.q)) as usize] = chunk;
            }
        }
    }
    sync_cube();
    let row_chunks = comptime!((dim / CHUNK) as u32);
    #[unroll]
    for iteration in 0..comptime!(p.q.chunks() / UNITS) {
        let chunk = UNIT_POS + comptime!((iteration * UNITS) as u32);
        let row = chunk / row_chunks;
        if first + row < time {
            let at = ((batch * time + first + row) * heads + head) * row_chunks + chunk % row_chunks;
            let at = at + comptime!((p.shifts[0] / CHUNK) as u32);
            o[at as usize] = tile[place(row, chunk % row_chunks, comptime!(p.q)) as usize];
        }
    }
}

#[cube]
fn kernel(
    q: &Array<Vector<bf16, Const<8>>>,
    k: &Array<Vector<bf16, Const<8>>>,
    v: &Array<Vector<bf16, Const<8>>>,
    o: &mut Array<Vector<bf16, Const<8>>>,
    lse: &mut Array<f32>,
    #[comptime] p: MmaAttention,
) {
    let cube = CUBE_POS as u32;
    if comptime!(p.exact) {
        attend::<Const<8>, Const<2>, Const<2>>(q, k, v, o, lse, cube, p);
    } else if cube < comptime!(p.cubes as u32) {
        attend::<Const<8>, Const<2>, Const<2>>(q, k, v, o, lse, cube, p);
    }
}

impl Body for MmaAttention {
    fn family(&self) -> &'static str {
        "flash"
    }

    fn describe(&self) -> String {
        let s = &self.shape;
        format!(
            "causal attention, bfloat16 on tensor cores: {} × {} positions, {} heads of {} over {} of keys, scale {}\n\
             {} blocks of {} queries, blocks of {} keys, {STAGES} stages\n",
            s.batch,
            s.time,
            s.heads,
            s.dim,
            s.kv_heads,
            s.scale,
            self.blocks,
            self.fragments * QUERIES,
            self.k.tile,
        )
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        let [q, k, v, o, lse] = [0, 1, 2, 3, 4].map(|i| buffers[i].clone());
        kernel::expand(scope, q.into(), k.into(), v.into(), o.into(), lse.into(), *self);
    }
}
