//! The folder of a parameter-golf submission, from finished runs of one job with different seeds.
//!
//! [`rules`] says what is in the way: what no folder can be written of, and what the challenge would not accept. Every run is
//! audited. [`readme`], [`metadata`], [`log`] and [`model`] are the folder's files, [`write`] puts them there, all or none.

mod log;
mod metadata;
mod model;
mod readme;
mod rules;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use pg_ir::lang::Diagnostics;
use serde::Serialize;
use thiserror::Error;

pub use self::metadata::{Compliance, SeedResult, Submission};
use self::rules::Objections;
use crate::audit::{AuditError, AuditOptions, AuditReport, audit};
use crate::challenge::{RECORD_NATS, RECORD_P};
use crate::device::Device;
use crate::export::ExportError;
use crate::report::{Event, Observer, StepMetrics};
use crate::run::{FinishedRun, RunError};
use crate::statistics::{Summary, TTest, one_sample};

/// What a submission is made of.
#[derive(Clone, Debug, Default)]
pub struct SubmitOptions {
    /// Folders of finished runs.
    pub runs: Vec<PathBuf>,
    /// The folder to write.
    pub out: PathBuf,
    /// `--author`.
    pub author: String,
    /// `--github`.
    pub github: String,
    /// `--name`; the model's name otherwise.
    pub name: Option<String>,
    /// `--blurb`; what the model's file says of it otherwise.
    pub blurb: Option<String>,
    /// `--hardware`: what it ran on, which only its user knows; the device's name otherwise.
    pub hardware: Option<String>,
    /// The score that this one is compared with, in bits per byte.
    pub baseline_bpb: Option<f64>,
    /// Write what the challenge would not accept, and say so in it.
    pub draft: bool,
    /// Where audits run.
    pub device: Device,
}

/// Why no folder was written.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The runs are not those of a submission.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// The challenge would not accept it.
    #[error(
        "the challenge would not accept this:\n  {}\n`--draft` writes the folder all the same, and says so in it",
        .0.join("\n  ")
    )]
    NotAccepted(Vec<String>),
    /// A run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An audit could not be done.
    #[error("{}: {error}", run.display())]
    Audit {
        /// The run.
        run: PathBuf,
        /// Why.
        error: Box<AuditError>,
    },
    /// The model does not check from the folder.
    #[error("the model's texts cannot be laid out in the folder: {0}")]
    Model(Diagnostics),
    /// An artifact cannot be read back.
    #[error(transparent)]
    Artifact(#[from] ExportError),
    /// A file or folder.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

/// The result of `pg submit`. Field names are a public interface.
#[derive(Clone, Debug, Serialize)]
pub struct SubmitReport {
    /// The folder.
    pub out: PathBuf,
    /// Its files, by name.
    pub files: Vec<String>,
    /// What `submission.json` says.
    pub submission: Submission,
    /// The comparison that was asked for.
    pub baseline: Option<BaselineTest>,
}

/// A score's comparison with another one. Of a single number there is no spread: it is taken as exact.
#[derive(Clone, Debug, Serialize)]
pub struct BaselineTest {
    /// The other score, in bits per byte.
    pub bpb: f64,
    /// The mean score against it, in bits per byte; `null` where the runs do not differ.
    pub test: Option<TTest>,
    /// One-sided p-value that the loss is not lower by [`RECORD_NATS`] per token.
    pub record_p: Option<f64>,
    /// Whether that is below [`RECORD_P`].
    pub is_record: bool,
}

/// A run, audited.
struct Audited {
    run: FinishedRun,
    steps: Vec<StepMetrics>,
    audit: AuditReport,
    /// The score that it is judged by.
    bpb: f64,
    /// The same in nats per token.
    loss: f64,
    training_s: f64,
    evaluation_s: f64,
}

/// All that the files say.
struct Contents<'a> {
    options: &'a SubmitOptions,
    runs: &'a [Audited],
    /// Which score counts.
    score: &'static str,
    bpb: Summary,
    loss: Summary,
    baseline: Option<BaselineTest>,
    /// What the challenge would not accept.
    not_accepted: Vec<String>,
    model: model::ModelFiles,
    submission: Submission,
}

