//! What keeps a training from being lost: a journal of its steps and scores, a line each, on disk before the next begins; and
//! checkpoints. A run that continues does the steps since its checkpoint again, at the times of the journal, and they must give
//! what they gave.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::folder::{METRICS, RunFolder};
use super::journal::Journal;
use super::live::Live;
use super::options::{Interrupt, Interval};
use super::{RunError, RunOptions};
use crate::checkpoint::{Checkpoint, CheckpointError, Meta, Writer};
use crate::report::{Event, Observer, StepMetrics};
use crate::session::Session;
use crate::state::State;
use crate::train::{Companion, Position, TrainError};

/// Accompanies a training.
pub(super) struct Keeper<'a> {
    journal: File,
    /// The journal's file.
    path: PathBuf,
    /// Steps that were done before, from 0 on.
    recorded: Vec<StepMetrics>,
    /// Of these, how many are in this run's own journal.
    written: usize,
    /// Whether training ends where the recorded steps do.
    is_replay: bool,
    writer: Writer,
    every: Interval,
    interrupt: Interrupt,
    /// When, and after how many steps, the last checkpoint was begun.
    last: (Instant, u64),
    /// What checkpoints say, but for the position.
    pub(super) meta: Meta,
    started: Instant,
    /// Scores of the weights while they are trained.
    pub(super) live: Option<Live<'a>>,
}

impl<'a> Keeper<'a> {
    /// Keeps a training in the run's folder, whose journal is `own`; `replayed` are the steps of another run that this one
    /// repeats.
    ///
    /// # Errors
    /// If the journal cannot be opened.
    pub(super) fn new(
        folder: &RunFolder,
        own: &Journal,
        replayed: Option<Vec<StepMetrics>>,
        options: &RunOptions,
        (meta, started): (Meta, Instant),
        live: Option<Live<'a>>,
    ) -> Result<Keeper<'a>, RunError> {
        let path = folder.unfinished(METRICS);
        let open = || {
            let mut file = File::options().write(true).create(true).truncate(false).open(&path)?;
            file.set_len(own.bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let journal = open().map_err(|error| RunError::Io { path: path.clone(), error })?;
        Ok(Keeper {
            journal,
            path,
            written: own.steps.len(),
            is_replay: replayed.is_some(),
            recorded: replayed.unwrap_or_else(|| own.steps.clone()),
            writer: Writer::new(&folder.checkpoints()),
            every: options.checkpoint_every,
            interrupt: options.interrupt.clone(),
            last: (Instant::now(), meta.position.step),
            meta,
            started,
            live,
        })
    }

    /// Ends the journal.
    ///
    /// # Errors
    /// If it is not on the disk.
    pub(super) fn finish(self) -> Result<(), TrainError> {
        self.journal.sync_all().map_err(|error| TrainError::Journal { path: self.path, error })
    }

    /// Puts a line of the journal down in one call: a kill leaves a whole line or none.
    fn write_down(&mut self, line: &impl Serialize) -> Result<(), TrainError> {
        let line = serde_json::to_vec(line).map_err(io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            self.journal.write_all(&line)
        });
        written.map_err(|error| TrainError::Journal { path: self.path.clone(), error })
    }

    /// Puts what stands on disk, and waits for it.
    pub(super) fn keep_now(&mut self, position: &Position, state: &State) -> Result<(), CheckpointError> {
        let checkpoint = self.checkpoint(position, state)?;
        self.writer.write_now(&checkpoint)
    }

    fn checkpoint(&self, position: &Position, state: &State) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::of(Meta { position: *position, ..self.meta.clone() }, state)
    }

    fn is_due(&self, position: &Position) -> bool {
        match self.every {
            Interval::Steps(steps) => position.step >= self.last.1 + steps,
            Interval::Seconds(seconds) => self.last.0.elapsed().as_secs_f64() >= seconds,
        }
    }

    fn keep(&mut self, position: &Position, state: &State) -> Result<(), CheckpointError> {
        let (is_free, finished) = self.writer.poll();
        if is_free && self.is_due(position) {
            self.writer.begin(self.checkpoint(position, state)?);
            self.last = (Instant::now(), position.step);
        }
        finished
    }
}

impl Companion for Keeper<'_> {
    fn recorded(&self, step: u64) -> Option<StepMetrics> {
        self.recorded.get(usize::try_from(step).ok()?).copied()
    }

    fn ends(&self) -> bool {
        self.is_replay
    }

    fn between_steps(
        &mut self,
        position: &Position,
        session: &mut Session,
        state: &mut State,
        observer: &mut Observer<'_>,
    ) -> Result<ControlFlow<()>, TrainError> {
        // A journal that goes on behind this place has what there was to say of it.
        let Some(live) = self.live.as_mut().filter(|_| (self.written as u64) <= position.step) else {
            return Ok(ControlFlow::Continue(()));
        };
        let scored = live.score(position.step, session, state, observer)?;
        match scored {
            ControlFlow::Continue(score) => score.map_or(Ok(()), |score| self.write_down(&score))?,
            ControlFlow::Break(()) => self.keep_now(position, state)?,
        }
        Ok(scored.map_continue(|_| ()))
    }

    fn after_step(
        &mut self,
        metrics: &StepMetrics,
        position: &Position,
        state: &State,
        observer: &mut Observer<'_>,
    ) -> Result<ControlFlow<()>, TrainError> {
        if metrics.step == 0 && self.meta.first_step_s == 0.0 {
            self.meta.first_step_s = self.started.elapsed().as_secs_f64();
        }
        if metrics.step >= self.written as u64 {
            self.write_down(metrics)?;
        }
        if self.interrupt.is_requested() {
            self.keep_now(position, state)?;
            return Ok(ControlFlow::Break(()));
        }
        // The run can go on without a checkpoint, and the one before stands.
        if let Err(error) = self.keep(position, state) {
            observer(Event::Warning(format!("the checkpoint after step {}: {error}", metrics.step)));
        }
        Ok(ControlFlow::Continue(()))
    }
}
