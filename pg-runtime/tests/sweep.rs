//! `pg sweep`: nothing that fails late, nothing lost when it is killed, and no scores in one table that do not belong there.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use pg_runtime::statistics::welch;
use pg_testing::commands::{SMALL, Scratch, TINY, wait_for};
use pg_testing::runs::Results;
use serde_json::Value;

/// For a fraction of a second a run.
const OWN: [&str; 7] =
    ["--batch-tokens", "256", "--no-validate", "--no-full-size", "--checkpoint-every", "7", "--json"];

const TARGETS: [&str; 2] = ["--set", "eval.max_targets=511"];

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

    fn sweep(&self, out: &str, more: &[&str]) -> Command {
        self.piped(&[&["sweep", TINY, "--out", out], &SMALL[..], &OWN, &TARGETS, more].concat())
    }

    fn resume(&self, out: &str) -> Command {
        self.piped(&["sweep", "--resume", out, "--json"])
    }

    /// The process of the run that goes on, as its lock names it.
    fn runner(&self, out: &str) -> String {
        std::fs::read_to_string(self.path(out).join(".running")).unwrap_or_default()
    }

    /// What must be the same of two sweeps, run by run.
    fn results(&self, out: &str) -> BTreeMap<PathBuf, Results> {
        let mut runs = BTreeMap::new();
        for configuration in folders(&self.path(out)) {
            for run in folders(&configuration) {
                assert!(!run.join(".unfinished").exists());
                let name = run.strip_prefix(self.path(out)).unwrap().to_owned();
                runs.insert(name, Results::of(&run).unwrap());
            }
        }
        runs
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[track_caller]
fn report(output: Output) -> Value {
    assert!(output.status.success(), "{}", stderr(&output));
    json(&output)
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(output)))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn refused(mut command: Command, sentence: &str) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let error = json(&output)["error"].as_str().unwrap().to_string();
    assert!(error.contains(sentence), "{error}");
}

#[test]
fn what_would_fail_is_found_before_the_first_run() {
    let dir = Dir::new();
    let seeds = ["--seeds", "1,2"];
    for (more, sentence) in [
        (&["--grid", "DIM=24,25"][..], "DIM=25: error: "),
        (&["--grid", "DIMM=24"], "DIMM"),
        (&["--grid", "export.cap_bytes=16000000,1000"], "export.cap_bytes=1000: error: "),
        (&["--grid", "DIM=24,24"], "gives `DIM` the value 24 twice"),
        (&["--grid", "LAYERS=1,2"], "in both --grid and --set"),
        (&["--grid", "train.seed=1,2"], "is what --seeds sets"),
        (
            &["--set", "DIM=24", "--steps", "4", "--grid", "train.steps=2,4"],
            "`train.steps` has no effect in --grid",
        ),
        (&["--set", "DIM=24", "--val", "none.bin"], "none.bin"),
        (&["--grid", "DIM=24,36", "--baseline", "DIM=48"], "the values of `DIM` are 24, 36"),
        (&["--grid", "DIM=24,36", "--baseline-dir", "none"], "none"),
        (&["--set", "DIM=24", "--init", "none.safetensors"], "none.safetensors"),
    ] {
        refused(dir.sweep("sw", &[&seeds[..], more].concat()), sentence);
        assert!(!dir.path("sw").exists(), "{more:?}");
    }
    refused(dir.sweep("sw", &["--seeds", "1,2,1"]), "--seeds names 1 twice");
    // Other text is no comparison.
    let texts = [
        &["sweep", TINY, "--out", "sw"],
        &SMALL[..],
        &OWN,
        &seeds,
        &["--set", "DIM=24", "--grid", "eval.max_targets=511,255"],
    ]
    .concat();
    refused(dir.piped(&texts), "cannot be compared: the number of scored targets differs");
    assert!(!dir.path("sw").exists());
    for usage in [
        &["sweep", TINY, "--out", "x"][..],
        &["sweep", TINY, "--seeds", "1"],
        &["sweep", "--resume", "x", "--steps", "3"],
    ] {
        assert_eq!(dir.pg(usage).status.code(), Some(2), "{usage:?}");
    }
    refused(dir.resume("sw"), "no sweep is in it");
}

