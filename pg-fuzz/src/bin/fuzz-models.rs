//! `scripts/fuzz-models`: goes on searching from a seed for some minutes, or runs one seed again.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pg_fuzz::harness::{Failure, Settings, check};
use pg_fuzz::search::{Totals, Until, alone, search};
use pg_fuzz::{cases, generate};
use pg_runtime::device::DeviceName;

const USAGE: &str = "\
usage: scripts/fuzz-models --minutes N [--from SEED]     random models from a seed on, for so long
       scripts/fuzz-models --seeds FROM..TO              these seeds
       scripts/fuzz-models --seed N                      one seed again, with its text
       scripts/fuzz-models FILE...                       model files
With --device vulkan programs run there. What fails is cut down to the least text that does, and written to pg-fuzz/cases (--keep leaves it as it is).";

/// Failures that one search cuts down; a fault shows in many seeds.
const SHRUNK: usize = 3;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("fuzz-models: {message}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<bool, String> {
    let value = |name: &str| -> Result<Option<&String>, String> {
        let Some(at) = args.iter().position(|a| a == name) else { return Ok(None) };
        args.get(at + 1).map(Some).ok_or_else(|| format!("{name} needs a value"))
    };
    let number = |text: &String| text.parse::<u64>().map_err(|_| format!("`{text}` is not a number"));
    let settings = match value("--device")? {
        Some(name) => {
            let name: DeviceName = name.parse()?;
            Settings::on(name.open().map_err(|e| e.to_string())?)
        }
        None => Settings::default(),
    };
    let keep = args.iter().any(|a| a == "--keep");
    if let Some(seed) = value("--seed")? {
        let seed = number(seed)?;
        let text = generate::model(seed);
        println!("{text}");
        let failures = show(&text.to_string(), seed, &settings);
        if let (Some(first), false) = (failures.first(), keep) {
            reduce(seed, first, &settings);
        }
        return Ok(failures.is_empty());
    }
    if let Some(range) = value("--seeds")? {
        let (from, to) = range.split_once("..").ok_or_else(|| format!("`{range}` is not FROM..TO"))?;
        return Ok(go(number(&from.into())?, Until::Seed(number(&to.into())?), &settings, keep));
    }
    if let Some(minutes) = value("--minutes")? {
        let minutes: f64 = minutes.parse().map_err(|_| format!("`{minutes}` is not a number of minutes"))?;
        let from = value("--from")?.map_or(Ok(0), number)?;
        return Ok(go(from, Until::Time(Duration::from_secs_f64(60.0 * minutes)), &settings, keep));
    }
    if args.is_empty() || args.iter().any(|a| a.starts_with('-')) {
        return Err("what should run?".into());
    }
    let mut right = true;
    for file in args {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
        println!("{file}");
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
         {} in bf16; {:?}",
        report.compared,
        report.ill_conditioned,
        report.not_finite,
        report.undecided,
        report.undecided_bf16,
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
        models, right, compared, not_finite, undecided: [f32, bf16], ill_conditioned, times, ..
    } = &totals;
    println!("{models} models: {right} right, {} with failures", models - right);
    println!(
        "{compared} tensors compared, {ill_conditioned} decided by rounding; {not_finite} programs beyond float32, \
         {f32} with undecided comparisons, {bf16} in bf16"
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
