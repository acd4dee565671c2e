//! Each run is a process of its own: what ends one, by a fault or for lack of memory, ends no other.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use pg_runtime::sweep::{PlannedRun, RunState, Sweep};
use serde_json::Value;

use crate::cli::signals;
use crate::cli::ui::Ui;

/// Most bytes of a run's report that are read.
const MAX_REPORT: u64 = 1 << 26;

/// Starts runs, and passes requests to stop on to the one that goes on.
pub(super) struct Launcher<'a> {
    program: PathBuf,
    ui: &'a Ui,
    stop: Arc<Stop>,
}

/// How a run ended.
pub(super) enum Ended {
    /// With a report.
    Finished,
    /// With this message.
    Failed(String),
    /// Because the sweep was asked to stop.
    Stopped,
}

/// A request to stop. A run's process reads it from its standard input, whose end says that nobody waits for it any more.
#[derive(Default)]
struct Stop {
    is_requested: AtomicBool,
    run: Mutex<Option<ChildStdin>>,
}

impl Stop {
    /// Asks the run that goes on to stop; whether there is one. A second request is never waited for.
    fn request(&self) -> bool {
        let again = self.is_requested.swap(true, Ordering::SeqCst);
        let mut run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        !again && run.as_mut().is_some_and(|run| run.write_all(b"stop\n").is_ok())
    }

    fn set(&self, run: Option<ChildStdin>) {
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = run;
    }
}

impl<'a> Launcher<'a> {
    /// Launches this program, and listens to requests to stop from here on.
    pub(super) fn new(ui: &'a Ui) -> anyhow::Result<Launcher<'a>> {
        let program = std::env::current_exe().context("where this program is cannot be found")?;
        let stop = Arc::new(Stop::default());
        let requested = stop.clone();
        signals::on_request(move || requested.request())?;
        Ok(Launcher { program, ui, stop })
    }

    /// Begins a run or continues it, and waits for its end.
    pub(super) fn launch(&self, sweep: &Sweep, run: &PlannedRun) -> anyhow::Result<Ended> {
        let configurations = sweep.plan.configurations();
        let index = configurations.iter().position(|c| *c == run.configuration).unwrap_or_default();
        let mut child = Command::new(&self.program)
            .args(self.ui.of_child())
            .arg("sweep-run")
            .arg(&sweep.folder)
            .args([index.to_string(), run.seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let said = child.stdout.take();
        self.stop.set(child.stdin.take());
        let read = said.map_or(Ok(String::new()), |said| io::read_to_string(said.take(MAX_REPORT)));
        let status = child.wait()?;
        self.stop.set(None);
        let is_finished = || Ok::<_, anyhow::Error>(matches!(sweep.state(run)?, RunState::Finished(_)));
        if status.success() && is_finished()? {
            return Ok(Ended::Finished);
        }
        if self.stop.is_requested.load(Ordering::SeqCst) {
            return Ok(Ended::Stopped);
        }
        Ok(Ended::Failed(message(&read.unwrap_or_default(), status)))
    }
}

/// Why a run failed: in its own words where it had any.
fn message(said: &str, status: ExitStatus) -> String {
    let report: Option<Value> = serde_json::from_str(said).ok();
    match report.as_ref().and_then(|report| report["error"].as_str()) {
        Some(error) => error.to_owned(),
        // "signal: 9 (SIGKILL)", as the system's out-of-memory killer leaves it.
        None => format!("its process ended without a report ({status})"),
    }
}
