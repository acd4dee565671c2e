//! What keeps a training from being lost: a journal of its steps, a line each, on disk before the next begins; and
//! checkpoints. A run that continues does the steps since its checkpoint again, at the times of the journal, and they must give
//! what they gave.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pg_ir::input;

use super::folder::{METRICS, RunFolder};
use super::options::{Interrupt, Interval};
use super::{RunError, RunOptions};
use crate::checkpoint::{Checkpoint, CheckpointError, Meta, Writer};
use crate::report::{Event, Observer, StepMetrics};
use crate::state::State;
use crate::train::{Companion, Position, TrainError};

/// The steps of `metrics.jsonl`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Journal {
    /// Whole lines with consecutive steps from 0 on.
    pub(super) steps: Vec<StepMetrics>,
    /// Bytes of these lines: what follows is what a stop cut off.
    bytes: u64,
}

impl Journal {
    /// Reads a journal; an empty one where there is no file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn read(path: &Path) -> io::Result<Journal> {
        let mut journal = Journal::default();
        let mut reader = match input::open(path) {
            Ok((file, _)) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(journal),
            Err(error) => return Err(error),
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            match input::read_line(&mut reader, StepMetrics::MAX_LINE, &mut line) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => break,
                Err(error) => return Err(error),
            }
            let whole = line.strip_suffix(b"\n");
            match whole.and_then(|line| serde_json::from_slice::<StepMetrics>(line).ok()) {
                Some(step) if step.step == journal.steps.len() as u64 => journal.steps.push(step),
                _ => break,
            }
            journal.bytes += line.len() as u64;
        }
        Ok(journal)
    }
}

/// Accompanies a training.
pub(super) struct Keeper {
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
}

impl Keeper {
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
    ) -> Result<Keeper, RunError> {
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
    fn write_down(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        let line = serde_json::to_vec(metrics).map_err(io::Error::from);
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

impl Companion for Keeper {
    fn recorded(&self, step: u64) -> Option<StepMetrics> {
        self.recorded.get(usize::try_from(step).ok()?).copied()
    }

    fn ends(&self) -> bool {
        self.is_replay
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_up_to_where_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(Journal::read(&path).unwrap(), Journal::default());
        let step = |step| StepMetrics {
            step,
            loss: 0.1 + 0.2,
            lr_scale: 1.0 / 3.0,
            grad_norm: 1e-7,
            ms: 12.345_678_901_234_567,
            elapsed_s: 1e9 / 7.0,
            phase: 1,
        };
        let lines: Vec<String> = [0, 1, 2].map(|i| serde_json::to_string(&step(i)).unwrap() + "\n").into();
        let text = lines.concat();
        for length in 0..=text.len() {
            std::fs::write(&path, &text[..length]).unwrap();
            let Journal { steps, bytes: whole } = Journal::read(&path).unwrap();
            let expected = lines.iter().scan(0, |sum, line| {
                *sum += line.len();
                Some(*sum)
            });
            let count = expected.filter(|end| *end <= length).count();
            assert_eq!(steps, (0..count as u64).map(step).collect::<Vec<_>>(), "to the last bit");
            assert_eq!(whole as usize, lines[..count].concat().len());
        }
        // A step that is missing ends it, too.
        std::fs::write(&path, [&lines[0][..], &lines[2]].concat()).unwrap();
        assert_eq!(Journal::read(&path).unwrap().steps.len(), 1);
    }
}
