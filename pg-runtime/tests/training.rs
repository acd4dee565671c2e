//! Training reproduces the reference: losses of 20 steps from the same weights on the same shard, held
//! against float64 PyTorch (`benches/peer/reference_losses.py`, with the constants of `pg_testing::models`, 512
//! tokens a step in two micro-batches of sequences of 64, constant rate).

use std::process::Command;

use pg_runtime::report::StepMetrics;
use pg_testing::files::{model_file, root};
use pg_testing::models::SMALL;
use serde_json::Value;

fn losses(file: &std::path::Path) -> Vec<f64> {
    let text = std::fs::read_to_string(file).unwrap();
    let loss = |line: &str| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap();
    text.lines().map(loss).collect()
}

/// Runs `pg run` with these settings and gives its losses.
fn trained(settings: &[&str]) -> Vec<f64> {
    trained_as("f32", settings)
}

fn trained_as(precision: &str, settings: &[&str]) -> Vec<f64> {
    let out = tempfile::tempdir().unwrap();
    let init = root().join("tests/training/init.safetensors");
    let shard = root().join("pg-runtime/sample/sample_train_000000.bin");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg"));
    command.arg("run").arg(model_file("int4mlp_12l.rs"));
    command.args([
        "--profile",
        "full",
        "--no-full-size",
        "--no-validate",
        "--schedule",
        "spec",
        "--warmdown-steps",
        "0",
    ]);
    command.args([
        "--steps",
        "20",
        "--batch-tokens",
        "512",
        "--micro-batch-tokens",
        "256",
        "--seq-len",
        "64",
    ]);
    command.args(["--set", "eval.max_targets=128", "--quiet", "--precision", precision]);
    command.arg("--init").arg(init).arg("--data").arg(shard).arg("--out").arg(out.path());
    SMALL.iter().chain(settings).for_each(|s| {
        command.args(["--set", s]);
    });
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metrics = std::fs::read_to_string(out.path().join("metrics.jsonl")).unwrap();
    metrics.lines().map(|l| serde_json::from_str::<StepMetrics>(l).unwrap().loss).collect()
}

#[test]
fn without_quantisers_losses_agree_within_5e_5() {
    let reference = losses(&root().join("tests/training/plain.jsonl"));
    let found = trained(&["MLP_CLIP=0", "ATTN_CLIP=0"]);
    assert_eq!(found.len(), reference.len());
    for (step, (a, b)) in found.iter().zip(&reference).enumerate() {
        assert!((a - b).abs() < 5e-5, "step {step}: {a} against {b}");
    }
}

#[test]
fn with_quantisers_losses_agree_as_far_as_rounding_flips_allow() {
    let reference = losses(&root().join("tests/training/qat.jsonl"));
    let found = trained(&[]);
    assert_eq!(found.len(), reference.len());
    for (step, (a, b)) in found.iter().zip(&reference).enumerate() {
        let tolerance = if step < 4 { 3e-4 } else { 5e-3 };
        assert!((a - b).abs() < tolerance, "step {step}: {a} against {b}");
    }
}

#[test]
fn stored_in_bf16_losses_agree_within_3e_2() {
    for (settings, file) in [(&["MLP_CLIP=0", "ATTN_CLIP=0"][..], "plain.jsonl"), (&[], "qat.jsonl")] {
        let reference = losses(&root().join("tests/training").join(file));
        let found = trained_as("bf16", settings);
        assert_eq!(found.len(), reference.len());
        for (step, (a, b)) in found.iter().zip(&reference).enumerate() {
            assert!((a - b).abs() < 3e-2, "{file} step {step}: {a} against {b}");
        }
        assert!(found.iter().zip(&reference).any(|(a, b)| (a - b).abs() > 1e-4), "nothing was rounded");
    }
}
