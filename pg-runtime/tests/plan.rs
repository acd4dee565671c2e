//! `pg plan` from outside: what it says of the real models, and bad input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn pg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pg")).args(args).current_dir(models()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn text(args: &[&str]) -> String {
    let output = pg(args);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let text = text(&[&["--json"], args].concat());
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

const TINY: [&str; 4] = ["plan", "tiny.rs", "--batch", "2"];

fn tiny(more: &[&str]) -> Value {
    json(&[&TINY, more].concat())
}

/// Sums a number over the rows of a table.
fn sum(rows: &Value, key: &str) -> f64 {
    rows.as_array().unwrap().iter().map(|r| r[key].as_f64().unwrap()).sum()
}

#[test]
fn every_pass_has_its_time() {
    let report = tiny(&["--target", "h100", "--timing"]);
    let times: Vec<(&str, f64)> = (report["timing"].as_array().unwrap().iter())
        .map(|t| (t["pass"].as_str().unwrap(), t["milliseconds"].as_f64().unwrap()))
        .collect();
    let passes = pg_codegen::pipeline::Pass::ALL.map(|pass| pass.name());
    assert!(times.iter().map(|t| t.0).skip(1).eq(passes), "{times:?}");
    assert!(times.iter().all(|t| t.1 > 0.0), "{times:?}");
    let table = text(&[&TINY[..], &["--timing"]].concat());
    assert!(passes.iter().all(|pass| table.contains(pass)), "{table}");
}

#[test]
fn every_launch_is_in_every_table() {
    let report = tiny(&[]);
    let names: Vec<&str> =
        report["programs"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["grad.first.qat", "grad.next.qat", "update", "score", "logits", "adapt"]);
    for program in report["programs"].as_array().unwrap() {
        let launches = program["launches"].as_f64().unwrap();
        assert_eq!(sum(&program["summary"], "launches"), launches, "{}", program["name"]);
        let folded = program["launches_table"].as_array().unwrap();
        let listed: usize = folded.iter().map(|l| l["launches"].as_array().unwrap().len()).sum();
        assert_eq!(listed as f64, launches);
        for key in ["flops", "bytes"] {
            let total = program[key].as_f64().unwrap();
            for table in ["summary", "launches_table"] {
                assert!((sum(&program[table], key) - total).abs() <= 1e-6 * total, "{table} {key}");
            }
        }
        assert!((sum(&program["summary"], "share") - 1.0).abs() < 1e-6);
        assert!(program["launches"].as_u64() < program["unfused_launches"].as_u64());
        assert!(program["bytes"].as_f64() < program["unfused_bytes"].as_f64());
    }
}

#[test]
fn a_step_is_its_micro_batches_and_the_update() {
    let report = tiny(&[]);
    let launches = |i: usize| report["programs"][i]["launches"].as_u64().unwrap();
    // 2,048 tokens a step in micro-batches of 2 × 128.
    assert_eq!(report["train"]["launches"], launches(0) + 7 * launches(1) + launches(2));
}

#[test]
fn the_most_expensive_thing_comes_first_with_its_lines() {
    let report = tiny(&["--program", "score"]);
    let summary = report["programs"][0]["summary"].as_array().unwrap();
    let times: Vec<f64> = summary.iter().map(|g| g["roofline_us"].as_f64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    // Most of the arithmetic is the MLP's two matrices, in line 48 of the model.
    let line = std::fs::read_to_string(models().join("tiny.rs")).unwrap();
    let at = 1 + line.lines().position(|l| l.contains("leaky_relu_squared_mlp(")).unwrap();
    assert_eq!(
        (&summary[0]["scope"], &summary[0]["family"]),
        (&"blocks.*.mlp".into(), &"contraction".into())
    );
    assert_eq!(summary[0]["lines"][0], format!("tiny.rs:{at}"));
    assert_eq!(summary[0]["bound"], "compute");
}

#[test]
fn layers_fold_unless_all_are_asked_for() {
    let rows = |more: &[&str]| {
        let report = tiny(&[&["--program", "score"], more].concat());
        report["programs"][0]["launches_table"].as_array().unwrap().clone()
    };
    let (folded, all) = (rows(&[]), rows(&["--all"]));
    assert!(folded.len() < all.len() / 2, "{} of {}", folded.len(), all.len());
    assert!(all.iter().all(|r| r["launches"].as_array().unwrap().len() == 1));
    assert!(all.iter().any(|r| r["scope"] == "blocks.3.mlp"));
    assert!(folded.iter().any(|r| r["scope"] == "blocks.*.mlp"));
}

#[test]
fn targets_differ_in_time_and_what_bounds_it() {
    let time = |target: &str| {
        let report = tiny(&["--program", "score", "--target", target]);
        assert_eq!(report["target"], target);
        report["programs"][0]["roofline_ms"].as_f64().unwrap()
    };
    let [cpu, vulkan, h100, h200] = ["cpu", "vulkan-cpu", "h100", "h200"].map(time);
    assert!(vulkan > cpu && cpu > h100 && h100 > h200, "{vulkan} {cpu} {h100} {h200}");
}

#[test]
fn without_fusion_both_columns_agree() {
    let report = tiny(&["--no-fuse", "--program", "score"]);
    let program = &report["programs"][0];
    assert_eq!(program["launches"], program["unfused_launches"]);
    assert_eq!(program["bytes"], program["unfused_bytes"]);
}

#[test]
fn buffers_say_where_when_and_why() {
    let text = text(&[&TINY[..], &["--program", "score", "--buffers"]].concat());
    for word in
        ["Times are predicted", "@param:tok_emb.weight", "scratch+", "its kernel writes it", "blocks.*.mlp"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn every_model_has_a_plan() {
    for folder in [models(), models().join("ideas")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "rs") && path.file_stem().is_some_and(|n| n != "lib") {
                let report = json(&["plan", path.to_str().unwrap(), "--batch", "1", "--target", "h100"]);
                assert!(report["train"]["roofline_ms"].as_f64().unwrap() > 0.0, "{}", path.display());
            }
        }
    }
}

#[test]
fn bad_input_is_one_message_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("binary.rs");
    std::fs::write(&binary, [0xff, 0xfe, 0x00, 0x9f]).unwrap();
    let (binary, directory) = (binary.to_str().unwrap(), folder.path().to_str().unwrap());
    for (args, word) in [
        (&["plan", "tiny.rs", "--target", "h10"][..], "did you mean `h100`?"),
        (&["plan", "tiny.rs", "--program", "scores"], "did you mean `score`?"),
        (&["plan", "tiny.rs", "--batch", "99999999999"], "too large"),
        (&["plan", "tiny.rs", "--set", "HEADS=3"], "tiny.rs:"),
        (&["plan", "none.rs"], "none.rs"),
        (&["plan", binary], "binary.rs"),
        (&["plan", directory], "it is a folder"),
    ] {
        let output = pg(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        let message = stderr(&output);
        assert_eq!(message.matches("error: ").count(), 1, "{args:?}: {message}");
        assert!(message.contains(word) && !message.contains("panicked"), "{args:?}: {message}");
        assert!(output.stdout.is_empty());
        let output = pg(&[&["--json"], args].concat());
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(object["error"].is_string(), "{args:?}");
    }
    for usage in [&["plan"][..], &["plan", "tiny.rs", "--batch", "0"], &["plan", "tiny.rs", "--seq-len", "x"]]
    {
        assert_eq!(pg(usage).status.code(), Some(2), "{usage:?}");
    }
}
