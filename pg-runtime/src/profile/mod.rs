//! Where a training step's time goes: whole steps run, every launch timed, beside what this machine can do at
//! all, measured in the same run.
//!
//! A profile is of the very programs that training runs, on random tokens: time does not depend on what they
//! say. It must not change what it measures: observing a launch is two readings of the clock.

mod roof;
mod trace;

use std::time::{Duration, Instant};

use pg_codegen::report::provenance::Site;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Uniform};
use serde::Serialize;

pub use self::roof::Roof;
pub use self::trace::trace;
use crate::session::{Key, Session, SessionError};
use crate::state::State;
use crate::statistics::median;
use crate::train::schedule::Schedule;
use crate::train::{spaces, update_scalars};

/// What to profile.
#[derive(Clone, Copy, Debug)]
pub struct ProfileOptions {
    /// Sequences of a micro-batch.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Phase of training.
    pub phase: usize,
    /// Steps that are timed, after [`WARM_UP`] that are not. At least 1.
    pub steps: usize,
}

/// Steps before the first that is timed: they touch fresh memory.
pub const WARM_UP: usize = 2;

/// One launch of one program, over all timed steps.
#[derive(Clone, Debug, Serialize)]
pub struct LaunchTime {
    /// Its program.
    pub program: String,
    /// Position among the program's launches.
    pub index: usize,
    /// Kernel family.
    pub family: &'static str,
    /// The scope of the model that most of its ops come from.
    pub scope: String,
    /// What it computes, and from which lines of the model.
    pub note: String,
    /// Runs a step.
    pub count: usize,
    /// Median milliseconds of a run.
    pub ms: f64,
    /// Floating point operations of a run.
    pub flops: f64,
    /// Bytes that a run reads and writes.
    pub bytes: f64,
    /// When it began and how long it took in the last step, from the step's start.
    #[serde(skip)]
    pub last: Vec<(Duration, Duration)>,
}

impl LaunchTime {
    /// Milliseconds a step.
    pub fn total_ms(&self) -> f64 {
        self.ms * self.count as f64
    }
}

/// The profile of a training step.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// Name of the model.
    pub model: String,
    /// Sequences of a micro-batch.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Steps that were timed.
    pub steps: usize,
    /// Threads.
    pub threads: usize,
    /// Median milliseconds of a whole step.
    pub ms_per_step: f64,
    /// Milliseconds of the fastest and the slowest step.
    pub ms_range: (f64, f64),
    /// Seconds spent compiling the step's programs.
    pub compile_s: f64,
    /// Floating point operations of a step.
    pub flops: f64,
    /// Bytes that a step's launches read and write.
    pub bytes: f64,
    /// What the machine can do.
    pub roof: Roof,
    /// Every launch, in order.
    pub launches: Vec<LaunchTime>,
}

/// Times of one program's launches while steps run.
struct Record {
    key: Key,
    runs: usize,
    times: Vec<Vec<f64>>,
    last: Vec<Vec<(Duration, Duration)>>,
}

/// Runs and times training steps of a session's model.
///
/// # Errors
/// What compiling and running the step's programs can end in.
pub fn profile(session: &mut Session, options: ProfileOptions) -> Result<Profile, SessionError> {
    let ProfileOptions { batch, seq, accumulation, phase, steps } = options;
    let qat = session.model.is_quantised(phase);
    let grad = |accumulate| Key::Grad { phase, batch, seq, qat, accumulate };
    let mut order = vec![grad(false)];
    order.extend((1..accumulation).map(|_| grad(true)));
    order.push(Key::Update);
    session.check_bundle(&order)?;
    let mut records: Vec<Record> = Vec::new();
    for &key in &order {
        if let Some(record) = records.iter_mut().find(|r| r.key == key) {
            record.runs += 1;
            continue;
        }
        let launches = session.plan(key)?.launches.len();
        records.push(Record {
            key,
            runs: 1,
            times: vec![Vec::with_capacity(accumulation * steps); launches],
            last: vec![Vec::with_capacity(accumulation); launches],
        });
    }
    let roof = Roof::measure(session.device())?;
    let weights = session.initial_weights(session.model.train.seed)?;
    let mut state = session.state_with(&weights, &spaces(&session.model.train))?;
    drop(weights);
    let tokens = random_tokens(session.model.vocab, batch * seq + 1);
    let mut whole = Vec::with_capacity(steps);
    for step in 0..WARM_UP + steps {
        let timed = step >= WARM_UP;
        let begin = Instant::now();
        records.iter_mut().flat_map(|r| &mut r.last).for_each(Vec::clear);
        for &key in &order {
            let record = records.iter_mut().find(|r| r.key == key).expect("every key has a record");
            run(session, &mut state, record, (&tokens, accumulation, step), timed.then_some(begin))?;
        }
        if timed {
            whole.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    let mut launches = Vec::new();
    for record in records {
        let plan = session.plan(record.key)?;
        for (index, (launch, (mut times, last))) in
            plan.launches.iter().zip(record.times.into_iter().zip(record.last)).enumerate()
        {
            launches.push(LaunchTime {
                program: plan.program.clone(),
                index,
                family: plan.kernels[launch.kernel.0 as usize].family(),
                scope: launch.provenance.main_site().map_or_else(|| "model".into(), Site::name),
                note: launch.provenance.to_string(),
                count: record.runs,
                ms: median(&mut times),
                flops: launch.flops,
                bytes: launch.bytes,
                last,
            });
        }
    }
    let total = |f: fn(&LaunchTime) -> f64| launches.iter().map(|l| f(l) * l.count as f64).sum();
    Ok(Profile {
        model: session.model.name.clone(),
        batch,
        seq_len: seq,
        accumulation,
        steps,
        threads: rayon::current_num_threads(),
        ms_per_step: median(&mut whole),
        ms_range: (whole[0], whole[whole.len() - 1]),
        compile_s: session.compile_seconds,
        flops: total(|l| l.flops),
        bytes: total(|l| l.bytes),
        roof,
        launches,
    })
}

/// Runs one program of a step, timing its launches if the step has a beginning.
fn run(
    session: &mut Session,
    state: &mut State,
    record: &mut Record,
    (tokens, accumulation, step): (&[i32], usize, usize),
    begin: Option<Instant>,
) -> Result<(), SessionError> {
    let data = [("tokens", &tokens[..tokens.len() - 1]), ("targets", &tokens[1..])];
    let scalars: Vec<(String, f64)> = match record.key {
        Key::Update => {
            let schedule = Schedule::spec(&session.model.train);
            update_scalars(session, &schedule, step as u64, 1.0)
        }
        _ => vec![("inv_accum".into(), 1.0 / accumulation as f64)],
    };
    let scalars: Vec<(&str, f32)> = scalars.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();
    let Some(begin) = begin else {
        session.run(record.key, state, &data, &scalars)?;
        return Ok(());
    };
    let from = begin.elapsed();
    let (times, last) = (&mut record.times, &mut record.last);
    session.run_timed(record.key, state, &data, &scalars, &mut |timed| {
        times[timed.index].push(timed.duration.as_secs_f64() * 1e3);
        last[timed.index].push((from + timed.start, timed.duration));
    })?;
    Ok(())
}

/// Tokens without any sense. The same ones every time: a gather's speed depends on them a little.
fn random_tokens(vocab: usize, count: usize) -> Vec<i32> {
    let any = Uniform::new(0, vocab as i32).expect("a vocabulary is not empty");
    any.sample_iter(ChaCha8Rng::seed_from_u64(0)).take(count).collect()
}
