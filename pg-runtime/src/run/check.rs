//! A run before it begins: everything that would keep it from being done, found without doing it and without a folder.

use pg_ir::ty::DType;

use super::initial::initial_weights;
use super::model::{self, Loaded};
use super::prepare::{train_plan, validated};
use super::{Corpus, RunError, RunOptions, Scorer, full_size, requests};
use crate::report::{Observer, TextReport};

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
