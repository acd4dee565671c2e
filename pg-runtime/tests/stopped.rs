//! Runs that are stopped: killed at any moment, asked to stop, done again. What they give is what an uninterrupted run gives,
//! to the last bit.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use pg_testing::commands::{SMALL, Scratch, TINY, wait_for};
use pg_testing::runs::Results;

/// Tiny with two phases, several micro-batches, averages and test-time training, for a second or two.
const OWN: [&str; 14] = [
    "--set",
    "DIM=24",
    "--set",
    "eval.max_targets=511",
    "--batch-tokens",
    "256",
    "--no-validate",
    "--no-full-size",
    "--quiet",
    "--json",
    "--checkpoint-every",
    "7",
    "--seed",
    "3",
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

    fn train(&self, out: &str, more: &[&str]) -> Command {
        self.piped(&[&["run", TINY, "--out", out], &SMALL[..], &OWN, more].concat())
    }

    fn resume(&self, out: &str) -> Command {
        self.piped(&["run", "--resume", out, "--quiet", "--json", "--checkpoint-every", "7"])
    }

    fn results(&self, out: &str) -> Results {
        Results::of(&self.path(out)).unwrap()
    }
}

#[track_caller]
fn succeeds(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn fails(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// Where a kill hit, by what it left.
fn moment(run: &Path) -> &'static str {
    let unfinished = run.join(".unfinished");
    let steps =
        std::fs::read_to_string(unfinished.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    if !unfinished.join("run.json").exists() && !run.join("run.json").exists() {
        "before the run is recorded"
    } else if run.join("report.json").exists() {
        "after the report has its name"
    } else if unfinished.join("report.json").exists() {
        "while files take their names"
    } else if unfinished.join("weights.safetensors").exists() {
        "in export and its scores"
    } else if steps == STEPS {
        "after the last step"
    } else if steps > 0 {
        "in training"
    } else {
        "before the first step"
    }
}

const STEPS: usize = 40;

/// A run that is killed at moments spread over its time until it ends by itself, or `most` kills are done.
///
/// `moments` counts them: one that comes after the run's end does not come again.
fn killed(
    dir: &Dir,
    out: &str,
    whole: Duration,
    most: usize,
    (moments, hits): (&mut u32, &mut BTreeMap<&'static str, usize>),
) {
    let run = dir.path(out);
    for kill in 0..=most {
        let has_begun = |file: &str| run.join(".unfinished").join(file).exists();
        let mut command = match has_begun("run.json") || has_begun("report.json") {
            true => dir.resume(out),
            false => dir.train(out, &["--steps", &STEPS.to_string()]),
        };
        if kill == most {
            succeeds(command);
            return;
        }
        let mut child = command.spawn().unwrap();
        // Multiples of the golden ratio, less their whole parts, come everywhere.
        std::thread::sleep(whole.mul_f64((f64::from(*moments) * 0.618_033_988_75).fract()));
        *moments += 1;
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            return;
        }
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), None, "it ended before it was killed: {message}");
        let moment = moment(&run);
        *hits.entry(moment).or_default() += 1;
        if moment == "after the report has its name" {
            return;
        }
    }
}

#[test]
fn a_run_that_is_killed_again_and_again_gives_what_it_would_have_given() {
    let dir = Dir::new();
    let start = Instant::now();
    succeeds(dir.train("whole", &["--steps", &STEPS.to_string()]));
    let whole = start.elapsed();
    let results = dir.results("whole");
    let kills: usize = std::env::var("PG_KILLS").map_or(30, |n| n.parse().expect("PG_KILLS is a number"));
    let (mut moments, mut hits) = (0, BTreeMap::new());
    for run in 0.. {
        let left = kills.saturating_sub(hits.values().sum());
        if left == 0 {
            eprintln!("{kills} kills of {run} runs: {hits:?}");
            break;
        }
        let out = format!("killed-{run}");
        killed(&dir, &out, whole, left, (&mut moments, &mut hits));
        assert!(dir.results(&out) == results, "{out}, after {hits:?}");
        let nothing = fails(dir.resume(&out));
        assert!(nothing.contains("no run that was stopped"), "{nothing}");
    }
}

