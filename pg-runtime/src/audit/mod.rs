//! What a reviewer of a score checks by hand, recomputed from the artifact and the text, never from the run's own log.
//!
//! Each check is a sentence with a verdict: proven, violated, or claimed where only the run itself can know. [`inputs`] looks
//! at files and tokens, [`text`] at the text behind them, [`model`] at proofs, grids and what later tokens do, [`scores`] computes the scores again.

mod inputs;
mod model;
mod scores;
mod text;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pg_ir::input::Kind;
use pg_ir::slot::Space;
use serde::Serialize;
use thiserror::Error;

use crate::data::DataError;
use crate::data::tokenize::TokenizeError;
use crate::device::Device;
use crate::eval::{EvalError, Window, Windows, window_nll};
use crate::export::{self, ExportError};
use crate::report::{Event, Observer, RunReport};
use crate::run::{ARTIFACT, Corpus, REPORT, TextOptions};
use crate::session::{Session, SessionError};
use crate::state::State;
use crate::weights::Weights;

/// What an audit was asked for.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// The folder of a finished run, or an artifact.
    pub path: PathBuf,
    /// The text to score, instead of the one that the run's report names.
    pub text: Option<TextOptions>,
    /// Files of the scored text itself, in order: text or JSON Lines.
    pub val_text: Vec<PathBuf>,
    /// Where programs run.
    pub device: Device,
}

/// Whether what a check looks at is so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was recomputed, or proven, here.
    Proven,
    /// The run says so; nothing here can tell.
    Claimed,
    /// It is not so.
    Violated,
}

/// A check and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What is checked, in a word or two.
    pub check: &'static str,
    /// Whether it is so.
    pub verdict: Verdict,
    /// What was found, as a sentence.
    pub what: String,
}

/// The findings of an audit.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AuditReport {
    /// Name of the model.
    pub model: String,
    /// The artifact.
    pub artifact: PathBuf,
    /// Its hash.
    pub hash: String,
    /// Every check, in order.
    pub findings: Vec<Finding>,
}

impl AuditReport {
    /// Whether nothing is violated.
    pub fn passes(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Violated)
    }
}

/// Why an audit could not be done. What it found is no error.
#[derive(Debug, Error)]
pub enum AuditError {
    /// A file.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The report is none.
    #[error("{}: not the report of a run: {what}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The artifact cannot be read.
    #[error(transparent)]
    Artifact(#[from] ExportError),
    /// The text cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The text, or what makes tokens of it.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// A document that cannot be encoded.
    #[error("{0}")]
    Encode(String),
    /// A program could not be compiled or run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Scoring.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

/// Collects findings.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, verdict: Verdict, what: impl Into<String>) {
        self.0.push(Finding { check, verdict, what: what.into() });
    }

    /// `so` where it is so, else `not_so`.
    fn hold(&mut self, check: &'static str, is_so: bool, so: String, not_so: impl FnOnce() -> String) {
        match is_so {
            true => self.add(check, Verdict::Proven, so),
            false => self.add(check, Verdict::Violated, not_so()),
        }
    }
}

/// An artifact that is run, and where its findings go.
struct Artifact<'a> {
    findings: &'a mut Findings,
    session: Session,
    /// Of its own weights: what changes them works on another.
    state: State,
    weights: &'a Weights,
    corpus: &'a Corpus,
    observer: &'a mut Observer<'a>,
}

impl Artifact<'_> {
    /// What every way to score needs of a state.
    const SPACES: [Space; 3] = [Space::Param, Space::Grad, Space::Velocity];

    /// Every check of its scores.
    fn scores(&mut self, report: Option<&RunReport>) -> Result<(), AuditError> {
        self.later_tokens()?;
        self.later_tokens_through_training()?;
        self.earlier_documents()?;
        self.normalised()?;
        self.scored_again(report)
    }

    /// A state of the artifact's weights that may be changed.
    fn fresh_state(&self) -> Result<State, AuditError> {
        Ok(self.session.state_with(self.weights, &Artifact::SPACES)?)
    }

    /// How its sliding evaluation reads the text.
    fn windows(&self) -> Windows {
        Windows::sliding(&self.session.model, self.corpus.targets())
    }

    /// Likelihoods of all targets of a window's tokens: of one fewer than these.
    fn scores_of(&mut self, tokens: &[i32]) -> Result<Vec<f32>, AuditError> {
        let (window, seq) = (Window { start: 0, end: tokens.len() - 1, first: 0 }, self.windows().seq);
        let mut nll = vec![f32::NAN; window.end];
        let mut sink = |target: usize, value: f32| nll[target] = value;
        let (session, state) = (&mut self.session, &mut self.state);
        window_nll(session, state, tokens, &[window], (seq, false), &mut sink, &mut |_| Ok(()))?;
        Ok(nll)
    }
}

/// Audits a run, or an artifact alone.
///
/// # Errors
/// [`AuditError`], where something cannot be looked at at all.
pub fn audit(options: &AuditOptions, observer: &mut Observer<'_>) -> Result<AuditReport, AuditError> {
    let is_run = options.path.is_dir();
    let artifact = if is_run { options.path.join(ARTIFACT) } else { options.path.clone() };
    let report = is_run.then(|| read_report(&options.path.join(REPORT))).transpose()?;
    let loaded = export::read(&artifact)?;
    let mut findings = Findings::default();
    inputs::artifact(&mut findings, &loaded, report.as_ref());
    model::grids(&mut findings, &loaded.model);

    let of_run = report.as_ref().and_then(|report| report.job.as_ref()).map(|job| job.text.clone());
    let named = options.text.clone().or(of_run).unwrap_or_default();
    let corpus = Corpus::open(&named, &loaded.model)?;
    inputs::text(&mut findings, &loaded, &corpus, report.as_ref())?;
    text::read_again(&mut findings, &corpus, &named, &options.val_text)?;

    let mut session = Session::on(options.device.clone(), Arc::new(loaded.model.clone()), Default::default());
    if let Some(storage) = report.as_ref().and_then(|report| report.job.as_ref()?.storage) {
        session = session.storing(storage);
    }
    // Without the proofs, numbers say nothing; and the programs do not compile.
    if model::proofs(&mut findings, &session, &corpus) {
        let (weights, findings) = (&loaded.weights, &mut findings);
        let state = session.state_with(weights, &Artifact::SPACES)?;
        let mut artifact = Artifact { findings, session, state, weights, corpus: &corpus, observer };
        match artifact.scores(report.as_ref()) {
            Err(AuditError::Eval(error)) => {
                artifact.findings.add("scores", Verdict::Violated, error.to_string())
            }
            done => done?,
        }
    }
    if let Some(report) = &report {
        inputs::claims(&mut findings, report);
    }
    let model = loaded.model.name.clone();
    observer(Event::Note(format!("{} checks", findings.0.len())));
    Ok(AuditReport { model, artifact, hash: loaded.artifact.hash, findings: findings.0 })
}

fn read_report(path: &Path) -> Result<RunReport, AuditError> {
    let text = Kind::JSON.read(path).map_err(|error| AuditError::Io { path: path.to_owned(), error })?;
    RunReport::from_json(&text).map_err(|what| AuditError::Report { path: path.to_owned(), what })
}
