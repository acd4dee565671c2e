//! What `pg check` proves is what `pg run` compiles.

use std::fs;
use std::process::Command;

/// A model whose sequences meet once there are more than `most` of them.
fn model(most: usize) -> String {
    format!(
        r#"pg_macros::model! {{ m {{
    fn forward(tokens) {{
        let x = gather(param("emb.weight", [1024, 32], normal(0.02)), tokens);
        let x = if dim(x, 0) <= {most} {{ x }} else {{ x + sum(x, 0) }};
        linear(x, param("head.weight", [1024, 32], normal(0.02)))
    }}
    optim {{ "*" => adamw(lr = 0.01) }}
    train {{ batch_tokens = 1024; seq_len = 128; micro_batch_tokens = 1024; steps = 20; }}
    eval {{ seq_len = 128; stride = 32; max_targets = 4096; }}
}} }}"#
    )
}

fn refused(command: &str, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.rs");
    fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pg"))
        .args([command, "m.rs"])
        .current_dir(folder.path())
        .env("PG_CACHE", folder.path().join("cache"))
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "pg {command}: {errors}");
    errors
}

#[test]
fn a_model_that_leaks_at_a_runs_batch_is_refused_by_check_and_run() {
    // 8 sequences are those of a step, more than that are scored at a time.
    for most in [2, 7, 8] {
        for command in ["check", "run"] {
            let errors = refused(command, &model(most));
            assert!(errors.contains("depend on later tokens"), "pg {command} at {most}: {errors}");
            assert!(errors.contains("m.rs:4:"), "pg {command} at {most}: {errors}");
        }
    }
}
