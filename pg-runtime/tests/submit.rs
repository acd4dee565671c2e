//! `pg submit`: a folder that stands on its own, and a sentence for each thing that is in its way.

use std::ops::Deref;
use std::path::Path;
use std::process::Output;

use pg_runtime::data::{sample, shard_bytes};
use pg_runtime::submit::Submission;
use pg_testing::commands::{SMALL, SMALL_SETTINGS, Scratch, TINY};
use serde_json::Value;

/// For a fraction of a second.
const SIZE: [&str; 6] = ["--set", "DIM=24", "--batch-tokens", "256", "--steps", "6"];
const OWN: [&str; 5] = ["--no-validate", "--no-full-size", "--val", "val.bin", "--quiet"];
const WHO: [&str; 4] = ["--author", "Ada L.", "--github", "ada-l"];

struct Dir(Scratch);

impl Deref for Dir {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.0
    }
}

#[track_caller]
fn succeeds(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

impl Dir {
    /// Runs of three seeds of a model that derives from another, on a text of their own.
    fn with_runs() -> Dir {
        let dir = Dir(Scratch::new(env!("CARGO_BIN_EXE_pg")));
        std::fs::create_dir(dir.path("ideas")).unwrap();
        std::fs::copy(TINY, dir.path("tiny.rs")).unwrap();
        let idea = "pg_macros::model! {\n    /// Tiny with another rate.\n    idea from \"../tiny.rs\" {\n        const MATRIX_LR = 0.02;\n    }\n}\n";
        std::fs::write(dir.path("ideas/idea.rs"), idea).unwrap();
        dir.write_text(0);
        dir.sweep("runs", "1,2,3", &[]);
        dir
    }

    /// A text to score, from some token of the sample's on.
    fn write_text(&self, from: usize) {
        let tokens: Vec<u16> = sample::val().scan(0, |all| all.skip(from).take(545).collect()).unwrap();
        std::fs::write(self.path("val.bin"), shard_bytes(&tokens)).unwrap();
    }

    #[track_caller]
    fn sweep(&self, out: &str, seeds: &str, more: &[&str]) {
        let args = ["sweep", "ideas/idea.rs", "--out", out, "--seeds", seeds];
        succeeds(self.pg(&[&args, &SMALL[..], &SIZE, &OWN, more].concat()));
    }

    fn submit(&self, runs: &[&str], more: &[&str]) -> Output {
        self.pg(&[&["submit", "--json", "--quiet", "--out", "sub"], runs, &WHO, more].concat())
    }

    #[track_caller]
    fn refused(&self, runs: &[&str], more: &[&str], sentence: &str) {
        let output = self.submit(runs, more);
        assert_eq!(output.status.code(), Some(1), "{sentence}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let error = report["error"].as_str().unwrap();
        assert!(error.contains(sentence), "{error}");
        assert!(!self.path("sub").exists(), "{sentence}");
        let names = std::fs::read_dir(self.path(".")).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".pg-")).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// A copy of a run, with a JSON file of it changed.
    fn copy(&self, run: &str, to: &str, file: &str, change: impl FnOnce(&mut Value)) {
        std::fs::create_dir(self.path(to)).unwrap();
        for name in ["run.json", "report.json", "metrics.jsonl", "artifact.pg", "weights.safetensors"] {
            std::fs::copy(self.path(run).join(name), self.path(to).join(name)).unwrap();
        }
        self.edit(to, file, change);
    }

    fn edit(&self, run: &str, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(run).join(file);
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(&path, value.to_string()).unwrap();
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(path)).unwrap()).unwrap()
    }
}

const RUNS: [&str; 3] = ["runs/seed-3", "runs/seed-1", "runs/seed-2"];

