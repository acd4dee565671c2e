//! The gradient of causal attention on tensor cores, probabilities recomputed from the log-sum-exp. No atomics:
//! one kernel owns queries and walks the keys that they see, another owns keys and walks the queries that see
//! them. Both are one program: own rows x, y meet streamed rows u, w in s = x · u and t = y · w, so that
//! p = exp(scale · s − lse) and g = p (t − delta) scale, and sums g · u, and p · w where keys are owned.

use cubecl::cmma::MmaDefinition;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;
use half::bf16;
use pg_ir::ty::DType;

use super::check_sizes;
use super::portable_grad::{QUERY_SHARE, row_products};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated};
use crate::kernels::region;
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::kernels::tensor_core::fragments::{four, left_of, multiply, set, sums_of, zeros};
use crate::kernels::tensor_core::tile::{CHUNK, Operand, UNITS, fragment_a, load};
use crate::machine::Machine;
use crate::plan::AttentionShape;

/// Own rows of a thread block, a fragment of 16 a warp, and rows of a streamed block.
const BLOCK: usize = 64;
/// Streamed blocks in shared memory.
const STAGES: usize = 2;

/// The description of one of the two kernels.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct MmaAttentionGrad {
    shape: AttentionShape,
    /// Whether keys are owned and queries streamed.
    keys: bool,
    /// q, k, v and do as rows.
    rows: [Operand; 4],
    /// Blocks of a sequence.
    blocks: usize,
    /// Elements before lse and delta, and before each result.
    shifts: [usize; 4],
    bf16_out: bool,
    cubes: usize,
    exact: bool,
}

/// Whether a target can run the gradient over these arguments here.
pub(crate) fn fits(s: &AttentionShape, infos: &[ArgInfo], machine: &Machine) -> bool {
    let read = [0, 1, 2, 3, 5].iter().all(|&i| infos.get(i).is_some_and(|i| i.dtype == DType::BF16));
    let aligned = infos.iter().all(|i| i.shift.is_multiple_of(CHUNK));
    let written = infos.len() == 9
        && infos[6..].iter().all(|i| matches!(i.dtype, DType::F32 | DType::BF16))
        && infos[7].dtype == infos[8].dtype;
    machine.has_tensor_cores() && read && aligned && written && matches!(s.dim, 32 | 64 | 128)
}

/// Adds the launches of the gradient: delta, dq, and dk with dv.
pub(crate) fn lower(
    shape: &AttentionShape,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    check_sizes(shape, infos, "q k v o lse do dq dk dv")?;
    let s = *shape;
    let rows = s.batch * s.time * s.heads;
    let delta = StageArg::Workspace(out.workspace(4 * rows));
    let delta_info = ArgInfo::whole(DType::F32, rows);
    let mut products = row_products(rows, s.dim);
    products.args = vec![infos[3].dtype, infos[5].dtype, DType::F32];
    let mut inner = Launches::default();
    region::lower(&products, &[infos[3], infos[5], delta_info], machine, true, &mut inner)?;
    out.append(inner, &[StageArg::Arg(3), StageArg::Arg(5), delta]);

    let operand = |i: usize, heads: usize| Operand {
        offset: infos[i].shift,
        batch: s.time * heads * s.dim,
        free: s.time,
        free_stride: heads * s.dim,
        depth: s.dim,
        depth_stride: 1,
        tile: BLOCK,
        deep: s.dim,
        along_depth: true,
        aligned: true,
    };
    let rows = [operand(0, s.heads), operand(1, s.kv_heads), operand(2, s.kv_heads), operand(5, s.heads)];
    let blocks = s.time.div_ceil(BLOCK);
    // Own and streamed tiles, the barrier, and where keys are owned lse and delta of the streamed queries.
    let shared = 128 + 2 * CHUNK * rows[0].chunks() * (2 + 2 * STAGES) + 4 * STAGES * 2 * BLOCK;
    for keys in [false, true] {
        let results: &[usize] = if keys { &[7, 8] } else { &[6] };
        let cubes = s.batch * if keys { s.kv_heads } else { s.heads } * blocks;
        let grid = machine.fold("flash_grad", cubes as u64)?;
        let exact = grid[0] as usize * grid[1] as usize == cubes;
        let last = results[results.len() - 1];
        let shifts = [infos[4].shift, 0, infos[results[0]].shift, infos[last].shift];
        let bf16_out = infos[last].dtype == DType::BF16;
        let body = MmaAttentionGrad { shape: s, keys, rows, blocks, shifts, bf16_out, cubes, exact };
        let read = |i: usize, width| ArgSpec { dtype: infos[i].dtype, width, writable: infos[i].aliased };
        let mut args: Vec<ArgSpec> = [0, 1, 2, 5].iter().map(|&i| read(i, CHUNK)).collect();
        args.extend([read(4, 1), ArgSpec { dtype: DType::F32, width: 1, writable: false }]);
        args.extend(results.iter().map(|&i| ArgSpec { dtype: infos[i].dtype, width: 4, writable: true }));
        let kernel = Generated::new(body, args, (UNITS as u32, shared), machine)?;
        let mut names: Vec<StageArg> = [0, 1, 2, 5, 4].map(StageArg::Arg).into();
        names.push(delta);
        names.extend(results.iter().map(|&i| StageArg::Arg(i)));
        out.push(kernel, names, grid, if keys { 1.0 - QUERY_SHARE } else { QUERY_SHARE });
    }
    Ok(())
}

