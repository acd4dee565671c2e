//! The main job: a model file becomes a scored artifact, in four phases.
//!
//! `prepare` → `train` → `export` → `score`: each returns a value that the next ones take, and none reaches back.

mod check;
mod command;
mod configuration;
mod corpus;
mod difference;
mod export;
mod finished;
mod folder;
mod full_size;
mod initial;
mod journal;
mod keeper;
mod ledger;
mod listing;
mod live;
pub(crate) mod lock;
mod model;
mod options;
mod prepare;
mod record;
mod report;
mod requests;
mod score;
mod scorer;
mod train;

use std::path::PathBuf;

use pg_ir::lang::Diagnostics;
use pg_ir::lang::budget::BudgetError;
use thiserror::Error;

pub use self::check::{Checked, DryRun, check, dry_run};
pub use self::command::shell_word;
pub use self::configuration::{Configuration, ConfigurationValue, configuration};
pub use self::corpus::{Corpus, TextOptions};
use self::export::export;
pub use self::finished::FinishedRun;
use self::folder::RunFolder;
pub(crate) use self::folder::{ARTIFACT, METRICS, RECORD, REPORT};
pub use self::listing::{ListedRun, Notes, RunStatus, list};
pub use self::model::{default_profile, load_model};
pub use self::options::{Earlier, Interrupt, Interval, JobOptions, Purpose, RunOptions};
pub(crate) use self::prepare::HONEST_OVERLAP;
use self::prepare::{Prepared, prepare};
pub use self::record::RunRecord;
use self::report::report;
pub use self::requests::{Request, file_programs, requests};
use self::score::score;
pub use self::scorer::Scorer;
use self::train::{Trained, train};
use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::eval::EvalError;
use crate::export::ExportError;
use crate::report::{Event, Observer, RunReport, counted};
use crate::session::SessionError;
use crate::train::TrainError;
use crate::validate::ValidateError;
use crate::weights::WeightsError;

/// Why a run failed. Nothing that was on disk before has been overwritten.
#[derive(Debug, Error)]
pub enum RunError {
    /// The model file does not check.
    #[error("{0}")]
    Model(Diagnostics),
    /// The size cannot be predicted.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// Not one step can be done.
    #[error(
        "a step takes {step:.3e} FLOP, more than the budget of {flops:.3e}: give more (--budget flops=…), or make steps smaller \
         (--batch-tokens)"
    )]
    TooFewFlops {
        /// The budget.
        flops: f64,
        /// FLOPs of a step.
        step: f64,
    },
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
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder is another run's.
    #[error("{}: {what}", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
        /// Whose it is, and what to do.
        what: String,
    },
    /// The disk has no room for what the run will write.
    #[error("{}: the disk has no room for the {bytes} bytes that the run will write there; make room, or choose another folder with --out", folder.display())]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// Bytes needed.
        bytes: u64,
    },
    /// No run to go on with.
    #[error("{}: {}", folder.display(), match purpose {
        Purpose::Resume => "no run that was stopped is in it: expected the folder of `pg run`, as --out names it",
        Purpose::Replay => "no finished run is in it: expected a folder with `run.json` and `metrics.jsonl`",
    })]
    Nothing {
        /// The folder.
        folder: PathBuf,
        /// What it was to be used for.
        purpose: Purpose,
    },
    /// A run's record cannot be used.
    #[error("{}: not the record of a run: {what}; begin the run anew", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A run's report cannot be used.
    #[error("{}: not the report of the run beside it: {what}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What an earlier run used has changed since.
    #[error("the run in {} cannot be continued: {what}; use what it used, or begin anew", folder.display())]
    Changed {
        /// Its folder.
        folder: PathBuf,
        /// What has changed.
        what: String,
    },
    /// The run was asked to stop, and can be continued.
    #[error("stopped after {}; continue with `pg run --resume {}`", counted(*steps, "step"), shell_word(&folder.display().to_string()))]
    Stopped {
        /// Steps done.
        steps: u64,
        /// The run's folder.
        folder: PathBuf,
    },
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
    if let Some(folder) = options.resumed()
        && let Some((report, left)) = RunFolder::reopen(folder)?.finish_stopped()?
    {
        observer(Event::Note("the run had ended; its files have their names now".into()));
        warn_of(left, observer);
        return Ok(report);
    }
    let Prepared { mut job, mut session, initial, full } = prepare(options, observer)?;
    let Trained { weights, figures } = train(&mut job, options, &mut session, initial, observer)?;
    let exported = export(&job, &session.model, weights)?;
    job.ledger.enter("quantise and write the artifact");
    let scores = score(&mut job, &mut session, &exported, observer)?;
    let report = report(&job, &session, figures, exported, scores);
    let left = job.folder.finish(&report)?;
    warn_of(left, observer);
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

/// Says what a finished run could not clear away.
fn warn_of(left: Option<RunError>, observer: &mut Observer<'_>) {
    if let Some(error) = left {
        observer(Event::Warning(format!(
            "the run has finished; what it needed until then is still there: {error}"
        )));
    }
}
