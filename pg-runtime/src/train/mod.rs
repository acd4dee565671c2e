//! The training loop: micro-batches, the optimiser step, phases, schedules, metrics.

pub mod schedule;

use std::io::Write;
use std::time::Instant;

use pg_ir::lang::model::{Phase, Train, Trigger};
use pg_ir::optim;
use pg_ir::programs::bias_scalar;
use pg_ir::slot::Space;
use thiserror::Error;

use crate::data::{DataError, Loader};
use crate::report::{Event, Observer, StepMetrics};
use crate::session::{Key, Session, SessionError};
use crate::state::State;
use crate::train::schedule::{Budget, Schedule};

/// Why training stopped early.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The batch does not divide into sequences or micro-batches.
    #[error("{0}")]
    Batch(String),
    /// The loss or the gradient is not a number.
    #[error(
        "the {what} of step {step} is {value}: training has diverged and was stopped; nothing was exported. \
         Lower the learning rates, or raise the gradient clip's bite"
    )]
    NotFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The step, from 0.
        step: u64,
        /// What it is.
        value: f64,
    },
    /// Compiling or running a program failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Reading shards failed.
    #[error(transparent)]
    Data(#[from] DataError),
    /// `metrics.jsonl` could not be written.
    #[error("cannot write the metrics: {0}")]
    Metrics(#[from] std::io::Error),
}

/// How a run trains: the model's settings with the command line's on top.
#[derive(Clone, Debug)]
pub struct TrainPlan {
    /// Settings in force.
    pub train: Train,
    /// Micro-batch sequences.
    pub micro_sequences: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Budget in force.
    pub budget: Budget,
    /// Use the file's schedule constants as they stand.
    pub unscaled: bool,
    /// Warmdown that the command line sets, never scaled.
    pub warmdown: Option<u64>,
}

impl TrainPlan {
    /// Checks that tokens divide into sequences and micro-batches.
    pub fn new(
        train: Train,
        budget: Budget,
        unscaled: bool,
        warmdown: Option<u64>,
    ) -> Result<Self, TrainError> {
        let divides = |what: &str, whole: usize, part: usize| {
            let fits = part > 0 && whole > 0 && whole.is_multiple_of(part);
            let error = || TrainError::Batch(format!("{what}: {whole} is not a multiple of {part}"));
            if fits { Ok(whole / part) } else { Err(error()) }
        };
        let micro_tokens = train.micro_batch_tokens.min(train.batch_tokens);
        let accumulation =
            divides("tokens of a step and of a micro-batch", train.batch_tokens, micro_tokens)?;
        let micro_sequences =
            divides("tokens of a micro-batch and of a sequence", micro_tokens, train.seq_len)?;
        if budget.steps.is_none() && budget.seconds.is_none() {
            return Err(TrainError::Batch("the run has no budget: give --steps or --seconds".into()));
        }
        Ok(TrainPlan { train, micro_sequences, accumulation, budget, unscaled, warmdown })
    }

    /// The schedule for a planned number of steps.
    pub fn schedule(&self, planned: Option<f64>) -> Schedule {
        let mut schedule = match planned {
            Some(steps) if !self.unscaled => Schedule::scaled(&self.train, steps),
            _ => Schedule::spec(&self.train),
        };
        if let Some(steps) = self.warmdown {
            schedule.warmdown = steps as f64;
        }
        schedule
    }

    fn key(&self, phase: usize, qat: bool, accumulate: bool) -> Key {
        Key::Grad { phase, batch: self.micro_sequences, seq: self.train.seq_len, qat, accumulate }
    }

    /// Every program that training can need: prepared before step 0, so that a timed run compiles nothing.
    pub fn programs(&self, session: &Session) -> Vec<Key> {
        let phases = 0..session.model.phases.len();
        let grads = phases.flat_map(|phase| {
            let qat = session.model.is_quantised(phase);
            let next = (self.accumulation > 1).then(|| self.key(phase, qat, true));
            [Some(self.key(phase, qat, false)), next]
        });
        grads.flatten().chain([Key::Update]).collect()
    }
}

/// State spaces that training needs.
pub fn spaces(train: &Train) -> Vec<Space> {
    let ema = (train.ema_decay > 0.0).then_some(Space::Ema);
    let state = Space::all().filter(|space| optim::is_state(*space));
    [Space::Param, Space::Grad].into_iter().chain(state).chain(ema).collect()
}

/// What training did.
#[derive(Clone, Debug, Default)]
pub struct Trained {
    /// Metrics of every step.
    pub steps: Vec<StepMetrics>,
    /// The schedule of the last step: under a time budget it follows the steps' speed.
    pub schedule: Option<Schedule>,
}

/// Trains until the budget is spent. `on_first_step` is called once, after the first step.
pub fn train(
    session: &mut Session,
    state: &mut State,
    plan: &TrainPlan,
    loader: &mut Loader,
    metrics: &mut dyn Write,
    observer: &mut Observer<'_>,
    mut on_first_step: impl FnMut(),
) -> Result<Trained, TrainError> {
    for key in plan.programs(session) {
        session.prepare(key)?;
    }
    observer(Event::Begin { stage: "train".into(), total: plan.budget.steps.unwrap_or(0) });
    let mut done = Trained::default();
    let mut phase = 0;
    let mut elapsed = 0.0;
    for step in 0.. {
        if plan.budget.is_over(step, elapsed) {
            break;
        }
        let start = Instant::now();
        let planned = plan.budget.planned(step, elapsed);
        let schedule = plan.schedule(planned);
        let lr_scale = schedule.lr_scale(plan.budget.remaining(step, elapsed)).min(1.0);
        let position = Position { step, fraction: plan.budget.fraction(step, elapsed), lr_scale };
        phase = next_phase(&session.model.phases, phase, position, observer);
        let loss = accumulate_gradients(session, state, plan, loader, phase)?;
        finite("loss", step, loss)?;
        let scalars = update_scalars(session, &schedule, step, lr_scale);
        let scalars: Vec<(&str, f32)> = scalars.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();
        let norm = session.run(Key::Update, state, &[], &scalars)?.result("grad_norm")[0];
        finite("gradient norm", step, f64::from(norm))?;
        let seconds = start.elapsed().as_secs_f64();
        elapsed += seconds;
        if step == 0 {
            on_first_step();
        }
        let line = StepMetrics { step, loss, lr_scale, grad_norm: f64::from(norm), ms: seconds * 1e3 };
        serde_json::to_writer(&mut *metrics, &line).map_err(std::io::Error::from)?;
        metrics.write_all(b"\n")?;
        done.steps.push(line);
        done.schedule = Some(schedule);
        let planned = planned.map_or(0, |p| p.round() as u64);
        observer(Event::Step { metrics: line, tokens: plan.train.batch_tokens, planned });
    }
    metrics.flush()?;
    observer(Event::End(format!("{} steps in {elapsed:.1} s", done.steps.len())));
    Ok(done)
}

fn finite(what: &'static str, step: u64, value: f64) -> Result<(), TrainError> {
    if value.is_finite() { Ok(()) } else { Err(TrainError::NotFinite { what, step, value }) }
}

/// Where training stands when a phase may begin.
#[derive(Clone, Copy)]
struct Position {
    step: u64,
    fraction: f64,
    lr_scale: f64,
}

/// The last phase whose trigger has come; phases never go back.
fn next_phase(phases: &[Phase], current: usize, at: Position, observer: &mut Observer<'_>) -> usize {
    let begun = |phase: &Phase| match phase.trigger {
        Trigger::Step(step) => at.step >= step,
        Trigger::Fraction(fraction) => at.fraction >= fraction,
        Trigger::LrScaleBelow(scale) => at.lr_scale < scale,
    };
    let later = (current + 1..phases.len()).take_while(|&i| begun(&phases[i])).last();
    if let Some(next) = later {
        observer(Event::Note(format!("step {}: phase `{}` begins", at.step, phases[next].name)));
    }
    later.unwrap_or(current)
}

/// Runs the micro-batches of a step; the mean of their losses.
fn accumulate_gradients(
    session: &mut Session,
    state: &mut State,
    plan: &TrainPlan,
    loader: &mut Loader,
    phase: usize,
) -> Result<f64, TrainError> {
    let qat = session.model.is_quantised(phase);
    let share = 1.0 / plan.accumulation as f32;
    let mut loss = 0.0;
    for micro in 0..plan.accumulation {
        let batch = loader.next(plan.micro_sequences, plan.train.seq_len)?;
        let data: [(&str, &[i32]); 2] = [("tokens", &batch.inputs), ("targets", &batch.targets)];
        let key = plan.key(phase, qat, micro > 0);
        let result = session.run(key, state, &data, &[("inv_accum", share)])?;
        loss += f64::from(result.result("loss")[0]);
    }
    Ok(loss / plan.accumulation as f64)
}

/// The run-time scalars of the `update` program.
pub fn update_scalars(
    session: &Session,
    schedule: &Schedule,
    step: u64,
    lr_scale: f64,
) -> Vec<(String, f64)> {
    let mut scalars = vec![
        ("lr_scale".to_string(), lr_scale),
        ("momentum".to_string(), schedule.momentum(step)),
        ("ema_decay".to_string(), schedule.ema_decay),
        ("ema_rest".to_string(), 1.0 - schedule.ema_decay),
    ];
    for bank in &session.layout.banks {
        for beta in bank.optimiser.bias_corrected() {
            scalars.push((bias_scalar(beta), 1.0 - beta.powf(step as f64 + 1.0)));
        }
    }
    scalars
}