/// The same rows, summed over: columns become the free axis.
fn across(x: Operand) -> Operand {
    Operand { tile: x.deep, deep: x.tile, along_depth: false, ..x }
}

/// The score products of own rows at a step of the width: 16 rows, a block of columns.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a product's parts")]
fn meet<N: Size, R: Size, C: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    own: &SharedMemory<Vector<bf16, N>>,
    streamed: &SharedMemory<Vector<bf16, N>>,
    tile: u32,
    row: u32,
    sums: &mut Sequence<Array<Vector<f32, C>>>,
    #[comptime] x: Operand,
) {
    #[unroll]
    for step in 0..comptime!(x.deep / 16) {
        let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
        left.push(fragment_a::<N, R>(def, own, row, 0u32, step, x));
        multiply::<N, R, C>(def, &left, streamed, tile, sums, step, 1usize, BLOCK, x);
    }
}

#[cube]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn walk<N: Size, R: Size, C: Size, O: Numeric, V: Size>(
    x: &Array<Vector<bf16, N>>,
    y: &Array<Vector<bf16, N>>,
    u: &Array<Vector<bf16, N>>,
    w: &Array<Vector<bf16, N>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    into_u: &mut Array<Vector<O, V>>,
    into_w: &mut Array<Vector<O, V>>,
    cube: u32,
    #[comptime] p: MmaAttentionGrad,
) {
    let def = MmaDefinition::<bf16, bf16, f32>::new(16usize, 8usize, 16usize);
    let own = comptime!(if p.keys { [p.rows[1], p.rows[2]] } else { [p.rows[0], p.rows[3]] });
    let seen = comptime!(if p.keys { [p.rows[0], p.rows[3]] } else { [p.rows[1], p.rows[2]] });
    let dim = comptime!(p.shape.dim);
    let time = comptime!(p.shape.time as u32);
    let heads = comptime!(p.shape.heads as u32);
    let group = comptime!((p.shape.heads / p.shape.kv_heads) as u32);
    let own_heads = comptime!((if p.keys { p.shape.kv_heads } else { p.shape.heads }) as u32);
    let chunks = comptime!(p.rows[0].chunks());
    let mut tile_x = SharedMemory::<Vector<bf16, N>>::new_aligned(chunks, 128usize);
    let mut tile_y = SharedMemory::<Vector<bf16, N>>::new_aligned(chunks, 128usize);
    let mut tile_u = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(STAGES * chunks), 128usize);
    let mut tile_w = SharedMemory::<Vector<bf16, N>>::new_aligned(comptime!(STAGES * chunks), 128usize);
    let mut facts = SharedMemory::<f32>::new(comptime!(STAGES * 2 * BLOCK));
    let arrived = Barrier::shared(CUBE_DIM, UNIT_POS == 0);
    // What meets the most goes first: the last queries, the first keys.
    let place = cube % comptime!(p.blocks as u32);
    let block = if comptime!(p.keys) { place } else { comptime!((p.blocks - 1) as u32) - place };
    let head = (cube / comptime!(p.blocks as u32)) % own_heads;
    let batch = cube / comptime!(p.blocks as u32) / own_heads;
    let first = block * comptime!(BLOCK as u32);
    let deep = comptime!(dim as u32);
    let base = batch * comptime!(own[0].batch as u32) + head * deep;
    load::<N>(
        x,
        &mut tile_x,
        base + comptime!(own[0].offset as u32),
        first,
        0u32,
        deep,
        0u32,
        comptime!(own[0]),
    );
    load::<N>(
        y,
        &mut tile_y,
        base + comptime!(own[1].offset as u32),
        first,
        0u32,
        deep,
        0u32,
        comptime!(own[1]),
    );
    let lane = UNIT_POS % 32;
    let warp_row = UNIT_POS / 32 * 16;
    // Queries see the keys up to their own block; keys are seen from theirs on, by every head of the group.
    let later = comptime!(p.blocks as u32) - block;
    let count = if comptime!(p.keys) { group * later } else { block + 1 };
    let mut sums_u = zeros::<C>(comptime!(dim / 8));
    let mut sums_w = zeros::<C>(comptime!(if p.keys { dim / 8 } else { 0 }));
    // lse and delta of own queries.
    let mut own_facts = Array::<f32>::new(4usize);
    if comptime!(!p.keys) {
        #[unroll]
        for half in 0..2usize {
            let row = first + warp_row + comptime!((half * 8) as u32) + lane / 4;
            own_facts[half] = 0.0f32;
            own_facts[comptime!(2 + half)] = 0.0f32;
            if row < time {
                let at = (batch * time + row) * heads + head;
                own_facts[half] = lse[(at + comptime!(p.shifts[0] as u32)) as usize];
                own_facts[comptime!(2 + half)] = delta[at as usize];
            }
        }
    }
    stream::<N>(u, w, &mut tile_u, &mut tile_w, batch, head, block, 0u32, later, p);
    if comptime!(p.keys) {
        let fact = fact_of(lse, delta, batch, head, block, 0u32, later, p);
        facts[UNIT_POS as usize] = fact;
    }
    arrived.commit_copy_async();
    arrived.arrive();
    for iteration in 0..count {
        arrived.wait_parity(iteration % 2);
        // Whoever still reads the block that is overwritten next must have finished.
        sync_cube();
        let mut next_fact = 0.0f32;
        if iteration + 1 < count {
            stream::<N>(u, w, &mut tile_u, &mut tile_w, batch, head, block, iteration + 1, later, p);
            if comptime!(p.keys) {
                next_fact = fact_of(lse, delta, batch, head, block, iteration + 1, later, p);
            }
            arrived.commit_copy_async();
            arrived.arrive();
        }
        let stage = iteration % 2;
        let tile = stage * comptime!(chunks as u32);
        let streamed = if comptime!(p.keys) { block + iteration % later } else { iteration };
        let first_seen = streamed * comptime!(BLOCK as u32);
        let mut s = zeros::<C>(comptime!(BLOCK / 8));
        let mut t = zeros::<C>(comptime!(BLOCK / 8));
        meet::<N, R, C>(&def, &tile_x, &tile_u, tile, warp_row, &mut s, comptime!(seen[0]));
        meet::<N, R, C>(&def, &tile_y, &tile_w, tile, warp_row, &mut t, comptime!(seen[1]));
        #[unroll]
        for half in 0..2usize {
            let row = first + warp_row + comptime!((half * 8) as u32) + lane / 4;
            #[unroll]
            for j in 0..comptime!(BLOCK / 8) {
                let score = sums_of::<C>(&s, j, half);
                let product = sums_of::<C>(&t, j, half);
                let mut prob = Vector::<f32, C>::new(0.0f32);
                let mut grad = Vector::<f32, C>::new(0.0f32);
                #[unroll]
                for e in 0..2usize {
                    let column = comptime!((j * 8 + e) as u32) + lane % 4 * 2;
                    let other = first_seen + column;
                    let mut row_lse = own_facts[half];
                    let mut row_delta = own_facts[comptime!(2 + half)];
                    let mut visible = other <= row;
                    if comptime!(p.keys) {
                        let at = stage * comptime!((2 * BLOCK) as u32) + column;
                        row_lse = facts[at as usize];
                        row_delta = facts[(at + comptime!(BLOCK as u32)) as usize];
                        visible = row <= other && other < time;
                    }
                    let raw = f32::exp(score[e] * comptime!(p.shape.scale) - row_lse);
                    let value = select(visible, raw, 0.0f32);
                    prob[e] = value;
                    grad[e] = value * (product[e] - row_delta) * comptime!(p.shape.scale);
                }
                set::<C>(&mut s, j, half, prob);
                set::<C>(&mut t, j, half, grad);
            }
        }
        #[unroll]
        for step in 0..comptime!(BLOCK / 16) {
            let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
            left.push(left_of::<R, C>(&t, comptime!(2 * step)));
            let columns = comptime!(across(seen[0]));
            multiply::<N, R, C>(&def, &left, &tile_u, tile, &mut sums_u, step, 1usize, dim, columns);
            if comptime!(p.keys) {
                let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
                left.push(left_of::<R, C>(&s, comptime!(2 * step)));
                multiply::<N, R, C>(&def, &left, &tile_w, tile, &mut sums_w, step, 1usize, dim, columns);
            }
        }
        if comptime!(p.keys) {
            facts[((iteration + 1) % 2 * comptime!((2 * BLOCK) as u32) + UNIT_POS) as usize] = next_fact;
        }
    }
    let at = (batch * time + first + warp_row) * own_heads + head;
    write::<C, O, V>(into_u, &sums_u, at, first + warp_row, comptime!(p.shifts[2]), p);
    if comptime!(p.keys) {
        write::<C, O, V>(into_w, &sums_w, at, first + warp_row, comptime!(p.shifts[3]), p);
    }
}