#[test]
fn a_run_that_is_killed_while_its_files_take_their_names_has_them_after_a_resume() {
    let dir = Dir::new();
    succeeds(dir.train("run", &["--steps", "2"]));
    let whole = dir.results("run");
    let names = ["run.json", "metrics.jsonl", "weights.safetensors", "artifact.pg", "report.json"];
    for stopped_after in 0..names.len() {
        std::fs::create_dir(dir.path("run/.unfinished")).unwrap();
        for name in &names[stopped_after..] {
            std::fs::rename(dir.path("run").join(name), dir.path("run/.unfinished").join(name)).unwrap();
        }
        succeeds(dir.resume("run"));
        assert!(dir.results("run") == whole, "{stopped_after}");
        assert!(!dir.path("run/.unfinished").exists());
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_stop_keeps_a_checkpoint() {
    for signal in ["INT", "TERM"] {
        let dir = Dir::new();
        let mut child = dir.train("run", &["--steps", "100000"]).spawn().unwrap();
        wait_for(&dir.path("run/.unfinished/metrics.jsonl"), 3, &mut child);
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{message}");
        assert!(message.contains("--resume run"), "{message}");
        let steps =
            std::fs::read_to_string(dir.path("run/.unfinished/metrics.jsonl")).unwrap().lines().count();
        let kept = dir.path(&format!("run/.unfinished/step-{steps:08}.checkpoint"));
        assert!(kept.is_file(), "{steps} steps");
        // Nobody else begins here by mistake.
        let refused = fails(dir.train("run", &["--steps", "1"]));
        assert!(refused.contains("--resume") && refused.contains("--overwrite"), "{refused}");
    }
}

#[test]
fn a_run_on_time_is_done_again_at_the_times_it_had() {
    let dir = Dir::new();
    let mut child = dir.train("run", &["--seconds", "1.5"]).spawn().unwrap();
    wait_for(&dir.path("run/.unfinished/metrics.jsonl"), 20, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    succeeds(dir.resume("run"));
    succeeds(dir.piped(&["run", "--replay", "run", "--out", "again", "--quiet", "--json"]));
    assert!(dir.results("again") == dir.results("run"));
    // So it does when it is stopped on the way, and not at all without the run.
    let replay = ["run", "--replay", "run", "--out", "stopped", "--quiet", "--checkpoint-every", "7"];
    let mut child = dir.piped(&replay).spawn().unwrap();
    wait_for(&dir.path("stopped/.unfinished/metrics.jsonl"), 20, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::rename(dir.path("run"), dir.path("elsewhere")).unwrap();
    let message = fails(dir.resume("stopped"));
    assert!(message.contains("run: no finished run is in it"), "{message}");
    std::fs::rename(dir.path("elsewhere"), dir.path("run")).unwrap();
    succeeds(dir.resume("stopped"));
    assert!(dir.results("stopped") == dir.results("run"));
    // A step that gave something else is found.
    let journal = dir.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let changed = text.replacen("\"loss\":6", "\"loss\":5", 1);
    assert_ne!(changed, text);
    std::fs::write(&journal, changed).unwrap();
    let message = fails(dir.piped(&["run", "--replay", "run", "--out", "third", "--quiet"]));
    assert!(message.contains("step 0 was done before with loss 5"), "{message}");
}

#[test]
fn a_torn_checkpoint_is_passed_over() {
    let dir = Dir::new();
    succeeds(dir.train("whole", &["--steps", "120"]));
    let mut child = dir.train("run", &["--steps", "120"]).spawn().unwrap();
    wait_for(&dir.path("run/.unfinished/metrics.jsonl"), 20, &mut child);
    let checkpoints = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir.path("run/.unfinished")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|e| e == "checkpoint")).collect()
    };
    // A thread writes them, which may be slower than the steps.
    while checkpoints().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut checkpoints = checkpoints();
    checkpoints.sort();
    let newest = checkpoints.last().unwrap();
    let bytes = std::fs::read(newest).unwrap();
    std::fs::write(newest, &bytes[..bytes.len() / 2]).unwrap();
    let output = dir.piped(&["run", "--resume", "run"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("a checkpoint is passed over"), "{message}");
    assert!(dir.results("run") == dir.results("whole"));
}

#[test]
fn what_a_run_used_must_be_what_it_was() {
    let dir = Dir::new();
    let shard =
        pg_runtime::data::shard_bytes(&(0..4000u32).map(|i| (i * i % 1021) as u16).collect::<Vec<_>>());
    std::fs::write(dir.path("train.bin"), &shard).unwrap();
    let mut child = dir
        .train("run", &["--steps", "100000", "--data", "train.bin", "--val", "train.bin"])
        .spawn()
        .unwrap();
    wait_for(&dir.path("run/.unfinished/metrics.jsonl"), 1, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let other = [&shard[..1024], &shard[1026..], &shard[1024..1026]].concat();
    std::fs::write(dir.path("train.bin"), other).unwrap();
    let message = fails(dir.resume("run"));
    assert!(message.contains("the training text is another than it was"), "{message}");
}

#[test]
fn a_folder_has_one_run() {
    let dir = Dir::new();
    let mut child = dir.train("run", &["--steps", "100000"]).spawn().unwrap();
    wait_for(&dir.path("run/.unfinished/metrics.jsonl"), 1, &mut child);
    let start = Instant::now();
    for more in [&["--steps", "1"][..], &["--steps", "1", "--overwrite"]] {
        let message = fails(dir.train("run", more));
        assert!(message.contains(&format!("process {}", child.id())), "{message}");
    }
    assert!(fails(dir.resume("run")).contains("a run that goes on owns it"));
    assert!(start.elapsed() < Duration::from_secs(10));
    child.kill().unwrap();
    child.wait().unwrap();
    succeeds(dir.train("run", &["--steps", "1", "--overwrite"]));
    let message = fails(dir.train("run", &["--steps", "1"]));
    assert!(message.contains("a finished run is in it"), "{message}");
    succeeds(dir.train("run", &["--steps", "2", "--overwrite"]));
    assert_eq!(dir.results("run").steps.len(), 2);
}