#[test]
fn a_folder_stands_on_its_own() {
    let dir = Dir::with_runs();
    dir.refused(&RUNS, &[], "the runs were on `cpu`; the challenge's times are of 8xH100");
    let report = succeeds(dir.submit(&RUNS, &["--draft", "--baseline-bpb", "9.5"]));
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["baseline"]["is_record"], true);

    let text = std::fs::read(dir.path("sub/submission.json")).unwrap();
    let submission: Submission = serde_json::from_slice(&text).unwrap();
    assert_eq!(serde_json::to_value(&submission).unwrap(), report["submission"]);
    assert_eq!((submission.author.as_str(), submission.github_id.as_str()), ("Ada L.", "ada-l"));
    assert_eq!((submission.name.as_str(), submission.blurb.as_str()), ("idea", "Tiny with another rate."));
    assert_eq!((submission.seeds, submission.not_accepted.len()), (vec![1, 2, 3], 1));
    let compliance = submission.compliance;
    assert!(compliance.train_under_600s && compliance.eval_under_600s && compliance.artifact_under_16mb);
    assert_eq!((compliance.three_seeds, compliance.score_first_ttt), (true, Some(true)));
    let mut sum = 0.0;
    for seed in ["1", "2", "3"] {
        let run = dir.json(&format!("runs/seed-{seed}/report.json"));
        let result = &submission.seed_results[seed];
        assert_eq!(Some(result.val_bpb), run["bpb"]["ttt"].as_f64());
        assert_eq!(Some(result.artifact_bytes), run["artifact"]["total_bytes"].as_u64());
        let (bytes, targets) =
            (run["text"]["bytes"].as_f64().unwrap(), run["text"]["targets"].as_f64().unwrap());
        let nats = result.val_bpb * std::f64::consts::LN_2 * bytes / targets;
        assert!((result.val_loss - nats).abs() < 1e-12);
        sum += result.val_bpb;
        // The artifact alone gives the score.
        let artifact = format!("sub/artifact_seed{seed}.pg");
        let scored = succeeds(dir.pg(&["eval", &artifact, "--ttt", "--val", "val.bin", "--json", "--quiet"]));
        let scored: Value = serde_json::from_slice(&scored.stdout).unwrap();
        assert_eq!(scored["bpb"]["ttt"].as_f64(), Some(result.val_bpb));
        let log = std::fs::read_to_string(dir.path(&format!("sub/train_seed{seed}.log"))).unwrap();
        assert_eq!(log.lines().filter(|line| line.starts_with("step:")).count(), 6);
        assert!(
            log.contains(&format!("final_test_time val_loss:{:.8} val_bpb:{:.8}", nats, result.val_bpb)),
            "{log}"
        );
    }
    assert!((submission.val_bpb - sum / 3.0).abs() < 1e-12);

    let readme = std::fs::read_to_string(dir.path("sub/README.md")).unwrap();
    for part in [
        "A draft, not a submission",
        "has none: the model is `model/ideas/idea.rs`",
        "| later tokens | all | proven |",
    ] {
        assert!(readme.contains(part), "{part}: {readme}");
    }
    // Without the files that it came from: the model's text, its base, and the run itself, from the folder.
    std::fs::remove_dir_all(dir.path("ideas")).unwrap();
    std::fs::remove_dir_all(dir.path("runs")).unwrap();
    std::fs::remove_file(dir.path("tiny.rs")).unwrap();
    succeeds(dir.pg(&[&["check", "sub/model/ideas/idea.rs"], &SMALL[..SMALL_SETTINGS], &SIZE[..2]].concat()));
    let command =
        readme.lines().find(|line| line.starts_with("pg run") && line.contains("--seed 2")).unwrap();
    let words = shlex::split(command).unwrap();
    let words: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    std::fs::copy(dir.path("val.bin"), dir.path("sub/val.bin")).unwrap();
    let again =
        dir.command(&[&words[..], &["--json", "--quiet"]].concat()).current_dir(dir.path("sub")).output();
    let again: Value = serde_json::from_slice(&succeeds(again.unwrap()).stdout).unwrap();
    assert_eq!(again["bpb"]["ttt"].as_f64(), Some(submission.seed_results["2"].val_bpb));
    succeeds(dir.pg(&["run", "--replay", "sub/replay_seed2", "--out", "replayed", "--quiet"]));
    let replayed = dir.json("replayed/report.json");
    assert_eq!(replayed["bpb"]["ttt"].as_f64(), Some(submission.seed_results["2"].val_bpb));
}

/// As if on a GPU, whose sums are in another order: the audit knows.
fn on_cuda(dir: &Dir) {
    for run in RUNS {
        for file in ["run.json", "report.json"] {
            dir.edit(run, file, |value| value["device"] = "cuda:0".into());
        }
    }
}

#[test]
fn a_submission_has_no_word_of_a_draft() {
    let dir = Dir::with_runs();
    on_cuda(&dir);
    succeeds(
        dir.submit(&RUNS, &["--hardware", "8xH100 80GB SXM", "--name", "An idea", "--blurb", "It is one."]),
    );
    let submission = dir.json("sub/submission.json");
    assert_eq!(submission.get("not_accepted"), None);
    assert_eq!((&submission["name"], &submission["blurb"]), (&"An idea".into(), &"It is one.".into()));
    let readme = std::fs::read_to_string(dir.path("sub/README.md")).unwrap();
    assert!(!readme.contains("draft") && readme.contains("8xH100 80GB SXM"), "{readme}");
    // What is there is not written over.
    let before = std::fs::read(dir.path("sub/submission.json")).unwrap();
    let output = dir.submit(&RUNS, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("sub: it exists"));
    assert_eq!(std::fs::read(dir.path("sub/submission.json")).unwrap(), before);
}

