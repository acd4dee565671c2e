//! `pg build`: every kernel of a run compiled ahead of time into a bundle, for a machine that need not be here.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use pg_codegen::cuda::{Bundle, Manifest, Tools};
use pg_codegen::machine::Machine;
use pg_runtime::gpu::run_recipe;
use pg_runtime::run::{RunOptions, requests};
use serde::Serialize;

use super::command::command;
use super::format::{grouped, megabytes};
use super::machine::{MachineArgs, absent, build_all};
use super::programs::machine_names;
use super::progress::Progress;
use super::run::JobArgs;
use super::ui::Ui;

/// Arguments of `pg build`: those of the `pg run` that the bundle is for.
#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    machine: MachineArgs,
    /// Folder for the bundle; it appears whole or not at all.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a bundle of other kernels.
    #[arg(long)]
    force: bool,
}

/// What was built. Field names are a public interface.
#[derive(Debug, Serialize)]
struct Report {
    bundle: PathBuf,
    target: String,
    /// False where the same bundle was there already.
    built: bool,
    seconds: f64,
    kernels: usize,
    /// Of the binaries.
    bytes: usize,
    /// The most registers of a thread.
    registers: u32,
    /// Kernels that spill, and the most bytes that one does.
    spilling: usize,
    spill_bytes: u32,
    stack_bytes: u32,
    content: String,
    built_for: std::collections::BTreeMap<String, String>,
}

/// Compiles and reports.
pub(crate) fn build(args: BuildArgs, ui: &Ui) -> anyhow::Result<()> {
    let started = Instant::now();
    let (machine, language) = args.machine.machine()?;
    let target = machine.name.clone();
    // Binaries are for Hopper's own instructions.
    if !machine.has_tensor_cores() {
        bail!(
            "for {target} nothing is compiled ahead of time: its driver compiles; the targets are {}",
            machine_names(Machine::has_tensor_cores)
        );
    }
    let tools = Tools::find()?;
    let device = absent(machine, language);
    let options = RunOptions { job: args.job.job(None, None)?, device, ..RunOptions::default() };
    let mut progress = Progress::new(ui);
    let requests = requests(&options, &mut |event| progress.event(event))?;
    progress.finish();
    let recipe = run_recipe(&requests)?;
    drop(requests);
    let content = recipe.content(tools.version());
    let existing = Bundle::existing(&args.out, &content, args.force)?;
    let built = existing.is_none();
    let bundle = match existing {
        Some(bundle) => bundle,
        None => {
            let builds = build_all(&tools, &recipe.kernels, ui)?;
            Bundle::write(&args.out, &recipe, &builds, tools.version())?
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let report = Report::new(args.out, target.into(), built, seconds, bundle.manifest().clone());
    ui.report(&report, || report.text(&options.job.model.display().to_string()))?;
    Ok(())
}

impl Report {
    fn new(bundle: PathBuf, target: String, built: bool, seconds: f64, manifest: Manifest) -> Report {
        let Manifest { content, built_for, kernels, .. } = manifest;
        Report {
            bundle,
            target,
            built,
            seconds,
            kernels: kernels.len(),
            bytes: kernels.iter().map(|k| k.bytes).sum(),
            registers: kernels.iter().map(|k| k.registers).max().unwrap_or(0),
            spilling: kernels.iter().filter(|k| k.spill_bytes > 0).count(),
            spill_bytes: kernels.iter().map(|k| k.spill_bytes).max().unwrap_or(0),
            stack_bytes: kernels.iter().map(|k| k.stack_bytes).max().unwrap_or(0),
            content,
            built_for,
        }
    }

    fn text(&self, model: &str) -> String {
        let verb = if self.built { "built" } else { "holds these kernels already; nothing was built" };
        let mut out = format!(
            "{} {verb}: {} kernels, {} of binaries, {:.1} s\n",
            self.bundle.display(),
            grouped(self.kernels as u64),
            megabytes(self.bytes as u64),
            self.seconds
        );
        let spills = match self.spilling {
            0 => "none spills".to_string(),
            n => format!("{n} spill, at most {} bytes a thread", self.spill_bytes),
        };
        let _ = writeln!(
            out,
            "at most {} registers a thread; {spills}; {} bytes of stack",
            self.registers, self.stack_bytes
        );
        self.built_for.iter().for_each(|(name, value)| {
            let _ = writeln!(out, "{name:10} {value}");
        });
        let _ = write!(
            out,
            "{}   # on a machine with an {}, with the same arguments",
            command(["run", model, "--device", "cuda", "--bundle", &self.bundle.display().to_string()]),
            self.target.to_uppercase()
        );
        out
    }
}
