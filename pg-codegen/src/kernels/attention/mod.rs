//! Causal attention and its gradient: portable kernels, which every device runs, and those for tensor cores.

pub(crate) mod portable;
pub(crate) mod portable_grad;
pub(crate) mod tensor_core;
pub(crate) mod tensor_core_grad;
mod tiling;
mod warp;

use super::error::CubeError;
use super::stage::ArgInfo;
use super::tensor_core::tile::Operand;
use crate::plan::AttentionShape;

/// Stands for −∞ in a running maximum: its exponential is 0 beside any score.
const LOWEST: f32 = -1e30;

/// Checks an attention's shape, and the lengths of its arguments: q, k, v, o and lse, and for the gradient more.
fn check_sizes(s: &AttentionShape, infos: &[ArgInfo], names: &str) -> Result<(), CubeError> {
    let malformed = |what: String| Err(CubeError::Malformed { kernel: "attention".into(), what });
    if s.batch * s.time * s.heads * s.kv_heads * s.dim == 0 || !s.heads.is_multiple_of(s.kv_heads) {
        return malformed(format!("a shape of {s:?}"));
    }
    let (rows, kv) = (s.batch * s.time * s.heads, s.batch * s.time * s.kv_heads * s.dim);
    let wanted: Vec<usize> = (names.split(' '))
        .map(|name| match name {
            "lse" => rows,
            "k" | "v" | "dk" | "dv" => kv,
            _ => rows * s.dim,
        })
        .collect();
    if infos.len() != wanted.len() {
        return malformed(format!("{} arguments, not {names}", infos.len()));
    }
    for ((info, name), len) in infos.iter().zip(names.split(' ')).zip(wanted) {
        if info.len < len || len + info.shift > i32::MAX as usize {
            return malformed(format!("{name} of {} {} elements", info.len, info.dtype));
        }
    }
    Ok(())
}

/// The rows of all heads of a [batch, time, heads, dim] tensor as an operand of tensor cores, in tiles of `tile` rows.
fn head_rows(s: &AttentionShape, shift: usize, heads: usize, tile: usize) -> Operand {
    Operand {
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
    }
}