#[test]
fn runs_that_are_no_submission_are_refused() {
    let dir = Dir::with_runs();
    on_cuda(&dir);
    dir.refused(&RUNS[..2], &["--draft"], "3 runs of different seeds; these are 2");
    dir.refused(
        &["runs/seed-1", "runs/seed-2", "nowhere"],
        &["--draft"],
        "nowhere: no finished run is in it",
    );
    dir.refused(&["runs/seed-1", "runs/seed-2", "runs/seed-2"], &["--draft"], "have the same seed, 2");
    let account =
        dir.pg(&[&["submit", "--out", "sub", "--author", "A", "--github", "@ada"], &RUNS[..]].concat());
    assert_eq!(account.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&account.stderr)
            .contains("--github @ada: expected the name of a GitHub account")
    );
    dir.refused(&RUNS, &["--name", "two\nlines"], "--name: expected a line of text");
    let with = |third: &'static str| ["runs/seed-1", "runs/seed-2", third];

    dir.copy("runs/seed-3", "big", "report.json", |report| {
        report["artifact"]["total_bytes"] = 16_000_001.into()
    });
    dir.refused(&with("big"), &["--draft"], "are 16000001, more than 16000000");
    dir.copy("runs/seed-3", "cut", "report.json", |report| report["train"]["steps"] = 7.into());
    dir.refused(&with("cut"), &["--draft"], "it holds 6 whole steps, the report says 7");
    dir.copy("runs/seed-3", "other", "run.json", |record| record["job"]["steps"] = 7.into());
    dir.edit("other", "report.json", |report| report["job"]["steps"] = 7.into());
    dir.refused(
        &with("other"),
        &["--draft"],
        "is not of the same job as runs/seed-1: its `steps` is 7, not 6",
    );
    dir.copy("runs/seed-3", "two", "run.json", |record| record["job"]["steps"] = 7.into());
    dir.refused(&with("two"), &["--draft"], "as in the record beside it");
    dir.copy("runs/seed-3", "violated", "report.json", |report| report["bpb"]["sliding"] = 1.0.into());
    dir.refused(
        &with("violated"),
        &["--draft"],
        "violated: the audit's check `sliding score` fails: the report says 1.0000",
    );
    // The same name, and another text.
    dir.write_text(545);
    dir.sweep("text", "3", &[]);
    for file in ["run.json", "report.json"] {
        dir.edit("text/seed-3", file, |value| value["device"] = "cuda:0".into());
    }
    dir.refused(&with("text/seed-3"), &["--draft"], "the validation text is another");
}

#[test]
fn what_the_challenge_would_not_accept_needs_a_draft() {
    let dir = Dir::with_runs();
    on_cuda(&dir);
    let with = |third: &'static str| ["runs/seed-1", "runs/seed-2", third];
    dir.copy("runs/seed-3", "slow", "report.json", |report| {
        for entry in report["ledger"].as_array_mut().unwrap() {
            if entry["part"] == "train" {
                entry["seconds"] = 601.0.into();
            }
        }
    });
    dir.refused(&with("slow"), &[], "slow: training took 601 s; the challenge allows 600");
    dir.copy("runs/seed-3", "long", "report.json", |report| {
        for entry in report["ledger"].as_array_mut().unwrap() {
            if entry["part"] == "score by sliding window" {
                entry["seconds"] = 700.0.into();
            }
        }
    });
    dir.refused(&with("long"), &[], "long: evaluation took 700 s; the challenge allows 600");
    dir.copy("runs/seed-3", "narrow", "report.json", |report| {
        report["profile"] = "quick".into();
        report["params"] = 1_000_000.into();
    });
    dir.refused(&with("narrow"), &[], "the runs trained profile `quick`");
    dir.copy("runs/seed-3", "part", "run.json", |record| record["text"]["available_targets"] = 9999.into());
    dir.refused(&with("part"), &[], "of the validation text's 9999 targets");
    succeeds(dir.submit(&with("slow"), &["--draft"]));
    let submission = dir.json("sub/submission.json");
    assert_eq!(submission["not_accepted"][0], "slow: training took 601 s; the challenge allows 600");
    assert_eq!(submission["compliance"]["train_under_600s"], false);
    let readme = std::fs::read_to_string(dir.path("sub/README.md")).unwrap();
    assert!(readme.contains("> - slow: training took 601 s"), "{readme}");
    assert!(readme.contains("**violated**"), "the audit says it, too: {readme}");
}

#[test]
fn the_built_in_text_is_no_validation_set() {
    let dir = Dir::with_runs();
    let out = Path::new("plain");
    let args =
        ["sweep", "ideas/idea.rs", "--out", "plain", "--seeds", "1,2,3", "--set", "eval.max_targets=511"];
    succeeds(dir.pg(&[&args, &SMALL[..], &SIZE, &OWN[..2], &["--quiet"]].concat()));
    let runs: Vec<String> =
        (1..4).map(|seed| out.join(format!("seed-{seed}")).display().to_string()).collect();
    let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
    dir.refused(&runs, &[], "the score is of the sample text that is part of pg");
    dir.refused(&runs, &[], "511 of the validation text's 165984 targets");
}
