//! Causal attention on tensor cores, as FlashAttention-2 computes it: o = softmax(scale · q kᵀ) v over the keys up to
//! each query, and lse, the log of each softmax's sum. Scores and probabilities never leave registers.
//!
//! # Map
//!
//! **Files.** Here: the kernel's description and its launch. [`mainloop`]: load, scores, accumulate. [`softmax`]: the
//! online softmax. [`epilogue`]: store.
//!
//! **Thread blocks.** One has one tile of queries of one head: 128 queries, 64 of a short sequence. It loops over the
//! tiles of keys up to the diagonal. The thread blocks with the most keys come first.
//!
//! **Warps.** Four, all of one role: each thread issues its part of every copy, and each warp multiplies. Warp w has
//! the rows from 16 · fragments · w on, and all keys of a tile. So a softmax's row lies in one warp, four lanes share
//! it, and warps exchange nothing in the mainloop.
//!
//! | registers of a warp | extent | what |
//! |---|---|---|
//! | `scores` | 16 · fragments × keys, float32 | accumulators of q kᵀ, then probabilities in their place |
//! | `acc` | 16 · fragments × dim, float32 | accumulators of p v |
//! | `row_max`, `row_sum` | 2 · fragments a lane | of rows lane / 4 and 8 below: maximum so far, and this lane's part of the sum |
//!
//! | shared memory | extent | what |
//! |---|---|---|
//! | `tile_q` | queries × dim, bfloat16 | loaded once; holds o in the epilogue |
//! | `tile_k`, `tile_v` | [`STAGES`] × keys × dim, bfloat16 | double buffering: one stage is read while the other is filled |
//! | `full` | one mbarrier | phase j ends when tile j of keys and values has arrived |
//!
//! Tiles are swizzled in vectors of 16 bytes ([`place`](crate::kernels::tensor_core::tile::place)): neither `ldmatrix`
//! nor the epilogue's stores have bank conflicts.
//!
//! **Pipeline.** With n tiles of keys:
//!
//! ```text
//! prologue      load q, k[0], v[0] → stage 0
//! mainloop j    wait full, phase j       tile j has arrived, from all threads
//!               sync_cube                all warps are done with tile j - 1: its stage may be overwritten
//!               load k[j+1], v[j+1]      → stage (j + 1) % 2, asynchronous, if j + 1 < n
//!               scores                   S = q k[j]ᵀ               from stage j % 2
//!               online softmax           P = exp(S - max), acc and sum rescaled
//!               accumulate               acc += P v[j]             from stage j % 2
//! epilogue      sync_cube                all warps are done with tile_q
//!               acc / sum → tile_q
//!               sync_cube                the tile is whole
//!               tile_q → o               vectors of 16 bytes, neighbours to neighbours
//! ```
//!
//! One mbarrier serves both stages: a load is issued only after the wait for the one before it, so one is on its way.

mod epilogue;
mod mainloop;
mod softmax;

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use pg_ir::ty::DType;

use super::head_rows;
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::kernels::tensor_core::tile::{CHUNK, Operand, THREADS};
use crate::machine::Machine;
use crate::plan::AttentionShape;

/// Tiles of keys in shared memory.
const STAGES: usize = 2;
/// Queries of a thread block for each fragment of 16 rows that a warp has.
const QUERIES: usize = THREADS / 32 * 16;

/// The description of the kernel.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct MmaAttention {
    shape: AttentionShape,
    /// Fragments of 16 queries of a warp.
    fragments: usize,
    q: Operand,
    k: Operand,
    v: Operand,
    /// Tiles of queries.
    blocks: usize,
    /// Elements before o and lse.
    shifts: [usize; 2],
    /// Thread blocks that have work, and whether the grid has no more.
    thread_blocks: usize,
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
    let s = *shape;
    let keys = machine.tuning.flash_keys;
    let k = head_rows(&s, infos[1].shift, s.kv_heads, keys);
    // Values are summed over keys: the same rows, read across.
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
    let q = head_rows(&s, infos[0].shift, s.heads, fragments * QUERIES);
    let blocks = s.time.div_ceil(fragments * QUERIES);
    let thread_blocks = s.batch * s.heads * blocks;
    let (grid, exact) = machine.grid("flash", thread_blocks as u64)?;
    let shifts = [infos[3].shift, infos[4].shift];
    // The mbarrier comes first, and tiles are at multiples of 128 bytes.
    let shared = 128 + 2 * CHUNK * (q.chunks() + STAGES * (k.chunks() + v.chunks()));
    let body = MmaAttention { shape: s, fragments, q, k, v, blocks, shifts, thread_blocks, exact };
    let spec = |(i, info): (usize, &ArgInfo)| ArgSpec {
        dtype: info.dtype,
        width: if i < 4 { CHUNK } else { 1 },
        writable: i > 2 || info.aliased,
    };
    let args = infos.iter().enumerate().map(spec).collect();
    let kernel = Generated::new(body, args, (THREADS as u32, shared), machine)?;
    out.push(kernel, (0..5).map(StageArg::Arg).collect(), grid, 1.0);
    Ok(())
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
        mainloop::kernel::expand(scope, q.into(), k.into(), v.into(), o.into(), lse.into(), *self);
    }
}
