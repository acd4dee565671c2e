//! The second phase: the prepared model is trained, and its weights are scored before, after and averaged.

use pg_ir::slot::Space;

use super::prepare::Job;
use super::{RunError, Scorer};
use crate::data::Loader;
use crate::profile::median;
use crate::report::{Event, Observer, TrainReport};
use crate::session::{Key, Session};
use crate::train::{self, TrainPlan, spaces};
use crate::weights::Weights;

/// What training leaves.
pub(super) struct Trained {
    /// What is exported: the averaged weights where the model averages, else the last ones.
    pub(super) weights: Weights,
    /// What there is to say of the training.
    pub(super) figures: TrainFigures,
}

/// Figures of a training. Scores are in bits per byte.
pub(super) struct TrainFigures {
    /// Steps, losses and times.
    pub(super) report: TrainReport,
    /// Score of the weights before the first step.
    pub(super) initial: f64,
    /// Score of the last weights.
    pub(super) live: f64,
    /// Score of the weights that are exported.
    pub(super) averaged: f64,
}

/// Trains from `initial`, or from the model's own initial weights.
pub(super) fn train(
    job: &Job,
    session: &mut Session,
    initial: Option<Weights>,
    observer: &mut Observer<'_>,
) -> Result<Trained, RunError> {
    let Job { corpus, plan, folder, .. } = job;
    let mut scorer = Scorer::new(corpus, session);
    let averages = plan.train.ema_decay > 0.0;
    let weights = initial.unwrap_or_else(|| session.initial_weights(job.provenance.seed));
    let mut state = session.state_with(&weights, &spaces(&plan.train))?;
    if averages {
        session.write_weights(&mut state, Space::Ema, &weights)?;
    }
    drop(weights);
    let initial = scorer.plain(session, &mut state, "score the initial weights", observer)?;

    let mut first_step_s = 0.0;
    let mut metrics = folder.metrics()?;
    let mut loader = Loader::new(corpus.train.clone());
    let on_first_step = || first_step_s = job.started.elapsed().as_secs_f64();
    let trained =
        train::train(session, &mut state, plan, &mut loader, &mut metrics, observer, on_first_step)?;
    folder.finish_metrics(metrics)?;
    if let Some(schedule) = trained.schedule {
        observer(Event::Note(format!("schedule in force at the end: {schedule}")));
    }
    observer(Event::Note(session.placement()));
    let report = report(&trained, plan, first_step_s, session.compile_seconds);
    session.forget(|key| matches!(key, Key::Grad { .. } | Key::Update));

    let live = scorer.plain(session, &mut state, "score the live weights", observer)?;
    let weights = session.read_weights(&state, if averages { Space::Ema } else { Space::Param })?;
    drop(state);
    let mut state = session.state_with(&weights, &[Space::Param])?;
    let averaged = scorer.plain(session, &mut state, "score the averaged weights", observer)?;
    Ok(Trained { weights, figures: TrainFigures { report, initial, live, averaged } })
}

fn report(trained: &train::Trained, plan: &TrainPlan, first_step_s: f64, compile_s: f64) -> TrainReport {
    let steps = trained.steps.len() as u64;
    let mut ms: Vec<f64> = trained.steps.iter().map(|s| s.ms).collect();
    TrainReport {
        steps,
        tokens: steps * plan.train.batch_tokens as u64,
        ms_per_step: median(&mut ms),
        first_step_s,
        compile_s,
        loss_first: trained.steps.first().map_or(f64::NAN, |s| s.loss),
        loss_last: trained.steps.last().map_or(f64::NAN, |s| s.loss),
    }
}
