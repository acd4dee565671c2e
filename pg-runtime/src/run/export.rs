//! The third phase: trained weights become the artifact's file.

use std::path::{Path, PathBuf};

use pg_ir::lang::model::Model;

use super::prepare::Job;
use super::{RunError, folder};
use crate::export;
use crate::report::ArtifactReport;
use crate::weights::{self, Weights};

/// A written artifact.
pub(super) struct Exported {
    /// Where it is until the run has succeeded.
    pub(super) file: PathBuf,
    /// Its sizes, and where it will be.
    pub(super) report: ArtifactReport,
}

/// Saves the weights as they are and as an artifact. Nothing after it needs them.
pub(super) fn export(job: &Job, model: &Model, weights: Weights) -> Result<Exported, RunError> {
    let Job { folder, provenance, corpus, .. } = job;
    folder.release()?;
    weights::save(&folder.unfinished(folder::WEIGHTS), &model.params, &weights)?;
    let file = folder.unfinished(folder::ARTIFACT);
    let tokenizer = Some(corpus.tokenizer.hash());
    let sizes = export::write_for(&file, model, &weights, provenance, tokenizer)?;
    let path = folder.file(folder::ARTIFACT);
    let report = report(&path, model, sizes.total_bytes, job.estimate_bytes);
    Ok(Exported { file, report })
}

fn report(path: &Path, model: &Model, artifact_bytes: u64, estimate_bytes: u64) -> ArtifactReport {
    let code_bytes = model.code_bytes();
    let program = std::env::current_exe().and_then(std::fs::metadata).map_or(0, |m| m.len());
    ArtifactReport {
        path: path.to_owned(),
        // It is what its reader finds.
        hash: String::new(),
        artifact_bytes,
        code_bytes,
        total_bytes: artifact_bytes + code_bytes,
        with_evaluator_bytes: artifact_bytes + code_bytes + program,
        estimate_bytes,
        cap_bytes: model.export.cap_bytes,
    }
}
