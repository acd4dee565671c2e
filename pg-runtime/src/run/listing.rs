//! Runs as a list: what each folder holds, finished or not, and what its user says of it.

use std::io;
use std::path::{Path, PathBuf};

use pg_ir::input::Kind;
use serde::{Deserialize, Serialize};

use super::folder::{LOCK, METRICS, RECORD, REPORT, finished_record, unfinished_in, unfinished_record};
use super::journal::Journal;
use super::lock::Lock;
use super::options::{Earlier, Purpose};
use super::{FinishedRun, RunError};
use crate::artifact::write_atomically;
use crate::report::Scores;

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Its report is there.
    Finished,
    /// A process works on it.
    Running,
    /// It can be continued.
    Stopped,
    /// It cannot be read.
    Broken,
}

impl std::fmt::Display for RunStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RunStatus::Finished => "finished",
            RunStatus::Running => "running",
            RunStatus::Stopped => "stopped",
            RunStatus::Broken => "broken",
        })
    }
}

/// A run of a list. What is not known of it is `null`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ListedRun {
    /// Its folder, below the one that is listed.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// How far it is.
    pub state: RunStatus,
    /// Why it cannot be read.
    pub problem: Option<String>,
    /// Name of the model.
    pub model: Option<String>,
    /// Profile; of a run that has not finished, as it was asked for.
    pub profile: Option<String>,
    /// Device.
    pub device: Option<String>,
    /// Seed; of a run that has not finished, as it was asked for.
    pub seed: Option<u64>,
    /// Steps done.
    pub steps: Option<u64>,
    /// Scores, in bits per byte.
    pub bpb: Option<Scores>,
    /// Bytes of the artifact.
    pub artifact_bytes: Option<u64>,
    /// When it began, in UTC.
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// What its user calls it.
    pub tags: Vec<String>,
    /// What its user says of it.
    pub note: Option<String>,
}

/// `notes.json`: what the user says of a run. It is beside the run's own files, none of which it changes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Notes {
    /// blake3 of the record of the run that they are of: one that takes its folder has none.
    pub of: String,
    /// Tags, in order.
    pub tags: Vec<String>,
    /// A note.
    pub note: Option<String>,
}

const NOTES: &str = "notes.json";

/// Folders below the one that is listed which may hold runs: a sweep's are three down from the folder of sweeps.
const MAX_DEPTH: usize = 3;

/// Every run in a folder and in folders in it, by name. One that cannot be read is listed as such.
///
/// # Errors
/// If the folder itself cannot be read.
pub fn list(folder: &Path) -> Result<Vec<ListedRun>, RunError> {
    let mut found = Vec::new();
    if is_run(folder) {
        found.push(folder.to_owned());
    } else {
        let entries = folders_in(folder).map_err(|error| RunError::Io { path: folder.to_owned(), error })?;
        entries.iter().for_each(|path| collect(path, 1, &mut found));
    }
    let name = |path: &Path| {
        let below = path.strip_prefix(folder).ok().filter(|below| *below != Path::new(""));
        below.unwrap_or(path).display().to_string()
    };
    Ok(found.into_iter().map(|path| ListedRun::of(name(&path), path)).collect())
}

/// Whether a folder is that of a run, whatever has become of that.
fn is_run(folder: &Path) -> bool {
    [RECORD, REPORT].iter().any(|name| folder.join(name).exists()) || unfinished_in(folder).is_dir()
}

fn folders_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut folders = entries.collect::<io::Result<Vec<_>>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}

fn collect(path: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if is_run(path) {
        found.push(path.to_owned());
    } else if depth < MAX_DEPTH {
        // A folder that may not be read is none of a run that could be.
        folders_in(path).unwrap_or_default().iter().for_each(|path| collect(path, depth + 1, found));
    }
}

impl ListedRun {
    fn of(name: String, folder: PathBuf) -> ListedRun {
        let mut run = ListedRun {
            name,
            state: RunStatus::Broken,
            problem: None,
            model: None,
            profile: None,
            device: None,
            seed: None,
            steps: None,
            bpb: None,
            artifact_bytes: None,
            started: None,
            ended: None,
            tags: Vec::new(),
            note: None,
            folder,
        };
        if let Err(error) = run.read() {
            (run.state, run.problem) = (RunStatus::Broken, Some(error.to_string()));
        }
        run
    }

    fn read(&mut self) -> Result<(), RunError> {
        let folder = self.folder.clone();
        let lock = folder.join(LOCK);
        let owner = Lock::owner(&lock).map_err(|error| RunError::Io { path: lock, error })?;
        if unfinished_record(&folder)?.is_some() {
            let record = Earlier::open(&folder, Purpose::Resume)?.record;
            let path = unfinished_in(&folder).join(METRICS);
            let journal = Journal::read(&path).map_err(|error| RunError::Io { path, error })?;
            self.model = record.source().ok().map(|source| source.name().to_owned());
            (self.profile, self.seed) = (record.job.profile, record.job.seed);
            (self.device, self.started) = (Some(record.device), record.started);
            self.steps = Some(journal.steps.len() as u64);
            self.state = if owner.is_some() { RunStatus::Running } else { RunStatus::Stopped };
        } else if owner.is_some() {
            // It has not written down yet what it is.
            self.state = RunStatus::Running;
            return Ok(());
        } else {
            let FinishedRun { record, report, .. } = FinishedRun::open(&folder)?;
            self.model = Some(report.model);
            (self.profile, self.seed) = (Some(report.profile), Some(report.seed));
            (self.device, self.started, self.ended) = (Some(report.device), record.started, report.ended);
            (self.steps, self.bpb) = (Some(report.train.steps), Some(report.bpb));
            self.artifact_bytes = Some(report.artifact.artifact_bytes);
            self.state = RunStatus::Finished;
        }
        let Notes { tags, note, .. } = Notes::read(&folder)?;
        (self.tags, self.note) = (tags, note);
        Ok(())
    }
}

impl Notes {
    /// The notes of the run in a folder; those of a run that was there before are none of its.
    ///
    /// # Errors
    /// If no run is in it, or its notes cannot be read.
    pub fn read(folder: &Path) -> Result<Notes, RunError> {
        let record = match unfinished_record(folder)? {
            Some(record) => Some(record),
            None => finished_record(folder)?,
        };
        let record = record
            .ok_or_else(|| RunError::Nothing { folder: folder.to_owned(), purpose: Purpose::Replay })?;
        let record = Kind::JSON.read(&record).map_err(|error| RunError::Io { path: record, error })?;
        let of = blake3::hash(&record).to_hex().to_string();
        let path = folder.join(NOTES);
        let text = match Kind::JSON.read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Notes { of, ..Notes::default() });
            }
            Err(error) => return Err(RunError::Io { path, error }),
        };
        let notes: Notes = serde_json::from_slice(&text)
            .map_err(|error| RunError::Io { path, error: io::Error::from(error) })?;
        Ok(if notes.of == of { notes } else { Notes { of, ..Notes::default() } })
    }

    /// Writes the notes of the run in a folder.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), RunError> {
        let path = folder.join(NOTES);
        let text = serde_json::to_vec_pretty(self).expect("strings always serialise");
        write_atomically(&path, &text).map_err(|error| RunError::Io { path, error })
    }
}
