//! The second phase: the prepared model is trained, and its weights are scored before, after and averaged.

use std::path::Path;

use pg_ir::lang::model::{Model, Phase};
use pg_ir::slot::Space;

use super::folder;
use super::journal::Journal;
use super::keeper::Keeper;
use super::live::Live;
use super::prepare::Job;
use super::{Purpose, RunError, RunOptions, Scorer};
use crate::checkpoint::{self, Checkpoint, Meta};
use crate::data::Loader;
use crate::report::{Event, Observer, PhaseReport, StepMetrics, TrainReport, counted};
use crate::session::{Key, Session};
use crate::statistics::median;
use crate::train::{self, Position, TrainPlan, spaces};
use crate::weights::{self, Weights};

/// Bytes that metrics and report have at most, for all but the longest runs.
const REPORTS: u64 = 1 << 20;

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

/// Trains from `initial`, or from the model's own initial weights; a run that continues, from its last checkpoint.
pub(super) fn train(
    job: &mut Job,
    options: &RunOptions,
    session: &mut Session,
    initial: Option<Weights>,
    observer: &mut Observer<'_>,
) -> Result<Trained, RunError> {
    let mut scorer = Scorer::new(&job.corpus, session);
    let plan = &job.plan;
    let averages = plan.train.ema_decay > 0.0;
    let weights = initial.map_or_else(|| session.initial_weights(job.provenance.seed), Ok)?;
    let mut state = session.state_with(&weights, &spaces(&plan.train))?;
    if averages {
        session.write_weights(&mut state, Space::Ema, &weights)?;
    }
    drop(weights);
    job.folder.reserve(reserved(job.estimate_bytes, &session.model))?;
    let journal = read_journal(&job.folder.unfinished(folder::METRICS))?;
    let meta = match last_checkpoint(job, options, &journal, observer)? {
        Some(checkpoint) => {
            checkpoint.restore(&mut state)?;
            checkpoint.meta
        }
        None => {
            let initial = scorer.plain(session, &mut state, "score the initial weights", observer)?;
            let job = job.record.hash();
            Meta { job, position: Position::default(), initial, first_step_s: 0.0 }
        }
    };
    let (position, initial) = (meta.position, meta.initial);
    job.ledger.enter("initial weights");
    let replayed = job.record.replays.as_deref().map(replayed).transpose()?;
    let (replayed, expected) = replayed.map_or((None, Vec::new()), |j| (Some(j.steps), j.scores));
    let live = job.record.job.val_every.map(|every| {
        let scorer = Scorer::new(&job.corpus, session).until(options.interrupt.clone());
        Live::new(every, scorer, journal.scores.clone(), expected)
    });
    let mut keeper = Keeper::new(&job.folder, &journal, replayed, options, (meta, job.started), live)?;
    let mut loader = Loader::new(job.corpus.train.clone());
    options.interrupt.set_training(true);
    let trained = train::train(session, &mut state, plan, &mut loader, position, &mut keeper, observer)?;
    if trained.is_stopped {
        let (steps, folder) = (trained.position.step, job.folder.path.clone());
        return Err(RunError::Stopped { steps, folder });
    }
    // From here on, a run that is stopped computes everything again from this. Without it, it trains again.
    if let Err(error) = keeper.keep_now(&trained.position, &state) {
        observer(Event::Warning(format!("the checkpoint of the trained weights: {error}")));
    }
    options.interrupt.set_training(false);
    let first_step_s = keeper.meta.first_step_s;
    let live = keeper.live.take();
    keeper.finish()?;
    let scoring = ("score the weights while they train", live.as_ref().map_or(0.0, |live| live.seconds));
    job.ledger.enter_around("train", position.elapsed, scoring);
    if let Some(schedule) = trained.schedule {
        observer(Event::Note(format!("schedule in force at the end: {schedule}")));
    }
    observer(Event::Note(session.placement()));
    let steps: Vec<_> =
        journal.steps[..position.step as usize].iter().chain(&trained.steps).copied().collect();
    let mut report = report(&steps, &session.model, plan, first_step_s, session.compile_seconds);
    let last_score = live.as_ref().and_then(|live| live.after(report.steps));
    report.live_scores = live.map_or_else(Vec::new, |live| live.scores);
    warn_of(&report, plan, observer);
    session.forget(|key| matches!(key, Key::Grad { .. } | Key::Update));

    // Between the last step and here nothing has changed them.
    let live = match last_score {
        Some(score) => score.bpb,
        None => scorer.plain(session, &mut state, "score the live weights", observer)?,
    };
    let weights = session.read_weights(&state, if averages { Space::Ema } else { Space::Param })?;
    drop(state);
    let mut state = session.state_with(&weights, &[Space::Param])?;
    let averaged = scorer.plain(session, &mut state, "score the averaged weights", observer)?;
    job.ledger.enter("score the weights");
    Ok(Trained { weights, figures: TrainFigures { report, initial, live, averaged } })
}

