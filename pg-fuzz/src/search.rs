//! Many seeds on all cores: each worker takes the next seed and runs it whole, with executors on one thread, so that
//! what a seed gives never depends on what runs beside it.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::generate;
use crate::harness::{self, Failure, Settings, Times};

/// What a search found.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// Models.
    pub models: u64,
    /// Models of which everything agreed.
    pub right: u64,
    /// Tensors compared.
    pub compared: u64,
    /// Programs beyond float32, which were not compared.
    pub not_finite: u64,
    /// Programs in float32, and in bfloat16, with a comparison that may go either way.
    pub undecided: [u64; 2],
    /// Tensors that rounding decides.
    pub ill_conditioned: u64,
    /// Losses with a kink.
    pub kinks: u64,
    /// Failures by seed.
    pub failures: Vec<(u64, Vec<Failure>)>,
    /// What was met.
    pub coverage: Coverage,
    /// Where the workers' time went.
    pub times: Times,
}

/// When a search ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// Before this seed.
    Seed(u64),
    /// After so much time.
    Time(Duration),
}

/// The seeds that a text like `0..200` names, the last one left out.
///
/// # Errors
/// If it is no such text.
pub fn parse_seeds(text: &str) -> Result<(u64, u64), String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    ends.ok_or_else(|| format!("expected FROM..TO, like 0..200, not `{text}`"))
}

/// Bytes of a worker's stack: some passes recurse as deep as a graph.
const STACK: usize = 64 << 20;

/// Runs seeds from one on. `progress` hears of every model, in no order, with the totals so far, and may end the search.
pub fn search(
    from: u64,
    until: Until,
    workers: usize,
    settings: &Settings,
    progress: impl Fn(u64, &[Failure], &Totals) -> ControlFlow<()> + Sync,
) -> Totals {
    let (next, start) = (AtomicU64::new(from), Instant::now());
    let totals = Mutex::new(Totals::default());
    let ended = AtomicBool::new(false);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = match until {
                Until::Seed(end) => seed >= end,
                Until::Time(limit) => start.elapsed() >= limit,
            };
            if over || ended.load(Ordering::Relaxed) {
                break;
            }
            let report = harness::check(&generate::model(seed).to_string(), seed, settings);
            let mut totals = totals.lock().unwrap_or_else(|e| e.into_inner());
            totals.models += 1;
            totals.right += u64::from(report.failures.is_empty());
            totals.compared += report.compared as u64;
            totals.not_finite += report.not_finite as u64;
            totals.undecided[0] += report.undecided as u64;
            totals.undecided[1] += report.undecided_bf16 as u64;
            totals.ill_conditioned += report.ill_conditioned as u64;
            totals.kinks += report.kinks as u64;
            totals.coverage.extend(report.coverage);
            totals.times.add(&report.times);
            if progress(seed, &report.failures, &totals).is_break() {
                ended.store(true, Ordering::Relaxed);
            }
            if !report.failures.is_empty() {
                totals.failures.push((seed, report.failures));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.max(1) {
            scope.spawn(|| alone(work));
        }
    });
    totals.into_inner().unwrap_or_else(|e| e.into_inner())
}

/// Runs `f` where executors have one thread.
pub fn alone<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    match rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(STACK).build() {
        Ok(pool) => pool.install(f),
        // Slower, and right all the same.
        Err(_) => f(),
    }
}
