//! The folder of a run, which one run owns: record, metrics, checkpoints, weights, artifact, report.
//!
//! While a run goes on, its files are in a folder inside the run's own, and a lock says whose it is. At the end they take
//! their names together, the report last: where it is, everything else is of the same run. What an earlier run left stays
//! as it was until then.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use pg_ir::input::Kind;

use super::RunError;
use super::lock::{Lock, Owner};
use crate::artifact::{TEMPORARY, sync_folder, write_atomically};
use crate::report::RunReport;

/// A run's folder, locked.
pub(super) struct RunFolder {
    pub(super) path: PathBuf,
    /// Whether the run begins in it: only then may it have nothing to keep.
    is_new: bool,
    /// Held until the process ends, however it does.
    lock: Lock,
}

/// What a run leaves. The report comes last.
const FILES: [&str; 5] = [RECORD, METRICS, WEIGHTS, ARTIFACT, REPORT];
pub(crate) const RECORD: &str = "run.json";
pub(crate) const METRICS: &str = "metrics.jsonl";
pub(super) const WEIGHTS: &str = "weights.safetensors";
pub(crate) const ARTIFACT: &str = "artifact.pg";
pub(crate) const REPORT: &str = "report.json";
pub(super) const LOCK: &str = ".lock";
/// Room on the disk that is kept for what the run writes at its end.
const RESERVED: &str = "reserved";
/// Where the files of a run are until it has succeeded. After a failure they remain here, to go on from.
const UNFINISHED: &str = ".unfinished";

/// Where the files are of a run that has not finished.
pub(super) fn unfinished_in(folder: &Path) -> PathBuf {
    folder.join(UNFINISHED)
}

/// The record of a run in a folder that has not finished; `None` where no such run is.
///
/// One that was stopped while its files took their names may have its record there already; its report says that it is one.
///
/// # Errors
/// If the file system does not say.
pub(super) fn unfinished_record(folder: &Path) -> Result<Option<PathBuf>, RunError> {
    let unfinished = unfinished_in(folder);
    let record = unfinished.join(RECORD);
    if exists(&record)? {
        return Ok(Some(record));
    }
    Ok(exists(&unfinished.join(REPORT))?.then(|| folder.join(RECORD)))
}

/// The record of a finished run; `None` where there is none.
///
/// # Errors
/// If the file system does not say.
pub(super) fn finished_record(folder: &Path) -> Result<Option<PathBuf>, RunError> {
    let record = folder.join(RECORD);
    Ok(exists(&record)?.then_some(record))
}

/// Whether a file is there. That the file system does not say is an error, not a no.
fn exists(path: &Path) -> Result<bool, RunError> {
    match path.try_exists() {
        // A file is where its folder would be.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        other => other.map_err(located(path)),
    }
}

