//! What a run writes down of itself before its first step: enough to continue it, or to do it again, without the
//! files that it was started from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pg_ir::input::Kind;
use pg_ir::lang::{Diagnostics, Source};
use serde::{Deserialize, Serialize};

use super::folder::{finished_record, unfinished_record};
use super::options::{Earlier, Purpose};
use super::{JobOptions, RunError};
use crate::report::TextReport;

/// `run.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of the program.
    pub pg: String,
    /// The device that the run was on.
    pub device: String,
    /// What was asked for.
    pub job: JobOptions,
    /// The model file's name, its text, and the texts that it derives from, by the names it gives them.
    pub file: String,
    /// Texts by name.
    pub sources: BTreeMap<String, String>,
    /// What it trains on and scores.
    pub text: TextReport,
    /// blake3 of the file of initial weights; `null` without one.
    pub init_hash: Option<String>,
    /// The folder of the run that it does again; `null` for a run of its own.
    #[serde(default)]
    pub replays: Option<PathBuf>,
    /// When the run began, in UTC; `null` in records of an older pg. No part of what the run is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
}

impl RunRecord {
    /// The model's text as it was.
    ///
    /// # Errors
    /// If it does not parse any more: another version of the program.
    pub fn source(&self) -> Result<Source, Diagnostics> {
        let find = |name: &str| {
            let text = self.sources.get(name).cloned();
            text.ok_or_else(|| format!("the run's record does not hold `{name}`"))
        };
        Source::parse(&self.file, self.sources.get(&self.file).map_or("", String::as_str), &find)
    }

    /// Texts of a model file, as a record holds them.
    pub(crate) fn sources_of(source: &Source) -> BTreeMap<String, String> {
        source.texts().iter().map(|t| (t.file.to_string(), t.text.to_string())).collect()
    }

    /// blake3 of the record but for its time, in hexadecimal: what the run's checkpoints are of.
    pub fn hash(&self) -> String {
        let timeless = RunRecord { started: None, ..self.clone() };
        let text = serde_json::to_vec(&timeless).expect("strings and numbers always serialise");
        blake3::hash(&text).to_hex().to_string()
    }

    /// blake3 of the model's text and of those that it derives from, in hexadecimal, wherever the files are.
    pub fn model_hash(&self) -> String {
        let (own, mut bases): (Vec<_>, Vec<_>) = self
            .sources
            .iter()
            .map(|(name, text)| (*name == self.file, blake3::hash(text.as_bytes())))
            .partition(|(is_own, _)| *is_own);
        bases.sort_by_key(|(_, hash)| *hash.as_bytes());
        let mut hasher = blake3::Hasher::new();
        own.iter().chain(&bases).for_each(|(_, hash)| _ = hasher.update(hash.as_bytes()));
        hasher.finalize().to_hex().to_string()
    }

    fn load(path: &Path) -> Result<RunRecord, RunError> {
        let text = Kind::JSON.read(path).map_err(|error| RunError::Io { path: path.to_owned(), error })?;
        let record = serde_json::from_slice(&text);
        record.map_err(|e| RunError::Record { path: path.to_owned(), what: e.to_string() })
    }
}

impl Earlier {
    /// Opens a run that was stopped, to continue it; or one that has finished, to do it again.
    ///
    /// # Errors
    /// [`RunError::Nothing`] where no run of that kind is in the folder; the record, if it cannot be read.
    pub fn open(folder: &Path, purpose: Purpose) -> Result<Earlier, RunError> {
        let path = match purpose {
            Purpose::Resume => unfinished_record(folder)?,
            Purpose::Replay => finished_record(folder)?,
        };
        let path = path.ok_or_else(|| RunError::Nothing { folder: folder.to_owned(), purpose })?;
        Ok(Earlier { folder: folder.to_owned(), record: RunRecord::load(&path)?, purpose })
    }
}
