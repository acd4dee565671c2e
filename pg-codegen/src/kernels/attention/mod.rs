//! Causal attention and its gradient: portable kernels, which every device runs, and those for tensor cores.

pub(crate) mod portable;
pub(crate) mod portable_grad;
pub(crate) mod tensor_core;
pub(crate) mod tensor_core_grad;
mod tiling;
mod warp;

use super::tensor_core::tile::Operand;
use crate::plan::AttentionShape;

/// Stands for −∞ in a running maximum: its exponential is 0 beside any score.
const LOWEST: f32 = -1e30;

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
