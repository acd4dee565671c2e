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

/// Why an evaluation failed.
#[derive(Debug, Error)]
pub enum EvalError {
    /// Compiling or running a program failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// There is too little text to score.
    #[error("the validation text has {0} tokens; at least 2 are needed to score one")]
    TooShort(usize),
    /// A score is not a number.
    #[error("the loss of target {0} is not finite: the weights do not give a distribution")]
    NotFinite(usize),
}
