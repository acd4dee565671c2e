//! Arguments that name a machine to generate kernels for, and kernels compiled for it. The machine need not be
//! here; only what is generated for it is.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Args;
use pg_codegen::cuda::{BuildError, Builds, Tools, distinct};
use pg_codegen::kernels::Generated;
use pg_codegen::machine::{self, Isa, Language, Machine};
use pg_runtime::device::{Device, DeviceName};
use pg_runtime::report::Event;

use super::devices::read_tuning;
use super::programs::machines;
use super::progress::Progress;
use super::ui::Ui;

/// Which machine.
#[derive(Args, Clone, Debug)]
pub(crate) struct MachineArgs {
    #[arg(long, value_name = "NAME", default_value = "h100", help = machines("Machine to generate for", |m| m.isa.is_some()))]
    target: String,
    /// Tile sizes, vector widths and split factors on top of the checked-in ones.
    #[arg(long, value_name = "FILE")]
    tuning: Option<PathBuf>,
    /// Multiprocessors of the device, if they are not the target's 132 (an H100 PCIe has 114): how far sums are split
    /// depends on them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    multiprocessors: Option<u32>,
}

impl MachineArgs {
    /// The machine, with a tuning file's choices, and the language of its kernels.
    pub(crate) fn machine(&self) -> anyhow::Result<(Machine, Language)> {
        let mut machine = machine::named(&self.target).map_err(|message| anyhow!(message))?;
        let Some(Isa { language, .. }) = machine.isa else {
            bail!(
                "for {} no kernels are generated: its executor runs plans as they are (see `pg plan`)",
                machine.name
            );
        };
        if let Some(path) = &self.tuning {
            let tuned = machine.tuning.with(&read_tuning(path)?, &machine.name);
            machine.tuning = tuned.map_err(|what| anyhow!("{}, {what}", path.display()))?;
        }
        machine.processors = self.multiprocessors.unwrap_or(machine.processors);
        Ok((machine, language))
    }
}

/// A device like a machine, on which nothing runs.
pub(crate) fn absent(machine: Machine, language: Language) -> Device {
    let name = match language {
        Language::Cuda => DeviceName::Cuda(0),
        Language::Wgsl => DeviceName::Vulkan(0),
    };
    Device::absent(name, machine)
}

/// Compiles kernels, equal ones once, and shows how far it is.
pub(crate) fn build_all(tools: &Tools, kernels: &[Arc<Generated>], ui: &Ui) -> Result<Builds, BuildError> {
    let total = distinct(kernels).len() as u64;
    let mut progress = Progress::new(ui);
    let (major, minor) = tools.version();
    progress.event(Event::Begin { stage: format!("compile with CUDA {major}.{minor}"), total });
    let builds = tools.build_all(kernels, &mut |done| progress.event(Event::Progress(done as u64)));
    progress.finish();
    let builds = builds?;
    progress.event(Event::End(format!("{} kernels", builds.len())));
    Ok(builds)
}
