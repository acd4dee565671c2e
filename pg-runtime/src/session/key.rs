//! Names of a model's programs.

/// A program of a model at one shape.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// Forward and backward of a micro-batch of `batch` sequences of `seq` tokens.
    Grad {
        /// Phase of training.
        phase: usize,
        /// Sequences.
        batch: usize,
        /// Tokens of a sequence.
        seq: usize,
        /// Through the straight-through quantisers.
        qat: bool,
        /// Add to the gradients instead of overwriting them.
        accumulate: bool,
    },
    /// As [`Key::Grad`], of the mean of the scores: what test-time training needs of a model that trains on a loss of its
    /// own.
    ScoreGrad {
        /// Sequences.
        batch: usize,
        /// Tokens of a sequence.
        seq: usize,
        /// Through the straight-through quantisers.
        qat: bool,
        /// Add to the gradients instead of overwriting them.
        accumulate: bool,
    },
    /// The optimiser step.
    Update,
    /// NLL of every target.
    Score {
        /// Sequences.
        batch: usize,
        /// Tokens of a sequence.
        seq: usize,
        /// Through the straight-through quantisers: only for weights that are still latent.
        qat: bool,
    },
    /// Logits.
    Logits {
        /// Sequences.
        batch: usize,
        /// Tokens of a sequence.
        seq: usize,
        /// Through the straight-through quantisers.
        qat: bool,
    },
    /// One step of test-time training from accumulated gradients.
    Adapt,
}

impl Key {
    /// Sequences and their tokens, of a program that reads tokens.
    pub fn shape(self) -> Option<(usize, usize)> {
        match self {
            Key::Grad { batch, seq, .. }
            | Key::ScoreGrad { batch, seq, .. }
            | Key::Score { batch, seq, .. }
            | Key::Logits { batch, seq, .. } => Some((batch, seq)),
            Key::Update | Key::Adapt => None,
        }
    }

    /// The same program at another shape, if it reads tokens.
    pub fn at(self, batch: usize, seq: usize) -> Key {
        match self {
            Key::Grad { phase, qat, accumulate, .. } => Key::Grad { phase, batch, seq, qat, accumulate },
            Key::ScoreGrad { qat, accumulate, .. } => Key::ScoreGrad { batch, seq, qat, accumulate },
            Key::Score { qat, .. } => Key::Score { batch, seq, qat },
            Key::Logits { qat, .. } => Key::Logits { batch, seq, qat },
            Key::Update | Key::Adapt => self,
        }
    }

    /// Of a program that adds to gradients, the one that begins them at the same shape.
    pub fn first(self) -> Option<Key> {
        match self {
            Key::Grad { phase, batch, seq, qat, accumulate: true } => {
                Some(Key::Grad { phase, batch, seq, qat, accumulate: false })
            }
            Key::ScoreGrad { batch, seq, qat, accumulate: true } => {
                Some(Key::ScoreGrad { batch, seq, qat, accumulate: false })
            }
            _ => None,
        }
    }
}
