//! Runs whose system calls fail: each call of a short run once, all from one on, and a disk that fills up at any moment. A run ends well
//! with the results of one that met no fault; or it says which file it was, claims nothing, and its work can be continued to these
//! results.
//!
//! Where calls cannot be made to fail the tests say so and pass, unless PG_REQUIRE_FAULTS=1.

use std::path::Path;
use std::process::{Command, Output};

use pg_testing::commands::Scratch;
use pg_testing::faults::{Call, EIO, ENOSPC, Fault, Injector};
use pg_testing::runs::Results;

/// Two parameters and their averages, with test-time training: every part of a run, for some milliseconds.
const MODEL: &str = r#"pg_macros::model! {
    small {
        const VOCAB = 1024;
        const DIM = 4;
        fn forward(tokens) {
            let x = gather(param("emb.weight", [VOCAB, DIM], normal(0.02)), tokens);
            linear(x, param("head.weight", [VOCAB, DIM], normal(0.02)))
        }
        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 32; seq_len = 16; steps = 4; ema_decay = 0.9; }
        eval { seq_len = 16; stride = 8; ttt { chunk = 32; lr = 0.002; epochs = 1; batch_seqs = 2; } }
    }
}
"#;

const RUN: [&str; 18] = [
    "run",
    "small.rs",
    "--out",
    "run",
    "--quiet",
    "--no-validate",
    "--checkpoint-every",
    "2",
    "--data",
    "train_*.bin",
    "--val",
    "val_0.bin",
    "--tokenizer",
    "bpe.model",
    "--init",
    "init.safetensors",
    "--seed",
    "7",
];
const RESUME: [&str; 6] = ["run", "--resume", "run", "--quiet", "--checkpoint-every", "2"];

/// A moment of a run's life at which faults begin.
struct Scenario {
    name: &'static str,
    /// The folder that it begins with.
    begin: Scratch,
    command: Vec<&'static str>,
    /// The results that were in the folder, of another run.
    earlier: Option<Results>,
}

fn scratch() -> Scratch {
    Scratch::new(env!("CARGO_BIN_EXE_pg"))
}

fn pg(dir: &Scratch, args: &[&str]) -> Command {
    let mut command = dir.command(args);
    // Two runs at a time, each on one core.
    command.env("RAYON_NUM_THREADS", "1");
    command
}

