//! The programs of a model: a short, finite list, none with a run-time flag inside.
//!
//! | program | reads | writes |
//! |---|---|---|
//! | `grad.first` | parameters, tokens, targets | gradients, `loss`, cached weights |
//! | `grad.next` | the same, the gradients and cached weights | gradients plus this micro-batch's, `loss` |
//! | `score_grad.first`, `score_grad.next` | the same | the same, of the mean of the scores where training has a loss of its own |
//! | `update` | gradients and optimiser state | parameters, optimiser state, average, `grad_norm` |
//! | `score` | parameters, tokens, targets | `nll` of every target, `logit_max` before it |
//! | `logits` | parameters, tokens | `logits` |
//! | `adapt` | gradients | parameters, velocity: one step of test-time training |
//!
//! A parameter's cached weight is what contractions and gathers read of it: quantised, rounded as a target stores
//! operands, or both. The graphs here compute it where they need it; lowering takes it to memory and from there
//! as each program's [`WeightCache`] says.
//!
//! Run-time scalars: `inv_accum` (1 / micro-batches of a step), `lr_scale`, `momentum`, `ema_decay` and
//! `ema_rest` (1 − decay), `bias.BETA` (1 − βᵗ), `ttt_lr`.

mod adapt;
mod clip;
mod grad;
mod update;

pub use adapt::adapt;
pub use grad::{grad, logits, score, score_grad};
pub use update::update;

use crate::graph::{Builder, Graph, ValueId};
use crate::slot::{Slot, Space};

/// How a program comes by cached weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WeightCache {
    /// It computes them for itself.
    #[default]
    None,
    /// It computes them and writes them to state, for the programs that run after it.
    Write,
    /// It reads them from state, where the same phase's program wrote them since parameters last changed.
    Read,
}

/// A named graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    /// `grad.first`, `update`, …
    pub name: String,
    /// What it computes.
    pub graph: Graph,
    /// What lowering does about its cached weights.
    pub weight_cache: WeightCache,
    /// The logits in that graph, written or not, for [`prove`](crate::verify::prove); `None` where no
    /// distribution is computed, or only by a loss of the model's own.
    pub logits: Option<ValueId>,
    /// Negative log-likelihood of each target in that graph, likewise.
    pub nll: Option<ValueId>,
}

impl Program {
    fn new(name: impl Into<String>, b: Builder) -> Program {
        Program {
            name: name.into(),
            graph: b.finish(),
            weight_cache: WeightCache::None,
            logits: None,
            nll: None,
        }
    }

    fn with_scores(self, logits: Option<ValueId>, nll: Option<ValueId>) -> Program {
        Program { logits, nll, ..self }
    }
}

/// Name of the scalar 1 − βᵗ, t counting steps from 1.
pub fn bias_scalar(beta: f64) -> String {
    format!("bias.{beta}")
}

fn result(b: &mut Builder, name: &str, value: ValueId) {
    b.output(Slot::new(Space::Result, name), value);
}
