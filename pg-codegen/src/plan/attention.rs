//! Causal attention and its gradient.

use std::hash::{DefaultHasher, Hash};

use super::family::{Family, Param, ParamType};

/// Shapes of causal attention: q, o [batch, time, heads, dim], k [batch, time, kv_heads, dim],
/// v [batch, time, kv_heads, dim], lse [batch, time, heads], all row-major and contiguous.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Positions.
    pub time: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; query head h reads head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Factor on q · k before the softmax.
    pub scale: f32,
}

/// Attention, or its gradient.
pub(super) struct Attention<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) is_gradient: bool,
}

impl Family for Attention<'_> {
    fn name(&self) -> &'static str {
        if self.is_gradient { "attention_grad" } else { "attention" }
    }

    fn params(&self) -> Vec<Param> {
        let [q, k, lse] = self.shape.lens();
        // q, k, v, and o, lse; or q, k, v, o, lse, the gradient of o, and those of q, k and v.
        let (read, written): (&[usize], &[usize]) =
            if self.is_gradient { (&[q, k, k, q, lse, q], &[q, k, k]) } else { (&[q, k, k], &[q, lse]) };
        let read = read.iter().map(|&len| Param::read(ParamType::Float).of_len(len));
        read.chain(written.iter().map(|&len| Param::written(ParamType::Float).of_len(len))).collect()
    }

    fn shape(&self) -> String {
        let AttentionShape { batch, time, heads, kv_heads, dim, .. } = self.shape;
        format!("{batch} × {time}, {heads}/{kv_heads} heads of {dim}")
    }

    /// The scale is a constant of the code, as the constants of a region are.
    fn structure(&self, to: &mut DefaultHasher) {
        let AttentionShape { batch, time, heads, kv_heads, dim, .. } = self.shape;
        (*batch > 1, *time > 1, heads, kv_heads, dim).hash(to);
    }

    fn multiplies_matrices(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), String> {
        let AttentionShape { heads, kv_heads, .. } = self.shape;
        if *kv_heads == 0 || !heads.is_multiple_of(*kv_heads) {
            return Err(format!(
                "has {heads} query heads, which do not divide among {kv_heads} key/value heads"
            ));
        }
        Ok(())
    }
}

impl AttentionShape {
    /// Elements of q and o, of k and v, and of lse; no buffer has `usize::MAX`.
    fn lens(&self) -> [usize; 3] {
        let product = |sizes: [usize; 4]| sizes.iter().fold(1, |n: usize, &size| n.saturating_mul(size));
        let Self { batch, time, heads, kv_heads, dim, .. } = *self;
        [[batch, time, heads, dim], [batch, time, kv_heads, dim], [batch, time, heads, 1]].map(product)
    }
}
