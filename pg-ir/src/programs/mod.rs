//! The programs of a model: a short, finite list, none with a run-time flag inside.
//!
//! | program | reads | writes |
//! |---|---|---|
//! | `grad.first` | parameters, tokens, targets | gradients, `loss`, working forms |
//! | `grad.next` | the same, the gradients and working forms | gradients plus this micro-batch's, `loss` |
//! | `update` | gradients and optimiser state | parameters, optimiser state, average, `grad_norm` |
//! | `score` | parameters, tokens, targets | `nll` of every target |
//! | `logits` | parameters, tokens | `logits` |
//! | `adapt` | gradients | parameters, velocity: one step of test-time training |
//!
//! A parameter's working form is what contractions and gathers read of it: quantised, rounded as a target stores
//! operands, or both. The graphs here compute it where they need it; lowering takes it to memory and from there
//! as each program's [`Working`] says.
//!
//! Run-time scalars: `inv_accum` (1 / micro-batches of a step), `lr_scale`, `momentum`, `ema_decay` and
//! `ema_rest` (1 − decay), `bias.BETA` (1 − βᵗ), `ttt_lr`.

mod adapt;
mod clip;
mod grad;
mod update;

pub use adapt::adapt;
pub use grad::{grad, logits, score};
pub use update::update;

use crate::graph::{Builder, Graph, ValueId};
use crate::slot::{Slot, Space};

/// How a program comes by working forms of parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Working {
    /// It computes them for itself.
    #[default]
    Own,
    /// It computes them and leaves them to those that run after it.
    Leave,
    /// It finds those that were left: by the same phase's program that leaves them, since parameters last changed.
    Find,
}

/// A named graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    /// `grad.first`, `update`, …
    pub name: String,
    /// What it computes.
    pub graph: Graph,
    /// What lowering does about its working forms.
    pub working: Working,
    /// The logits in that graph, written or not, for [`prove`](crate::verify::prove); `None` where no
    /// distribution is computed, or only by a loss of the model's own.
    pub logits: Option<ValueId>,
    /// Negative log-likelihood of each target in that graph, likewise.
    pub nll: Option<ValueId>,
}

impl Program {
    fn new(name: impl Into<String>, b: Builder) -> Program {
        Program { name: name.into(), graph: b.finish(), working: Working::Own, logits: None, nll: None }
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