impl RunFolder {
    /// The folder that the user names, or a new `runs/MODEL-N`, for a run that begins.
    ///
    /// # Errors
    /// [`RunError::Taken`], where a run is in it: going on, stopped or finished. Only the last two give way to
    /// `overwrite`.
    pub(super) fn create(named: Option<&Path>, model: &str, overwrite: bool) -> Result<RunFolder, RunError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => new_folder(Path::new("runs"), model)?,
        };
        is_text(&path)?;
        std::fs::create_dir_all(&path).map_err(located(&path))?;
        let folder = RunFolder::lock(path, true)?;
        has_room_for_a_run(&folder.path, overwrite)?;
        let unfinished = unfinished_in(&folder.path);
        match std::fs::remove_dir_all(&unfinished) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(located(&unfinished)(e));
            }
            _ => {}
        }
        std::fs::create_dir(&unfinished).map_err(located(&unfinished))?;
        Ok(folder)
    }

    /// The folder of a run that is to be continued.
    ///
    /// # Errors
    /// [`RunError::Taken`], where it still goes on.
    pub(super) fn reopen(path: &Path) -> Result<RunFolder, RunError> {
        let folder = RunFolder::lock(path.to_owned(), false)?;
        let unfinished = unfinished_in(path);
        for entry in std::fs::read_dir(&unfinished).map_err(located(&unfinished))? {
            let path = entry.map_err(located(&unfinished))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(TEMPORARY) {
                std::fs::remove_file(&path).map_err(located(&path))?;
            }
        }
        Ok(folder)
    }

    fn lock(path: PathBuf, is_new: bool) -> Result<RunFolder, RunError> {
        let name = path.join(LOCK);
        match Lock::take(&name).map_err(located(&name))? {
            Ok(lock) => Ok(RunFolder { path, is_new, lock }),
            Err(owner) => Err(owned(&path, &owner)),
        }
    }

    /// What would keep a run from beginning in a folder, found without making anything.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(super) fn check(path: &Path, overwrite: bool) -> Result<(), RunError> {
        is_text(path)?;
        if exists(path)? && !path.is_dir() {
            return Err(located(path)(io::ErrorKind::NotADirectory.into()));
        }
        let lock = path.join(LOCK);
        if let Some(owner) = Lock::owner(&lock).map_err(located(&lock))? {
            return Err(owned(path, &owner));
        }
        has_room_for_a_run(path, overwrite)
    }

    /// Where a file is to be after the run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where a file is until then.
    pub(super) fn unfinished(&self, name: &str) -> PathBuf {
        unfinished_in(&self.path).join(name)
    }

    /// Where checkpoints are.
    pub(super) fn checkpoints(&self) -> PathBuf {
        unfinished_in(&self.path)
    }

    /// Keeps so many bytes of the disk for [`Self::release`].
    ///
    /// # Errors
    /// If they are not there.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), RunError> {
        let path = self.unfinished(RESERVED);
        let file = File::create(&path).map_err(located(&path))?;
        match allocate(&file, bytes) {
            Ok(()) => Ok(()),
            // Some file systems say that a file is too large before they say that they are full.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge) =>
            {
                // What was allocated before the end of the disk was met.
                let _ = std::fs::remove_file(&path);
                Err(RunError::NoSpace { folder: self.path.clone(), bytes })
            }
            Err(error) => Err(located(&path)(error)),
        }
    }

    /// Gives up what was kept, for what is about to be written.
    pub(super) fn release(&self) -> Result<(), RunError> {
        let path = self.unfinished(RESERVED);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(located(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Writes a file of the unfinished run, whole or not at all.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        let path = self.unfinished(name);
        write_atomically(&path, bytes).map_err(located(&path))
    }

    /// Writes the report and gives every file its name; what of the unfinished run could not be removed.
    pub(super) fn finish(&self, report: &RunReport) -> Result<Option<RunError>, RunError> {
        let text = serde_json::to_vec_pretty(report).map_err(io::Error::from);
        self.write(REPORT, &text.map_err(located(&self.unfinished(REPORT)))?)?;
        self.publish()
    }

    /// The report of a run that was stopped while its files took their names; they have them then. And what [`Self::finish`] gives.
    pub(super) fn finish_stopped(&self) -> Result<Option<(RunReport, Option<RunError>)>, RunError> {
        let path = self.unfinished(REPORT);
        let text = match Kind::JSON.read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(located(&path)(error)),
        };
        let report = RunReport::from_json(&text).map_err(io::Error::other).map_err(located(&path))?;
        let left = self.publish()?;
        Ok(Some((report, left)))
    }

    /// Gives every file its name. Between the first and the last of them there is no report: not the one of before, either.
    fn publish(&self) -> Result<Option<RunError>, RunError> {
        let sync = || sync_folder(&self.path).map_err(located(&self.path));
        let old = self.file(REPORT);
        match std::fs::remove_file(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(located(&old)(error)),
            _ => sync()?,
        }
        for name in FILES {
            let (from, to) = (self.unfinished(name), self.file(name));
            match std::fs::rename(&from, &to) {
                // It has its name already.
                Err(error) if error.kind() == io::ErrorKind::NotFound && to.is_file() => {}
                Err(error) => return Err(located(&to)(error)),
                Ok(()) => {}
            }
            if name == ARTIFACT {
                sync()?;
            }
        }
        sync()?;
        // The run has finished: what remains is in nobody's way.
        let unfinished = unfinished_in(&self.path);
        let folder = std::fs::remove_dir_all(&unfinished).map_err(located(&unfinished));
        let lock = self.lock.remove().map_err(located(&self.file(LOCK)));
        Ok(folder.and(lock).err())
    }
}

