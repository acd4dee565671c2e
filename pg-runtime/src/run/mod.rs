//! The main job: a model file becomes a scored artifact, in four phases.
//!
//! `prepare` → `train` → `export` → `score`: each returns a value that the next ones take, and none reaches back.

mod corpus;
mod export;
mod folder;
mod full_size;
mod model;
mod prepare;
mod report;
mod requests;
mod score;
mod scorer;
mod train;

use std::path::PathBuf;
use std::time::Instant;

use pg_ir::lang::Diagnostics;
use pg_ir::lang::budget::BudgetError;
use pg_ir::ty::DType;
use thiserror::Error;

pub use self::corpus::{Corpus, TextOptions};
use self::export::export;
pub use self::model::{default_profile, load_model};
use self::prepare::{Prepared, prepare};
use self::report::report;
pub use self::requests::{Request, file_programs, requests};
use self::score::score;
pub use self::scorer::Scorer;
use self::train::{Trained, train};
use crate::data::DataError;
use crate::device::Device;
use crate::eval::EvalError;
use crate::export::ExportError;
use crate::report::{Event, Observer, RunReport};
use crate::session::SessionError;
use crate::train::TrainError;
use crate::validate::ValidateError;
use crate::weights::WeightsError;

/// What `pg run` was asked for. `None` leaves the model file's (or its profile's) value.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
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
    /// `--out DIR`; `runs/MODEL-N` otherwise.
    pub out: Option<PathBuf>,
    /// `--schedule spec`: use the file's constants unscaled.
    pub unscaled_schedule: bool,
    /// `--precision`: how training stores activations and operands; `None` leaves it to the device.
    pub storage: Option<DType>,
    /// `--device`, opened.
    pub device: Device,
    /// Skip the full-size check and timing (`--no-full-size`).
    pub skip_full_size: bool,
    /// Do not hold programs to float64 before the first step (`--no-validate`).
    pub skip_validation: bool,
    /// Folder of what was validated before; `None` to validate anew and remember nothing.
    pub cache: Option<PathBuf>,
    /// When the process started, for `first_step_s`.
    pub started: Option<Instant>,
}

/// Why a run failed. Nothing that was on disk before has been overwritten.
#[derive(Debug, Error)]
pub enum RunError {
    /// The model file does not check.
    #[error("{0}")]
    Model(Diagnostics),
    /// The size cannot be predicted.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// Shards or tokenizer.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Compiling or running a program.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A program computes something else than the model says.
    #[error(transparent)]
    Validate(#[from] ValidateError),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Export.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// `--init`.
    #[error(
        "{error}\nthe run uses {profile}; `--profile` chooses another, `--profile full` the file as it stands"
    )]
    Init {
        /// The profile in use, in words.
        profile: String,
        /// What is wrong with the file.
        error: WeightsError,
    },
    /// The saved weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file or folder of the run.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
}

/// Does the main job.
pub fn run(options: &RunOptions, observer: &mut Observer<'_>) -> Result<RunReport, RunError> {
    let Prepared { job, mut session, initial, full } = prepare(options, observer)?;
    let Trained { weights, figures } = train(&job, &mut session, initial, observer)?;
    let exported = export(&job, &session.model, weights)?;
    let scores = score(&job, &mut session, &exported, observer)?;
    let report = report(&options.device, &job, &session.model, figures, exported, scores);
    job.folder.finish(&report)?;
    let artifact = &report.artifact;
    observer(Event::Note(format!("wrote {} ({} bytes)", artifact.path.display(), artifact.artifact_bytes)));

    // Last, so that the time and memory it takes are not the run's.
    drop(session);
    if let Some(full) = full
        && let Err(error) = full_size::time_steps(full, options, &job.corpus, observer)
    {
        observer(Event::Warning(format!("the full-size model could not be timed: {error}")));
    }
    if let Some(bundle) = options.device.bundle_report() {
        observer(Event::Note(bundle.to_string()));
    }
    Ok(report)
}
