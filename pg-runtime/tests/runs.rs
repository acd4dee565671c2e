//! Before and after runs: what a run would do, with which settings, and which runs there are.

use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Output};

use pg_testing::commands::{SMALL, Scratch, TINY, wait_for};
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

    fn train(&self, more: &[&str]) -> Command {
        self.piped(&[&["run", TINY], &SMALL[..], &OWN, more].concat())
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let output = succeeds(self.pg(&[&["--json", "--quiet"], args].concat()));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A column of the list of runs.
    #[track_caller]
    fn column(&self, name: &str, args: &[&str]) -> Vec<Value> {
        let list = self.json(&[&["runs"], args].concat());
        list["runs"].as_array().unwrap().iter().map(|run| run[name].clone()).collect()
    }

    /// What is in the folder, but for what was validated.
    fn contents(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("")).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name != "cache");
        names.sort();
        names
    }
}

#[track_caller]
fn succeeds(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr).unwrap()
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap()
}

#[test]
fn a_dry_run_checks_and_makes_no_folder() {
    let dir = Dir::new();
    let dry = succeeds(dir.train(&["--dry-run", "--steps", "3"]).output().unwrap());
    let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(dir.contents(), [""; 0]);
    succeeds(dir.train(&["--steps", "3", "--out", "run"]).output().unwrap());
    let run = report(&dir.path("run"));
    assert_eq!((&dry["text"], &dry["trained_params"]), (&run["text"], &run["trained_params"]));
    assert_eq!((&dry["steps"], &dry["precision"]), (&3.into(), &run["precision"]));
    assert_eq!(dry["estimate_bytes"], run["artifact"]["estimate_bytes"]);
    let validated = dir.pg(&[
        &["--json", "-q", "run", TINY, "--dry-run", "--steps", "1"],
        &SMALL[..],
        &["--set", "DIM=24"],
    ]
    .concat());
    let validated: Value = serde_json::from_slice(&succeeds(validated).stdout).unwrap();
    assert_eq!(validated["validation"]["outcome"], "passed", "{validated}");

    // What would keep the run from being done is found, and the folder stays as it is.
    let before = std::fs::read(dir.path("run/report.json")).unwrap();
    for (more, why) in [
        (&["--out", "run"][..], "a finished run is in it"),
        (&["--out", "new", "--data", "none*.bin"], "none*.bin"),
        (&["--out", "new", "--set", "eval.stride=99"], "eval.stride 99"),
        (&["--out", "new", "--init", "none.safetensors"], "none.safetensors"),
        (&["--out", "new", "--set", "DIMM=3"], "DIMM"),
        (&["--out", "run/report.json"], "run/report.json"),
    ] {
        let message = refused(dir.train(&[&["--dry-run"], more].concat()).output().unwrap());
        assert!(message.contains(why), "{more:?}: {message}");
    }
    succeeds(dir.train(&["--dry-run", "--out", "run", "--overwrite"]).output().unwrap());
    assert_eq!(dir.contents(), ["run"]);
    assert_eq!(std::fs::read(dir.path("run/report.json")).unwrap(), before);
    assert!(!dir.path("run/.unfinished").exists() && !dir.path("run/.lock").exists());

    // A replay can be rehearsed, too.
    succeeds(dir.pg(&["run", "--replay", "run", "--dry-run", "--out", "again", "-q"]));
    let record = std::fs::read_to_string(dir.path("run/run.json")).unwrap();
    std::fs::write(
        dir.path("run/run.json"),
        record.replacen("\"device\": \"cpu\"", "\"device\": \"cuda:0\"", 1),
    )
    .unwrap();
    let message = refused(dir.pg(&["run", "--replay", "run", "--dry-run", "--out", "again", "-q"]));
    assert!(message.contains("the device is another than it was"), "{message}");
    assert_eq!(dir.contents(), ["run"]);
}

#[test]
fn the_configuration_says_where_each_value_comes_from() {
    let dir = Dir::new();
    let tiny = std::fs::read_to_string(TINY).unwrap();
    let text = tiny.trim_end().strip_suffix("}\n}").unwrap().to_owned();
    let text = text + "    profile quick { MLP_DIM = 48; eval.stride = 16; }\n    }\n}\n";
    std::fs::write(dir.path("m.rs"), text).unwrap();
    let args = [
        "run",
        "m.rs",
        "--set",
        "DIM=64",
        "--set",
        "train.grad_clip=0.5",
        "--steps",
        "7",
        "--seed",
        "5",
        "--print-config",
    ];
    let config = dir.json(&args);
    let all =
        [&config["constants"], &config["settings"]].map(|list| list.as_array().unwrap().clone()).concat();
    let of = |name: &str| {
        let found = all.iter().find(|v| v["name"] == name).unwrap_or_else(|| panic!("{name}: {config}"));
        (found["value"].as_str().unwrap(), found["from"].as_str().unwrap())
    };
    for (name, expected) in [
        ("DIM", ("64", "--set")),
        ("LAYERS", ("4", "model")),
        ("MLP_DIM", ("48", "profile quick")),
        ("HEAD_DIM", ("16", "model")),
        ("train.steps", ("7", "--steps")),
        ("train.seconds", ("none", "--steps")),
        ("train.seed", ("5", "--seed")),
        ("train.grad_clip", ("0.5", "--set")),
        ("train.seq_len", ("128", "model")),
        ("train.micro_batch_tokens", ("2048", "default")),
        ("eval.stride", ("16", "profile quick")),
        ("eval.ttt.momentum", ("0.9", "default")),
        ("export.cap_bytes", ("16000000", "default")),
    ] {
        assert_eq!(of(name), expected, "{name}");
    }
    assert_eq!((&config["profile"], &config["precision"]), (&"quick".into(), &"f32".into()));
    let shown = String::from_utf8(succeeds(dir.pg(&args)).stdout).unwrap();
    assert!(
        shown.lines().any(|line| line.split_whitespace().eq(["eval.stride", "16", "profile", "quick"])),
        "{shown}"
    );
    assert_eq!(dir.contents(), ["m.rs"]);
}

