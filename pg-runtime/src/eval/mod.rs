//! Evaluation: every target scored exactly once, plain, by sliding window, or with score-first
//! test-time training. Scores are sums of nats; bits per byte come from the tokenizer's byte counts.

mod sliding;
mod ttt;
mod windows;

pub use sliding::{window_nll, window_programs};
pub use ttt::{Scored, TttOutcome, score_and_adapt, ttt_programs};
pub use windows::{Window, Windows};

use thiserror::Error;

use crate::session::SessionError;

/// Hears how many windows have been scored; an error ends the scoring.
pub type OnProgress<'a> = dyn FnMut(u64) -> Result<(), EvalError> + 'a;

/// Why an evaluation failed.
#[derive(Debug, Error)]
pub enum EvalError {
    /// Compiling or running a program failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// There is too little text to score.
    #[error("the validation text has {0} tokens; at least 2 are needed to score one")]
    TooShort(usize),
    /// The time for it is over.
    #[error(
        "stopped with {done} of {total} windows scored: the {seconds} s for scores were over, and of a part there is no score;          allow more (--eval-seconds), or score fewer or wider strides (eval.max_targets, eval.stride)"
    )]
    OutOfTime {
        /// Seconds that all scores together were allowed.
        seconds: f64,
        /// Windows scored.
        done: u64,
        /// Windows that there are.
        total: u64,
    },
    /// It was asked to stop.
    #[error("asked to stop: there is no score")]
    Interrupted,
    /// A score is not one of a distribution.
    #[error(
        "the loss of target {target} is {value}: the weights do not give a distribution; lower the learning rates, or \
         look at what the model does to its logits"
    )]
    NoDistribution {
        /// The target, counted from the start of the text.
        target: usize,
        /// Its negative log-likelihood.
        value: f32,
    },
    /// Logits are so large that float32 holds too little of their differences.
    #[error(
        "the largest logit before target {target} is {largest:e}: float32 has steps of {step:e} there, more than the last \
         digit of a score, so no score is reported; take the offset out of the logits, or cap them (`softcap`)"
    )]
    CoarseLogits {
        /// The target, counted from the start of the text.
        target: usize,
        /// The largest logit.
        largest: f32,
        /// Distance of the float32 numbers about it.
        step: f32,
    },
}
