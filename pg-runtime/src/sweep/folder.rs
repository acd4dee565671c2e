//! A sweep's folder, which one process owns: the plan, and a folder for each run.

use std::path::{Path, PathBuf};

use pg_ir::input::Kind;
use serde::Serialize;

use super::{PlannedRun, SweepError, SweepPlan};
use crate::artifact::write_atomically;
use crate::run::lock::{Lock, Owner};
use crate::run::{Earlier, FinishedRun, Purpose, RunError, RunRecord};

const PLAN: &str = "sweep.json";
/// Held by who runs the sweep.
const LOCK: &str = ".lock";
/// Held by the one run that goes on. It may outlive who started it, by a step.
const RUNNING: &str = ".running";

/// A sweep, whose folder is locked.
pub struct Sweep {
    /// Its folder.
    pub folder: PathBuf,
    /// What it runs.
    pub plan: SweepPlan,
    lock: Lock,
}

/// How far a run of a sweep is.
#[derive(Clone, PartialEq, Debug)]
pub enum RunState {
    /// It has not begun, or has nothing to go on from.
    New,
    /// It was stopped, and can be continued.
    Stopped,
    /// It has finished.
    Finished(Box<FinishedRun>),
}

/// A run that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// Its folder.
    pub folder: PathBuf,
    /// Why.
    pub message: String,
}

impl Sweep {
    /// Takes a folder for a plan: a new one, or one with the same plan or a part of it. Nothing is written but a lock.
    ///
    /// # Errors
    /// [`SweepError::Folder`] where another sweep goes on in it, or was of something else.
    pub fn begin(folder: &Path, plan: SweepPlan) -> Result<Sweep, SweepError> {
        std::fs::create_dir_all(folder).map_err(located(folder))?;
        let sweep = Sweep { lock: lock(folder)?, folder: folder.to_owned(), plan };
        if folder.join(PLAN).exists()
            && let Some(what) = sweep.plan.difference(&read_plan(folder)?)
        {
            let what = format!("the sweep in it is another: {what}; give this one a folder of its own");
            return Err(SweepError::Folder { folder: folder.to_owned(), what });
        }
        Ok(sweep)
    }

    /// Takes the folder of a sweep that is to be continued.
    ///
    /// # Errors
    /// [`SweepError::Folder`] where it still goes on, or no sweep is in it.
    pub fn resume(folder: &Path) -> Result<Sweep, SweepError> {
        let plan = read_plan(folder)?;
        let own = env!("CARGO_PKG_VERSION");
        if plan.pg != own {
            let what =
                format!("the sweep in it is of pg {}, this is {own}: continue it with that one", plan.pg);
            return Err(SweepError::Folder { folder: folder.to_owned(), what });
        }
        Ok(Sweep { lock: lock(folder)?, folder: folder.to_owned(), plan })
    }

    /// Writes the plan down. From here on the folder is this sweep's.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&self) -> Result<(), SweepError> {
        let path = self.folder.join(PLAN);
        let text = serde_json::to_vec_pretty(&self.plan).map_err(std::io::Error::from);
        text.and_then(|text| write_atomically(&path, &text)).map_err(located(&path))
    }

    /// Where a run's files are.
    pub fn folder_of(&self, run: &PlannedRun) -> PathBuf {
        self.folder.join(run.folder())
    }

    /// How far a run is.
    ///
    /// # Errors
    /// [`SweepError::Folder`] where a run of something else is in its place.
    pub fn state(&self, run: &PlannedRun) -> Result<RunState, SweepError> {
        state(&self.folder, &self.plan, run)
    }

    /// Checks that the model's file is still what the sweep began with.
    ///
    /// # Errors
    /// [`SweepError::Folder`] where it is not.
    pub fn check_model(&self) -> Result<(), SweepError> {
        if SweepPlan::sources_of(&self.plan.job.model)? == self.plan.sources {
            return Ok(());
        }
        let what = format!(
            "{} has changed since the sweep began: put it back, or begin a new sweep",
            self.plan.job.model.display()
        );
        Err(SweepError::Folder { folder: self.folder.clone(), what })
    }
}

