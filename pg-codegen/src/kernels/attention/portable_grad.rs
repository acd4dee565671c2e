//! The gradient of causal attention. Probabilities are recomputed from the log-sum-exp. There are no atomics: one
//! kernel has the queries and loops over their keys, another has the keys and loops over the queries that see them.
//!
//! With p = exp(scale · q·k − lse) and delta = o · do per query:
//! dv = Σ p do, ds = p (do · v − delta) scale, dq = Σ ds k, dk = Σ ds q.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use pg_ir::op::{Binary, Reduction};
use pg_ir::ty::DType;

use super::portable::{Width, add_row, dot, load_rows, work_tile, write_row};
use super::tiling::{THREADS, Tiling, check_types, specs};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated, has_work};
use crate::kernels::region;
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;
use crate::plan::AttentionShape;
use crate::region::{Affine, IndexMap, Instr, Region};

/// The part of the work that dq is: three products of tiles, where dk and dv take four.
pub(crate) const QUERY_SHARE: f64 = 3.0 / 7.0;

/// The kernel of dq. Shifts are of q, k, v, do, lse, delta and dq.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct QueryGrad {
    tiling: Tiling,
    shifts: [usize; 7],
}

/// The kernel of dk and dv. Shifts are of q, k, v, do, lse, delta, dk and dv.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct KeyGrad {
    tiling: Tiling,
    shifts: [usize; 8],
}

/// Adds the launches of the gradient: delta, dq, and dk with dv.
pub(crate) fn lower(
    shape: &AttentionShape,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    check_types(infos)?;
    let (delta, delta_info) = delta(shape, infos, machine, out)?;
    let read = [infos[0], infos[1], infos[2], infos[5], infos[4], delta_info];
    let read_args = [0, 1, 2, 5, 4].map(StageArg::Arg).into_iter().chain([delta]);
    let aligned = read[..4].iter().all(|i| i.shift.is_multiple_of(4));
    let (mut tiling, shared) = Tiling::new(*shape, shape.heads, (4, 1), aligned, machine);
    let grid = tiling.grid("attention_grad", machine)?;
    let all: Vec<ArgInfo> = read.iter().copied().chain([infos[6]]).collect();
    let shifts = std::array::from_fn(|i| all[i].shift);
    let body = QueryGrad { tiling, shifts };
    let specs_q = specs(&all, tiling.vector, 4, 6);
    let kernel = Generated::new(body, specs_q, (THREADS as u32, shared), machine)?;
    out.push(kernel, read_args.clone().chain([StageArg::Arg(6)]).collect(), grid, QUERY_SHARE);

    let (mut tiling, shared) = Tiling::new(*shape, shape.kv_heads, (4, 2), aligned, machine);
    let grid = tiling.grid("attention_grad", machine)?;
    let all: Vec<ArgInfo> = read.iter().copied().chain([infos[7], infos[8]]).collect();
    let shifts = std::array::from_fn(|i| all[i].shift);
    let body = KeyGrad { tiling, shifts };
    let specs_kv = specs(&all, tiling.vector, 4, 6);
    let kernel = Generated::new(body, specs_kv, (THREADS as u32, shared), machine)?;
    let args = read_args.chain([StageArg::Arg(7), StageArg::Arg(8)]).collect();
    out.push(kernel, args, grid, 1.0 - QUERY_SHARE);
    Ok(())
}

