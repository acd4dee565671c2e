//! README's examples are real: each is checked, and the new idea trains.

use std::path::Path;
use std::process::Command;

use pg_testing::files::{fenced, model_file};

#[track_caller]
fn pg(folder: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg"));
    let output =
        command.args(args).current_dir(folder).env("PG_CACHE", folder.join("cache")).output().unwrap();
    assert!(output.status.success(), "pg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_examples_check_and_the_idea_trains() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(model_file("int4mlp_12l.rs"), at("int4mlp_12l.rs")).unwrap();
    let examples = fenced("README.md", "rust,ignore");
    assert_eq!(examples.len(), 2);
    for (text, file) in examples.iter().zip(["first.rs", "my_idea.rs"]) {
        std::fs::write(at(file), text).unwrap();
        pg(folder.path(), &["-q", "check", file]);
    }
    let small = ["LAYERS=2", "VE_LAYERS=[1]", "DIM=64", "HEADS=2", "KV_HEADS=1", "eval.max_targets=128"];
    let mut args = vec!["-q", "run", "my_idea.rs", "--no-full-size", "--profile", "quick", "--steps", "2"];
    args.extend(["--batch-tokens", "128", "--seq-len", "64", "--out", "run"]);
    args.extend(small.iter().flat_map(|s| ["--set", s]));
    pg(folder.path(), &args);
    assert!(at("run/artifact.pg").is_file());
}
