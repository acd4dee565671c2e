//! One text against the reference: each of its programs compiled fused and unfused, stored as float32 and as
//! bfloat16, run by the CPU's executor; and the plans that Hopper has, run in float64. Whatever an executor or the
//! compiler does, up to a panic, is a finding; nothing is skipped without being counted. The graph that they are held
//! to is held to differences of its own loss.

mod derivative;
mod inputs;
mod noise;
mod plans;
mod programs;
mod reference;
mod subject;
mod twins;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

pub use self::subject::{Subject, subjects};
pub use self::twins::{halves, pair, threads};

use pg_codegen::Options;
use pg_ir::lang::model::Model;
use pg_runtime::device::{Device, DeviceName};
use pg_runtime::session::Session;

use crate::coverage::Coverage;
use crate::rules;

/// What is wrong, in a word: a failure shrinks to one of its own kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Kind {
    /// pg refuses the text, or a program of it.
    Refused,
    /// A gradient is zero that should not be.
    Lost,
    /// A number is wrong.
    Wrong,
    /// Compiling or running ended in an error.
    Error,
    /// Something panicked.
    Panic,
}

/// One failure.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// What is wrong, in a word.
    pub kind: Kind,
    /// Where: program, storage, plan.
    pub place: String,
    /// What is wrong, of the first of its kind there.
    pub message: String,
    /// How many more of its kind there are there.
    pub more: usize,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.more > 0 { format!(" (and {} more)", self.more) } else { String::new() };
        write!(f, "{:?} in {}: {}{more}", self.kind, self.place, self.message)
    }
}

impl Report {
    fn fail(&mut self, kind: Kind, place: &str, message: impl Into<String>) {
        match self.failures.iter_mut().find(|f| f.kind == kind && f.place == place) {
            Some(known) => known.more += 1,
            None => {
                self.failures.push(Failure { kind, place: place.into(), message: message.into(), more: 0 })
            }
        }
    }
}

/// What one text gave.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// What is wrong.
    pub failures: Vec<Failure>,
    /// Tensors compared.
    pub compared: usize,
    /// Programs whose values float32 cannot hold, so that nothing was compared.
    pub not_finite: usize,
    /// Programs in float32 with a comparison so close that it may go either way.
    pub undecided: usize,
    /// The same in bfloat16.
    pub undecided_bf16: usize,
    /// Tensors that rounding decides: they differ, and so does the reference under noise.
    pub ill_conditioned: usize,
    /// Losses with a kink, whose gradients were not compared with differences.
    pub kinks: usize,
    /// What was met.
    pub coverage: Coverage,
    /// Where the time went.
    pub times: Times,
}

/// Where the time went.
#[derive(Clone, Copy, Default, Debug)]
pub struct Times {
    /// Parsing, elaborating, tracing.
    pub front: Duration,
    /// The reference, its noise, and differences of its loss.
    pub reference: Duration,
    /// Compiling.
    pub compile: Duration,
    /// Running.
    pub run: Duration,
    /// Plans in float64.
    pub exec: Duration,
}

impl Times {
    /// Adds another's.
    pub fn add(&mut self, other: &Times) {
        self.front += other.front;
        self.reference += other.reference;
        self.compile += other.compile;
        self.run += other.run;
        self.exec += other.exec;
    }
}

/// How thoroughly to look.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Plans as Hopper has them, in float64.
    pub hopper: bool,
    /// Storage in bfloat16.
    pub bf16: bool,
    /// Programs beside a step's first.
    pub all_programs: bool,
    /// Where programs run. Another device than the CPU runs fused plans in its own storage.
    pub device: Device,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { hopper: true, bf16: true, all_programs: true, device: Device::cpu() }
    }
}

impl Settings {
    /// For a device: what the CPU alone answers for is left out.
    pub fn on(device: Device) -> Settings {
        match device.name() {
            DeviceName::Cpu => Settings::default(),
            _ => Settings { hopper: false, bf16: false, all_programs: true, device },
        }
    }
}

/// Most sequences, and tokens of each, that the search runs: what texts ask for, if it is not more.
const MOST: (usize, usize) = (3, 24);

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the words of a panic for the report instead of printing them.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_watched = LAST_PANIC.with(|last| {
                let mut last = last.borrow_mut();
                let watched = last.as_str() == WATCHED;
                if watched {
                    *last = info.to_string();
                }
                watched
            });
            if !is_watched {
                before(info);
            }
        }));
    });
}

const WATCHED: &str = "\u{0}";

/// Runs `f`; a panic is an error with its words.
pub(crate) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    quiet();
    LAST_PANIC.with(|last| *last.borrow_mut() = WATCHED.into());
    let result = catch_unwind(AssertUnwindSafe(f));
    let words = LAST_PANIC.with(|last| std::mem::take(&mut *last.borrow_mut()));
    result.map_err(|_| words)
}

/// Checks one text.
pub fn check(text: &str, seed: u64, settings: &Settings) -> Report {
    let mut report = Report::default();
    if let Err(words) = guarded(|| run(text, seed, settings, &mut report)) {
        report.fail(Kind::Panic, "the front end", words);
    }
    report
}

fn run(text: &str, seed: u64, settings: &Settings, report: &mut Report) {
    let start = std::time::Instant::now();
    let model = match rules::elaborated(text) {
        Ok(model) => model,
        Err(message) => {
            report.fail(Kind::Refused, "elaboration", message);
            return;
        }
    };
    report.times.front += start.elapsed();
    report.coverage.model(&model);
    let shape = shape(&model);
    let session = Session::on(settings.device.clone(), Arc::new(model), Options::default());
    programs::Checker { session, shape, seed, settings, report }.check();
}

/// Sequences of a micro-batch, and tokens of each.
fn shape(model: &Model) -> (usize, usize) {
    let seq = model.train.seq_len.min(MOST.1);
    ((model.train.micro_batch_tokens / model.train.seq_len).clamp(1, MOST.0), seq)
}
