//! Random models, as users write them, with the kernels that Hopper gets: emitted as CUDA C++, compiled for the CPU
//! and run under both orders of threads with every access watched. `PG_EMULATED_MODELS` says how many, from seed
//! `PG_EMULATED_FROM` on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pg_codegen::machine::H100;
use pg_fuzz::generate;
use pg_fuzz::harness::subjects;

use crate::device::Device;
use crate::models;

/// What a model's programs give that is wrong. A C++ compiler takes half a minute for one program, so of each model
/// its gradients run, and one of the others in turn.
fn wrong(seed: u64) -> Vec<String> {
    let text = generate::model(seed).to_string();
    let subjects = subjects(&text, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let (first, others) = subjects.split_first().expect("a model has gradients");
    let other = &others[seed as usize % others.len()];
    let mut wrong = Vec::new();
    for subject in [first, other] {
        let plan = models::plan(&subject.program);
        let found = Device::new(&plan, &H100).run_both(&subject.env);
        // Attention on tensor cores rounds probabilities, which the graph does not say.
        let failures = subject.differences(&found, &H100, true).unwrap_or_else(|e| panic!("{e}"));
        wrong.extend(failures.into_iter().map(|f| format!("seed {seed}: {f}")));
    }
    println!("seed {seed}: {} and {}", first.program.name, other.program.name);
    wrong
}

#[test]
fn random_models_as_hopper_runs_them() {
    let given = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, found `{text}`")),
        Err(_) => default,
    };
    let (from, count) = (given("PG_EMULATED_FROM", 0), given("PG_EMULATED_MODELS", 5));
    let (next, all) = (AtomicU64::new(from), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                break;
            }
            let wrong = wrong(seed);
            all.lock().expect("no worker panics with it").extend(wrong);
        }
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
        (0..workers).for_each(|_| drop(scope.spawn(work)));
    });
    let all = all.into_inner().expect("no worker panics with it");
    assert!(all.is_empty(), "{}", all.join("\n"));
}
