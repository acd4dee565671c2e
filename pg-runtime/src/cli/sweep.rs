//! `pg sweep`: every combination of seeds and values, and what their scores say.

mod launch;
mod table;
mod worker;

use std::path::PathBuf;

use clap::Args;
use pg_runtime::run::{Interval, JobOptions};
use pg_runtime::sweep::{Axis, Baseline, Failure, RunState, Sweep, SweepError, SweepPlan, check, report};
use pg_runtime::validate::cache_folder;

use self::launch::{Ended, Launcher};
pub(crate) use self::table::p_value;
pub(crate) use self::worker::{WorkerArgs, run_one};
use super::Outcome;
use super::devices::DeviceArgs;
use super::model::assignment;
use super::progress::Progress;
use super::run::{JobArgs, interval};
use super::ui::Ui;

/// Arguments of `pg sweep`: those of each `pg run`, and what the runs differ in.
#[derive(Args, Debug)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    baseline: BaselineArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Sweep")]
struct PlanArgs {
    /// A run of each configuration for each of these seeds of the initial weights.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', required_unless_present = "resume")]
    seeds: Vec<u64>,
    /// A configuration for each of these values of a constant or setting, as in LAYERS=6,8; several for every combination.
    #[arg(long, value_name = "NAME=V,V,…")]
    grid: Vec<Axis>,
    /// Start every run from these weights.
    #[arg(long, value_name = "FILE.safetensors")]
    init: Option<PathBuf>,
    /// Folder of the sweep: `sweep.json`, and the folder of each run.
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    out: Option<PathBuf>,
    /// Keep a checkpoint of a run every so many steps, or seconds with an `s`.
    #[arg(long, value_name = "N|Ts", value_parser = interval, default_value = "60s")]
    checkpoint_every: Interval,
    /// Continue the sweep in this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = PLAN)]
    resume: Option<PathBuf>,
}

/// What a continued sweep takes from its plan. Names in capitals are of all arguments of that struct.
const PLAN: [&str; 11] = [
    "JobArgs",
    "Variation",
    "BudgetArgs",
    "PrecisionArgs",
    "TextArgs",
    "DeviceArgs",
    "seeds",
    "grid",
    "init",
    "out",
    "checkpoint_every",
];

#[derive(Args, Debug)]
#[command(next_help_heading = "Comparison")]
struct BaselineArgs {
    /// Compare with the configuration that has this value; several for several axes [default: the first configuration].
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    baseline: Vec<(String, String)>,
    /// Compare with finished runs: a run, a configuration of another sweep, or a folder of such runs.
    #[arg(long, value_name = "DIR", conflicts_with = "baseline")]
    baseline_dir: Vec<PathBuf>,
}

impl From<BaselineArgs> for Baseline {
    fn from(args: BaselineArgs) -> Baseline {
        match (args.baseline.is_empty(), args.baseline_dir.is_empty()) {
            (true, true) => Baseline::First,
            (false, _) => Baseline::Settings(args.baseline),
            (true, false) => Baseline::Runs(args.baseline_dir),
        }
    }
}

impl SweepArgs {
    /// The sweep, whose folder is now this process's, and what it is compared with.
    fn open(self) -> anyhow::Result<(Sweep, Baseline)> {
        let baseline = self.baseline.into();
        let PlanArgs { seeds, grid, init, out, checkpoint_every, resume } = self.plan;
        if let Some(folder) = resume {
            return Ok((Sweep::resume(&folder)?, baseline));
        }
        // The full-size model would be timed again after every run.
        let job = JobOptions { skip_full_size: true, ..self.job.job(None, init)? };
        let DeviceArgs { device, tuning, bundle } = self.device;
        let plan = SweepPlan {
            pg: env!("CARGO_PKG_VERSION").into(),
            device: device.to_string(),
            tuning,
            bundle,
            checkpoint_every,
            sources: SweepPlan::sources_of(&job.model)?,
            job,
            seeds,
            grid,
        };
        plan.check()?;
        // clap asks for it where there is no --resume.
        let folder = out.unwrap_or_default();
        Ok((Sweep::begin(&folder, plan)?, baseline))
    }
}

/// Runs a sweep and reports; a run that failed is a failure.
pub(crate) fn sweep(args: SweepArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let launcher = Launcher::new(ui)?;
    let (sweep, baseline) = args.open()?;
    sweep.check_model()?;
    // What is in the way is found before anything is done.
    for run in sweep.plan.runs() {
        sweep.state(&run)?;
    }
    let device = device_of(&sweep.plan)?.open()?;
    let mut progress = Progress::new(ui);
    let observer = &mut |event| progress.event(event);
    let checked = check(&sweep.plan, &baseline, &device, cache_folder().as_deref(), observer);
    progress.finish();
    let checked = checked?;
    // The runs' processes open it for themselves.
    drop(device);
    sweep.record()?;
    let failures = run_all(&sweep, &launcher, ui)?;
    let report = report(&sweep, &checked, failures)?;
    ui.report(&report, || table::text(&report))?;
    Ok(if report.failures.is_empty() { Outcome::Success } else { Outcome::Failure })
}

/// Does every run that has not finished; those that failed.
fn run_all(sweep: &Sweep, launcher: &Launcher<'_>, ui: &Ui) -> anyhow::Result<Vec<Failure>> {
    let runs = sweep.plan.runs();
    let mut failures = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let words = format!("run {} of {}: {run}", index + 1, runs.len());
        if let RunState::Finished(_) = sweep.state(run)? {
            ui.note(format_args!("{words}: has finished"));
            continue;
        }
        sweep.check_model()?;
        ui.note(&words);
        match launcher.launch(sweep, run)? {
            Ended::Finished => {}
            Ended::Failed(message) => {
                let folder = sweep.folder_of(run);
                ui.warning(&format!("{run} failed"));
                failures.push(Failure { folder, message });
            }
            Ended::Stopped => {
                let is_finished = |run| Ok(matches!(sweep.state(run)?, RunState::Finished(_)));
                let finished = runs.iter().map(is_finished).collect::<Result<Vec<bool>, SweepError>>()?;
                let finished = finished.into_iter().filter(|is_finished| *is_finished).count();
                let (runs, folder) = (runs.len(), sweep.folder.clone());
                return Err(SweepError::Stopped { finished, runs, folder }.into());
            }
        }
    }
    Ok(failures)
}

/// The device that a plan names.
fn device_of(plan: &SweepPlan) -> anyhow::Result<DeviceArgs> {
    let device = plan.device.parse().map_err(anyhow::Error::msg)?;
    Ok(DeviceArgs { device, tuning: plan.tuning.clone(), bundle: plan.bundle.clone() })
}