#[track_caller]
fn succeeds(dir: &Scratch, args: &[&str]) {
    let output = pg(dir, args).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with all that a run reads.
fn inputs() -> Scratch {
    let dir = scratch();
    let shard = |name: &str, seed: u32, tokens: u32| {
        let tokens: Vec<u16> = (0..tokens).map(|i| ((i * i + seed * i) % 1021) as u16).collect();
        std::fs::write(dir.path(name), pg_runtime::data::shard_bytes(&tokens)).unwrap();
    };
    shard("train_0.bin", 1, 50);
    shard("train_1.bin", 2, 100);
    shard("val_0.bin", 3, 100);
    std::fs::write(dir.path("small.rs"), MODEL).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample/sample_1024_bpe.model");
    std::fs::copy(tokenizer, dir.path("bpe.model")).unwrap();
    succeeds(&dir, &["export", "small.rs", "--safetensors", "init.safetensors", "--quiet"]);
    dir
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn copied(from: &Scratch) -> Scratch {
    let dir = scratch();
    copy(&from.path(""), &dir.path(""));
    dir
}

/// What the scenarios have in common.
struct Ground {
    injector: Injector,
    inputs: Scratch,
    /// Results of a run that meets no fault.
    whole: Results,
}

impl Ground {
    /// `None`, once it has been said, where calls cannot be made to fail.
    fn new() -> Option<Ground> {
        let injector = match Injector::new() {
            Ok(injector) => injector,
            Err(why) => {
                let required = std::env::var_os("PG_REQUIRE_FAULTS").is_some_and(|v| v == "1");
                assert!(!required, "PG_REQUIRE_FAULTS=1, but {why}");
                eprintln!("NOT RUN: no system call was made to fail: {why}");
                return None;
            }
        };
        let inputs = inputs();
        let dir = copied(&inputs);
        succeeds(&dir, &RUN);
        let whole = Results::of(&dir.path("run")).unwrap();
        assert_eq!(whole.steps.len(), 4);
        Some(Ground { injector, inputs, whole })
    }

    fn faulty(&self, dir: &Scratch, args: &[&str], name: &str, fault: Fault) -> (Output, Vec<Call>) {
        let mut command = pg(dir, args);
        self.injector.preload(&mut command, &dir.path(""), name, fault);
        let output = command.output().unwrap();
        (output, self.injector.calls(name))
    }

    fn fresh(&self) -> Scenario {
        Scenario { name: "fresh", begin: copied(&self.inputs), command: RUN.to_vec(), earlier: None }
    }

    /// A finished run is in the folder, and is to be replaced.
    fn overwriting(&self) -> Scenario {
        let begin = copied(&self.inputs);
        succeeds(&begin, &[&RUN[..17], &["8"]].concat());
        let earlier = Results::of(&begin.path("run")).ok();
        Scenario { name: "overwriting", begin, command: [&RUN[..], &["--overwrite"]].concat(), earlier }
    }

    /// A run was stopped after two steps.
    fn resumed(&self) -> Scenario {
        let begin =
            self.stopped(|call| call.name == "write" && call.path == "run/.unfinished/metrics.jsonl", 3);
        Scenario { name: "resumed", begin, command: RESUME.to_vec(), earlier: None }
    }

    /// A run was stopped while its files took their names.
    fn finishing(&self) -> Scenario {
        let begin = self.stopped(|call| call.name.starts_with("rename") && call.path == "run/artifact.pg", 1);
        Scenario { name: "finishing", begin, command: RESUME.to_vec(), earlier: None }
    }

    /// A folder whose run was cut off at the `nth` call of a kind.
    fn stopped(&self, is_it: impl Fn(&Call) -> bool, nth: usize) -> Scratch {
        let (_, calls) = self.faulty(&copied(&self.inputs), &RUN, "stopped", Fault::None);
        let number =
            calls.iter().filter(|c| is_it(c)).nth(nth - 1).expect("every run makes that call").number;
        // Checkpoints are written beside the training: the number is not always that call's.
        for _ in 0..20 {
            let dir = copied(&self.inputs);
            let (output, calls) = self.faulty(&dir, &RUN, "stopped", Fault::From(number, EIO));
            let first = calls.iter().find(|call| call.failed).expect("it was reached");
            if is_it(first) {
                assert_eq!(output.status.code(), Some(1), "{}", message(&output));
                return dir;
            }
        }
        panic!("call {number} is another each time");
    }

    /// Runs a scenario's command under a fault and holds what it leaves to what it must be; how many calls failed.
    fn meets(&self, scenario: &Scenario, fault: Fault) -> Result<usize, String> {
        let dir = copied(&scenario.begin);
        let (output, calls) = self.faulty(&dir, &scenario.command, scenario.name, fault);
        let failed: Vec<Call> = calls.iter().filter(|call| call.failed).cloned().collect();
        self.judge(scenario, &dir, &output, &calls, &failed).map_err(|what| {
            let first = failed.first().map_or(String::new(), |call| format!("{} {}", call.name, call.path));
            format!("{} under {fault:?}, {first}: {what}; it said: {}", scenario.name, message(&output))
        })?;
        Ok(failed.len())
    }

    fn judge(
        &self,
        scenario: &Scenario,
        dir: &Scratch,
        output: &Output,
        calls: &[Call],
        failed: &[Call],
    ) -> Result<(), String> {
        let found = self.reported(scenario, dir)?;
        if output.status.success() {
            return if found == Some(&self.whole) {
                Ok(())
            } else {
                Err("it succeeded without results".into())
            };
        }
        if output.status.code() != Some(1) {
            return Err(format!("it ended with {}", output.status));
        }
        says_what_failed(&message(output), failed)?;
        if found == Some(&self.whole) {
            return Ok(());
        }
        // What its user does next.
        let resumed = pg(dir, &RESUME).output().unwrap();
        if !resumed.status.success() {
            let said = message(&resumed);
            let is_record = |path: &str| path == "run/.unfinished/run.json";
            let had_begun = dir.path("run/.unfinished/run.json").exists()
                || calls.iter().any(|c| c.name.starts_with("rename") && is_record(&c.path) && !c.failed);
            if had_begun || !said.contains("no run that was stopped is in it") {
                return Err(format!("it cannot be resumed: {said}"));
            }
            let again = pg(dir, &scenario.command).output().unwrap();
            if !again.status.success() {
                return Err(format!("it cannot be done again: {}", message(&again)));
            }
        }
        match self.reported(scenario, dir)? == Some(&self.whole) && !dir.path("run/.unfinished").exists() {
            true => Ok(()),
            false => Err("what comes of it afterwards is another run".into()),
        }
    }

    /// The results that the folder's report claims: this run's, or those that were there before.
    fn reported<'a>(&'a self, scenario: &'a Scenario, dir: &Scratch) -> Result<Option<&'a Results>, String> {
        if !dir.path("run/report.json").exists() {
            return Ok(None);
        }
        let found = Results::of(&dir.path("run"))?;
        let known = [Some(&self.whole), scenario.earlier.as_ref()];
        let known = known.into_iter().flatten().find(|results| **results == found);
        known.map(Some).ok_or_else(|| "the report is there, and not with its results".into())
    }

    /// Meets faults until one is beyond a scenario's end; how many were met.
    fn meets_all(&self, scenario: &Scenario, faults: impl Iterator<Item = Fault>) -> usize {
        let (mut met, mut wrong) = (0, Vec::new());
        for fault in faults {
            match self.meets(scenario, fault) {
                Ok(0) => break,
                Ok(_) => met += 1,
                Err(what) => wrong.push(what),
            }
        }
        assert!(wrong.is_empty(), "{} of {met} faults:\n{}", wrong.len(), wrong.join("\n"));
        met
    }

    /// Fails each call of a scenario in turn, in each way that it can.
    fn each_call_once(&self, scenario: &Scenario) {
        let (_, calls) = self.faulty(&copied(&scenario.begin), &scenario.command, scenario.name, Fault::None);
        let met = self.meets_all(scenario, calls.iter().flat_map(faults));
        eprintln!("{}: {} calls, {met} faults", scenario.name, calls.len());
        // Where checkpoints are written beside the training, a run may have some calls less.
        assert!(met >= calls.len() * 9 / 10, "{met} faults were met in a run of {} calls", calls.len());
    }
}

/// The faults of a call, by what it does.
fn faults(call: &Call) -> Vec<Fault> {
    let number = call.number;
    let mut faults = vec![Fault::Once(number, EIO)];
    if matches!(call.name.as_str(), "write" | "fallocate" | "mkdir" | "rename") {
        faults.push(Fault::Once(number, ENOSPC));
    }
    if matches!(call.name.as_str(), "write" | "read") {
        faults.push(Fault::Short(number));
    }
    faults
}

/// One message, which names a file whose call failed; its folder, where the file is none that a user knows of.
fn says_what_failed(message: &str, failed: &[Call]) -> Result<(), String> {
    let named = |call: &Call| {
        let (folder, file) = call.path.rsplit_once('/').unwrap_or(("", &call.path));
        let known = match file {
            ".lock" | "reserved" => "run",
            _ if file.starts_with(".pg-") || file.ends_with(".checkpoint") => folder,
            _ => &call.path,
        };
        message.contains(known)
    };
    if message.matches("error: ").count() != 1 || message.contains("panicked") {
        return Err("not one message".into());
    }
    if failed.iter().any(named) { Ok(()) } else { Err("the message does not name the file".into()) }
}

#[test]
fn each_call_of_a_run_fails_once() {
    let Some(ground) = Ground::new() else { return };
    ground.each_call_once(&ground.fresh());
}

#[test]
fn each_call_of_a_run_that_continues_fails_once() {
    let Some(ground) = Ground::new() else { return };
    ground.each_call_once(&ground.resumed());
    ground.each_call_once(&ground.finishing());
}

#[test]
fn each_call_of_a_run_that_replaces_another_fails_once() {
    let Some(ground) = Ground::new() else { return };
    ground.each_call_once(&ground.overwriting());
}

#[test]
fn a_device_that_is_gone_takes_nothing_along() {
    let Some(ground) = Ground::new() else { return };
    for scenario in [ground.fresh(), ground.resumed(), ground.finishing(), ground.overwriting()] {
        let met = ground.meets_all(&scenario, (1..).step_by(7).map(|number| Fault::From(number, EIO)));
        eprintln!("{}: the device was gone at {met} moments", scenario.name);
    }
}

#[test]
fn a_disk_that_fills_up_keeps_what_is_on_it() {
    let Some(ground) = Ground::new() else { return };
    for scenario in [ground.fresh(), ground.resumed(), ground.overwriting()] {
        let met = ground.meets_all(&scenario, (0..).step_by(9973).map(Fault::Room));
        eprintln!("{}: the disk was full at {met} moments", scenario.name);
    }
}