/// Starts the copies of the streamed block of a iteration.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a block's place in both memories")]
fn stream<N: Size>(
    u: &Array<Vector<bf16, N>>,
    w: &Array<Vector<bf16, N>>,
    tile_u: &mut SharedMemory<Vector<bf16, N>>,
    tile_w: &mut SharedMemory<Vector<bf16, N>>,
    batch: u32,
    head: u32,
    block: u32,
    iteration: u32,
    later: u32,
    #[comptime] p: MmaAttentionGrad,
) {
    let seen = comptime!(if p.keys { [p.rows[0], p.rows[3]] } else { [p.rows[1], p.rows[2]] });
    let group = comptime!((p.shape.heads / p.shape.kv_heads) as u32);
    let deep = comptime!(p.shape.dim as u32);
    let other = if comptime!(p.keys) { head * group + iteration / later } else { head / group };
    let streamed = if comptime!(p.keys) { block + iteration % later } else { iteration };
    let first = streamed * comptime!(BLOCK as u32);
    let into = iteration % 2 * comptime!(seen[0].chunks() as u32);
    let base = batch * comptime!(seen[0].batch as u32) + other * deep;
    load::<N>(
        u,
        tile_u,
        base + comptime!(seen[0].offset as u32),
        first,
        0u32,
        deep,
        into,
        comptime!(seen[0]),
    );
    load::<N>(
        w,
        tile_w,
        base + comptime!(seen[1].offset as u32),
        first,
        0u32,
        deep,
        into,
        comptime!(seen[1]),
    );
}

