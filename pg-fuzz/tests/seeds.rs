//! Random models: seeds 0 to 199, or `PG_FUZZ_SEEDS=FROM..TO`, on the CPU or on the device that `PG_DEVICE` names.
//! Everything agrees, nothing panics, and what a search must meet is met.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use pg_fuzz::harness::Settings;
use pg_fuzz::search::{Until, parse_seeds, search};
use pg_runtime::device::DeviceName;

const SEEDS: &str = "0..200";

/// Of what is compared, this part may be decided by rounding, or stand beyond float32.
const FEW: f64 = 0.01;

fn settings() -> Settings {
    let Ok(name) = std::env::var("PG_DEVICE") else { return Settings::default() };
    let device: DeviceName = name.parse().unwrap_or_else(|e| panic!("PG_DEVICE: {e}"));
    Settings::on(device.open().unwrap_or_else(|e| panic!("PG_DEVICE={name}: {e}")))
}

#[test]
fn random_models_agree_with_the_interpreter() {
    let given = std::env::var("PG_FUZZ_SEEDS");
    let seeds = given.as_deref().unwrap_or(SEEDS);
    let (from, to) = parse_seeds(seeds).unwrap_or_else(|e| panic!("PG_FUZZ_SEEDS: {e}"));
    // A mutation test wants to know whether anything is wrong, not what all is.
    let first = std::env::var_os("PG_FUZZ_FIRST").is_some();
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    let totals = search(from, Until::Seed(to), workers, &settings(), |_, failures, _| {
        if first && !failures.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let mut wrong = String::new();
    for (seed, failures) in &totals.failures {
        failures.iter().for_each(|f| writeln!(wrong, "seed {seed}: {f}").unwrap());
        writeln!(wrong, "  scripts/fuzz-models --seed {seed}").unwrap();
    }
    assert!(wrong.is_empty(), "{wrong}");
    let rare = |what: &str, count: u64| {
        assert!(count as f64 <= FEW * totals.compared as f64, "{count} of {} {what}", totals.compared);
    };
    assert_eq!(totals.models, to - from);
    rare("tensors are decided by rounding", totals.ill_conditioned);
    rare("programs are beyond float32", totals.not_finite);
    assert!(
        totals.kinks <= totals.models / 10,
        "{} losses of {} models have kinks",
        totals.kinks,
        totals.models
    );
    println!("{} models, {} tensors compared", totals.models, totals.compared);
    // Few seeds of somebody's own need not meet everything.
    if given.is_err() {
        let missing = totals.coverage.missing();
        assert!(missing.is_empty(), "not met: {}", missing.join(", "));
    }
}