/// A run that ended before it had anything to keep leaves nothing.
impl Drop for RunFolder {
    fn drop(&mut self) {
        let has_none = |path: PathBuf| exists(&path).is_ok_and(|is_there| !is_there);
        let is_empty = |name| has_none(self.unfinished(name)) && has_none(self.file(name));
        if self.is_new && [RECORD, REPORT].into_iter().all(is_empty) {
            // What cannot be removed, or is not empty, stays.
            let _ = std::fs::remove_dir_all(unfinished_in(&self.path));
            let _ = self.lock.remove();
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

/// A run's folder is named in its report, which is text.
fn is_text(path: &Path) -> Result<(), RunError> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(located(path)(io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8"))),
    }
}

/// Checks that a run's files would be in nobody's way.
fn has_room_for_a_run(folder: &Path, overwrite: bool) -> Result<(), RunError> {
    // A folder in the place of a file would be found only after all the work.
    if let Some(taken) = FILES.map(|name| folder.join(name)).into_iter().find(|p| p.is_dir()) {
        return Err(located(&taken)(io::ErrorKind::IsADirectory.into()));
    }
    let taken = |what: &str| Err(RunError::Taken { folder: folder.to_owned(), what: what.to_owned() });
    if !overwrite && exists(&folder.join(REPORT))? {
        return taken("a finished run is in it; `--overwrite` replaces it");
    }
    if !overwrite && unfinished_record(folder)?.is_some() {
        return taken(
            "a run that was stopped is in it; `pg run --resume` continues it, `--overwrite` replaces it",
        );
    }
    Ok(())
}

fn owned(folder: &Path, Owner(owner): &Owner) -> RunError {
    let what = format!("a run that goes on owns it ({owner}); give this one a folder of its own");
    RunError::Taken { folder: folder.to_owned(), what }
}

/// The first `MODEL-N` that nobody has: made by this call, so it is nobody else's.
fn new_folder(parent: &Path, model: &str) -> Result<PathBuf, RunError> {
    std::fs::create_dir_all(parent).map_err(located(parent))?;
    for number in 1u32.. {
        let path = parent.join(format!("{model}-{number}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(located(&path)(error)),
        }
    }
    unreachable!("some number is free")
}

/// Gives a file so many bytes of the disk, or fails with [`io::ErrorKind::StorageFull`].
#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, bytes.max(1)) {
        // Some file systems cannot; what they have is found by writing.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// Elsewhere what there is is found by writing.
#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// Checks that the disk of a folder, which need not be there yet, has so many bytes for this user, where the system says it.
///
/// # Errors
/// [`RunError::NoSpace`].
pub(super) fn check_space(folder: &Path, bytes: u64) -> Result<(), RunError> {
    #[cfg(unix)]
    {
        let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
        if let Ok(disk) = rustix::fs::statvfs(there)
            && disk.f_bavail.saturating_mul(disk.f_frsize) < bytes
        {
            return Err(RunError::NoSpace { folder: folder.to_owned(), bytes });
        }
    }
    #[cfg(not(unix))]
    let _ = (folder, bytes);
    Ok(())
}

fn located(path: &Path) -> impl FnOnce(io::Error) -> RunError + '_ {
    |error| RunError::Io { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests;
