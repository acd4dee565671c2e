//! `pg sweep-run`: the process of one run of a sweep. `pg sweep` starts it; nobody else does.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use pg_runtime::run::{Earlier, Interrupt, Purpose, RunError, RunOptions, run};
use pg_runtime::sweep::{PlannedRun, RunState, Running};
use pg_runtime::validate::cache_folder;

use super::device_of;
use crate::cli::progress::Progress;
use crate::cli::signals;
use crate::cli::ui::Ui;

const STOPPED: i32 = signals::STOPPED as i32;

/// Arguments of `pg sweep-run`.
#[derive(Args, Debug)]
pub(crate) struct WorkerArgs {
    /// The sweep's folder.
    folder: PathBuf,
    /// Place of the configuration in its plan.
    configuration: usize,
    /// Seed.
    seed: u64,
}

/// Begins the run, or continues it.
pub(crate) fn run_one(args: WorkerArgs, ui: &Ui, started: Instant) -> anyhow::Result<()> {
    let interrupt = Interrupt::default();
    signals::leave_to_parent()?;
    listen(interrupt.clone());
    let running = Running::enter(&args.folder, || ui.note("waits for the step of the run that was stopped"))?;
    let plan = &running.plan;
    let configuration = plan.configurations().into_iter().nth(args.configuration);
    let configuration = configuration.context("the sweep has no such configuration")?;
    let planned = PlannedRun { configuration, seed: args.seed };
    let folder = running.folder.join(planned.folder());
    let earlier = match running.state(&planned)? {
        RunState::Finished(_) => return Ok(()),
        RunState::Stopped => Some(Earlier::open(&folder, Purpose::Resume)?),
        RunState::New => None,
    };
    let options = RunOptions {
        job: plan.job_of(&planned),
        device: device_of(plan)?.open()?,
        out: Some(folder),
        overwrite: false,
        earlier,
        checkpoint_every: plan.checkpoint_every,
        interrupt,
        cache: cache_folder(),
        started: Some(started),
    };
    let mut progress = Progress::new(ui);
    let report = run(&options, &mut |event| progress.event(event));
    progress.finish();
    if let Err(RunError::Stopped { .. }) = report {
        // How to go on is for the sweep to say, which is told by the exit code.
        drop(running);
        std::process::exit(STOPPED);
    }
    ui.report(&report?, String::new)?;
    Ok(())
}

/// Takes what comes on standard input, and its end, as requests to stop: whoever started this process sends one, and is
/// gone when it ends.
fn listen(interrupt: Interrupt) {
    let request = move || {
        if !interrupt.request() {
            std::process::exit(STOPPED);
        }
    };
    std::thread::spawn(move || {
        let mut line = [0; 64];
        while io::stdin().lock().read(&mut line).is_ok_and(|bytes| bytes > 0) {
            request();
        }
        request();
    });
}
