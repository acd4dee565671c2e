//! What keeps a training from being lost: a journal of its steps, a line each, on disk before the next begins; and
//! checkpoints. A run that continues does the steps since its checkpoint again, at the times of the journal, and they must give
//! what they gave.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use pg_ir::input;

use super::options::{Interrupt, Interval};
use crate::checkpoint::{Checkpoint, CheckpointError, Meta, Writer};
use crate::report::{Event, Observer, StepMetrics};
use crate::state::State;
use crate::train::{Companion, Position, TrainError};

/// Longest journal: a line is about 200 bytes, and no run has so many steps.
const MAX_JOURNAL: u64 = 4 << 30;

/// Lines of `metrics.jsonl`: whole ones with consecutive steps from 0 on. What follows is what a stop cut off.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read_journal(path: &Path) -> io::Result<(Vec<StepMetrics>, u64)> {
    let mut text = Vec::new();
    match input::open(path) {
        Ok((file, _)) => file.take(MAX_JOURNAL).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let (mut steps, mut whole) = (Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let step = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<StepMetrics>(line).ok());
        match step {
            Some(step) if step.step == steps.len() as u64 => steps.push(step),
            _ => break,
        }
        whole += line.len() as u64;
    }
    Ok((steps, whole))
}

/// Accompanies a training.
pub(super) struct Keeper {
    journal: File,
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
    /// Keeps a training whose journal is at `journal`, of which `own` holds what is whole; `replayed` are the steps of
    /// another run that this one repeats.
    ///
    /// # Errors
    /// If the journal cannot be opened.
    pub(super) fn new(
        journal: &Path,
        (own, whole): (Vec<StepMetrics>, u64),
        replayed: Option<Vec<StepMetrics>>,
        writer: Writer,
        (every, interrupt): (Interval, Interrupt),
        (meta, started): (Meta, Instant),
    ) -> io::Result<Keeper> {
        let mut file = File::options().write(true).create(true).truncate(false).open(journal)?;
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Keeper {
            journal: file,
            written: own.len(),
            is_replay: replayed.is_some(),
            recorded: replayed.unwrap_or(own),
            writer,
            every,
            interrupt,
            last: (Instant::now(), meta.position.step),
            meta,
            started,
        })
    }

    /// Ends the journal.
    pub(super) fn finish(self) -> io::Result<()> {
        self.journal.sync_all()
    }

    /// Puts what stands on disk, and waits for it.
    pub(super) fn keep_now(&mut self, position: &Position, state: &State) -> Result<(), CheckpointError> {
        let meta = Meta { position: *position, ..self.meta.clone() };
        self.writer.write_now(&Checkpoint::of(meta, state)?)
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
            let meta = Meta { position: *position, ..self.meta.clone() };
            self.writer.begin(Checkpoint::of(meta, state)?);
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
            let mut line = serde_json::to_vec(metrics).map_err(io::Error::from)?;
            line.push(b'\n');
            // One call: a kill leaves a whole line or none.
            self.journal.write_all(&line)?;
        }
        if self.interrupt.is_requested() {
            self.keep_now(position, state)?;
            return Ok(ControlFlow::Break(()));
        }
        // The run can go on without a checkpoint, and the one before stands.
        if let Err(error) = self.keep(position, state) {
            observer(Event::Warning(format!("no checkpoint after step {}: {error}", metrics.step)));
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
        assert_eq!(read_journal(&path).unwrap(), (vec![], 0));
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
            let (steps, whole) = read_journal(&path).unwrap();
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
        assert_eq!(read_journal(&path).unwrap().0.len(), 1);
    }
}
