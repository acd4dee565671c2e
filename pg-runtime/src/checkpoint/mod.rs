//! Checkpoints: a training between two steps, on disk.
//!
//! A checkpoint holds what a step reads and an earlier step wrote (parameters, optimiser state, averages) and where
//! training stood. Gradients and cached weights are not in it: a step computes them anew. [`file`] is the format,
//! [`writer`] writes without holding training up. A checkpoint is read back whole or not at all.

mod file;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

use pg_ir::slot::Slot;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::file::{from_bytes, read, write};
pub use self::writer::Writer;
use crate::state::{State, StateError};
use crate::train::{Position, is_carried};

/// What a checkpoint says beside its values.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// blake3 of the run's record: a checkpoint of another job is not this one's.
    pub job: String,
    /// Where training stood.
    pub position: Position,
    /// Score of the weights before the first step, bits per byte.
    pub initial: f64,
    /// Seconds from process start to the end of the first step.
    pub first_step_s: f64,
}

/// A checkpoint in memory.
#[derive(Clone, PartialEq, Debug)]
pub struct Checkpoint {
    /// What it says.
    pub meta: Meta,
    /// Banks of the state with their elements.
    pub banks: Vec<(Slot, Vec<f32>)>,
}

/// Why a checkpoint could not be written, read or used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The bytes are not a whole checkpoint.
    #[error("{}: not a whole checkpoint: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The state could not be read, or is of another model.
    #[error("the checkpoint does not fit the model: {0}")]
    State(#[from] StateError),
    /// The checkpoint lacks a bank of the state.
    #[error("the checkpoint does not fit the model: it has no {0}")]
    Missing(Slot),
}

impl Checkpoint {
    /// Copies what the next step will read.
    pub fn of(meta: Meta, state: &State) -> Result<Checkpoint, CheckpointError> {
        let carried = state.banks().filter(|(slot, _)| is_carried(slot.space));
        let banks = carried.map(|(slot, _)| Ok((slot.clone(), state.get(&slot)?.to_vec())));
        Ok(Checkpoint { meta, banks: banks.collect::<Result<_, StateError>>()? })
    }

    /// Writes it into the state of a session of the same model.
    pub fn restore(&self, state: &mut State) -> Result<(), CheckpointError> {
        let carried: Vec<_> = state.banks().filter(|(slot, _)| is_carried(slot.space)).collect();
        for (slot, want) in carried {
            let found = self.banks.iter().find(|(own, _)| *own == slot);
            let (_, values) = found.ok_or_else(|| CheckpointError::Missing(slot.clone()))?;
            if values.len() != want {
                return Err(StateError::OtherLength { slot, have: values.len(), want }.into());
            }
            state.get_mut(&slot)?.copy_from_slice(values);
        }
        Ok(())
    }
}

/// What the names of a run's checkpoints end with.
const EXTENSION: &str = "checkpoint";

/// The file of a checkpoint after so many steps.
pub fn path_in(folder: &Path, steps: u64) -> PathBuf {
    folder.join(format!("step-{steps:08}.{EXTENSION}"))
}

/// Checkpoints in a folder, the newest first.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == EXTENSION) {
            found.push(path);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The newest whole checkpoint of a job in a folder; `refused` hears of each newer file that is none.
///
/// # Errors
/// If the folder cannot be read.
pub fn newest(
    folder: &Path,
    job: &str,
    refused: &mut dyn FnMut(CheckpointError),
) -> io::Result<Option<Checkpoint>> {
    for path in list(folder)? {
        match read(&path) {
            Ok(checkpoint) if checkpoint.meta.job == job => return Ok(Some(checkpoint)),
            Ok(_) => refused(CheckpointError::Format { path, what: "it is of another job".into() }),
            Err(error) => refused(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use pg_ir::slot::Space;

    use super::*;

    pub(super) fn checkpoint(steps: u64) -> Checkpoint {
        let position = Position { step: steps, elapsed: 0.1 + 0.2, phase: 1, token: 77 };
        let meta = Meta { job: "a job".into(), position, initial: 3.5, first_step_s: 0.25 };
        let bank = |space, values: &[f32]| (Slot::new(space, "mlp"), values.to_vec());
        let banks = vec![
            bank(Space::Param, &[1.0, -0.0, f32::MIN_POSITIVE]),
            bank(Space::Momentum, &[0.1, 0.2, 0.3]),
        ];
        Checkpoint { meta, banks }
    }

    #[test]
    fn the_newest_whole_one_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for steps in [9, 10, 100] {
            write(&path_in(folder.path(), steps), &checkpoint(steps)).unwrap();
        }
        let mut refused = Vec::new();
        let mut find = |job: &str| {
            let mut hear = |error: CheckpointError| refused.push(error.to_string());
            newest(folder.path(), job, &mut hear).unwrap().map(|c| c.meta.position.step)
        };
        assert_eq!(find("a job"), Some(100));
        let torn = std::fs::read(path_in(folder.path(), 100)).unwrap();
        std::fs::write(path_in(folder.path(), 100), &torn[..torn.len() - 1]).unwrap();
        assert_eq!(find("a job"), Some(10));
        assert_eq!(find("another"), None);
        assert_eq!(refused.len(), 1 + 3, "{refused:?}");
        assert!(refused[0].contains("step-00000100") && refused[2].contains("another job"), "{refused:?}");
    }

    #[test]
    fn a_state_is_restored() {
        let state = || {
            let mut state = State::new([]);
            for space in [Space::Param, Space::Grad, Space::Momentum] {
                state.allocate(space, "mlp", 3).unwrap();
            }
            state
        };
        let mut from = state();
        for (slot, values) in checkpoint(1).banks {
            from.get_mut(&slot).unwrap().copy_from_slice(&values);
        }
        from.get_mut(&Slot::new(Space::Grad, "mlp")).unwrap().fill(9.0);
        let saved = Checkpoint::of(checkpoint(1).meta, &from).unwrap();
        assert_eq!(saved, checkpoint(1), "gradients are computed anew");
        let mut to = state();
        saved.restore(&mut to).unwrap();
        assert_eq!(Checkpoint::of(saved.meta.clone(), &to).unwrap(), saved);

        to.allocate(Space::Ema, "mlp", 3).unwrap();
        assert!(matches!(saved.restore(&mut to), Err(CheckpointError::Missing(_))));
        let mut longer = State::new([]);
        longer.allocate(Space::Param, "mlp", 4).unwrap();
        assert!(matches!(saved.restore(&mut longer), Err(CheckpointError::State(_))));
    }
}
