//! The `pg` binary from outside: exit codes, what is on which stream, and that nothing is overwritten.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pg_testing::commands::Scratch;
use serde_json::Value;

/// A model small enough to train in a test, with every kind of block.
const SMALL: &str = r#"pg_macros::model! {
    /// A bigram table.
    small {
        const VOCAB = 1024;
        const DIM = 8;

        fn forward(tokens) {
            let x = gather(param("emb.weight", [VOCAB, DIM], normal(0.02)), tokens);
            linear(x, param("head.weight", [VOCAB, DIM], orthogonal))
        }

        optim { "*" => adamw(lr = 0.01) }

        train {
            batch_tokens = 64;
            micro_batch_tokens = 64;
            seq_len = 32;
            steps = 2;
            ema_decay = 0.5;
        }

        eval {
            seq_len = 32;
            stride = 16;
            max_targets = 128;
        }
    }
}
"#;

struct Dir(Scratch);

impl Deref for Dir {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.0
    }
}

impl Dir {
    fn with_model() -> Dir {
        let dir = Dir(Scratch::new(env!("CARGO_BIN_EXE_pg")));
        std::fs::write(dir.path("small.rs"), SMALL).unwrap();
        dir
    }
}

/// The one JSON object that standard output must be.
#[track_caller]
fn json(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "stdout: {text}\nstderr: {}", stderr(output));
    serde_json::from_str(text).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeeds(output: Output) -> Output {
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

#[test]
fn usage_errors_are_2_and_bad_input_is_1() {
    let dir = Dir::with_model();
    let code = |args: &[&str]| dir.pg(args).status.code();
    for usage in [
        &["run"][..],
        &["nonsense"],
        &["check"],
        &["check", "small.rs", "--set", "DIM"],
        &["run", "small.rs", "--steps", "0"],
        &["run", "small.rs", "--seconds", "nan"],
        &["export", "small.rs"],
    ] {
        assert_eq!(code(usage), Some(2), "{usage:?}");
    }
    std::fs::write(dir.path("bad.rs"), SMALL.replace("[VOCAB, DIM], orth", "[VOCAB, DIM + 1], orth"))
        .unwrap();
    std::fs::write(dir.path("not.pg"), "no artifact").unwrap();
    for bad in [
        &["check", "missing.rs"][..],
        &["check", "bad.rs"],
        &["run", "bad.rs"],
        &["ir", "small.rs", "--program", "scores"],
        &["eval", "not.pg"],
        &["new", "../evil", "--from", "small.rs"],
        &["new", "small", "--from", "small.rs"],
        &["compare", "small.rs", "not.pg"],
        &["data", "stats", "--tokenizer", "not.pg"],
        &["run", "small.rs", "--init", "not.pg"],
    ] {
        let output = dir.pg(bad);
        assert_eq!(output.status.code(), Some(1), "{bad:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("error: "), "{bad:?}");
        // The same with --json: an object, and a message in it.
        let output = dir.pg(&[&["--json"], bad].concat());
        assert_eq!(output.status.code(), Some(1), "{bad:?}");
        assert!(json(&output).is_object(), "{bad:?}");
    }
    assert_eq!(std::fs::read_to_string(dir.path("small.rs")).unwrap(), SMALL, "overwritten");
}

#[test]
fn check_reports_every_file() {
    let dir = Dir::with_model();
    std::fs::write(dir.path("bad.rs"), SMALL.replace("linear(x,", "liner(x,")).unwrap();
    let output = dir.pg(&["--json", "check", "small.rs", "bad.rs"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    let (small, bad) = (&report["models"][0], &report["models"][1]);
    assert_eq!(
        (&small["model"], &small["params"], &small["ok"]),
        (&"small".into(), &16384.into(), &true.into())
    );
    assert_eq!(small["errors"].as_array().map(Vec::len), Some(0));
    // Forward: one contraction of 8 × 1024 a token.
    assert_eq!(small["flops_per_token"].as_f64(), Some(3.0 * 2.0 * 8.0 * 1024.0));
    assert!(small["artifact_raw_bytes"].as_u64() >= Some(2 * 16384));
    assert_eq!((&bad["ok"], &bad["model"]), (&false.into(), &"small".into()));
    let error = &bad["errors"][0];
    assert!(error["message"].as_str().unwrap().contains("liner"), "{error}");
    assert_eq!(error["line"].as_u64(), Some(9));
    assert!(error["help"].as_str().unwrap().contains("linear"), "{error}");
}

#[test]
fn a_folder_of_models_can_be_checked() {
    let dir = Dir::with_model();
    std::fs::write(dir.path("lib.rs"), "pub mod small;").unwrap();
    let report = json(&succeeds(dir.pg(&["--json", "check", "lib.rs", "small.rs"])));
    assert_eq!(report["models"].as_array().map(Vec::len), Some(1));
    assert_eq!(dir.pg(&["check", "lib.rs"]).status.code(), Some(1));
}

#[test]
fn overrides_reach_the_model() {
    let dir = Dir::with_model();
    let report = json(&succeeds(dir.pg(&["--json", "check", "small.rs", "--set", "DIM=4"])));
    assert_eq!(report["models"][0]["params"], 8192);
    let output = dir.pg(&["check", "small.rs", "--set", "DIMM=4"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("`DIM`"), "{}", stderr(&output));
}

#[test]
fn a_run_can_be_evaluated_exported_and_compared() {
    let dir = Dir::with_model();
    let report = json(&succeeds(dir.pg(&["--json", "run", "small.rs", "--out", "one"])));
    assert_eq!(report["train"]["steps"], 2);
    assert_eq!(report["params"], 16384);
    for key in ["initial", "live", "ema", "quantized", "sliding"] {
        assert!(report["bpb"][key].is_f64(), "{key}: {}", report["bpb"]);
    }
    let artifact = report["artifact"]["path"].as_str().unwrap();
    let metrics = std::fs::read_to_string(dir.path("one/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 2);

    let scores = json(&succeeds(dir.pg(&["--json", "eval", artifact])));
    assert_eq!(scores["bpb"]["quantized"], report["bpb"]["quantized"]);
    assert_eq!(scores["bpb"]["sliding"], report["bpb"]["sliding"]);

    // The run's weights start another run; `--steps` is the budget of that one.
    succeeds(dir.pg(&["-q", "export", "one", "--safetensors", "w.safetensors"]));
    let again =
        dir.pg(&["--json", "run", "small.rs", "--out", "two", "--init", "w.safetensors", "--steps", "3"]);
    let again = json(&succeeds(again));
    assert_eq!(again["bpb"]["initial"], report["bpb"]["ema"]);
    assert_eq!(again["train"]["steps"], 3);

    let compared = json(&succeeds(dir.pg(&["--json", "compare", "one", "two"])));
    assert!(!compared["at_equal_tokens"].as_array().unwrap().is_empty(), "{compared}");
    // Weights quantised again are the same artifact but for the model text's path.
    let args = ["-q", "export", "w.safetensors", "--model", "small.rs", "--artifact", "again.pg"];
    succeeds(dir.pg(&args));
    let same = json(&succeeds(dir.pg(&["--json", "eval", "again.pg"])));
    assert_eq!(same["bpb"], scores["bpb"]);
}

/// The bytes of every file of a run's folder.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|p| p.is_file()).map(|p| (p.clone(), std::fs::read(p).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_run_that_diverges_overwrites_nothing() {
    let dir = Dir::with_model();
    succeeds(dir.pg(&["-q", "run", "small.rs", "--out", "one"]));
    let before = contents(&dir.path("one"));
    let names: Vec<_> = before.iter().map(|(path, _)| path.file_name().unwrap()).collect();
    assert_eq!(names, ["artifact.pg", "metrics.jsonl", "report.json", "run.json", "weights.safetensors"]);
    assert!(!dir.path("one/.unfinished").exists());
    std::fs::write(dir.path("wild.rs"), SMALL.replace("adamw(lr = 0.01)", "adamw(lr = 1e30)")).unwrap();
    let output = dir.pg(&["run", "wild.rs", "--out", "one", "--steps", "20", "--overwrite"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("diverged"), "{}", stderr(&output));
    let after: Vec<_> =
        contents(&dir.path("one")).into_iter().filter(|(path, _)| !path.ends_with(".lock")).collect();
    assert!(after == before);
    // The same folder serves the next run.
    succeeds(dir.pg(&["-q", "run", "small.rs", "--out", "one", "--seed", "7", "--overwrite"]));
    assert!(contents(&dir.path("one")) != before);
    assert!(!dir.path("one/.unfinished").exists());
}

#[test]
fn settings_for_the_profile_alone_are_fine() {
    let dir = Dir::with_model();
    // 96 tokens divide into the profile's micro-batches of 32, not into the file's of 64.
    let profile = "profile quick { DIM = 4; train.micro_batch_tokens = 32; }\n    }\n}\n";
    let text = format!("{}{profile}", SMALL.strip_suffix("    }\n}\n").unwrap());
    std::fs::write(dir.path("sizes.rs"), text).unwrap();
    let args = ["--json", "run", "sizes.rs", "--set", "train.batch_tokens=96", "--out", "one"];
    let output = succeeds(dir.pg(&args));
    let report = json(&output);
    assert_eq!((&report["params"], &report["trained_params"]), (&16384.into(), &8192.into()));
    assert_eq!((&report["profile"], &report["sample"]), (&"quick".into(), &true.into()));
    assert_eq!(report["ttt"], Value::Null);
    // Export picks the same profile.
    let output = succeeds(dir.pg(&["--json", "export", "sizes.rs", "--safetensors", "w.safetensors"]));
    assert_eq!(json(&output)["params"], 8192);
    let output = dir.pg(&["run", "sizes.rs", "--profile", "full", "--init", "w.safetensors"]);
    assert!(stderr(&output).contains("profile `full`"), "{}", stderr(&output));
}

#[test]
fn arguments_without_effect_are_errors() {
    let dir = Dir::with_model();
    succeeds(dir.pg(&["-q", "run", "small.rs", "--out", "one"]));
    for (args, word) in [
        (&["export", "one", "--safetensors", "w", "--set", "DIM=4"][..], "--model"),
        (&["export", "one/artifact.pg", "--safetensors", "w", "--profile", "full"], "--model"),
        (&["export", "one", "--safetensors", "w", "--seed", "3"], "--seed"),
        (&["eval", "one/artifact.pg", "--stride", "64"], "--stride"),
    ] {
        let output = dir.pg(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains(word), "{args:?}: {}", stderr(&output));
    }
    assert!(!dir.path("w").exists());
}

#[test]
fn over_the_cap_is_said_at_the_place() {
    let dir = Dir::with_model();
    let text = SMALL.replace("        eval {", "        export { cap_bytes = 1000; }\n\n        eval {");
    std::fs::write(dir.path("big.rs"), text).unwrap();
    let error = &json(&dir.pg(&["--json", "check", "big.rs"]))["models"][0]["errors"][0];
    assert!(error["line"].is_u64() && error["message"].as_str().unwrap().contains("cap"), "{error}");
    let output = dir.pg(&["run", "big.rs"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("big.rs:"), "{}", stderr(&output));
}

#[test]
fn a_new_model_checks() {
    let dir = Dir::with_model();
    succeeds(dir.pg(&["new", "mine", "--from", "small.rs"]));
    let report = json(&succeeds(dir.pg(&["--json", "check", "mine.rs"])));
    assert_eq!(
        (&report["models"][0]["model"], &report["models"][0]["params"]),
        (&"mine".into(), &16384.into())
    );
    let compared = json(&succeeds(dir.pg(&["--json", "compare", "small.rs", "mine.rs"])));
    assert_eq!(compared["constants"].as_array().map(Vec::len), Some(0));
}

#[test]
fn programs_and_ops_are_printed() {
    let dir = Dir::with_model();
    let listing = json(&succeeds(dir.pg(&["--json", "ir", "small.rs"])));
    let names: Vec<&str> =
        listing["programs"].as_array().unwrap().iter().map(|p| p["program"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"grad.first") && names.contains(&"update") && names.contains(&"score"),
        "{names:?}"
    );
    let after = |pass, target| {
        let shown = ["ir", "small.rs", "--program", "grad.first", "--after", pass, "--target", target];
        String::from_utf8_lossy(&succeeds(dir.pg(&shown)).stdout).into_owned()
    };
    for pass in ["trace", "autodiff", "precision", "cached-weights", "canonicalize", "rematerialize", "plan"]
    {
        assert!(after(pass, "cpu").contains("emb.weight"), "{pass}");
    }
    assert_eq!(after("precision", "cpu"), after("autodiff", "cpu"));
    assert!(after("precision", "h100").contains("bf16") && !after("autodiff", "h100").contains("bf16"));
    assert!(
        after("cached-weights", "h100").contains("@cached:")
            && !after("precision", "h100").contains("@cached:")
    );
    let unknown = dir.pg(&["ir", "small.rs", "--target", "h10"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("did you mean `h100`"), "{}", stderr(&unknown));
    let ops = json(&succeeds(dir.pg(&["--json", "ops"])));
    assert_eq!(ops["ops"].as_array().map(Vec::len), Some(pg_ir::ops::all().len()));
    assert_eq!(ops["functions"].as_array().map(Vec::len), Some(pg_ir::lang::reference().len()));
}

#[test]
fn help_knows_commands_topics_and_settings() {
    let dir = Dir::with_model();
    let says = |args: &[&str]| String::from_utf8(succeeds(dir.pg(args)).stdout).unwrap();
    assert_eq!(says(&["help", "run"]), says(&["run", "--help"]));
    assert_eq!(says(&["help", "data", "stats"]), says(&["data", "stats", "--help"]));
    assert!(says(&["data", "help", "stats"]).contains("Usage: pg data stats"));
    let all = says(&["help"]);
    assert!(all.contains("Usage: pg") && all.contains("phases") && all.contains("settings"), "{all}");
    assert!(says(&["help", "phases"]).contains("NAME at TRIGGER"));
    assert_eq!(says(&["help", "quant"]), says(&["help", "rules"]));
    let ttt = says(&["help", "settings", "eval.ttt"]);
    assert!(ttt.contains("eval.ttt.freeze: Str or List of Str [default: []]"), "{ttt}");
    assert!(!ttt.contains("eval.stride") && says(&["help", "settings"]).contains("eval.stride"));

    let topic = json(&succeeds(dir.pg(&["--json", "help", "loss"])));
    assert!(topic["topic"] == "loss" && topic["text"].as_str().unwrap().contains("```pg"), "{topic}");
    let settings = json(&succeeds(dir.pg(&["--json", "help", "settings", "train"])));
    assert!(settings["settings"].as_array().unwrap().iter().all(|s| s["doc"].is_string()), "{settings}");
    assert!(json(&succeeds(dir.pg(&["--json", "help", "run"])))["help"].is_string());

    let refused = |args: &[&str], code: i32, what: &str| {
        let output = dir.pg(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(stderr(&output).contains(what), "{args:?}: {}", stderr(&output));
    };
    refused(&["help", "phase"], 2, "did you mean `phases`?");
    refused(&["help", "data", "stat"], 2, "did you mean `stats`?");
    refused(&["help", "settings", "stride"], 1, "did you mean `eval.stride`?");
    refused(&["help", "settings", "train.seqlen"], 1, "did you mean `train.seq_len`?");
}

#[test]
fn files_are_formatted_where_they_parse() {
    let dir = Dir::with_model();
    let messy = SMALL.replace("const DIM = 8;", "const   DIM=8 ;");
    for (name, text) in [("messy.rs", &*messy), ("broken.rs", "model! { m { fn f( } }")] {
        std::fs::write(dir.path(name), text).unwrap();
    }
    let read = |name: &str| std::fs::read_to_string(dir.path(name)).unwrap();
    // Looking changes nothing.
    assert!(succeeds(dir.pg(&["fmt", "--check", "small.rs"])).stdout.is_empty());
    let differs = dir.pg(&["fmt", "--check", "small.rs", "messy.rs"]);
    assert_eq!(differs.status.code(), Some(1));
    assert_eq!(String::from_utf8(differs.stdout).unwrap(), "differs: messy.rs\n");
    assert_eq!(read("messy.rs"), messy);
    // What does not parse stays as it is, and keeps no other from being formatted.
    let done = dir.pg(&["--json", "fmt", "broken.rs", "messy.rs", "none.rs"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("broken.rs:1:") && stderr(&done).contains("none.rs"), "{}", stderr(&done));
    let files = json(&done)["files"].clone();
    assert_eq!((&files[0]["differs"], &files[1]["differs"]), (&Value::Null, &Value::Bool(true)));
    assert_eq!((read("messy.rs"), read("broken.rs").len()), (SMALL.into(), 22));
    assert!(succeeds(dir.pg(&["fmt", "messy.rs"])).stdout.is_empty());

    let piped = |args: &[&str]| {
        let mut command = dir.piped(args);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), messy.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    assert_eq!(String::from_utf8(succeeds(piped(&["fmt", "-"])).stdout).unwrap(), SMALL);
    assert_eq!(piped(&["fmt", "--check", "-"]).status.code(), Some(1));
}

#[test]
fn ops_explains_one() {
    let dir = Dir::with_model();
    let says = |name: &str| String::from_utf8(succeeds(dir.pg(&["ops", name])).stdout).unwrap();
    let library = says("rms_norm");
    assert!(
        library.starts_with("rms_norm(x, eps = 1.1920928955078125e-7)") && library.contains("fn rms_norm")
    );
    let both = says("shift");
    assert!(both.contains("shift(x, by, axis = …)") && both.contains("The op `shift`: x -> y"), "{both}");
    let one = json(&succeeds(dir.pg(&["--json", "ops", "muon"])));
    assert_eq!(one["functions"][0]["signature"], "muon(lr, weight_decay = 0.0, ns_steps = 5)");
    let unknown = dir.pg(&["ops", "rmsnorm"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("did you mean `rms_norm`?"), "{}", stderr(&unknown));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pg"))
        .arg("ops")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
}

#[test]
fn quiet_is_quiet_and_color_can_be_forced() {
    let dir = Dir::with_model();
    let output = succeeds(dir.pg(&["--quiet", "check", "small.rs"]));
    assert!(output.stderr.is_empty() && !output.stdout.is_empty());
    assert!(!stderr(&dir.pg(&["check", "none.rs"])).contains('\x1b'));
    assert!(stderr(&dir.pg(&["--color", "always", "check", "none.rs"])).contains('\x1b'));
}
