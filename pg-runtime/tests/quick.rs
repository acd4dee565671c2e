//! The promise of README's first command, on the sample text: the model learns past the bigram, averaging
//! and quantising cost next to nothing, and exporting as PR #910 did costs a lot.
//!
//! Minutes, not seconds: `cargo test --release -p pg-runtime --test quick -- --ignored`, as `.ci/run` does.

use std::process::Command;

use pg_runtime::report::RunReport;

/// The `quick` profile with its steps as the only budget, so that a slow machine gives the same numbers.
fn quick(model: &str, steps: &str, more: &[&str]) -> RunReport {
    let out = tempfile::tempdir().unwrap();
    let file = format!("{}/../models/{model}.rs", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg"));
    command.args(["--json", "--quiet", "run", &file, "--steps", steps, "--no-full-size", "--out"]);
    command.arg(out.path()).args(more).env("PG_CACHE", out.path().join("cache"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Bits per byte of the sample's validation text under counted bigrams.
const BIGRAM: f64 = 2.36;

#[test]
#[ignore = "trains two models for 200 steps: run by .ci/run"]
fn quantisation_costs_nothing_on_the_training_grid_and_much_off_it() {
    let ours = quick("int4mlp_12l", "200", &[]);
    println!("int4mlp_12l: {:?}", ours.bpb);
    let score = |score: Option<f64>| score.expect("every score is asked for");
    let (live, ema) = (score(ours.bpb.live), score(ours.bpb.ema));
    let (sliding, ttt) = (score(ours.bpb.sliding), score(ours.bpb.ttt));
    assert!(score(ours.bpb.quantized) <= BIGRAM);
    assert!(ema <= live + 0.02);
    assert!(ours.quant_gap_bpb.unwrap() <= 0.01);
    assert!(ttt != sliding && (ttt - sliding).abs() <= 0.02);
    let error = ours.artifact.estimate_bytes as f64 / ours.artifact.artifact_bytes as f64 - 1.0;
    assert!(error.abs() <= 0.03, "the size was predicted {:.1} % off", 100.0 * error);

    let theirs = quick("pr910", "200", &[]);
    println!("pr910: {:?}", theirs.bpb);
    assert!(theirs.quant_gap_bpb.unwrap() > 0.03);
}

/// Two micro-batches give the step of one twice as large, up to rounding.
#[test]
#[ignore = "beside the other: run by .ci/run"]
fn accumulation_changes_nothing() {
    let whole = quick("int4mlp_12l", "3", &["--batch-tokens", "2048", "--set", "eval.max_targets=256"]);
    let halves = ["--batch-tokens", "2048", "--micro-batch-tokens", "1024", "--set", "eval.max_targets=256"];
    let halves = quick("int4mlp_12l", "3", &halves);
    // Each micro-batch takes its tokens plus one from the stream, so the texts are not quite the same.
    assert!((whole.train.loss_first - halves.train.loss_first).abs() < 0.01);
    assert!((whole.train.loss_last - halves.train.loss_last).abs() < 0.2);
}
