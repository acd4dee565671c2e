//! Many runs of one model: every combination of seeds and values, one after another, and what the scores say of them.
//!
//! [`plan`] is what is run, [`check`](check()) finds what would fail before anything begins, a [`Sweep`] is the folder with its
//! runs, and [`report`] compares their scores. How a run is started is its caller's business.

mod baseline;
mod check;
mod folder;
mod plan;
mod report;

use std::io;
use std::path::PathBuf;

use pg_ir::lang::Diagnostics;
use thiserror::Error;

pub use self::baseline::{Baseline, Conditions, Reference, ReferenceRuns, finished_runs};
pub use self::check::{CheckedSweep, check};
pub use self::folder::{Failure, RunState, Running, Sweep};
pub use self::plan::{Axis, Configuration, PlannedRun, SweepPlan};
pub use self::report::{BaselineReport, ConfigurationReport, RunRow, SweepReport, report};
use crate::report::counted;
use crate::run::{RunError, shell_word};

/// Why a sweep cannot begin, go on or be compared. A run that fails is none: it is a [`Failure`] of the report.
#[derive(Debug, Error)]
pub enum SweepError {
    /// The arguments contradict each other.
    #[error("{0}")]
    Plan(String),
    /// The model file.
    #[error("{0}")]
    Model(#[from] Diagnostics),
    /// Configurations that would fail, each with its reason.
    #[error("{}", refused(.0))]
    Configurations(Vec<(String, RunError)>),
    /// Scores that do not belong into one table.
    #[error("{a} and {b} cannot be compared: {what}")]
    Incomparable {
        /// One of them.
        a: String,
        /// The other.
        b: String,
        /// What differs.
        what: String,
    },
    /// The folder holds something else.
    #[error("{}: {what}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What it holds, and what to do.
        what: String,
    },
    /// A run of the sweep, or of the baseline, cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The sweep was asked to stop, and can be continued.
    #[error("stopped after {finished} of {}; continue with `pg sweep --resume {}`", counted(*runs as u64, "run"), shell_word(&folder.display().to_string()))]
    Stopped {
        /// Runs that have finished.
        finished: usize,
        /// Runs of the sweep.
        runs: usize,
        /// Its folder.
        folder: PathBuf,
    },
    /// A file or folder of the sweep.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

fn refused(configurations: &[(String, RunError)]) -> String {
    let line = |(name, error): &(String, RunError)| format!("{name}: {error}");
    configurations.iter().map(line).collect::<Vec<_>>().join("\n")
}