/// Adds the launch of delta[row] = Σ o · do over the head, and gives where delta is.
pub(crate) fn delta(
    shape: &AttentionShape,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(StageArg, ArgInfo), CubeError> {
    let (rows, dim) = (shape.batch * shape.time * shape.heads, shape.dim);
    let at = |row: i64, column: i64| Affine { offset: 0, strides: [row, column].into_iter().collect() };
    let load = |arg| Instr::Load { arg, map: IndexMap { at: at(dim as i64, 1), guards: vec![] } };
    let body = vec![
        load(0),
        load(1),
        Instr::Binary(Binary::Mul, 0, 1),
        Instr::RowReduce(Reduction::Sum, 2),
        Instr::Store { arg: 2, value: 3, at: at(1, 0) },
    ];
    let args = vec![infos[3].dtype, infos[5].dtype, DType::F32];
    let products = Region { rows: vec![rows], reduced: 0, columns: dim, body, args };
    let delta = StageArg::Workspace(out.workspace(4 * rows));
    let info = ArgInfo::whole(DType::F32, rows);
    let names = [StageArg::Arg(3), StageArg::Arg(5), delta];
    region::append(&products, &[infos[3], infos[5], info], &names, machine, out)?;
    Ok((delta, info))
}

#[cube]
fn query_kernel<N: Size>(
    q: &Array<Vector<f32, N>>,
    k: &Array<Vector<f32, N>>,
    v: &Array<Vector<f32, N>>,
    d_o: &Array<Vector<f32, N>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    dq: &mut Array<f32>,
    #[comptime] p: QueryGrad,
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
        let mut tile_do = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut tile_k = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut tile_v = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut ds = SharedMemory::<f32>::new(comptime!(t.block * (t.block + 1)));
        let own = work_tile(block_index, heads, true, t);
        let batch = own.batch;
        let head = own.head;
        let first = own.first;
        let row = own.row;
        let column = own.column;
        load_rows::<N>(q, &mut tile_q, batch, head, first, heads, comptime!(p.shifts[0]), t);
        load_rows::<N>(d_o, &mut tile_do, batch, head, first, heads, comptime!(p.shifts[3]), t);
        let at = (batch * time + first + row) * comptime!(heads as u32) + head;
        let mut row_lse = 0.0f32;
        let mut row_delta = 0.0f32;
        if first + row < time {
            row_lse = lse[(at + comptime!(p.shifts[4] as u32)) as usize];
            row_delta = delta[(at + comptime!(p.shifts[5] as u32)) as usize];
        }
        let mut acc = Array::<f32>::new(comptime!(t.elements));
        #[unroll]
        for i in 0..comptime!(t.elements) {
            acc[i] = 0.0f32;
        }
        for key_tile in 0..own.tile + 1 {
            let first_key = key_tile * block;
            sync_cube();
            load_rows::<N>(k, &mut tile_k, batch, head / group, first_key, kv_heads, shift_k, t);
            load_rows::<N>(v, &mut tile_v, batch, head / group, first_key, kv_heads, shift_v, t);
            sync_cube();
            #[unroll]
            for i in 0..comptime!(t.scores) {
                let key = column + comptime!((i * t.columns) as u32);
                if key < block {
                    let mut grad = 0.0f32;
                    if first_key + key <= first + row && first + row < time {
                        let score = dot(&tile_q, row, &tile_k, key, t) * comptime!(t.shape.scale);
                        let dp = dot(&tile_do, row, &tile_v, key, t);
                        grad = f32::exp(score - row_lse) * (dp - row_delta) * comptime!(t.shape.scale);
                    }
                    ds[(row * width + key) as usize] = grad;
                }
            }
            sync_cube();
            for key in 0..block {
                add_row(&mut acc, ds[(row * width + key) as usize], &tile_k, key, column, t);
            }
        }
        if first + row < time {
            write_row(dq, &acc, 1.0f32, at, column, comptime!(p.shifts[6]), t);
        }
    }
}

