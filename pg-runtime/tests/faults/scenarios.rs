//! Moments of a run's life at which faults begin, and what must hold of the run afterwards.

use std::process::Output;

use pg_testing::commands::Scratch;
use pg_testing::faults::{Call, EIO, Fault, Injector};
use pg_testing::runs::Results;

use crate::inputs::{RESUME, RUN, copied, inputs, message, pg, succeeds};
use crate::{faults, says_what_failed};

/// A moment of a run's life at which faults begin.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// The folder that it begins with.
    begin: Scratch,
    command: Vec<&'static str>,
    /// The results that were in the folder, of another run.
    earlier: Option<Results>,
}

/// What the scenarios have in common.
pub(crate) struct Ground {
    injector: Injector,
    pub(crate) inputs: Scratch,
    /// Results of a run that meets no fault.
    whole: Results,
}

impl Ground {
    /// `None`, once it has been said, where calls cannot be made to fail.
    pub(crate) fn new() -> Option<Ground> {
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

    pub(crate) fn faulty(
        &self,
        dir: &Scratch,
        args: &[&str],
        name: &str,
        fault: Fault,
    ) -> (Output, Vec<Call>) {
        let mut command = pg(dir, args);
        self.injector.preload(&mut command, &dir.path(""), name, fault);
        let output = command.output().unwrap();
        (output, self.injector.calls(name))
    }

    pub(crate) fn fresh(&self) -> Scenario {
        Scenario { name: "fresh", begin: copied(&self.inputs), command: RUN.to_vec(), earlier: None }
    }

    /// A finished run is in the folder, and is to be replaced.
    pub(crate) fn overwriting(&self) -> Scenario {
        let begin = copied(&self.inputs);
        succeeds(&begin, &[&RUN[..17], &["8"]].concat());
        let earlier = Results::of(&begin.path("run")).ok();
        Scenario { name: "overwriting", begin, command: [&RUN[..], &["--overwrite"]].concat(), earlier }
    }

    /// The programs are held to float64: now, or as the cache says.
    pub(crate) fn validating(&self, is_known: bool) -> Scenario {
        let command: Vec<_> = RUN.into_iter().filter(|arg| *arg != "--no-validate").collect();
        let begin = copied(&self.inputs);
        if is_known {
            succeeds(&begin, &command);
            std::fs::remove_dir_all(begin.path("run")).unwrap();
        }
        Scenario { name: "validating", begin, command, earlier: None }
    }

    /// A run was stopped after two steps.
    pub(crate) fn resumed(&self) -> Scenario {
        let begin = self.stopped("write", "run/.unfinished/metrics.jsonl", 3);
        Scenario { name: "resumed", begin, command: RESUME.to_vec(), earlier: None }
    }

    /// A run was stopped while its files took their names.
    pub(crate) fn finishing(&self) -> Scenario {
        let begin = self.stopped("rename", "run/artifact.pg", 1);
        Scenario { name: "finishing", begin, command: RESUME.to_vec(), earlier: None }
    }

    /// A folder whose run was cut off at the `nth` call of a name on a file.
    fn stopped(&self, name: &'static str, path: &'static str, nth: u64) -> Scratch {
        let dir = copied(&self.inputs);
        let (output, calls) =
            self.faulty(&dir, &RUN, "stopped", Fault::FromCall { name, path, nth, error: EIO });
        let first = calls.iter().find(|call| call.failed).expect("every run makes that call");
        assert!(first.name.starts_with(name) && first.path == path, "{first:?}");
        assert_eq!(output.status.code(), Some(1), "{}", message(&output));
        dir
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
    pub(crate) fn meets_all(&self, scenario: &Scenario, faults: impl Iterator<Item = Fault>) -> usize {
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

    /// Fails each call of a scenario on files whose paths begin like this, in turn and in each way that it can.
    pub(crate) fn each_call_once(&self, scenario: &Scenario, path: &str) {
        let (_, mut calls) =
            self.faulty(&copied(&scenario.begin), &scenario.command, scenario.name, Fault::None);
        calls.retain(|call| call.path.starts_with(path));
        assert!(!calls.is_empty(), "{}: no calls on {path}", scenario.name);
        let met = self.meets_all(scenario, calls.iter().flat_map(faults));
        eprintln!("{}: {} calls, {met} faults", scenario.name, calls.len());
        // Where checkpoints are written beside the training, a run may have some calls less.
        assert!(met >= calls.len() * 9 / 10, "{met} faults were met in a run of {} calls", calls.len());
    }
}