/// What this thread brings of the streamed queries of a iteration: lse in the first half of the thread block, delta in the
/// second.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a block's place")]
fn fact_of(
    lse: &Array<f32>,
    delta: &Array<f32>,
    batch: u32,
    head: u32,
    block: u32,
    iteration: u32,
    later: u32,
    #[comptime] p: MmaAttentionGrad,
) -> f32 {
    let group = comptime!((p.shape.heads / p.shape.kv_heads) as u32);
    let time = comptime!(p.shape.time as u32);
    let query = (block + iteration % later) * comptime!(BLOCK as u32) + UNIT_POS % comptime!(BLOCK as u32);
    let at = (batch * time + query) * comptime!(p.shape.heads as u32) + head * group + iteration / later;
    let mut fact = 0.0f32;
    if query < time {
        if UNIT_POS < comptime!(BLOCK as u32) {
            fact = lse[(at + comptime!(p.shifts[0] as u32)) as usize];
        } else {
            fact = delta[at as usize];
        }
    }
    fact
}

/// Writes a warp's 16 rows, of which the first is row `at` of [batch, time, head] and position `first`.
#[cube]
fn write<C: Size, O: Numeric, V: Size>(
    into: &mut Array<Vector<O, V>>,
    sums: &Sequence<Array<Vector<f32, C>>>,
    at: u32,
    first: u32,
    #[comptime] shift: usize,
    #[comptime] p: MmaAttentionGrad,
) {
    let lane = UNIT_POS % 32;
    let heads = comptime!((if p.keys { p.shape.kv_heads } else { p.shape.heads }) as u32);
    #[unroll]
    for half in 0..2usize {
        let row = comptime!((half * 8) as u32) + lane / 4;
        #[unroll]
        for pair in 0..comptime!(p.shape.dim / 16) {
            let left = sums_of::<C>(sums, comptime!(2 * pair), half);
            let right = sums_of::<C>(sums, comptime!(2 * pair + 1), half);
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

#[cube]
#[allow(clippy::too_many_arguments, reason = "a kernel's buffers")]
fn kernel<O: Numeric>(
    x: &Array<Vector<bf16, Const<8>>>,
    y: &Array<Vector<bf16, Const<8>>>,
    u: &Array<Vector<bf16, Const<8>>>,
    w: &Array<Vector<bf16, Const<8>>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    into_u: &mut Array<Vector<O, Const<4>>>,
    into_w: &mut Array<Vector<O, Const<4>>>,
    #[comptime] p: MmaAttentionGrad,
) {
    let cube = CUBE_POS as u32;
    if comptime!(p.exact) {
        walk::<Const<8>, Const<2>, Const<2>, O, Const<4>>(x, y, u, w, lse, delta, into_u, into_w, cube, p);
    } else if cube < comptime!(p.cubes as u32) {
        walk::<Const<8>, Const<2>, Const<2>, O, Const<4>>(x, y, u, w, lse, delta, into_u, into_w, cube, p);
    }
}

impl Body for MmaAttentionGrad {
    fn family(&self) -> &'static str {
        if self.keys { "flash_dkv" } else { "flash_dq" }
    }

    fn describe(&self) -> String {
        let s = &self.shape;
        let (what, own, seen) = match self.keys {
            true => ("dk and dv", "keys", "queries"),
            false => ("dq", "queries", "keys"),
        };
        format!(
            "gradient of causal attention, {what}, bfloat16 on tensor cores: {} × {} positions, {} heads of {} over \
             {} of keys, scale {}\n{} blocks of {BLOCK} {own}, blocks of {BLOCK} {seen}, {STAGES} stages\n",
            s.batch, s.time, s.heads, s.dim, s.kv_heads, s.scale, self.blocks
        )
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        let b = |i: usize| buffers[i].clone();
        let (q, k, v, d_o) = (b(0).into(), b(1).into(), b(2).into(), b(3).into());
        let (lse, delta) = (b(4).into(), b(5).into());
        // Without keys there is one result; the other is never touched.
        let (first, second) = (b(6), b(buffers.len() - 1));
        let (x, y, u, w) = if self.keys { (k, v, q, d_o) } else { (q, d_o, k, v) };
        if self.bf16_out {
            kernel::expand::<bf16>(scope, x, y, u, w, lse, delta, first.into(), second.into(), *self);
        } else {
            kernel::expand::<f32>(scope, x, y, u, w, lse, delta, first.into(), second.into(), *self);
        }
    }
}
