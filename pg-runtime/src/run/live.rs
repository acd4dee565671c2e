//! Scores of the weights while they are trained (`--val-every`): plain, of all the text that the run scores. Nothing of the
//! training depends on them, and the time that they take is not the training's.

use std::ops::ControlFlow;
use std::time::Instant;

use super::Scorer;
use crate::eval::EvalError;
use crate::report::{Event, LiveScore, Observer};
use crate::session::Session;
use crate::state::State;
use crate::train::TrainError;

/// Scores weights every so many steps.
pub(super) struct Live<'a> {
    every: u64,
    scorer: Scorer<'a>,
    /// All scores of this run, also those of processes that were stopped.
    pub(super) scores: Vec<LiveScore>,
    /// Those of the run that this one does again.
    expected: Vec<LiveScore>,
    /// Seconds that this process has spent on them.
    pub(super) seconds: f64,
}

impl<'a> Live<'a> {
    /// `scores` are those that the run has already, `expected` those that it has to give again.
    pub(super) fn new(
        every: u64,
        scorer: Scorer<'a>,
        scores: Vec<LiveScore>,
        expected: Vec<LiveScore>,
    ) -> Live<'a> {
        Live { every, scorer, scores, expected, seconds: 0.0 }
    }

    /// The score after so many steps, if there is one.
    pub(super) fn after(&self, steps: u64) -> Option<LiveScore> {
        of(&self.scores, steps)
    }

    /// Scores the weights, if it is time for that and they have not been scored. A break is a stop that was asked for: there is
    /// no score yet.
    pub(super) fn score(
        &mut self,
        steps: u64,
        session: &mut Session,
        state: &mut State,
        observer: &mut Observer<'_>,
    ) -> Result<ControlFlow<(), Option<LiveScore>>, TrainError> {
        if steps == 0 || !steps.is_multiple_of(self.every) || self.after(steps).is_some() {
            return Ok(ControlFlow::Continue(None));
        }
        let began = Instant::now();
        // The stage under way is the training.
        let bpb = self.scorer.plain(session, state, "", &mut |_| {});
        let seconds = began.elapsed().as_secs_f64();
        self.seconds += seconds;
        let bpb = match bpb {
            Ok(bpb) => bpb,
            Err(EvalError::Session(error)) => return Err(error.into()),
            Err(EvalError::Interrupted) => return Ok(ControlFlow::Break(())),
            // Weights without a score now may have one at the end.
            Err(error) => {
                observer(Event::Warning(format!("no score after step {steps}: {error}")));
                return Ok(ControlFlow::Continue(None));
            }
        };
        if let Some(recorded) = of(&self.expected, steps).filter(|recorded| recorded.bpb != bpb) {
            let (step, what) = (steps - 1, "validation score");
            return Err(TrainError::NotRepeated { step, what, recorded: recorded.bpb, now: bpb });
        }
        let score = LiveScore { after_steps: steps, bpb, ms: seconds * 1e3 };
        self.scores.push(score);
        observer(Event::Scored(score));
        Ok(ControlFlow::Continue(Some(score)))
    }
}

fn of(scores: &[LiveScore], steps: u64) -> Option<LiveScore> {
    scores.iter().copied().find(|score| score.after_steps == steps)
}
