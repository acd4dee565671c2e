//! Validation that was done before: one file for each text, pg and device, in the user's cache folder.
//!
//! Only what passed is kept. A file is believed if it holds the hash that it is asked for and a sum of its own contents;
//! whatever else is found there, or cannot be read or written, is as if it were not there.

use std::path::{Path, PathBuf};

use pg_ir::input::Kind;
use pg_ir::lang::Options;
use serde::{Deserialize, Serialize};

use super::programs::Subject;
use super::report::{Outcome, ValidationReport};
use crate::artifact::write_atomically;
use crate::cpu;
use crate::session::{Key, Session};

/// The user's cache folder, or the one that `PG_CACHE` names; `None` if there is none.
pub fn cache_folder() -> Option<PathBuf> {
    let named = std::env::var_os("PG_CACHE").filter(|f| !f.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(dirs::cache_dir()?.join("pg")))
}

/// A cached report.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// Of what was validated.
    hash: String,
    /// Of the report's text.
    sum: String,
    /// JSON.
    report: String,
}

/// What a validation depends on.
pub(super) struct Identity(String);

impl Identity {
    /// Of programs of a session's model, which `options` made of its text.
    pub(super) fn new(
        session: &Session,
        programs: &[Key],
        subjects: &[Subject],
        options: &Options,
    ) -> Identity {
        let mut hash = blake3::Hasher::new();
        // Lengths keep ("a", "bc") apart from ("ab", "c").
        let mut add = |part: &str| {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        };
        add(env!("PG_SOURCES"));
        for source in &session.model.sources {
            add(&source.file);
            add(&source.text);
        }
        add(&format!("{options:?}"));
        add(&format!("{programs:?}"));
        subjects.iter().for_each(|s| add(&format!("{:?}", s.chains)));
        let device = session.device();
        add(&format!("{} {} {}", device.name(), device.description(), session.storage()));
        add(&format!("{:?}", device.machine()));
        add(&cpu::features());
        Identity(hash.finalize().to_hex().to_string())
    }

    /// Its file in a cache folder.
    fn path(&self, folder: &Path) -> PathBuf {
        folder.join("validated").join(format!("{}.json", self.0))
    }

    /// What is known already.
    pub(super) fn find(&self, folder: &Path) -> Option<ValidationReport> {
        let path = self.path(folder);
        let entry: Entry = serde_json::from_slice(&Kind::JSON.read(&path).ok()?).ok()?;
        let is_whole = entry.hash == self.0 && entry.sum == sum(&entry.report);
        let report: ValidationReport = serde_json::from_str(&entry.report).ok().filter(|_| is_whole)?;
        (report.outcome == Outcome::Passed).then_some(ValidationReport {
            cached: true,
            seconds: 0.0,
            ..report
        })
    }

    /// Keeps what passed; the error says why it cannot be kept.
    pub(super) fn keep(&self, folder: &Path, report: &ValidationReport) -> Result<(), String> {
        let path = self.path(folder);
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let report = serde_json::to_string(report).map_err(|e| e.to_string())?;
        let entry = Entry { hash: self.0.clone(), sum: sum(&report), report };
        let text = serde_json::to_string(&entry).map_err(|e| e.to_string())?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        write_atomically(&path, text.as_bytes()).map_err(failed)
    }
}

fn sum(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_entries_of_the_same_hash_are_believed() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity("abc".into());
        let path = identity.path(folder.path());
        let find = || identity.find(folder.path());
        let passed =
            ValidationReport { outcome: Outcome::Passed, launches: 7, ..ValidationReport::default() };
        let write = |hash: &str, report: &ValidationReport, change: fn(String) -> String| {
            let report = serde_json::to_string(report).unwrap();
            let entry = Entry { hash: hash.into(), sum: sum(&report), report: change(report) };
            std::fs::write(&path, serde_json::to_string(&entry).unwrap()).unwrap();
        };
        assert!(find().is_none(), "nothing there");
        identity.keep(folder.path(), &passed).unwrap();
        assert_eq!(find(), Some(ValidationReport { cached: true, ..passed.clone() }));
        write("abc", &passed, |r| r);
        let found = find().unwrap();
        assert_eq!((found.cached, found.launches), (true, 7));
        write("abd", &passed, |r| r);
        assert!(find().is_none(), "of something else");
        write("abc", &passed, |r| r.replace("\"launches\":7", "\"launches\":8"));
        assert!(find().is_none(), "changed");
        write("abc", &ValidationReport::default(), |r| r);
        assert!(find().is_none(), "what was skipped is not validated");
        write("abc", &passed, |r| r);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(find().is_none(), "{len} bytes");
        }
    }
}