#[test]
fn scores_are_compared_and_a_sweep_may_grow() {
    let dir = Dir::new();
    let grid = ["--grid", "DIM=24,36", "--steps", "6"];
    let first = report(dir.sweep("sw", &[&grid[..], &["--seeds", "1"]].concat()).output().unwrap());
    let wide = &first["configurations"][1];
    assert_eq!(wide["against_baseline"], Value::Null);
    assert_eq!(wide["no_test"], "fewer than two runs: no p-value");
    let written =
        |run: &str| std::fs::metadata(dir.path(run).join("report.json")).unwrap().modified().unwrap();
    let before = written("sw/DIM=36/seed-1");
    let all = report(dir.sweep("sw", &[&grid[..], &["--seeds", "1,2,3"]].concat()).output().unwrap());
    assert_eq!(written("sw/DIM=36/seed-1"), before, "a run that has finished is not done again");

    let scores = |index: usize| -> Vec<f64> {
        let runs = all["configurations"][index]["runs"].as_array().unwrap();
        runs.iter().map(|run| run["bpb"]["ttt"].as_f64().unwrap()).collect()
    };
    let (narrow, wide) = (scores(0), scores(1));
    assert_eq!((narrow.len(), wide.len(), &all["score"]), (3, 3, &"test-time".into()));
    let test: Value = serde_json::to_value(welch(&wide, &narrow).unwrap()).unwrap();
    assert_eq!(all["configurations"][1]["against_baseline"], test);
    assert_eq!(all["configurations"][0]["is_baseline"], true);
    let mean = wide.iter().sum::<f64>() / 3.0;
    assert!((all["configurations"][1]["score"]["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    // One seed is a run like any other.
    let one = [
        &["run", TINY, "--out", "one", "--seed", "2", "--set", "DIM=36"],
        &SMALL[..],
        &OWN,
        &TARGETS,
        &["--steps", "6"],
    ];
    assert_eq!(report(dir.piped(&one.concat()).output().unwrap())["bpb"]["ttt"].as_f64(), Some(wide[1]));

    // The other way round, and against runs elsewhere.
    let mut turned = dir.resume("sw");
    let turned = report(turned.args(["--baseline", "DIM=36"]).output().unwrap());
    let difference =
        |report: &Value, index: usize| report["configurations"][index]["against_baseline"].clone();
    assert_eq!(difference(&turned, 0)["p"], difference(&all, 1)["p"]);
    let mut others = dir.resume("sw");
    let others = report(others.args(["--baseline-dir", "sw/DIM=24"]).output().unwrap());
    assert_eq!(difference(&others, 1), difference(&all, 1));
    assert_eq!(others["baseline"]["name"], "sw/DIM=24");
    let mut mixed = dir.resume("sw");
    mixed.args(["--baseline-dir", "sw"]);
    refused(mixed, "a baseline is of one configuration, and its `overrides` is");
    let table = dir.piped(&["sweep", "--resume", "sw", "--quiet"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("DIM=24 (baseline)") && table.contains("3 of 3"), "{table}");
}

#[test]
fn what_is_not_alike_is_refused() {
    let dir = Dir::new();
    let one = ["--seeds", "1", "--steps", "2", "--set", "DIM=24"];
    report(dir.sweep("sw", &one).output().unwrap());
    // Another plan for the folder.
    refused(dir.sweep("sw", &["--seeds", "1", "--steps", "3", "--set", "DIM=24"]), "its `steps` is 2, not 3");
    refused(
        dir.sweep("sw", &["--seeds", "2", "--steps", "2", "--set", "DIM=24"]),
        "it has a run that this one lacks: as given, seed 1",
    );
    // Other conditions than the baseline's.
    let other = |more: &[&str]| dir.sweep("other", &[&one[..], &["--baseline-dir", "sw"], more].concat());
    refused(other(&["--precision", "bf16"]), "the precision of the one is bf16, of the other f32");
    refused(other(&["--set", "eval.max_targets=255"]), "the number of scored targets differs");
    // What was asked for is what a device does anyway.
    report(other(&["--precision", "f32"]).output().unwrap());
    // A plan that is none, and one of too many runs.
    let plan = std::fs::read_to_string(dir.path("other/sweep.json")).unwrap();
    std::fs::write(dir.path("other/sweep.json"), &plan[..plan.len() / 2]).unwrap();
    refused(dir.resume("other"), "sweep.json is not the plan of a sweep");
    let axes: Vec<Value> = (0..9)
        .map(|i| serde_json::json!({ "name": format!("A{i}"), "values": (0..99).map(|v| v.to_string()).collect::<Vec<_>>() }))
        .collect();
    let mut plan: Value = serde_json::from_str(&plan).unwrap();
    plan["grid"] = axes.into();
    std::fs::write(dir.path("other/sweep.json"), plan.to_string()).unwrap();
    refused(dir.resume("other"), "a sweep has at most 10000");
    // A run of something else in a run's place.
    let seed = [
        &["run", TINY, "--out", "sw/seed-2", "--seed", "2", "--set", "DIM=36"],
        &SMALL[..],
        &OWN,
        &TARGETS,
        &["--steps", "2"],
    ];
    report(dir.piped(&seed.concat()).output().unwrap());
    refused(dir.sweep("sw", &["--seeds", "1,2", "--steps", "2", "--set", "DIM=24"]), "its `overrides` is");
    // A model that has changed.
    std::fs::copy(TINY, dir.path("model.rs")).unwrap();
    let own = [
        &["sweep", "model.rs", "--out", "own", "--seeds", "1", "--steps", "2", "--set", "DIM=24"],
        &SMALL[..],
        &OWN,
        &TARGETS,
    ];
    report(dir.piped(&own.concat()).output().unwrap());
    let text = std::fs::read_to_string(TINY).unwrap().replace("MATRIX_LR = 0.025", "MATRIX_LR = 0.026");
    std::fs::write(dir.path("model.rs"), text).unwrap();
    refused(dir.resume("own"), "model.rs has changed since the sweep began");
}

#[test]
fn a_sweep_that_is_killed_again_and_again_gives_what_it_would_have_given() {
    let dir = Dir::new();
    let args = ["--seeds", "1,2", "--grid", "DIM=24,36", "--steps", "30"];
    let start = Instant::now();
    let whole = report(dir.sweep("whole", &args).output().unwrap());
    let took = start.elapsed();
    let mut child = dir.sweep("killed", &args).spawn().unwrap();
    wait_for(&dir.path("killed/DIM=24/seed-1/.unfinished/metrics.jsonl"), 2, &mut child);
    let mut kills = 0;
    for kill in [0, 3, 5, 1, 4] {
        std::thread::sleep(took * kill / 20);
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
        child = dir.resume("killed").spawn().unwrap();
    }
    let killed = report(child.wait_with_output().unwrap());
    assert!(kills > 1, "it was killed {kills} times");
    assert!(dir.results("killed") == dir.results("whole"));
    assert_eq!(dir.results("whole").len(), 4);
    assert_eq!(
        killed["configurations"][1]["against_baseline"],
        whole["configurations"][1]["against_baseline"]
    );
    for left in [".lock", ".running"] {
        assert!(!dir.path("killed").join(left).exists(), "{left}");
    }
}

#[cfg(unix)]
fn signal(name: &str, process: &str) {
    assert!(Command::new("kill").args(["-s", name, process]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_sweep_that_is_asked_to_stop_can_be_continued() {
    let dir = Dir::new();
    let args = ["--seeds", "1,2", "--set", "DIM=24", "--seconds", "60"];
    let mut child = dir.sweep("sw", &args).spawn().unwrap();
    let journal = dir.path("sw/seed-1/.unfinished/metrics.jsonl");
    wait_for(&journal, 3, &mut child);
    refused(dir.sweep("sw", &args), &format!("a sweep that goes on owns it (process {}", child.id()));
    refused(dir.resume("sw"), "a sweep that goes on owns it");
    signal("INT", &child.id().to_string());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let error = json(&output)["error"].as_str().unwrap().to_string();
    assert!(error.contains("stopped after 0 of 2 runs; continue with `pg sweep --resume sw`"), "{error}");
    let steps = std::fs::read_to_string(&journal).unwrap().lines().count();
    assert!(
        dir.path(&format!("sw/seed-1/.unfinished/step-{steps:08}.checkpoint")).is_file(),
        "{steps} steps"
    );
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_takes_no_other_with_it() {
    let dir = Dir::new();
    let args = ["--seeds", "1,2", "--set", "DIM=24", "--steps", "60"];
    let mut child = dir.sweep("sw", &args).spawn().unwrap();
    wait_for(&dir.path("sw/seed-1/.unfinished/metrics.jsonl"), 2, &mut child);
    let owner = dir.runner("sw");
    signal("KILL", owner.split_whitespace().nth(1).unwrap());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let failed = json(&output);
    assert_eq!(failed["failures"].as_array().map(Vec::len), Some(1));
    assert_eq!(failed["failures"][0]["folder"], "sw/seed-1");
    let message = failed["failures"][0]["message"].as_str().unwrap();
    assert!(message.contains("signal: 9"), "{message}");
    assert_eq!(failed["configurations"][0]["score"]["n"], 1);
    let whole = report(dir.resume("sw").output().unwrap());
    assert_eq!(whole["configurations"][0]["score"]["n"], 2);
    assert_eq!(whole["failures"].as_array().map(Vec::len), Some(0));
}
