//! What a run was asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pg_ir::ty::DType;
use serde::{Deserialize, Serialize};

use super::{RunRecord, TextOptions};
use crate::device::Device;

/// Everything that decides a run's numbers, but the device. `None` leaves the model file's (or its profile's) value.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct JobOptions {
    /// The model file.
    pub model: PathBuf,
    /// `--set NAME=VALUE`.
    pub overrides: Vec<(String, String)>,
    /// `--profile`; `None` picks by device: the file as it stands on CUDA, else `quick` if the model has it.
    pub profile: Option<String>,
    /// `--steps`.
    pub steps: Option<u64>,
    /// `--seconds`.
    pub seconds: Option<f64>,
    /// `--budget flops=F`.
    #[serde(default)]
    pub flops: Option<f64>,
    /// `--eval-seconds`.
    #[serde(default)]
    pub eval_seconds: Option<f64>,
    /// `--batch-tokens`.
    pub batch_tokens: Option<usize>,
    /// `--micro-batch-tokens`.
    pub micro_batch_tokens: Option<usize>,
    /// `--seq-len`.
    pub seq_len: Option<usize>,
    /// `--warmdown-steps`.
    pub warmdown_steps: Option<u64>,
    /// `--seed`.
    pub seed: Option<u64>,
    /// The text to train on and to score.
    pub text: TextOptions,
    /// `--init FILE.safetensors`.
    pub init: Option<PathBuf>,
    /// `--schedule spec`: use the file's constants unscaled.
    pub unscaled_schedule: bool,
    /// `--precision`: how training stores activations and operands; `None` leaves it to the device.
    #[serde(with = "dtype_name")]
    pub storage: Option<DType>,
    /// `--val-every`: score the live weights every so many steps. No part of what the run gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_every: Option<u64>,
    /// Skip the full-size check and timing (`--no-full-size`).
    pub skip_full_size: bool,
    /// Do not hold programs to float64 before the first step (`--no-validate`).
    pub skip_validation: bool,
}

/// A run: its job, where it works, and what becomes of it when it is stopped.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// What is computed.
    pub job: JobOptions,
    /// `--device`, opened.
    pub device: Device,
    /// `--out DIR`; `runs/MODEL-N` otherwise.
    pub out: Option<PathBuf>,
    /// Replace a finished run, or one that was stopped, in that folder (`--overwrite`).
    pub overwrite: bool,
    /// The earlier run that this one has to do with.
    pub earlier: Option<Earlier>,
    /// `--checkpoint-every`.
    pub checkpoint_every: Interval,
    /// Asks the run to stop.
    pub interrupt: Interrupt,
    /// Folder of what was validated before; `None` to validate anew and remember nothing.
    pub cache: Option<PathBuf>,
    /// When the process started, for `first_step_s`.
    pub started: Option<Instant>,
}

impl RunOptions {
    /// The folder of the run that is to be continued.
    pub(super) fn resumed(&self) -> Option<&Path> {
        let earlier = self.earlier.as_ref().filter(|earlier| earlier.purpose == Purpose::Resume);
        earlier.map(|earlier| earlier.folder.as_path())
    }
}

/// An earlier run, by its folder and what it recorded of itself. The job is its job.
#[derive(Clone, PartialEq, Debug)]
pub struct Earlier {
    /// Its folder.
    pub folder: PathBuf,
    /// Its record.
    pub record: RunRecord,
    /// What to do with it.
    pub purpose: Purpose,
}

/// What a run does with an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Continue it in its folder, from where it was stopped.
    Resume,
    /// Do it again elsewhere, each step at the time that it had then; it must give the same.
    Replay,
}

/// How often something is done.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// After so many steps.
    Steps(u64),
    /// After so many seconds.
    Seconds(f64),
}

impl Default for Interval {
    fn default() -> Interval {
        Interval::Seconds(60.0)
    }
}

/// A request to stop, from another thread. While training goes on, the run stops after the step and keeps a checkpoint; at any
/// other time nothing would be lost, and the process may simply end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    is_requested: AtomicBool,
    is_training: AtomicBool,
}

impl Interrupt {
    /// Asks the run to stop; whether it will do so by itself. A second request is never waited for.
    pub fn request(&self) -> bool {
        let again = self.0.is_requested.swap(true, Ordering::SeqCst);
        !again && self.0.is_training.load(Ordering::SeqCst)
    }

    pub(super) fn is_requested(&self) -> bool {
        self.0.is_requested.load(Ordering::SeqCst)
    }

    pub(super) fn set_training(&self, is_training: bool) {
        self.0.is_training.store(is_training, Ordering::SeqCst);
    }
}

/// Element types by their names.
mod dtype_name {
    use pg_ir::ty::DType;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(storage: &Option<DType>, to: S) -> Result<S::Ok, S::Error> {
        storage.map(|dtype| dtype.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<DType>, D::Error> {
        let name = Option::<String>::deserialize(from)?;
        name.map(|name| name.parse().map_err(D::Error::custom)).transpose()
    }
}