/// Audits the runs and writes the folder.
///
/// # Errors
/// [`SubmitError`]; nothing is written then.
pub fn submit(options: &SubmitOptions, observer: &mut Observer<'_>) -> Result<SubmitReport, SubmitError> {
    let mut objections = rules::of_options(options);
    let (runs, unread): (Vec<_>, Vec<_>) =
        options.runs.iter().map(|path| read(path)).partition(Result::is_ok);
    objections.refusals.extend(unread.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    let runs: Vec<(FinishedRun, Vec<StepMetrics>)> = runs.into_iter().flatten().collect();
    objections.add(rules::of_runs(&runs, options.runs.len()));
    objections.check(options.draft)?;

    let mut audited = Vec::new();
    for (run, steps) in runs {
        let run = audited_run(run, steps, &options.device, observer)?;
        objections.add(rules::of_audit(&run.run, &run.audit));
        audited.push(run);
    }
    audited.sort_by_key(|run| run.run.report.seed);
    objections.check(options.draft)?;
    let contents = contents(options, &audited, objections)?;
    let files = write::write(&contents)?;
    observer(Event::Note(format!("wrote {}", options.out.display())));
    let Contents { submission, baseline, .. } = contents;
    Ok(SubmitReport { out: options.out.clone(), files, submission, baseline })
}

fn read(path: &Path) -> Result<(FinishedRun, Vec<StepMetrics>), RunError> {
    let run = FinishedRun::open(path)?;
    let steps = run.steps()?;
    Ok((run, steps))
}

fn audited_run(
    run: FinishedRun,
    steps: Vec<StepMetrics>,
    device: &Device,
    observer: &mut Observer<'_>,
) -> Result<Audited, SubmitError> {
    observer(Event::Note(format!("audits {}", run.folder.display())));
    let options =
        AuditOptions { path: run.folder.clone(), device: device.clone(), ..AuditOptions::default() };
    let audit = audit(&options, observer)
        .map_err(|error| SubmitError::Audit { run: run.folder.clone(), error: Box::new(error) })?;
    let (_, bpb) = run.report.bpb.last().unwrap_or(("", f64::NAN));
    let loss = run.record.text.nats_per_token(bpb);
    let (training_s, evaluation_s) = (run.report.training_seconds(), run.report.evaluation_seconds());
    Ok(Audited { run, steps, audit, bpb, loss, training_s, evaluation_s })
}

fn contents<'a>(
    options: &'a SubmitOptions,
    runs: &'a [Audited],
    objections: Objections,
) -> Result<Contents<'a>, SubmitError> {
    let Some(first) = runs.first() else {
        return Err(SubmitError::Refused(vec!["no run is named".into()]));
    };
    let values = |of: fn(&Audited) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
    let (bpbs, losses) = (values(|run| run.bpb), values(|run| run.loss));
    let (Some(bpb), Some(loss)) = (Summary::of(&bpbs), Summary::of(&losses)) else {
        return Err(SubmitError::Refused(vec!["no run is named".into()]));
    };
    let model = model::ModelFiles::of(&first.run)?;
    let not_accepted = objections.not_accepted;
    Ok(Contents {
        score: first.run.report.bpb.last().map_or("", |(name, _)| name),
        baseline: options.baseline_bpb.map(|other| against(&bpbs, &losses, other, first)),
        submission: metadata::submission(options, runs, (bpb, loss), &model, &not_accepted),
        options,
        runs,
        bpb,
        loss,
        not_accepted,
        model,
    })
}

/// The comparison with a score of the same text.
fn against(bpbs: &[f64], losses: &[f64], other: f64, run: &Audited) -> BaselineTest {
    let bar = run.run.record.text.nats_per_token(other) - RECORD_NATS;
    let record_p = one_sample(losses, bar).ok().map(|test| test.p_below());
    BaselineTest {
        bpb: other,
        test: one_sample(bpbs, other).ok(),
        record_p,
        is_record: record_p.is_some_and(|p| p < RECORD_P),
    }
}
