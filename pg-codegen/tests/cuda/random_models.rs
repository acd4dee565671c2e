//! Random models, as users write them, with the kernels that Hopper gets: emitted as CUDA C++, compiled for the CPU
//! and run under both orders of threads with every access watched. `PG_EMULATED_MODELS` says how many, from seed
//! `PG_EMULATED_FROM` on.

use pg_codegen::cube::Target;
use pg_codegen::target::H100;
use pg_fuzz::generate;
use pg_fuzz::harness::subjects;

use crate::device::Device;
use crate::models;

#[test]
fn random_models_as_hopper_runs_them() {
    let given = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, found `{text}`")),
        Err(_) => default,
    };
    let (from, count) = (given("PG_EMULATED_FROM", 0), given("PG_EMULATED_MODELS", 5));
    let mut wrong = Vec::new();
    for seed in from..from + count {
        let text = generate::model(seed).to_string();
        let subjects = subjects(&text, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        for subject in &subjects {
            let plan = models::plan(&subject.program);
            let found = Device::new(&plan, &Target::hopper()).run_both(&subject.env);
            // Attention on matrix units rounds probabilities, which the graph does not say.
            let failures = subject.differences(&found, H100.storage, true).unwrap_or_else(|e| panic!("{e}"));
            wrong.extend(failures.into_iter().map(|f| format!("seed {seed}: {f}")));
        }
        println!("seed {seed}: {} programs", subjects.len());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
