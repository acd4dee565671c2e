//! Budgets as promises: of time for scores, and of FLOPs for training.

use pg_testing::commands::{SMALL, Scratch, TINY};
use serde_json::Value;

/// For a second.
const OWN: [&str; 7] =
    ["--set", "DIM=24", "--set", "eval.max_targets=511", "--no-validate", "--no-full-size", "--quiet"];

fn report(dir: &Scratch, run: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.path(run).join("report.json")).unwrap()).unwrap()
}

#[test]
fn scores_end_in_time() {
    let dir = Scratch::new(env!("CARGO_BIN_EXE_pg"));
    let args =
        ["run", TINY, "--out", "run", "--steps", "6", "--batch-tokens", "256", "--eval-seconds", "1e-6"];
    let output = dir.pg(&[&args[..], &SMALL, &OWN].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&dir, "run");
    for (score, of) in
        [("quantized", "of 16 windows"), ("sliding", "of 31 windows"), ("ttt", "of 31 windows")]
    {
        assert!(report["bpb"][score].is_null());
        let said = report["out_of_time"].as_array().unwrap().iter();
        assert!(said.filter(|what| what.as_str().unwrap().contains(of)).count() > 0, "{report}");
    }
    assert!(report["quant_gap_bpb"].is_null() && report["bpb"]["ema"].is_number());
    // The artifact is whole, and nothing is claimed of it that is not so.
    let output = dir.pg(&["audit", "run"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let output = dir.pg(&["eval", "run/artifact.pg"]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("the 0.000001 s for scores were over"),
        "the model's own limit holds: {message}"
    );
    let output = dir.pg(&["eval", "run/artifact.pg", "--eval-seconds", "600"]);
    assert!(output.status.success());
}

#[test]
fn a_budget_of_flops_is_a_number_of_steps() {
    let dir = Scratch::new(env!("CARGO_BIN_EXE_pg"));
    let run = |budget: &str, batch: &str| {
        let args = ["run", TINY, "--out", batch, "--budget", budget, "--batch-tokens", batch];
        dir.pg(&[&args[..], &SMALL, &OWN].concat())
    };
    let output = run("flops=1", "256");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    let step = message.split("a step takes ").nth(1).and_then(|rest| rest.split(' ').next());
    let step: f64 = step.unwrap_or_else(|| panic!("{message}")).parse().unwrap();
    // Steps of twice the tokens are half as many.
    for (batch, steps) in [("256", 5), ("512", 2)] {
        let output = run(&format!("flops={}", step * 5.5), batch);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(report(&dir, batch)["train"]["steps"], steps);
    }
    for wrong in ["1e9", "flops=0", "flops=nan", "steps=7"] {
        assert_eq!(run(wrong, "256").status.code(), Some(2), "{wrong}");
    }
}
