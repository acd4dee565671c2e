//! The folder of a run: metrics, weights, artifact, report.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::RunError;
use crate::artifact::write_atomically;
use crate::report::RunReport;

/// A run's folder. Files appear under their names only when they are whole.
pub(super) struct RunFolder {
    pub(super) path: PathBuf,
}

impl RunFolder {
    /// The folder that the user names, or the first free `runs/MODEL-N`.
    pub(super) fn create(named: Option<&Path>, model: &str) -> Result<RunFolder, RunError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => {
                let numbered = |n: u32| Path::new("runs").join(format!("{model}-{n}"));
                (1..).map(numbered).find(|p| !p.exists()).expect("some number is free")
            }
        };
        std::fs::create_dir_all(&path).map_err(located(&path))?;
        Ok(RunFolder { path })
    }

    /// A file of the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where metrics go while the run is on: `metrics.jsonl` of an earlier run stays until this one is done.
    pub(super) fn metrics(&self) -> Result<BufWriter<File>, RunError> {
        let path = self.file(UNFINISHED_METRICS);
        Ok(BufWriter::new(File::create(&path).map_err(located(&path))?))
    }

    /// Gives finished metrics their name.
    pub(super) fn keep_metrics(&self, metrics: BufWriter<File>) -> Result<(), RunError> {
        let path = self.file("metrics.jsonl");
        let done = metrics.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all());
        done.and_then(|()| std::fs::rename(self.file(UNFINISHED_METRICS), &path)).map_err(located(&path))
    }

    /// Writes `report.json`.
    pub(super) fn write_report(&self, report: &RunReport) -> Result<(), RunError> {
        let path = self.file("report.json");
        let text = serde_json::to_vec_pretty(report).map_err(io::Error::from).map_err(located(&path))?;
        write_atomically(&path, &text).map_err(located(&path))
    }
}

const UNFINISHED_METRICS: &str = "metrics.jsonl.part";

fn located(path: &Path) -> impl FnOnce(io::Error) -> RunError + '_ {
    |error| RunError::Io { path: path.to_owned(), error }
}
