//! What a run says while it works.

use super::{LiveScore, StepMetrics};

/// What a run says while it works. The command line turns events into a progress bar or plain lines.
#[derive(Clone, Debug)]
pub enum Event {
    /// A line worth reading, such as an effective setting.
    Note(String),
    /// Something that may be wrong.
    Warning(String),
    /// A stage of `total` units begins (steps, windows, …); 0 where the number is not known.
    Begin {
        /// `train`, `score quantized`, …
        stage: String,
        /// Units of work.
        total: u64,
    },
    /// Units of the current stage done so far.
    Progress(u64),
    /// A training step is done.
    Step {
        /// Its metrics.
        metrics: StepMetrics,
        /// Tokens of a step.
        tokens: usize,
        /// Planned steps, if the budget is in steps; the expected number otherwise.
        planned: u64,
    },
    /// The weights were scored between two steps.
    Scored(LiveScore),
    /// The current stage is done, with its result in words.
    End(String),
}

/// Receives events.
pub type Observer<'a> = dyn FnMut(Event) + 'a;
