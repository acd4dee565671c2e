//! The full-size model of a run that trains a smaller profile: its size and cost, and three timed steps,
//! so that nobody mistakes one for the other.

use std::time::Instant;

use pg_ir::footprint::Moment;
use pg_ir::lang::model::Model;

use super::prepare::parameters;
use super::requests::{self, Request};
use super::{Corpus, RunError, RunOptions};
use crate::data::Loader;
use crate::report::{Event, Observer};
use crate::statistics::median;
use crate::train::schedule::Budget;
use crate::train::{Position, TrainPlan, spaces, train};

const TIMED_STEPS: u64 = 3;

/// Says what the full-size model weighs and costs.
pub(super) fn announce(model: &Model, observer: &mut Observer<'_>) -> Result<(), RunError> {
    let size = model.predict_size(Moment::Trained)?;
    let flops = model.flops_per_token().map_err(RunError::Model)?;
    observer(Event::Note(format!(
        "full size: {}, {:.2} MB packed, {:.2} MB predicted after entropy coding (cap {:.2} MB), {:.0} \
         MFLOP a token, {} tokens a step",
        parameters(model),
        size.raw_bytes as f64 / 1e6,
        size.estimate_bytes as f64 / 1e6,
        model.export.cap_bytes as f64 / 1e6,
        flops / 1e6,
        model.train.batch_tokens
    )));
    Ok(())
}

/// Whether a run of `model` times the full-size model.
pub(super) fn is_timed(full: &Model, model: &Model, options: &RunOptions) -> bool {
    full.param_count() != model.param_count() && !options.job.skip_full_size
}

/// What timing asks for: training on one sequence a step.
pub(super) fn request(model: Model, options: &RunOptions) -> Result<(Request, TrainPlan), RunError> {
    let mut settings = model.train.clone();
    settings.batch_tokens = settings.seq_len;
    settings.micro_batch_tokens = settings.seq_len;
    let budget = Budget { steps: Some(TIMED_STEPS), seconds: None };
    let plan = TrainPlan::new(settings, budget, false, None)?;
    let session = requests::session(options, model);
    let programs = plan.programs(&session);
    Ok((Request { session, programs }, plan))
}

/// Checks that the device's bundle, if it has one, holds what timing asks for.
pub(super) fn check_bundle(model: &Model, options: &RunOptions) -> Result<(), RunError> {
    let (Request { session, programs }, _) = request(model.clone(), options)?;
    Ok(session.check_bundle(&programs)?)
}

/// Times three steps of the full-size model, on one sequence each.
pub(super) fn time_steps(
    model: Model,
    options: &RunOptions,
    corpus: &Corpus,
    observer: &mut Observer<'_>,
) -> Result<(), RunError> {
    let flops = model.flops_per_token().map_err(RunError::Model)?;
    let full_tokens = model.train.batch_tokens;
    let (Request { mut session, .. }, plan) = request(model, options)?;
    let tokens = plan.train.batch_tokens;
    let weights = session.initial_weights(session.model.train.seed)?;
    let mut state = session.state_with(&weights, &spaces(&plan.train))?;
    drop(weights);
    let mut loader = Loader::new(corpus.train.clone());
    let start = Instant::now();
    // Its steps are not the run's: they appear as one note, not as metrics.
    let quiet = &mut |_| {};
    let timed = train(&mut session, &mut state, &plan, &mut loader, Position::default(), &mut (), quiet)?;
    let mut ms: Vec<f64> = timed.steps.iter().map(|s| s.ms).collect();
    let median = median(&mut ms);
    observer(Event::Note(format!(
        "full size, measured here: {:.2} s a step of {tokens} tokens ({:.1} GFLOP/s), {:.1} s with compilation; a \
         whole step of {full_tokens} tokens would take about {:.0} min",
        median / 1e3,
        flops * tokens as f64 / median / 1e6,
        start.elapsed().as_secs_f64(),
        median / 1e3 * full_tokens as f64 / tokens as f64 / 60.0
    )));
    Ok(())
}
