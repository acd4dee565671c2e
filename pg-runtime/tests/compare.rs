//! `pg compare` from outside: what differs between two, what cannot be compared, and groups of runs.

use std::ops::Deref;
use std::process::Output;

use pg_testing::commands::{SMALL, Scratch, TINY};
use serde_json::Value;

/// A run of a moment.
const OWN: [&str; 12] = [
    "--set",
    "DIM=24",
    "--set",
    "eval.max_targets=255",
    "--batch-tokens",
    "128",
    "--no-validate",
    "--no-full-size",
    "--quiet",
    "--json",
    "--checkpoint-every",
    "100",
];

struct Dir(Scratch);

impl Deref for Dir {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.0
    }
}

impl Dir {
    fn new() -> Dir {
        Dir(Scratch::new(env!("CARGO_BIN_EXE_pg")))
    }

    #[track_caller]
    fn run(&self, out: &str, more: &[&str]) -> Value {
        let steps = if more.contains(&"--steps") { &[][..] } else { &["--steps", "2"] };
        let args = [&["run", TINY, "--out", out], &SMALL[..], &OWN, steps, more].concat();
        serde_json::from_slice(&succeeds(self.pg(&args)).stdout).unwrap()
    }

    #[track_caller]
    fn compare(&self, args: &[&str]) -> (Value, String) {
        let text = succeeds(self.pg(&[&["compare"], args].concat())).stdout;
        let args = [&["--quiet", "--json", "compare"], args].concat();
        let value = serde_json::from_slice(&succeeds(self.pg(&args)).stdout).unwrap();
        (value, String::from_utf8(text).unwrap())
    }

    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&std::fs::read(self.path(file)).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(self.path(file), serde_json::to_vec(&value).unwrap()).unwrap();
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.pg(args);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }
}

#[track_caller]
fn succeeds(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The names of what differs of a kind.
fn names<'a>(report: &'a Value, kind: &str) -> Vec<&'a str> {
    report[kind].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect()
}

#[test]
fn all_that_differs_between_two_runs_is_said() {
    let dir = Dir::new();
    dir.run("one", &[]);
    dir.run("two", &["--set", "MLP_DIM=48", "--set", "train.grad_clip=0.5", "--steps", "3", "--seed", "9"]);
    let (report, text) = dir.compare(&["one", "two"]);
    assert_eq!(names(&report, "constants"), ["MLP_DIM"]);
    assert_eq!(names(&report, "settings"), ["train.steps", "train.grad_clip", "train.seed"]);
    assert_eq!(names(&report, "functions"), [""; 0]);
    assert!(names(&report, "parameters").iter().all(|name| name.starts_with("blocks.*.mlp.")), "{report}");
    assert!(names(&report, "schedule").contains(&"steps done"), "{report}");
    assert_eq!(names(&report, "conditions"), ["seed"]);
    assert_eq!(report["incomparable"], Value::Array(vec![]));
    assert!(
        text.contains("Different settings:") && text.contains("No difference in functions, phases, data."),
        "{text}"
    );

    // Runs that differ only in their seeds are not said to be the same.
    dir.run("three", &["--seed", "9"]);
    let (report, text) = dir.compare(&["one", "three"]);
    assert_eq!((names(&report, "constants"), names(&report, "conditions")), (vec![], vec!["seed"]));
    assert!(text.contains("Different conditions:"), "{text}");
}

#[test]
fn functions_that_differ_are_named() {
    let dir = Dir::new();
    let tiny = std::fs::read_to_string(TINY).unwrap();
    std::fs::write(dir.path("tiny.rs"), &tiny).unwrap();
    let body = "leaky_relu_squared_mlp(x, MLP_DIM)";
    let own = tiny
        .replace(body, "own(x)")
        .replace("fn mlp(x)", &format!("fn own(x) {{ {body} }}\n        fn mlp(x)"));
    std::fs::write(dir.path("own.rs"), own.replace("/// All layers, one", "/// All of the layers, one"))
        .unwrap();
    let (report, text) = dir.compare(&["tiny.rs", "own.rs"]);
    assert_eq!(names(&report, "functions"), ["mlp", "own"]);
    assert_eq!(report["functions"][1]["a"], Value::Null);
    assert!(text.contains("No difference in constants, settings, parameters, phases."), "{text}");
}

