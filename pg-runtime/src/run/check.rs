//! A run before it begins: everything that would keep it from being done, found without doing it and without a folder.

use std::path::Path;

use pg_ir::ty::DType;
use serde::Serialize;

use super::folder::{RunFolder, check_space};
use super::initial::initial_weights;
use super::model::{self, Loaded};
use super::prepare::{Prepared, prepare_in, train_plan, validated};
use super::train::reserved;
use super::{Corpus, RunError, RunOptions, Scorer, full_size, requests};
use crate::report::{Observer, TextReport};
use crate::validate::ValidationReport;

/// What is known of a run that can be done.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Name of the model.
    pub model: String,
    /// What it scores; nothing is said of what it trains on.
    pub text: TextReport,
    /// How its training stores activations and operands.
    pub storage: DType,
    /// Whether it scores with test-time training.
    pub has_ttt: bool,
    /// Every override in force, in order: the last one of a name wins.
    pub overrides: Vec<(String, String)>,
}

/// Checks a run: its model and the size of its artifact, text, initial weights and schedule, each program with its proofs and
/// its kernels, and, unless that is skipped, each program against float64. What passes the last is remembered for the run itself.
///
/// # Errors
/// What would keep such a run from being done.
pub fn check(options: &RunOptions, observer: &mut Observer<'_>) -> Result<Checked, RunError> {
    let Loaded { full, profile, chosen, model, .. } = model::load(options, observer)?;
    let corpus = Corpus::open(&options.job.text, &model)?;
    initial_weights(&options.job, &model, profile.as_deref(), observer)?;
    let plan = train_plan(options, &model)?;
    if let Some(full) = full.filter(|full| full_size::is_timed(full, &model, options)) {
        full_size::check_bundle(&full, options)?;
    }
    let mut session = requests::session(options, model);
    let programs = requests::programs(&session, &plan, &Scorer::new(&corpus, &session))?;
    validated(&mut session, &programs, options, &chosen, observer)?;
    for &key in &programs {
        session.program(key)?;
    }
    Ok(Checked {
        model: session.model.name.clone(),
        text: corpus.report(&session.model, None)?,
        storage: session.storage(),
        has_ttt: session.model.eval.ttt.is_some(),
        overrides: chosen.overrides.into_iter().map(|o| (o.name, o.value)).collect(),
    })
}

/// What a run would have begun with. Field names are a public interface.
#[derive(Clone, Debug, Serialize)]
pub struct DryRun {
    /// Name of the model.
    pub model: String,
    /// Profile in force.
    pub profile: Option<String>,
    /// Parameters of the model as declared, at full size.
    pub params: usize,
    /// Parameters of what would be trained.
    pub trained_params: usize,
    /// The device.
    pub device: String,
    /// How training would store activations and operands.
    pub precision: String,
    /// Budget in steps.
    pub steps: Option<u64>,
    /// Budget in seconds.
    pub seconds: Option<f64>,
    /// Predicted bytes of the artifact.
    pub estimate_bytes: u64,
    /// What would be trained on and scored.
    pub text: TextReport,
    /// What holding the programs to float64 found.
    pub validation: ValidationReport,
    /// Programs that it would ask for.
    pub programs: usize,
}

/// Does everything that a run does before its first step, but makes no folder: what would keep the run from being done, or
/// from ending well, as far as it can be known.
///
/// # Errors
/// As of the run itself.
pub fn dry_run(options: &RunOptions, observer: &mut Observer<'_>) -> Result<DryRun, RunError> {
    let look = |_: &str| match &options.out {
        Some(folder) => RunFolder::check(folder, options.overwrite),
        None => Ok(()),
    };
    let Prepared { job, session, .. } = prepare_in(look, options, observer)?;
    let runs = Path::new("runs");
    check_space(options.out.as_deref().unwrap_or(runs), reserved(job.estimate_bytes, &session.model))?;
    let programs = requests::programs(&session, &job.plan, &Scorer::new(&job.corpus, &session))?;
    for &key in &programs {
        session.program(key)?;
    }
    Ok(DryRun {
        model: session.model.name.clone(),
        profile: job.profile,
        params: job.params,
        trained_params: session.model.param_count(),
        device: job.record.device,
        precision: session.storage().to_string(),
        steps: job.plan.budget.steps,
        seconds: job.plan.budget.seconds,
        estimate_bytes: job.estimate_bytes,
        text: job.record.text,
        validation: job.validation,
        programs: programs.len(),
    })
}
