//! Pairs that must agree, over random models.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pg_fuzz::generate;
use pg_fuzz::harness::{Report, halves, pair, threads};
use pg_fuzz::metamorphic::{Twin, plain, twin};
use pg_fuzz::search::alone;

const SEEDS: u64 = 120;

/// Runs `f` for every seed on all cores; what it reports, by seed. `None` where a text has nothing of the kind.
fn over_seeds(what: &str, least: u64, f: impl Fn(u64) -> Option<Report> + Sync) {
    let (next, met) = (AtomicU64::new(0), AtomicU64::new(0));
    let wrong = Mutex::new(String::new());
    let (compared, decided) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                break;
            }
            let Some(report) = alone(|| f(seed)) else { continue };
            met.fetch_add(1, Ordering::Relaxed);
            compared.fetch_add(report.compared as u64, Ordering::Relaxed);
            decided.fetch_add(report.ill_conditioned as u64, Ordering::Relaxed);
            for failure in report.failures {
                writeln!(wrong.lock().unwrap(), "{what}, seed {seed}: {failure}").unwrap();
            }
        }
    };
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(work)));
    });
    let (met, compared, decided) = (met.into_inner(), compared.into_inner(), decided.into_inner());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{wrong}");
    println!("{what}: {met} models, {compared} tensors compared");
    assert!(met >= least, "{what}: only {met} models of {SEEDS} had anything to compare");
    assert!(decided * 100 <= compared, "{what}: {decided} of {compared} tensors are decided by rounding");
}

fn twins(how: Twin, least: u64) {
    over_seeds(&format!("{how:?}"), least, |seed| {
        let text = generate::model(seed);
        match twin(how, &text, seed) {
            Ok(other) => Some(pair(&plain(&text).to_string(), &other?, seed)),
            Err(e) => panic!("seed {seed}: {e}"),
        }
    });
}

#[test]
fn sums_in_another_order() {
    twins(Twin::Reassociated, 110);
}

#[test]
fn functions_written_out() {
    twins(Twin::Inlined, 50);
}

#[test]
fn parts_as_functions() {
    twins(Twin::Outlined, 60);
}

#[test]
fn constants_by_their_values() {
    twins(Twin::Folded, 120);
}

#[test]
fn scopes_under_other_names() {
    twins(Twin::Renamed, 80);
}

#[test]
fn loops_written_out() {
    twins(Twin::Unrolled, 50);
}

#[test]
fn a_batch_in_two_halves() {
    over_seeds("halves", 120, |seed| Some(halves(&generate::model(seed).to_string(), seed)));
}

#[test]
fn one_thread_and_several() {
    over_seeds("threads", 30, |seed| threads(&generate::model(seed).to_string(), seed));
}
