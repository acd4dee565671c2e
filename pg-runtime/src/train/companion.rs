//! What a training tells of itself between its steps, and what it is told.

use std::ops::ControlFlow;

use super::{Position, TrainError};
use crate::report::{Observer, StepMetrics};
use crate::session::Session;
use crate::state::State;

/// What accompanies training: it keeps what must not be lost, and knows of steps that were done before.
pub trait Companion {
    /// What a step gave when it was done before: its time is then that one's, and it must give the same.
    fn recorded(&self, step: u64) -> Option<StepMetrics>;
    /// Whether training ends before a step that was not done before, whatever its budget.
    fn ends(&self) -> bool;
    /// Comes before each step, and after the last: it may use the weights, and changes nothing that a step reads. The time that
    /// it takes is no training time.
    ///
    /// # Errors
    /// What keeps training from going on; a break stops it here.
    fn between_steps(
        &mut self,
        position: &Position,
        session: &mut Session,
        state: &mut State,
        observer: &mut Observer<'_>,
    ) -> Result<ControlFlow<()>, TrainError>;
    /// Hears of a step, and of what it leaves.
    ///
    /// # Errors
    /// What keeps training from going on; a break ends it as if its budget were spent.
    fn after_step(
        &mut self,
        metrics: &StepMetrics,
        position: &Position,
        state: &State,
        observer: &mut Observer<'_>,
    ) -> Result<ControlFlow<()>, TrainError>;
}

/// Nothing is kept and nothing is known.
impl Companion for () {
    fn recorded(&self, _: u64) -> Option<StepMetrics> {
        None
    }

    fn ends(&self) -> bool {
        false
    }

    fn between_steps(
        &mut self,
        _: &Position,
        _: &mut Session,
        _: &mut State,
        _: &mut Observer<'_>,
    ) -> Result<ControlFlow<()>, TrainError> {
        Ok(ControlFlow::Continue(()))
    }

    fn after_step(
        &mut self,
        _: &StepMetrics,
        _: &Position,
        _: &State,
        _: &mut Observer<'_>,
    ) -> Result<ControlFlow<()>, TrainError> {
        Ok(ControlFlow::Continue(()))
    }
}
