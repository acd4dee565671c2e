//! The gradient of causal attention on tensor cores. Probabilities are recomputed from the log-sum-exp. There are no
//! atomics: one kernel has the queries and loops over the keys that they see (dq), another has the keys and loops over
//! the queries that see them (dk and dv).
//!
//! # Map
//!
//! **Files.** Here: the kernels' description and their launches. [`mainloop`]: load, scores, gradient of the softmax,
//! accumulate. [`epilogue`]: store.
//!
//! **One program for both kernels.** Own rows stay, the others are streamed past them:
//!
//! | | dq (`keys` is false) | dk and dv (`keys` is true) |
//! |---|---|---|
//! | `own_s`, `own_dp` | q, do | k, v |
//! | `streamed_s`, `streamed_dp` | k, v | q, do |
//! | `s` = own_s · streamed_sᵀ | S = q kᵀ | Sᵀ = k qᵀ |
//! | `dp` = own_dp · streamed_dpᵀ | dP = do vᵀ | dPᵀ = v doᵀ |
//! | P = exp(scale · S − lse), dS = P (dP − delta) scale | rows are queries | columns are queries |
//! | `acc_s` += dS · streamed_s | dq | dk |
//! | `acc_dp` += P · streamed_dp | – | dv |
//!
//! delta = Σ o · do over a head's width comes from a kernel before them.
//!
//! **Thread blocks.** One has [`BLOCK`] own rows of one head, of a head of keys in the second kernel: that one loops
//! over all heads of queries in the group too. The thread blocks with the most tiles come first.
//!
//! **Warps.** Four, all of one role: each thread issues its part of every copy, and each warp multiplies. Warp w has
//! the own rows from 16 · w on, and all rows of a streamed tile: warps exchange nothing in the mainloop.
//!
//! | registers of a warp | extent | what |
//! |---|---|---|
//! | `s`, `dp` | 16 × [`BLOCK`], float32 | accumulators of scores and of dP; then P and dS in their place |
//! | `acc_s`, `acc_dp` | 16 × dim, float32 | accumulators of the results |
//! | `own_stats` | 4 a lane | dq only: lse and delta of rows lane / 4 and 8 below |
//!
//! | shared memory | extent | what |
//! |---|---|---|
//! | `tile_own_s`, `tile_own_dp` | [`BLOCK`] × dim, bfloat16 | loaded once |
//! | `tile_s`, `tile_dp` | [`STAGES`] × [`BLOCK`] × dim, bfloat16 | streamed, double buffering: one stage is read while the other is filled |
//! | `stats` | [`STAGES`] × 2 × [`BLOCK`], float32 | dk and dv only: lse and delta of the streamed queries |
//! | `full` | one mbarrier | phase j ends when streamed tile j has arrived |
//!
//! Tiles are swizzled in vectors of 16 bytes ([`place`](crate::kernels::tensor_core::tile::place)): `ldmatrix` reads
//! them along rows and across without bank conflicts.
//!
//! **Pipeline.** With n streamed tiles:
//!
//! ```text
//! prologue      load own rows, tile 0 → stage 0
//! mainloop j    wait full, phase j       tile j has arrived, from all threads
//!               sync_cube                all warps are done with tile j - 1, and stats of tile j are written
//!               load tile j + 1          → stage (j + 1) % 2, asynchronous; lse or delta → a register
//!               scores                   s, dp                     from stage j % 2
//!               gradient of the softmax  P, dS                     stats from stage j % 2
//!               accumulate               acc_s, acc_dp             from stage j % 2
//!               the register → stats     stage (j + 1) % 2, last read in iteration j - 1
//! epilogue      acc_s → dq or dk, acc_dp → dv, from registers
//! ```
//!
//! One mbarrier serves both stages: a load is issued only after the wait for the one before it, so one is on its way.

mod epilogue;
mod mainloop;

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use half::bf16;
use pg_ir::ty::DType;

use super::head_rows;
use super::portable_grad::{QUERY_SHARE, delta};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::kernels::tensor_core::tile::{CHUNK, Operand, THREADS};
use crate::machine::Machine;
use crate::plan::AttentionShape;

/// Own rows of a thread block, a fragment of 16 a warp, and rows of a streamed tile.
const BLOCK: usize = 64;
/// Streamed tiles in shared memory.
const STAGES: usize = 2;