#[test]
fn what_cannot_be_compared_has_no_difference() {
    let dir = Dir::new();
    dir.run("one", &[]);
    dir.run("fewer", &["--set", "eval.max_targets=127"]);
    dir.run("bf16", &["--precision", "bf16"]);
    for (other, why) in
        [("fewer", "the number of scored targets differs"), ("bf16", "the precision of the one")]
    {
        let (report, text) = dir.compare(&["one", other]);
        assert!(report["incomparable"][0].as_str().unwrap().contains(why), "{report}");
        assert!(text.contains("The scores cannot be compared: ") && text.contains(why), "{text}");
        let scores = report["figures"].as_array().unwrap().iter();
        for figure in scores.filter(|f| f["name"].as_str().unwrap().starts_with("bpb")) {
            assert_eq!(figure["comparable"], false, "{figure}");
        }
        let quantised = text.lines().find(|line| line.starts_with(" bpb quantised")).unwrap();
        assert!(quantised.ends_with("not comparable"), "{quantised}");
        // Nor is there a test between groups of them.
        let (report, text) = dir.compare(&["one", "--", other]);
        assert!(report["incomparable"][0].as_str().unwrap().contains(why), "{report}");
        assert!(text.contains("The scores cannot be compared."), "{text}");
    }
}

#[test]
fn groups_are_compared_by_welchs_test() {
    let dir = Dir::new();
    let score = |report: &Value| report["bpb"]["quantized"].as_f64().unwrap();
    let one = ["1", "2", "3"].map(|seed| score(&dir.run(&format!("a/{seed}"), &["--seed", seed])));
    let other =
        ["1", "2"].map(|seed| score(&dir.run(&format!("b{seed}"), &["--seed", seed, "--set", "MLP_DIM=48"])));
    let (report, text) = dir.compare(&["a", "--", "b1", "b2"]);
    assert_eq!(report["incomparable"], Value::Array(vec![]));
    assert_eq!(report["groups"][0]["seeds"], serde_json::json!([1, 2, 3]));
    let scores = report["scores"].as_array().unwrap();
    let quantised = scores.iter().find(|score| score["score"] == "quantised").unwrap();
    let (a, b) = (&quantised["groups"][0], &quantised["groups"][1]);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert_eq!((a["summary"]["n"].as_u64(), b["summary"]["n"].as_u64()), (Some(3), Some(2)));
    assert_eq!(a["summary"]["mean"].as_f64(), Some(mean(&one)));
    let test = pg_runtime::statistics::welch(&other, &one).unwrap();
    assert_eq!(b["against_first"]["p"].as_f64(), Some(test.p));
    assert!(a["interval95"][0].as_f64() < Some(mean(&one)), "{a}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!text.contains("not of one configuration"), "{text}");

    // Three paths without `--` are three groups of their own, and a group that is mixed is said to be.
    let (report, text) = dir.compare(&["a/1", "a/2", "b1"]);
    assert_eq!(report["groups"].as_array().map(Vec::len), Some(3));
    assert!(text.contains("fewer than two runs"), "{text}");
    let (report, text) = dir.compare(&["a/1", "b1", "b2", "--", "a/2"]);
    assert_eq!(report["groups"][0]["mixed"].as_array().map(Vec::len), Some(3), "{report}");
    assert!(text.contains("not of one configuration: b1: its `overrides`"), "{text}");
    assert!(text.contains("seed 1 is there twice"), "{text}");
    assert!(dir.refused(&["compare", "a", "a/1", "--", "b1"]).contains("a/1 is twice in group A"));
    assert!(dir.refused(&["compare", TINY, "--", "b1"]).contains("is no folder of runs"));
}

#[test]
fn a_report_explains_itself_and_is_read_by_its_version() {
    let dir = Dir::new();
    let report = dir.run("one", &["--seed", "4"]);
    assert_eq!((&report["schema"], &report["precision"]), (&1.into(), &"f32".into()));
    let tiny = std::fs::read(TINY).unwrap();
    let hash = blake3::Hasher::new().update(blake3::hash(&tiny).as_bytes()).finalize().to_hex().to_string();
    assert_eq!(report["model_hash"], hash.as_str());
    assert!(report["machine"]["cores"].as_u64() > Some(0) && report["machine"]["os"].is_string(), "{report}");
    let time = |name: &str| report[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("started") <= time("ended"), "{report}");
    assert_eq!(report["job"]["overrides"][0][0], "LAYERS");

    // One of an older pg is read, one of a newer is not.
    let added = ["schema", "commit", "machine", "precision", "started", "ended", "model_hash"];
    dir.edit("one/report.json", |report| {
        added.iter().for_each(|name| _ = report.as_object_mut().unwrap().remove(*name))
    });
    dir.edit("one/run.json", |record| _ = record.as_object_mut().unwrap().remove("started"));
    let (compared, _) = dir.compare(&["one", "one"]);
    assert_eq!(compared["incomparable"], Value::Array(vec![]));
    dir.edit("one/report.json", |report| report["schema"] = 99.into());
    let refused = dir.refused(&["compare", "one", "one"]);
    assert!(refused.contains("one/report.json") && refused.contains("version 99"), "{refused}");
    assert!(dir.refused(&["audit", "one"]).contains("version 99"));
}
