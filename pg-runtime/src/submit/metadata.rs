//! `submission.json`, with the fields that the challenge's records have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::model::ModelFiles;
use super::{Audited, SubmitOptions};
use crate::audit::Verdict;
use crate::challenge::{MAX_BYTES, MAX_SECONDS, MIN_SEEDS, TRACK};
use crate::statistics::Summary;

/// `submission.json`. All but `not_accepted` are fields of the challenge's own records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Who submits.
    pub author: String,
    /// The GitHub account.
    pub github_id: String,
    /// What it is called.
    pub name: String,
    /// What it is.
    pub blurb: String,
    /// The day on which the folder was written, in UTC.
    pub date: String,
    /// `10min_16mb`.
    pub track: String,
    /// Mean score, in nats per token.
    pub val_loss: f64,
    /// Mean score, in bits per byte.
    pub val_bpb: f64,
    /// Its sample standard deviation.
    pub val_bpb_std: f64,
    /// Every seed.
    pub seeds: Vec<u64>,
    /// What each seed came to.
    pub seed_results: BTreeMap<String, SeedResult>,
    /// Bytes of the largest artifact, and of code.
    pub bytes_total: u64,
    /// Bytes of code: of the model's text and of the library text that it uses.
    pub bytes_code: u64,
    /// What it ran on.
    pub hardware: String,
    /// What was held to the challenge's rules.
    pub compliance: Compliance,
    /// What the challenge would not accept, of a draft; a submission has no such field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_accepted: Vec<String>,
}

/// What a seed came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedResult {
    /// Nats per token.
    pub val_loss: f64,
    /// Bits per byte.
    pub val_bpb: f64,
    /// Steps.
    pub steps: u64,
    /// Bytes of the artifact, and of code.
    pub artifact_bytes: u64,
}

/// What was held to the challenge's rules, by the audit, the ledger and the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compliance {
    /// Training took at most 600 s.
    pub train_under_600s: bool,
    /// Artifact and code have at most 16,000,000 bytes.
    pub artifact_under_16mb: bool,
    /// Evaluation took at most 600 s.
    pub eval_under_600s: bool,
    /// At least three seeds.
    pub three_seeds: bool,
    /// Each chunk is scored before it is trained on, as the audit proved; absent without test-time training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_first_ttt: Option<bool>,
}

/// What `submission.json` says. The summaries are of bits per byte and of nats per token.
pub(super) fn submission(
    options: &SubmitOptions,
    runs: &[Audited],
    (bpb, loss): (Summary, Summary),
    model: &ModelFiles,
    not_accepted: &[String],
) -> Submission {
    let result = |run: &Audited| {
        let report = &run.run.report;
        let (steps, artifact_bytes) = (report.train.steps, report.artifact.total_bytes);
        let result = SeedResult { val_loss: run.loss, val_bpb: run.bpb, steps, artifact_bytes };
        (report.seed.to_string(), result)
    };
    let largest = runs.iter().map(|run| run.run.report.artifact.total_bytes).max().unwrap_or(0);
    let code = runs.iter().map(|run| run.run.report.artifact.code_bytes).max().unwrap_or(0);
    let device = runs.first().map_or("", |run| run.run.record.device.as_str());
    Submission {
        author: options.author.clone(),
        github_id: options.github.clone(),
        name: options.name.clone().unwrap_or_else(|| model.name.clone()),
        blurb: options.blurb.clone().unwrap_or_else(|| model.doc.clone()),
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        track: TRACK.into(),
        val_loss: loss.mean,
        val_bpb: bpb.mean,
        val_bpb_std: bpb.std.unwrap_or(0.0),
        seeds: runs.iter().map(|run| run.run.report.seed).collect(),
        seed_results: runs.iter().map(result).collect(),
        bytes_total: largest,
        bytes_code: code,
        hardware: options.hardware.clone().unwrap_or_else(|| device.to_owned()),
        compliance: Compliance {
            train_under_600s: runs.iter().all(|run| run.training_s <= MAX_SECONDS),
            artifact_under_16mb: largest <= MAX_BYTES,
            eval_under_600s: runs.iter().all(|run| run.evaluation_s <= MAX_SECONDS),
            three_seeds: runs.len() >= MIN_SEEDS,
            score_first_ttt: score_first(runs),
        },
        not_accepted: not_accepted.to_vec(),
    }
}

/// Whether every audit proved that chunks are scored before they are trained on; `None` where nothing is.
fn score_first(runs: &[Audited]) -> Option<bool> {
    let verdict =
        |run: &Audited| run.audit.findings.iter().find(|f| f.check == "score first").map(|f| f.verdict);
    let verdicts: Vec<Verdict> = runs.iter().filter_map(verdict).collect();
    (!verdicts.is_empty()).then(|| verdicts.iter().all(|verdict| *verdict == Verdict::Proven))
}
