//! The folder: written beside where it will be, and renamed when it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pg_ir::input::Kind;
use serde::Serialize;

use super::{Audited, Contents, SubmitError, log, readme};
use crate::artifact::{TEMPORARY, sync_folder};
use crate::challenge::MAX_BYTES;
use crate::export;
use crate::run::{METRICS, RECORD};

/// An artifact that is within the rules.
const ARTIFACT: Kind = Kind::new("the artifact of a submission", MAX_BYTES);

/// A run's artifact in the folder.
pub(super) fn artifact_name(run: &Audited) -> String {
    format!("artifact_seed{}.pg", run.run.report.seed)
}

/// What `pg run --replay` needs of a run.
pub(super) fn replay_name(run: &Audited) -> String {
    format!("replay_seed{}", run.run.report.seed)
}

/// Writes every file, and gives the folder its name; the files' names, in order.
pub(super) fn write(contents: &Contents<'_>) -> Result<Vec<String>, SubmitError> {
    let out = &contents.options.out;
    let parent = out.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(located(parent))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    // A temporary folder is private by default; what it becomes should have a folder's usual mode.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let folder = builder.tempdir_in(parent).map_err(located(parent))?;
    let mut files = Vec::new();
    for (name, bytes) in files_of(contents)? {
        let path = folder.path().join(&name);
        put(&path, &bytes).map_err(located(&path))?;
        files.push(name.to_string_lossy().into_owned());
    }
    contents.model.check_in(folder.path())?;
    contents.runs.iter().try_for_each(|run| check_artifact(run, folder.path()))?;
    sync_folder(folder.path()).map_err(located(folder.path()))?;
    // An empty folder that appeared meanwhile would be replaced.
    if out.symlink_metadata().is_ok() {
        return Err(located(out)(io::ErrorKind::AlreadyExists.into()));
    }
    std::fs::rename(folder.path(), out).map_err(located(out))?;
    // It is no longer where it would be removed from.
    let _ = folder.keep();
    sync_folder(parent).map_err(located(parent))?;
    files.sort();
    Ok(files)
}

/// Every file by its name in the folder.
fn files_of(contents: &Contents<'_>) -> Result<Vec<(PathBuf, Vec<u8>)>, SubmitError> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = vec![
        ("README.md".into(), readme::text(contents).into()),
        ("submission.json".into(), json(&contents.submission)?),
    ];
    let texts = contents.model.files.iter();
    files.extend(texts.map(|(path, text)| (path.clone(), text.clone().into_bytes())));
    for run in contents.runs {
        let seed = run.run.report.seed;
        files.push((format!("train_seed{seed}.log").into(), log::text(run).into()));
        let artifact = &run.audit.artifact;
        files.push((artifact_name(run).into(), ARTIFACT.read(artifact).map_err(located(artifact))?));
        let replay = PathBuf::from(replay_name(run));
        files.push((replay.join(RECORD), json(&run.run.record)?));
        files.push((replay.join(METRICS), journal(run)?));
    }
    Ok(files)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, SubmitError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(unwritable)?;
    text.push(b'\n');
    Ok(text)
}

/// The steps that were read, a line each.
fn journal(run: &Audited) -> Result<Vec<u8>, SubmitError> {
    let mut lines = Vec::new();
    for metrics in &run.steps {
        serde_json::to_writer(&mut lines, metrics).map_err(unwritable)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// A number that is none has no place in JSON.
fn unwritable(error: serde_json::Error) -> SubmitError {
    SubmitError::Refused(vec![format!("the runs cannot be written down: {error}")])
}

/// Reads an artifact back from the folder: it must be the one that was audited.
fn check_artifact(run: &Audited, folder: &Path) -> Result<(), SubmitError> {
    let loaded = export::read(&folder.join(artifact_name(run)))?;
    if loaded.artifact.hash == run.audit.hash {
        return Ok(());
    }
    let changed =
        io::Error::new(io::ErrorKind::InvalidData, "it has changed since it was audited; submit again");
    Err(located(&run.audit.artifact)(changed))
}

/// Writes a file and makes it durable.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn located(path: &Path) -> impl FnOnce(io::Error) -> SubmitError + '_ {
    |error| SubmitError::Io { path: path.to_owned(), error }
}
