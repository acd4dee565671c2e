//! A run that has finished, as its folder shows it.

use std::path::{Path, PathBuf};

use pg_ir::input::Kind;

use super::folder::{METRICS, REPORT};
use super::journal::Journal;
use super::options::{Earlier, Purpose};
use super::{RunError, RunRecord};
use crate::report::{RunReport, StepMetrics};

/// Record and report of a finished run.
#[derive(Clone, PartialEq, Debug)]
pub struct FinishedRun {
    /// Its folder.
    pub folder: PathBuf,
    /// What it wrote down of itself before its first step.
    pub record: RunRecord,
    /// What it came to.
    pub report: RunReport,
}

impl FinishedRun {
    /// Whether the folder holds the report of a run: it comes last.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(REPORT).exists()
    }

    /// Reads record and report.
    ///
    /// # Errors
    /// [`RunError::Nothing`] where no run has finished; the files, if they cannot be read or are of two runs.
    pub fn open(folder: &Path) -> Result<FinishedRun, RunError> {
        if !FinishedRun::is_in(folder) {
            return Err(RunError::Nothing { folder: folder.to_owned(), purpose: Purpose::Replay });
        }
        let path = folder.join(REPORT);
        let text = Kind::JSON.read(&path).map_err(|error| RunError::Io { path: path.clone(), error })?;
        let invalid = |what: String| RunError::Report { path: path.clone(), what };
        let report = RunReport::from_json(&text).map_err(invalid)?;
        let Earlier { folder, record, .. } = Earlier::open(folder, Purpose::Replay)?;
        if let Some(what) = report.job.as_ref().and_then(|job| job.difference(&record.job)) {
            return Err(invalid(format!("{what} as in the record beside it")));
        }
        Ok(FinishedRun { folder, record, report })
    }

    /// Its steps, in order.
    ///
    /// # Errors
    /// If the journal cannot be read, or has not as many as the report says.
    pub fn steps(&self) -> Result<Vec<StepMetrics>, RunError> {
        let path = self.folder.join(METRICS);
        let journal = Journal::read(&path).map_err(|error| RunError::Io { path: path.clone(), error })?;
        let (found, reported) = (journal.steps.len() as u64, self.report.train.steps);
        if found != reported {
            let what = format!("it holds {found} whole steps, the report says {reported}");
            return Err(RunError::Record { path, what });
        }
        Ok(journal.steps)
    }
}