#[cube]
fn key_kernel<N: Size>(
    q: &Array<Vector<f32, N>>,
    k: &Array<Vector<f32, N>>,
    v: &Array<Vector<f32, N>>,
    d_o: &Array<Vector<f32, N>>,
    lse: &Array<f32>,
    delta: &Array<f32>,
    dk: &mut Array<f32>,
    dv: &mut Array<f32>,
    #[comptime] p: KeyGrad,
) {
    let t = comptime!(p.tiling);
    let block_index = CUBE_POS as u32;
    if has_work(block_index, comptime!(t.thread_blocks), comptime!(t.exact)) {
        let heads = comptime!(t.shape.heads);
        let kv_heads = comptime!(t.shape.kv_heads);
        let group = comptime!((t.shape.heads / t.shape.kv_heads) as u32);
        let block = comptime!(t.block as u32);
        let time = comptime!(t.shape.time as u32);
        let width = comptime!((t.block + 1) as u32);
        let mut tile_q = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut tile_do = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut tile_k = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut tile_v = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
        let mut probs = SharedMemory::<f32>::new(comptime!(t.block * (t.block + 1)));
        let mut ds = SharedMemory::<f32>::new(comptime!(t.block * (t.block + 1)));
        let own = work_tile(block_index, kv_heads, false, t);
        let batch = own.batch;
        let row = own.row;
        let column = own.column;
        load_rows::<N>(k, &mut tile_k, batch, own.head, own.first, kv_heads, comptime!(p.shifts[1]), t);
        load_rows::<N>(v, &mut tile_v, batch, own.head, own.first, kv_heads, comptime!(p.shifts[2]), t);
        let mut acc_dk = Array::<f32>::new(comptime!(t.elements));
        let mut acc_dv = Array::<f32>::new(comptime!(t.elements));
        #[unroll]
        for i in 0..comptime!(t.elements) {
            acc_dk[i] = 0.0f32;
            acc_dv[i] = 0.0f32;
        }
        for member in 0..group {
            let head = own.head * group + member;
            for query_tile in own.tile..comptime!(t.blocks as u32) {
                let first_query = query_tile * block;
                sync_cube();
                load_rows::<N>(q, &mut tile_q, batch, head, first_query, heads, comptime!(p.shifts[0]), t);
                load_rows::<N>(d_o, &mut tile_do, batch, head, first_query, heads, comptime!(p.shifts[3]), t);
                sync_cube();
                #[unroll]
                for i in 0..comptime!(t.scores) {
                    let query = column + comptime!((i * t.columns) as u32);
                    if query < block {
                        let mut prob = 0.0f32;
                        let mut grad = 0.0f32;
                        if own.first + row <= first_query + query && first_query + query < time {
                            let at = (batch * time + first_query + query) * comptime!(heads as u32) + head;
                            let score = dot(&tile_q, query, &tile_k, row, t) * comptime!(t.shape.scale);
                            prob = f32::exp(score - lse[(at + comptime!(p.shifts[4] as u32)) as usize]);
                            let dp = dot(&tile_do, query, &tile_v, row, t);
                            let row_delta = delta[(at + comptime!(p.shifts[5] as u32)) as usize];
                            grad = prob * (dp - row_delta) * comptime!(t.shape.scale);
                        }
                        probs[(row * width + query) as usize] = prob;
                        ds[(row * width + query) as usize] = grad;
                    }
                }
                sync_cube();
                for query in 0..block {
                    add_row(&mut acc_dv, probs[(row * width + query) as usize], &tile_do, query, column, t);
                    add_row(&mut acc_dk, ds[(row * width + query) as usize], &tile_q, query, column, t);
                }
            }
        }
        if own.first + row < time {
            let at = (batch * time + own.first + row) * comptime!(kv_heads as u32) + own.head;
            write_row(dk, &acc_dk, 1.0f32, at, column, comptime!(p.shifts[6]), t);
            write_row(dv, &acc_dv, 1.0f32, at, column, comptime!(p.shifts[7]), t);
        }
    }
}

impl Body for QueryGrad {
    fn family(&self) -> &'static str {
        "attention_dq"
    }

    fn describe(&self) -> String {
        let shape = self.tiling.describe();
        format!("dq = Σ over keys of p (do · v − delta) scale k, p = exp(scale · q·k − lse)\n{shape}")
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        scope.register_size::<Width>(self.tiling.vector);
        let b = |i: usize| buffers[i].clone();
        let (q, k, v, d_o) = (b(0).into(), b(1).into(), b(2).into(), b(3).into());
        query_kernel::expand::<Width>(scope, q, k, v, d_o, b(4).into(), b(5).into(), b(6).into(), *self);
    }
}

impl Body for KeyGrad {
    fn family(&self) -> &'static str {
        "attention_dkv"
    }

    fn describe(&self) -> String {
        let shape = self.tiling.describe();
        format!(
            "dv = Σ over queries of p do, dk = Σ over queries of p (do · v − delta) scale q, \
             p = exp(scale · q·k − lse)\n{shape}"
        )
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        scope.register_size::<Width>(self.tiling.vector);
        let b = |i: usize| buffers[i].clone();
        let (q, k, v, d_o) = (b(0).into(), b(1).into(), b(2).into(), b(3).into());
        let (lse, delta) = (b(4).into(), b(5).into());
        key_kernel::expand::<Width>(scope, q, k, v, d_o, lse, delta, b(6).into(), b(7).into(), *self);
    }
}