/// Says what of the plan was not done.
fn warn_of(report: &TrainReport, plan: &TrainPlan, observer: &mut Observer<'_>) {
    if let Some(planned) = plan.budget.steps.filter(|&planned| report.steps < planned) {
        let (done, seconds) = (report.steps, plan.budget.seconds.unwrap_or_default());
        observer(Event::Warning(format!(
            "the training ended after {done} of {}: its {seconds} s were over (train.seconds, --seconds)",
            counted(planned, "step")
        )));
    }
    for phase in report.phases.iter().filter(|phase| phase.first_step.is_none()) {
        observer(Event::Warning(format!(
            "phase `{}` never began: the training ended before its trigger",
            phase.name
        )));
    }
}

/// Bytes that a run has to have room for at its end, with an artifact of so many.
pub(super) fn reserved(estimate_bytes: u64, model: &Model) -> u64 {
    estimate_bytes + weights::bytes(&model.params) + REPORTS
}

/// Where a run that continues goes on from; `None` from the start.
fn last_checkpoint(
    job: &Job,
    options: &RunOptions,
    journal: &Journal,
    observer: &mut Observer<'_>,
) -> Result<Option<Checkpoint>, RunError> {
    if options.resumed().is_none() {
        return Ok(None);
    }
    let folder = job.folder.checkpoints();
    let mut refused = |error| observer(Event::Warning(format!("a checkpoint is passed over: {error}")));
    let found = checkpoint::newest(&folder, &job.record.hash(), &mut refused);
    let found = found.map_err(|error| RunError::Io { path: folder, error })?;
    // A checkpoint is written after the lines of its steps; without them it is of no use.
    let done = journal.steps.len() as u64;
    let found = found.filter(|checkpoint| checkpoint.meta.position.step <= done);
    let steps = found.as_ref().map_or(0, |checkpoint| checkpoint.meta.position.step);
    let again = done - steps;
    let again = match again {
        1 => "1 step since then is".into(),
        n => format!("{} since then are", counted(n, "step")),
    };
    observer(Event::Note(format!("continues after step {steps}; {again} done again")));
    Ok(found)
}

/// What a run that is done again gave.
fn replayed(run: &Path) -> Result<Journal, RunError> {
    let journal = read_journal(&run.join(folder::METRICS))?;
    match journal.steps.is_empty() {
        true => Err(RunError::Nothing { folder: run.to_owned(), purpose: Purpose::Replay }),
        false => Ok(journal),
    }
}

fn read_journal(path: &Path) -> Result<Journal, RunError> {
    Journal::read(path).map_err(|error| RunError::Io { path: path.to_owned(), error })
}

/// When each phase of a model began.
fn phases(model: &Model, steps: &[StepMetrics]) -> Vec<PhaseReport> {
    let began = |index| steps.iter().find(|step| step.phase >= index).map(|step| step.step);
    let report =
        |(index, phase): (usize, &Phase)| PhaseReport { name: phase.name.clone(), first_step: began(index) };
    model.phases.iter().enumerate().map(report).collect()
}

fn report(
    steps: &[StepMetrics],
    model: &Model,
    plan: &TrainPlan,
    first_step_s: f64,
    compile_s: f64,
) -> TrainReport {
    let mut ms: Vec<f64> = steps.iter().map(|s| s.ms).collect();
    TrainReport {
        steps: steps.len() as u64,
        tokens: steps.len() as u64 * plan.train.batch_tokens as u64,
        ms_per_step: median(&mut ms),
        first_step_s,
        compile_s,
        loss_first: steps.first().map_or(f64::NAN, |s| s.loss),
        loss_last: steps.last().map_or(f64::NAN, |s| s.loss),
        phases: phases(model, steps),
        live_scores: Vec::new(),
    }
}
