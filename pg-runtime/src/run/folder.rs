//! The folder of a run: metrics, weights, artifact, report.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::RunError;
use crate::artifact::write_atomically;
use crate::report::RunReport;

/// A run's folder. What an earlier run left in it stays as it was until this one has succeeded: files are
/// written and read back in a folder inside it, and take their names together at the end.
pub(super) struct RunFolder {
    pub(super) path: PathBuf,
}

/// What a run leaves. The report comes last: where it is of this run, so is everything else.
const FILES: [&str; 4] = [METRICS, WEIGHTS, ARTIFACT, REPORT];
pub(super) const METRICS: &str = "metrics.jsonl";
pub(super) const WEIGHTS: &str = "weights.safetensors";
pub(super) const ARTIFACT: &str = "artifact.pg";
const REPORT: &str = "report.json";

/// Where the files of a run are until it has succeeded. After a failure they remain here, to be looked at.
const UNFINISHED: &str = ".unfinished";

impl RunFolder {
    /// The folder that the user names, or the first free `runs/MODEL-N`. Fails where nothing can be written.
    pub(super) fn create(named: Option<&Path>, model: &str) -> Result<RunFolder, RunError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => {
                let numbered = |n: u32| Path::new("runs").join(format!("{model}-{n}"));
                (1..).map(numbered).find(|p| !p.exists()).expect("some number is free")
            }
        };
        let unfinished = path.join(UNFINISHED);
        match std::fs::remove_dir_all(&unfinished) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(located(&unfinished)(e));
            }
            _ => {}
        }
        std::fs::create_dir_all(&unfinished).map_err(located(&unfinished))?;
        // A folder in the place of a file would be found only after all the work.
        if let Some(taken) = FILES.map(|name| path.join(name)).into_iter().find(|p| p.is_dir()) {
            return Err(located(&taken)(io::ErrorKind::IsADirectory.into()));
        }
        Ok(RunFolder { path })
    }

    /// Where a file is to be after the run.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where a file is until then.
    pub(super) fn unfinished(&self, name: &str) -> PathBuf {
        self.path.join(UNFINISHED).join(name)
    }

    /// Begins the metrics.
    pub(super) fn metrics(&self) -> Result<BufWriter<File>, RunError> {
        let path = self.unfinished(METRICS);
        Ok(BufWriter::new(File::create(&path).map_err(located(&path))?))
    }

    /// Ends the metrics.
    pub(super) fn finish_metrics(&self, metrics: BufWriter<File>) -> Result<(), RunError> {
        let done = metrics.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all());
        done.map_err(located(&self.unfinished(METRICS)))
    }

    /// Writes the report and gives every file its name.
    pub(super) fn finish(&self, report: &RunReport) -> Result<(), RunError> {
        let path = self.unfinished(REPORT);
        let text = serde_json::to_vec_pretty(report).map_err(io::Error::from).map_err(located(&path))?;
        write_atomically(&path, &text).map_err(located(&path))?;
        for name in FILES {
            let path = self.file(name);
            std::fs::rename(self.unfinished(name), &path).map_err(located(&path))?;
        }
        let unfinished = self.path.join(UNFINISHED);
        std::fs::remove_dir(&unfinished).map_err(located(&unfinished))
    }
}

fn located(path: &Path) -> impl FnOnce(io::Error) -> RunError + '_ {
    |error| RunError::Io { path: path.to_owned(), error }
}
