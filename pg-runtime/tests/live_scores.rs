//! `--val-every`: weights are scored while they train, and nothing else of the run changes, to the last bit.

use std::ops::Deref;
use std::process::{Command, Output};

use pg_runtime::report::{LiveScore, RunReport, StepMetrics};
use pg_testing::commands::{SMALL, Scratch, TINY, wait_for};
use pg_testing::runs::Results;

/// Tiny with averages, several micro-batches and test-time training.
const OWN: [&str; 12] = [
    "--set",
    "DIM=24",
    "--set",
    "eval.max_targets=2047",
    "--batch-tokens",
    "256",
    "--no-validate",
    "--no-full-size",
    "--quiet",
    "--json",
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

    fn results(&self, out: &str) -> Results {
        Results::of(&self.path(out)).unwrap()
    }

    fn report(&self, out: &str) -> RunReport {
        RunReport::from_json(&std::fs::read(self.path(out).join("report.json")).unwrap()).unwrap()
    }

    /// Steps and scores of a journal, and for each line whether it is a score.
    fn journal(&self, out: &str) -> (Vec<StepMetrics>, Vec<LiveScore>, String) {
        let text = std::fs::read_to_string(self.path(out).join("metrics.jsonl")).unwrap();
        let (mut steps, mut scores, mut order) = (Vec::new(), Vec::new(), String::new());
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(score) => (scores.push(score), order.push('V')),
                Err(_) => (steps.push(serde_json::from_str(line).unwrap()), order.push('s')),
            };
        }
        (steps, scores, order)
    }
}

#[track_caller]
fn succeeds(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Scores without their times.
fn values(scores: &[LiveScore]) -> Vec<(u64, f64)> {
    scores.iter().map(|score| (score.after_steps, score.bpb)).collect()
}

#[test]
fn a_run_that_is_scored_gives_what_it_gives_without() {
    let dir = Dir::new();
    succeeds(dir.train("plain", &["--steps", "8"]));
    succeeds(dir.train("scored", &["--steps", "8", "--val-every", "2"]));
    assert!(dir.results("scored") == dir.results("plain"));
    let (_, scores, order) = dir.journal("scored");
    assert_eq!(order, "ssVssVssVssV");
    let report = dir.report("scored");
    assert_eq!(report.train.live_scores, scores);
    assert_eq!(values(&scores).last(), Some(&(8, report.bpb.live.unwrap())));
    assert_ne!(scores[0].bpb, scores[1].bpb);
    assert!(dir.report("plain").train.live_scores.is_empty());
    // The score after the second step is the one with which a run of two steps ends.
    succeeds(
        dir.train(
            "spec",
            &["--steps", "5", "--schedule", "spec", "--val-every", "2", "--warmdown-steps", "0"],
        ),
    );
    succeeds(dir.train("two-flat", &["--steps", "2", "--schedule", "spec", "--warmdown-steps", "0"]));
    let (_, scores, order) = dir.journal("spec");
    assert_eq!(order, "ssVssVs");
    assert_eq!(scores[0].bpb, dir.report("two-flat").bpb.live.unwrap());

    // It can be compared and audited as any other.
    let output = succeeds(dir.piped(&["--json", "-q", "compare", "scored", "spec"]));
    let compared: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(compared["scores_at_equal_tokens"].as_array().map(Vec::len), Some(2), "{compared}");
    assert_eq!(compared["scores_at_equal_tokens"][0]["at"], 512.0);
    succeeds(dir.piped(&["-q", "audit", "scored"]));
}

#[test]
fn a_scored_run_that_is_killed_is_continued_to_the_same_scores() {
    let dir = Dir::new();
    let scored = ["--steps", "24", "--val-every", "3", "--checkpoint-every", "5"];
    succeeds(dir.train("whole", &scored));
    let (_, whole, order) = dir.journal("whole");
    // Lines after which the run is killed: of steps, of scores, and while a score is made.
    for lines in [2, 4, 9, 17, 22] {
        let out = format!("killed-{lines}");
        let mut child = dir.train(&out, &scored).spawn().unwrap();
        wait_for(&dir.path(&out).join(".unfinished/metrics.jsonl"), lines, &mut child);
        child.kill().unwrap();
        child.wait_with_output().unwrap();
        if !dir.path(&out).join("report.json").exists() {
            succeeds(dir.piped(&["run", "--resume", &out, "--quiet", "--json", "--checkpoint-every", "5"]));
        }
        assert!(dir.results(&out) == dir.results("whole"), "{lines}");
        let (_, scores, again) = dir.journal(&out);
        assert_eq!((values(&scores), again), (values(&whole), order.clone()), "{lines}");
        assert_eq!(values(&dir.report(&out).train.live_scores), values(&whole), "{lines}");
    }
}

#[test]
fn a_replay_holds_the_scores_to_what_they_were() {
    let dir = Dir::new();
    succeeds(dir.train("run", &["--steps", "4", "--val-every", "2"]));
    succeeds(dir.piped(&["run", "--replay", "run", "--out", "again", "--quiet"]));
    assert_eq!(values(&dir.journal("again").1), values(&dir.journal("run").1));
    let path = dir.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let bpb = dir.journal("run").1[1].bpb;
    std::fs::write(&path, text.replace(&format!("\"bpb\":{bpb}"), &format!("\"bpb\":{}", bpb + 1e-12)))
        .unwrap();
    let output = dir.piped(&["run", "--replay", "run", "--out", "other", "--quiet"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("step 3 was done before with validation score"), "{message}");
}

#[test]
fn scores_take_no_training_time() {
    let dir = Dir::new();
    let long = [
        "--set",
        "eval.max_targets=16383",
        "--set",
        "eval.stride=32",
        "--seconds",
        "0.2",
        "--val-every",
        "1",
    ];
    succeeds(dir.train("run", &long));
    let (steps, scores, _) = dir.journal("run");
    let scoring = scores.iter().map(|score| score.ms).sum::<f64>() / 1e3;
    let report = dir.report("run");
    let last = steps.last().unwrap();
    assert!(last.elapsed_s + last.ms / 1e3 < 0.4, "{last:?}");
    assert!(scoring > 0.4, "{scoring} s are too few to tell");
    assert!(report.training_seconds() < scoring, "{:?}", report.ledger);
    let entry =
        report.ledger.iter().find(|entry| entry.part == "score the weights while they train").unwrap();
    assert!((entry.seconds - scoring).abs() < 1e-6, "{:?}", report.ledger);
}
