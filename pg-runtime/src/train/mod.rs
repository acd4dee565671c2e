//! The training loop: micro-batches, the optimiser step, phases, schedules, metrics.

mod companion;
pub mod schedule;

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use pg_ir::lang::model::{Phase, Train, Trigger};
use pg_ir::optim;
use pg_ir::programs::bias_scalar;
use pg_ir::slot::Space;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::companion::Companion;
use crate::checkpoint::CheckpointError;
use crate::data::{DataError, Loader};
use crate::report::{Event, Observer, StepMetrics, counted};
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
    /// The journal of the steps could not be written.
    #[error("{}: {error}", path.display())]
    Journal {
        /// Its file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// A checkpoint of what was asked to stop could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A step that was done before did not give the same again.
    #[error(
        "step {step} was done before with {what} {recorded}, and gives {now} now: the run cannot be continued as if it had not \
         been stopped; use the same pg, device and number of devices, or begin anew"
    )]
    NotRepeated {
        /// The step, from 0.
        step: u64,
        /// `loss` or `gradient norm` or `phase`.
        what: &'static str,
        /// What it was.
        recorded: f64,
        /// What it is.
        now: f64,
    },
}

/// Where training stands between two steps. With the state, it is all that training needs to go on.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// Steps done.
    pub step: u64,
    /// Seconds that they took.
    pub elapsed: f64,
    /// Phase in force.
    pub phase: usize,
    /// Where the loader stands in its text.
    pub token: usize,
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

/// Whether a step reads what an earlier one wrote into a space: gradients and cached weights are computed anew.
pub fn is_carried(space: Space) -> bool {
    matches!(space, Space::Param | Space::Ema) || optim::is_state(space)
}

/// What training did.
#[derive(Clone, Debug, Default)]
pub struct Trained {
    /// Metrics of the steps, from where training began.
    pub steps: Vec<StepMetrics>,
    /// Where it stopped.
    pub position: Position,
    /// Whether it was asked to stop before its budget was spent.
    pub is_stopped: bool,
    /// The schedule of the last step: under a time budget it follows the steps' speed.
    pub schedule: Option<Schedule>,
}

/// Trains from a position until the budget is spent, or the companion asks to stop.
pub fn train(
    session: &mut Session,
    state: &mut State,
    plan: &TrainPlan,
    loader: &mut Loader,
    mut position: Position,
    companion: &mut dyn Companion,
    observer: &mut Observer<'_>,
) -> Result<Trained, TrainError> {
    for key in plan.programs(session) {
        session.prepare(key)?;
    }
    observer(Event::Begin { stage: "train".into(), total: plan.budget.steps.unwrap_or(0) });
    loader.seek(position.token);
    let mut done = Trained { position, ..Trained::default() };
    let mut clock = Instant::now();
    loop {
        let before = Instant::now();
        if companion.between_steps(&position, session, state, observer)?.is_break() {
            done.is_stopped = true;
            break;
        }
        clock += before.elapsed();
        let recorded = companion.recorded(position.step);
        let elapsed = recorded.map_or(position.elapsed, |step| step.elapsed_s);
        if recorded.is_none() && (companion.ends() || plan.budget.is_over(position.step, elapsed)) {
            break;
        }
        let start = Instant::now();
        let at = StepSettings::new(plan, position.step, elapsed);
        position.phase = next_phase(&session.model.phases, position.phase, &at, observer);
        let loss = accumulate_gradients(session, state, plan, loader, position.phase)?;
        finite("loss", at.step, loss)?;
        let scalars = update_scalars(session, &at.schedule, at.step, at.lr_scale);
        let scalars: Vec<(&str, f32)> = scalars.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();
        let norm = session.run(Key::Update, state, &[], &scalars)?.result("grad_norm")[0];
        finite("gradient norm", at.step, f64::from(norm))?;
        let now = StepMetrics {
            step: at.step,
            loss,
            lr_scale: at.lr_scale,
            grad_norm: f64::from(norm),
            ms: start.elapsed().as_secs_f64() * 1e3,
            elapsed_s: elapsed,
            phase: position.phase,
        };
        // What is done between steps, such as a checkpoint, takes of the budget, too.
        let spent = std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();
        let (metrics, spent) = match recorded {
            Some(recorded) => (repeated(recorded, now)?, recorded.ms / 1e3),
            None => (now, spent),
        };
        position.step += 1;
        position.elapsed = elapsed + spent;
        position.token = loader.position();
        done.position = position;
        done.steps.push(metrics);
        done.schedule = Some(at.schedule);
        let planned = at.planned.map_or(0, |p| p.round() as u64);
        observer(Event::Step { metrics, tokens: plan.train.batch_tokens, planned });
        if companion.after_step(&metrics, &position, state, observer)?.is_break() {
            done.is_stopped = true;
            break;
        }
    }
    observer(Event::End(format!("{} in {:.1} s", counted(position.step, "step"), position.elapsed)));
    Ok(done)
}

/// What was recorded of a step, if it gave the same again.
fn repeated(recorded: StepMetrics, now: StepMetrics) -> Result<StepMetrics, TrainError> {
    let pairs = [
        ("loss", recorded.loss, now.loss),
        ("gradient norm", recorded.grad_norm, now.grad_norm),
        ("phase", recorded.phase as f64, now.phase as f64),
    ];
    match pairs.into_iter().find(|(_, recorded, now)| recorded != now) {
        Some((what, before, now)) => {
            Err(TrainError::NotRepeated { step: recorded.step, what, recorded: before, now })
        }
        None => Ok(recorded),
    }
}

fn finite(what: &'static str, step: u64, value: f64) -> Result<(), TrainError> {
    if value.is_finite() { Ok(()) } else { Err(TrainError::NotFinite { what, step, value }) }
}

/// What a step's place in the budget says of it.
struct StepSettings {
    step: u64,
    /// Fraction of the budget that is spent.
    fraction: f64,
    lr_scale: f64,
    schedule: Schedule,
    planned: Option<f64>,
}

impl StepSettings {
    fn new(plan: &TrainPlan, step: u64, elapsed: f64) -> StepSettings {
        let planned = plan.budget.planned(step, elapsed);
        let schedule = plan.schedule(planned);
        let lr_scale = schedule.lr_scale(plan.budget.remaining(step, elapsed)).min(1.0);
        StepSettings { step, fraction: plan.budget.fraction(step, elapsed), lr_scale, schedule, planned }
    }
}

/// The last phase whose trigger has come; phases never go back.
fn next_phase(phases: &[Phase], current: usize, at: &StepSettings, observer: &mut Observer<'_>) -> usize {
    let begun = |phase: &Phase| match phase.trigger {
        Trigger::Step(step) => at.step as f64 >= (step as f64 * at.schedule.phase_scale).floor(),
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