#[test]
fn runs_are_listed_whatever_has_become_of_them() {
    let dir = Dir::new();
    assert!(dir.column("name", &[]).is_empty(), "before the first run");
    for (steps, seed) in [("2", "1"), ("4", "2"), ("3", "3")] {
        succeeds(
            dir.train(&["--steps", steps, "--seed", seed, "--out", &format!("runs/r{seed}")])
                .output()
                .unwrap(),
        );
    }
    // One that goes on, one that was stopped, and what is left of others.
    let mut going = dir.train(&["--steps", "100000", "--out", "runs/going"]).spawn().unwrap();
    wait_for(&dir.path("runs/going/.unfinished/metrics.jsonl"), 2, &mut going);
    assert_eq!(dir.column("state", &["--filter", "name=going"]), ["running"]);
    going.kill().unwrap();
    going.wait().unwrap();
    std::fs::create_dir(dir.path("runs/broken")).unwrap();
    std::fs::write(dir.path("runs/broken/report.json"), "{").unwrap();
    std::fs::create_dir_all(dir.path("runs/sweep/A=1")).unwrap();
    std::fs::rename(dir.path("runs/r3"), dir.path("runs/sweep/A=1/seed-3")).unwrap();
    std::fs::create_dir(dir.path("runs/empty")).unwrap();
    // As of a sweep.
    std::fs::write(dir.path("runs/sweep/.lock"), "").unwrap();

    let list = ["broken", "going", "r1", "r2", "sweep/A=1/seed-3"];
    assert_eq!(dir.column("name", &["--sort", "name"]), list);
    assert_eq!(
        dir.column("state", &["--sort", "name"]),
        ["broken", "stopped", "finished", "finished", "finished"]
    );
    assert_eq!(dir.column("steps", &["--filter", "state=finished", "--sort", "steps"]), [2, 3, 4]);
    assert_eq!(
        dir.column("steps", &["--filter", "state=finished", "--sort", "steps", "--reverse"]),
        [4, 3, 2]
    );
    assert_eq!(dir.column("seed", &["--filter", "model=tiny", "--filter", "seed=2"]), [2]);
    assert_eq!(dir.column("name", &["runs/sweep"]), ["A=1/seed-3"]);
    assert!(dir.column("steps", &["--filter", "name=going"])[0].as_u64() >= Some(2));
    let listed = dir.json(&["runs", "--filter", "name=r1"]);
    let (listed, of_run) = (&listed["runs"][0], report(&dir.path("runs/r1")));
    assert_eq!((&listed["bpb"], &listed["ended"]), (&of_run["bpb"], &of_run["ended"]));
    assert_eq!(listed["artifact_bytes"], of_run["artifact"]["artifact_bytes"]);
    let text = String::from_utf8(succeeds(dir.pg(&["runs"])).stdout).unwrap();
    assert!(text.contains("1 folder cannot be read") && text.contains("test-time"), "{text}");
    assert_eq!(dir.pg(&["runs", "--filter", "nonsense=1"]).status.code(), Some(2));
    assert!(refused(dir.pg(&["runs", "none"])).contains("none"));
}

#[test]
fn tags_and_notes_are_of_one_run_and_change_nothing_of_it() {
    let dir = Dir::new();
    for run in ["a", "b"] {
        succeeds(dir.train(&["--steps", "1", "--out", &format!("runs/{run}")]).output().unwrap());
    }
    let read = || {
        ["run.json", "report.json", "artifact.pg"]
            .map(|name| std::fs::read(dir.path("runs/a").join(name)).unwrap())
    };
    let before = read();
    succeeds(dir.pg(&["runs", "tag", "runs/a", "good", "base"]));
    succeeds(dir.pg(&["runs", "tag", "runs/a", "good", "gone"]));
    succeeds(dir.pg(&["runs", "tag", "runs/a", "gone", "--remove"]));
    succeeds(dir.pg(&["runs", "note", "runs/a", "the first one"]));
    assert!(read() == before);
    assert_eq!(dir.column("name", &["--filter", "tag=good"]), ["a"]);
    let run = dir.json(&["runs", "--filter", "tag=base"]);
    assert_eq!(
        (&run["runs"][0]["tags"], &run["runs"][0]["note"]),
        (&serde_json::json!(["base", "good"]), &"the first one".into())
    );
    assert!(
        String::from_utf8(succeeds(dir.pg(&["runs"])).stdout).unwrap().contains("base good: the first one")
    );
    // It still is a run for everybody else.
    succeeds(dir.pg(&["-q", "compare", "runs/a", "runs/b"]));
    succeeds(dir.pg(&["-q", "audit", "runs/a"]));
    assert!(refused(dir.pg(&["runs", "tag", "runs", "x"])).contains("no finished run"));
    // Another run in its place has none of it.
    succeeds(dir.train(&["--steps", "2", "--out", "runs/a", "--overwrite"]).output().unwrap());
    assert!(dir.column("name", &["--filter", "tag=good"]).is_empty());
    succeeds(dir.pg(&["runs", "note", "runs/a", ""]));
    assert_eq!(dir.column("note", &["--filter", "name=a"]), [Value::Null]);
}
