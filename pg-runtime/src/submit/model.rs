//! The model's file and those that it derives from, laid out in a folder as `from "…"` finds them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use pg_ir::lang::model::Model;
use pg_ir::lang::{Diagnostics, Options, Override, Source, elaborate};

use super::SubmitError;
use crate::run::{FinishedRun, RunRecord};

/// Where texts are, in the submission's folder.
const FOLDER: &str = "model";

/// Texts of a model, each with its place in the submission's folder.
pub(super) struct ModelFiles {
    /// The model's own file.
    pub(super) main: PathBuf,
    /// Every file and its text.
    pub(super) files: BTreeMap<PathBuf, String>,
    /// The model's name.
    pub(super) name: String,
    /// What its file says of it, in one line.
    pub(super) doc: String,
    options: Options,
}

impl ModelFiles {
    /// Lays out the texts of a run's record, and checks the model as it will stand there.
    ///
    /// # Errors
    /// [`SubmitError::Model`], as of a base that is named by an absolute path.
    pub(super) fn of(run: &FinishedRun) -> Result<ModelFiles, SubmitError> {
        let (main, files) = lay_out(&run.record);
        let profile = Some(run.report.profile.clone()).filter(|profile| profile != "none");
        let options = Options {
            overrides: run.record.job.overrides.iter().cloned().map(Override::from).collect(),
            profile,
        };
        let mut laid_out = ModelFiles { main, files, name: String::new(), doc: String::new(), options };
        let find = |path: &str| {
            let text = laid_out.files.get(&normal(Path::new(path))).cloned();
            text.ok_or_else(|| {
                format!("`{path}` would not be in the folder: name the base by a relative path")
            })
        };
        let main = laid_out.main.to_string_lossy();
        let text = laid_out.files.get(&laid_out.main).map_or("", String::as_str);
        let source = Source::parse(&main, text, &find).map_err(SubmitError::Model)?;
        let model = laid_out.elaborate(&source).map_err(SubmitError::Model)?;
        laid_out.name = model.name;
        laid_out.doc = model.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(laid_out)
    }

    fn elaborate(&self, source: &Source) -> Result<Model, Diagnostics> {
        elaborate(source, &self.options)
    }

    /// Checks that the files of a folder give the model.
    ///
    /// # Errors
    /// If they do not.
    pub(super) fn check_in(&self, folder: &Path) -> Result<(), SubmitError> {
        let source = Source::load(folder.join(&self.main)).map_err(SubmitError::Model)?;
        self.elaborate(&source).map(|_| ()).map_err(SubmitError::Model)
    }
}

/// The main file, and every text by its place: relative to each other as they were, below the folder that all have in common.
fn lay_out(record: &RunRecord) -> (PathBuf, BTreeMap<PathBuf, String>) {
    // Names are relative to where the run was started, and may lead out of there.
    let depth = record.sources.keys().map(|name| Path::new(name).components().count()).max().unwrap_or(0);
    let start: PathBuf = (0..depth).map(|_| "d").collect();
    let place = |name: &str| normal(&start.join(name));
    let mut common = place(&record.file);
    common.pop();
    for name in record.sources.keys() {
        while !place(name).starts_with(&common) {
            common.pop();
        }
    }
    let below = |name: &str| {
        let place = place(name);
        let below = place.strip_prefix(&common).unwrap_or(&place);
        // Whatever the names are, files stay in the folder.
        let plain = below.components().filter(|c| matches!(c, Component::Normal(_)));
        std::iter::once(Component::Normal(FOLDER.as_ref())).chain(plain).collect::<PathBuf>()
    };
    let files = record.sources.iter().map(|(name, text)| (below(name), text.clone())).collect();
    (below(&record.file), files)
}

/// A path without `.` and without `..` behind a folder.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => _ = normal.pop(),
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::JobOptions;

    fn record(file: &str, bases: &[&str]) -> RunRecord {
        let texts = std::iter::once(&file).chain(bases).map(|name| (name.to_string(), name.to_string()));
        RunRecord {
            pg: String::new(),
            device: String::new(),
            job: JobOptions::default(),
            file: file.into(),
            sources: texts.collect(),
            text: serde_json::from_value(serde_json::json!({
                "train": null, "val": { "name": "", "tokens": 0, "hash": "" }, "val_bytes": null, "tokenizer": "",
                "targets": 0, "available_targets": 0, "scored_again": 0, "bytes": 0, "overlap": null
            }))
            .unwrap(),
            init_hash: None,
            replays: None,
        }
    }

    #[test]
    fn files_stand_to_each_other_as_they_did() {
        for (file, bases, expected) in [
            ("tiny.rs", &[][..], &["model/tiny.rs"][..]),
            ("/a/b/tiny.rs", &[], &["model/tiny.rs"]),
            ("models/ideas/x.rs", &["models/ideas/../y.rs"], &["model/ideas/x.rs", "model/y.rs"]),
            ("x.rs", &["../y.rs", "../z/w.rs"], &["model/d/x.rs", "model/y.rs", "model/z/w.rs"]),
            ("../../x.rs", &["../../../y.rs"], &["model/d/x.rs", "model/y.rs"]),
        ] {
            let (main, files) = lay_out(&record(file, bases));
            let places: Vec<&str> = files.keys().map(|path| path.to_str().unwrap()).collect();
            assert_eq!(places, expected, "{file}");
            assert_eq!(files[&main], file);
        }
    }
}