/// A sweep as the process sees it that does one of its runs: the only one at a time.
pub struct Running {
    /// The sweep's folder.
    pub folder: PathBuf,
    /// What it runs.
    pub plan: SweepPlan,
    lock: Lock,
}

impl Running {
    /// Takes the right to run; `wait` is called where another run must end first.
    ///
    /// # Errors
    /// If the plan cannot be read.
    pub fn enter(folder: &Path, wait: impl FnOnce()) -> Result<Running, SweepError> {
        let plan = read_plan(folder)?;
        let path = folder.join(RUNNING);
        let lock = match Lock::take(&path).map_err(located(&path))? {
            Ok(lock) => lock,
            Err(Owner(_)) => {
                wait();
                Lock::wait_for(&path).map_err(located(&path))?
            }
        };
        Ok(Running { folder: folder.to_owned(), plan, lock })
    }

    /// How far a run is, as [`Sweep::state`] says it.
    ///
    /// # Errors
    /// As [`Sweep::state`].
    pub fn state(&self, run: &PlannedRun) -> Result<RunState, SweepError> {
        state(&self.folder, &self.plan, run)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The next one takes it as it is.
        let _ = self.lock.remove();
    }
}

/// How far a run of a plan is; see [`Sweep::state`].
fn state(folder: &Path, plan: &SweepPlan, run: &PlannedRun) -> Result<RunState, SweepError> {
    let path = folder.join(run.folder());
    let (state, record) = if FinishedRun::is_in(&path) {
        let finished = FinishedRun::open(&path)?;
        let record = finished.record.clone();
        (RunState::Finished(Box::new(finished)), record)
    } else {
        match Earlier::open(&path, Purpose::Resume) {
            Ok(earlier) => (RunState::Stopped, earlier.record),
            Err(RunError::Nothing { .. }) => return Ok(RunState::New),
            Err(error) => return Err(error.into()),
        }
    };
    match difference(&record, plan, run) {
        None => Ok(state),
        Some(what) => {
            let what = format!(
                "the run in it is another than the sweep's: {what}; remove it, or choose another --out"
            );
            Err(SweepError::Folder { folder: path, what })
        }
    }
}

/// What differs between a run's record and what the plan says of it. Its text is compared with its siblings'.
fn difference(record: &RunRecord, plan: &SweepPlan, run: &PlannedRun) -> Option<String> {
    let planned = RunRecord {
        pg: plan.pg.clone(),
        device: plan.device.clone(),
        job: plan.job_of(run),
        sources: plan.sources.clone(),
        ..record.clone()
    };
    record.difference(&planned)
}

fn read_plan(folder: &Path) -> Result<SweepPlan, SweepError> {
    let path = folder.join(PLAN);
    if !path.exists() {
        let what = "no sweep is in it: expected the folder of `pg sweep`, as --out names it".into();
        return Err(SweepError::Folder { folder: folder.to_owned(), what });
    }
    let text = Kind::JSON.read(&path).map_err(located(&path))?;
    let invalid = |error: String| {
        let what = format!("{PLAN} is not the plan of a sweep of this pg: {error}; begin the sweep anew");
        SweepError::Folder { folder: folder.to_owned(), what }
    };
    let plan: SweepPlan = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    plan.check().map_err(|error| invalid(error.to_string()))?;
    Ok(plan)
}

fn lock(folder: &Path) -> Result<Lock, SweepError> {
    let path = folder.join(LOCK);
    Lock::take(&path).map_err(located(&path))?.map_err(|Owner(owner)| {
        let what = format!("a sweep that goes on owns it ({owner}); give this one a folder of its own");
        SweepError::Folder { folder: folder.to_owned(), what }
    })
}

/// A sweep that ended before it had a plan leaves nothing.
impl Drop for Sweep {
    fn drop(&mut self) {
        // What cannot be removed, or is not empty, stays.
        let _ = self.lock.remove();
        let _ = std::fs::remove_dir(&self.folder);
    }
}

fn located(path: &Path) -> impl FnOnce(std::io::Error) -> SweepError + '_ {
    |error| SweepError::Io { path: path.to_owned(), error }
}
