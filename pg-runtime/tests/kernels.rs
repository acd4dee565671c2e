//! `pg kernels` from outside: the table, its JSON, one line's kernels, dumps and their differences. No GPU is
//! needed, and CUDA's compiler for one test only (`tests/bundle.rs` has the others).

#![cfg(feature = "cube")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn pg(args: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg"));
    // Without a compiler, so that the output is the same wherever the tests run.
    command.env("PG_CUDA_TOOLS", "/nowhere");
    command.current_dir(root).args(args).output().unwrap()
}

fn ok(args: &[&str]) -> String {
    let output = pg(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line of an error.
fn refused(args: &[&str]) -> String {
    let output = pg(args);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.starts_with("error: "), "{args:?}: {error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    error
}

const TINY: &str = "models/tiny.rs";

#[test]
fn the_table_names_kernels_in_the_models_terms() {
    insta::assert_snapshot!(ok(&["kernels", TINY, "--target", "h100", "--program", "score", "--all"]));
}

#[test]
fn json_has_the_promised_fields_and_adds_up() {
    let report: Value = serde_json::from_str(&ok(&["kernels", TINY, "--json", "-q"])).unwrap();
    assert_eq!(report["target"], "h100");
    let kernels = report["kernels"].as_array().unwrap();
    let number = |v: &Value| v.as_f64().unwrap_or_else(|| panic!("{v} is no number"));
    for kernel in kernels {
        for key in ["shared_bytes", "flops", "bytes", "roofline_us", "count"] {
            number(&kernel[key]);
        }
        assert!(
            kernel["grid"].as_array().unwrap().len() == 3 && kernel["block"].as_array().unwrap().len() == 3
        );
        for key in ["registers", "spill_bytes", "stack_bytes", "occupancy"] {
            assert_eq!(kernel.get(key), Some(&Value::Null), "{key} of a kernel that was not compiled");
        }
        assert!(["compute", "memory", "launch"].contains(&kernel["bound"].as_str().unwrap()));
        assert!(kernel["family"].is_string() && kernel["name"].is_string());
    }
    let figures: Vec<&Value> = report["basis"].as_object().unwrap().values().collect();
    assert!(
        figures.iter().any(|names| names.as_array().unwrap().contains(&"roofline_us".into())),
        "{report}"
    );
    let programs = report["programs"].as_object().unwrap();
    for (name, totals) in programs {
        for key in ["launches", "flops", "bytes", "unfused_bytes", "roofline_ms", "peak_bytes"] {
            number(&totals[key]);
        }
        if name == "train" {
            continue;
        }
        let of_program = kernels.iter().filter(|k| k["program"] == name.as_str());
        let launches: f64 = of_program.clone().map(|k| number(&k["count"])).sum();
        let flops: f64 = of_program.map(|k| number(&k["count"]) * number(&k["flops"])).sum();
        assert_eq!(launches, number(&totals["launches"]), "{name}");
        assert!((flops - number(&totals["flops"])).abs() <= 1e-9 * flops, "{name}");
    }
    let train = number(&programs["train"]["flops"]);
    let parts = number(&programs["grad.first.qat"]["flops"]) + number(&programs["update"]["flops"]);
    assert!(
        (train - parts).abs() <= 1e-9 * train,
        "a step of one micro-batch is its gradient and the update"
    );
}

#[test]
fn a_line_of_the_model_has_kernels_forward_and_backward() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(TINY)).unwrap();
    let line = text.lines().position(|l| l.contains("leaky_relu_squared_mlp")).unwrap() + 1;
    let table = ok(&["kernels", TINY, "--line", &line.to_string()]);
    assert!(table.contains("grad of blocks.*.mlp") && table.contains(" blocks.*.mlp: dot"), "{table}");
    assert!(!table.contains("attention"), "{table}");
    let error = refused(&["kernels", TINY, "--line", "1"]);
    assert!(error.contains("no kernel comes from line 1 of") && error.contains(&line.to_string()), "{error}");
}

#[test]
fn dumps_are_readable_and_their_difference_is_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (a, b) = (at("a"), at("b"));
    let dump = ["kernels", TINY, "--program", "grad.first.qat", "-q", "--dump"];
    ok(&[&dump[..], &[&a]].concat());
    ok(&[&dump[..], &[&b, "--set", "CLIP=7"]].concat());
    let same = ok(&["kernels", "--diff", &a, &a]);
    assert!(same.contains(" 0 changed, 0 are new, 0 are gone"), "{same}");
    let changed = ok(&["kernels", "--diff", &a, &b]);
    assert!(changed.contains("-%3 = scale of int(clip=31, rule=amax) from %2"), "{changed}");
    assert!(changed.contains("+%3 = scale of int(clip=7, rule=amax) from %2"), "{changed}");
    assert!(changed.contains("0 are new, 0 are gone"), "{changed}");
    let sources = std::fs::read_dir(&a).unwrap().map(|e| e.unwrap().path());
    let sources: Vec<_> = sources.filter(|p| p.extension().is_some_and(|e| e == "cu")).collect();
    assert!(sources.len() > 40, "{} sources", sources.len());
    let mut from_the_model = 0;
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        for wanted in ["// computes  ", "// in ", "// launched ", "// buffer_0 ", "__global__"] {
            assert!(text.contains(wanted), "{} has no `{wanted}`", path.display());
        }
        from_the_model += usize::from(text.contains("models/tiny.rs:"));
    }
    assert!(from_the_model > 30, "only {from_the_model} name lines of the model");
}

#[test]
fn bad_input_is_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let tuning = folder.path().join("tuning.txt");
    std::fs::write(&tuning, "matmul.tile = 48\n").unwrap();
    let error = refused(&["kernels", TINY, "--tuning", tuning.to_str().unwrap()]);
    assert!(error.contains("line 1: `matmul.tile` is one of 16, 32, 64, not `48`"), "{error}");
    assert!(refused(&["kernels", TINY, "--tuning", "nowhere"]).contains("cannot read the tuning file"));
    assert!(refused(&["kernels", TINY, "--target", "h10"]).contains("did you mean `h100`?"));
    assert!(refused(&["kernels", TINY, "--target", "cpu"]).contains("no kernels are generated"));
    let here = folder.path().to_str().unwrap();
    assert!(
        refused(&["kernels", "--diff", here, here]).contains("is no folder that `pg kernels --dump` wrote")
    );
    let error = refused(&["run", TINY, "--tuning", tuning.to_str().unwrap()]);
    assert!(error.contains("the CPU runs none"), "{error}");
}

#[test]
fn devices_are_listed_with_what_is_missing() {
    let report: Value = serde_json::from_str(&ok(&["devices", "--json", "-q"])).unwrap();
    let devices = report["devices"].as_array().unwrap();
    assert_eq!((devices[0]["device"].as_str(), devices[0]["missing"].is_null()), (Some("cpu"), true));
    for kind in ["vulkan", "cuda"] {
        let of_kind = devices.iter().filter(|d| d["device"].as_str().unwrap().starts_with(kind));
        assert!(of_kind.clone().count() > 0, "{report}");
        let explained = |d: &Value| d["missing"].is_null() || d["remedy"].is_string();
        assert!(of_kind.into_iter().all(explained), "{report}");
    }
    let error = refused(&["run", TINY, "--device", "cuda:99"]);
    assert!(error.contains("; "), "what is missing and the remedy: {error}");
}
