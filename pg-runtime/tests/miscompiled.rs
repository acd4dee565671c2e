//! Models that pg once compiled wrongly or not at all, as whole commands: each trains with the gradient that it should.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/miscompiled");

fn pg(args: &[&str], out: &Path) -> Output {
    let out = out.display().to_string();
    let args = args.iter().copied().chain(["--no-full-size", "--out", &out]);
    Command::new(env!("CARGO_BIN_EXE_pg")).arg("run").args(args).output().unwrap()
}

/// The gradient's norm in the first of one or more steps.
fn gradient_norm(args: &[&str]) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let run = pg(args, &dir.path().join("run"));
    assert!(run.status.success(), "{args:?}: {}", String::from_utf8_lossy(&run.stderr));
    let metrics = std::fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    let first: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    first["grad_norm"].as_f64().unwrap()
}

#[track_caller]
fn close(found: f64, want: f64) {
    assert!((found - want).abs() < 1e-5 * want, "{found}, should be {want}");
}

/// Two residual lanes: fusion made launches that waited for each other, and all of them were dropped.
#[test]
fn sums_of_three_keep_their_gradients() {
    let file = format!("{MODELS}/lost_gradient.rs");
    // PyTorch's, from the same weights.
    close(gradient_norm(&[&file, "--seed", "1", "--steps", "1"]), 0.602_750);
}

/// A gate that a product of one column computes: wrong where activations were stored in bfloat16.
#[test]
fn a_gate_has_the_gradient_of_the_sum_that_it_is() {
    let norm = |name: &str| {
        let file = format!("{MODELS}/{name}.rs");
        gradient_norm(&[&file, "--precision", "bf16", "--steps", "1"])
    };
    let want = norm("gate_bf16_same_mathematics");
    close(want, 0.773_99);
    close(norm("gate_bf16"), want);
}

/// Its matrices of one row and one column were never trained.
#[test]
fn an_mlp_of_width_one_trains() {
    let dir = tempfile::tempdir().unwrap();
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny.rs");
    let run = pg(&[models, "--set", "MLP_DIM=1", "--steps", "2"], &dir.path().join("run"));
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let bytes = std::fs::read(dir.path().join("run/weights.safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for layer in 0..4 {
        // It begins at zero.
        let weight = weights.tensor(&format!("blocks.{layer}.mlp.proj.weight")).unwrap();
        assert!(weight.data().iter().any(|b| *b != 0), "layer {layer} was not trained");
    }
}

/// A parameter with a row a position: its gradient could not be formed.
#[test]
fn learned_positions_train() {
    let file = format!("{MODELS}/position_rows.rs");
    assert!(gradient_norm(&[&file, "--steps", "1"]) > 0.1);
}

/// A tensor contracted with itself is a table of positions; a sum over it without a mask is refused, not differentiated.
#[test]
fn what_mixes_positions_is_refused_by_check_and_run() {
    let file = format!("{MODELS}/gram.rs");
    let dir = tempfile::tempdir().unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_pg")).args(["check", &file]).output().unwrap();
    for output in [check, pg(&[&file], &dir.path().join("run"))] {
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains("the logits of a position depend on later tokens") && message.contains("`sum"),
            "{message}"
        );
        assert!(message.contains("gram.rs:7:24"), "{message}");
    }
}