/// The description of one of the two kernels.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct MmaAttentionGrad {
    shape: AttentionShape,
    /// Whether keys are own rows and queries are streamed.
    keys: bool,
    /// q, k, v and do as rows.
    rows: [Operand; 4],
    /// Tiles of a sequence.
    blocks: usize,
    /// Elements before lse and delta, and before each result.
    shifts: [usize; 4],
    bf16_out: bool,
    /// Thread blocks that have work, and whether the grid has no more.
    thread_blocks: usize,
    exact: bool,
}

impl MmaAttentionGrad {
    /// Own rows: those of the scores, and those of dP.
    fn own(&self) -> [Operand; 2] {
        let [q, k, v, d_o] = self.rows;
        if self.keys { [k, v] } else { [q, d_o] }
    }

    /// Streamed rows: those of the scores, and those of dP.
    fn streamed(&self) -> [Operand; 2] {
        let [q, k, v, d_o] = self.rows;
        if self.keys { [q, d_o] } else { [k, v] }
    }

    /// Heads of own rows.
    fn own_heads(&self) -> usize {
        if self.keys { self.shape.kv_heads } else { self.shape.heads }
    }

    /// Heads of queries that share one of keys.
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// Emits the kernel with results of a type.
    fn emit<O: Numeric>(&self, scope: &mut Scope, buffers: &[ManagedVariable]) {
        let b = |i: usize| buffers[i].clone();
        // dq is one result; then nothing is stored to the other.
        let (lse, delta, grad_s, grad_dp) = (b(4).into(), b(5).into(), b(6).into(), b(buffers.len() - 1));
        let [x, y, u, w] = if self.keys { [1, 2, 0, 3] } else { [0, 3, 1, 2] }.map(|i| b(i).into());
        mainloop::kernel::expand::<O>(scope, x, y, u, w, lse, delta, grad_s, grad_dp.into(), *self);
    }
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
    let s = *shape;
    let (delta, _) = delta(shape, infos, machine, out)?;
    let operand = |i: usize, heads: usize| head_rows(&s, infos[i].shift, heads, BLOCK);
    let rows = [operand(0, s.heads), operand(1, s.kv_heads), operand(2, s.kv_heads), operand(5, s.heads)];
    let blocks = s.time.div_ceil(BLOCK);
    // The mbarrier, own and streamed tiles, and lse and delta of streamed queries.
    let shared = 128 + 2 * CHUNK * rows[0].chunks() * (2 + 2 * STAGES) + 4 * STAGES * 2 * BLOCK;
    for keys in [false, true] {
        let results: &[usize] = if keys { &[7, 8] } else { &[6] };
        let thread_blocks = s.batch * if keys { s.kv_heads } else { s.heads } * blocks;
        let (grid, exact) = machine.grid("flash_grad", thread_blocks as u64)?;
        let last = results[results.len() - 1];
        let shifts = [infos[4].shift, 0, infos[results[0]].shift, infos[last].shift];
        let bf16_out = infos[last].dtype == DType::BF16;
        let body = MmaAttentionGrad { shape: s, keys, rows, blocks, shifts, bf16_out, thread_blocks, exact };
        let read = |i: usize, width| ArgSpec { dtype: infos[i].dtype, width, writable: infos[i].aliased };
        let mut args: Vec<ArgSpec> = [0, 1, 2, 5].iter().map(|&i| read(i, CHUNK)).collect();
        args.extend([read(4, 1), ArgSpec { dtype: DType::F32, width: 1, writable: false }]);
        args.extend(results.iter().map(|&i| ArgSpec { dtype: infos[i].dtype, width: 4, writable: true }));
        let kernel = Generated::new(body, args, (THREADS as u32, shared), machine)?;
        let mut names: Vec<StageArg> = [0, 1, 2, 5, 4].map(StageArg::Arg).into();
        names.push(delta);
        names.extend(results.iter().map(|&i| StageArg::Arg(i)));
        out.push(kernel, names, grid, if keys { 1.0 - QUERY_SHARE } else { QUERY_SHARE });
    }
    Ok(())
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
        if self.bf16_out {
            self.emit::<bf16>(scope, buffers);
        } else {
            self.emit::<f32>(scope, buffers);
        }
    }
}
