//! `scripts/fuzz-models`: goes on searching from a seed for some minutes, runs seeds again, or runs model files.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{ArgGroup, Parser};
use pg_fuzz::harness::{Failure, Settings, check};
use pg_fuzz::search::{Totals, Until, alone, parse_seeds, search};
use pg_fuzz::{cases, generate};
use pg_ir::input::Kind;
use pg_runtime::device::DeviceName;

/// Failures that one search cuts down; a fault shows in many seeds.
const SHRUNK: usize = 3;

/// Random models against the float64 interpreter. What fails is cut down to the least text that does, and written to
/// pg-fuzz/cases.
#[derive(Parser, Debug)]
#[command(name = "fuzz-models", group(ArgGroup::new("what").required(true)))]
struct Args {
    /// Search for so long.
    #[arg(long, value_name = "N", group = "what")]
    minutes: Option<f64>,
    /// The first seed of such a search.
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "minutes")]
    from: u64,
    /// Run these seeds.
    #[arg(long, value_name = "FROM..TO", group = "what", value_parser = parse_seeds)]
    seeds: Option<(u64, u64)>,
    /// Run one seed, and print its text.
    #[arg(long, value_name = "N", group = "what")]
    seed: Option<u64>,
    /// Run model files.
    #[arg(group = "what")]
    files: Vec<PathBuf>,
    /// Where programs run.
    #[arg(long, default_value = "cpu", value_parser = str::parse::<DeviceName>)]
    device: DeviceName,
    /// Leave what fails as it is.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything was right.
fn run(args: &Args) -> Result<bool> {
    let settings = Settings::on(args.device.open()?);
    if let Some(seed) = args.seed {
        let text = generate::model(seed);
        println!("{text}");
        let failures = show(&text.to_string(), seed, &settings);
        if let (Some(first), false) = (failures.first(), args.keep) {
            reduce(seed, first, &settings);
        }
        return Ok(failures.is_empty());
    }
    if let Some((from, to)) = args.seeds {
        return Ok(go(from, Until::Seed(to), &settings, args.keep));
    }
    if let Some(minutes) = args.minutes {
        let limit = Duration::try_from_secs_f64(60.0 * minutes).context("--minutes")?;
        return Ok(go(args.from, Until::Time(limit), &settings, args.keep));
    }
    let mut right = true;
    for file in &args.files {
        let text = Kind::MODEL.read_text(file).with_context(|| file.display().to_string())?;
        println!("{}", file.display());
        right &= show(&text, cases::seed(&text), &settings).is_empty();
    }
    Ok(right)
}

/// Runs one text and prints what it gave.
fn show(text: &str, seed: u64, settings: &Settings) -> Vec<Failure> {
    let report = alone(|| check(text, seed, settings));
    report.failures.iter().for_each(|f| println!("{f}"));
    println!(
        "{} tensors compared, {} decided by rounding; {} programs beyond float32, {} with undecided comparisons, \
         {} in bf16; {} losses with kinks; {:?}",
        report.compared,
        report.ill_conditioned,
        report.not_finite,
        report.undecided,
        report.undecided_bf16,
        report.kinks,
        report.times
    );
    report.failures
}

/// Cuts a failure down and keeps it as a case.
fn reduce(seed: u64, failure: &Failure, settings: &Settings) {
    println!("shrinking seed {seed}: {failure}");
    let text = generate::model(seed);
    let least = alone(|| cases::least(&text, seed, failure, settings));
    let command = format!("scripts/fuzz-models --seed {seed}");
    println!("{least}\n{command}");
    match cases::write(&format!("seed_{seed}"), &least, failure, &command) {
        Ok(path) => println!("{}", path.display()),
        Err(e) => println!("the case was not written: {e}"),
    }
}

fn go(from: u64, until: Until, settings: &Settings, keep: bool) -> bool {
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    let start = Instant::now();
    let totals = search(from, until, workers, settings, |seed, failures: &[Failure], totals: &Totals| {
        for failure in failures {
            println!("seed {seed}: {failure}");
        }
        if totals.models.is_multiple_of(500) {
            let rate = totals.models as f64 / start.elapsed().as_secs_f64();
            let wrong = totals.models - totals.right;
            println!("{} models, {wrong} with failures, {rate:.1} a second, at seed {seed}", totals.models);
        }
        ControlFlow::Continue(())
    });
    let Totals {
        models,
        right,
        compared,
        not_finite,
        undecided: [f32, bf16],
        ill_conditioned,
        kinks,
        times,
        ..
    } = &totals;
    println!("{models} models: {right} right, {} with failures", models - right);
    println!(
        "{compared} tensors compared, {ill_conditioned} decided by rounding; {not_finite} programs beyond float32, \
         {f32} with undecided comparisons, {bf16} in bf16; {kinks} losses with kinks"
    );
    println!("workers: {times:.1?}; {:.1?} in all", start.elapsed());
    let missing = totals.coverage.missing();
    println!("not met: {}", if missing.is_empty() { "nothing".into() } else { missing.join(", ") });
    if !keep {
        for (seed, failures) in totals.failures.iter().take(SHRUNK) {
            reduce(*seed, &failures[0], settings);
        }
    }
    totals.failures.is_empty()
}
