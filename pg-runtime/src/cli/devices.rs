//! `pg devices`: what programs can run on here, and what is missing for the rest; and the argument that
//! chooses one.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use pg_ir::input::Kind;
use pg_runtime::device::{Device, DeviceName, Listed, list};
use serde::Serialize;

use super::format::table;
use super::ui::Ui;

/// Where programs run.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeviceArgs {
    /// Run on this device: cpu, vulkan, cuda, or one by number as in cuda:1 (`pg devices` lists them).
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceName::Cpu)]
    pub(super) device: DeviceName,
    /// Tile sizes, vector widths and split factors of generated kernels, for an experiment.
    #[arg(long, value_name = "FILE")]
    pub(super) tuning: Option<PathBuf>,
    /// Take every kernel from this folder, which `pg build` wrote, and compile none (CUDA only).
    #[arg(long, value_name = "DIR")]
    pub(super) bundle: Option<PathBuf>,
}

impl DeviceArgs {
    /// Whether nothing was said of a device.
    pub(crate) fn is_default(&self) -> bool {
        self.device == DeviceName::Cpu && self.tuning.is_none() && self.bundle.is_none()
    }

    /// Probes and opens the device; never another one.
    pub(crate) fn open(&self) -> anyhow::Result<Device> {
        let tuning = self.tuning.as_deref().map(read_tuning).transpose()?.unwrap_or_default();
        match &self.bundle {
            None => Ok(self.device.open_tuned(&tuning)?),
            #[cfg(feature = "cube")]
            Some(folder) => Ok(self.device.open_bundled(&tuning, folder)?),
            #[cfg(not(feature = "cube"))]
            Some(_) => anyhow::bail!(
                "this pg was built without kernels; build it with `cargo build --release -p pg-runtime --features cuda`"
            ),
        }
    }
}

/// The text of a tuning file.
pub(crate) fn read_tuning(path: &Path) -> anyhow::Result<String> {
    Kind::TUNING.read_text(path).with_context(|| format!("cannot read the tuning file {}", path.display()))
}

#[derive(Debug, Serialize)]
struct Report {
    devices: Vec<Listed>,
}

/// Lists devices.
pub(crate) fn devices(ui: &Ui) -> anyhow::Result<()> {
    let report = Report { devices: list() };
    ui.report(&report, || report.text())?;
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let row = |d: &Listed| {
            let state = d.missing.as_deref().map_or("ready".to_string(), |m| format!("missing: {m}"));
            vec![d.device.clone(), d.description.clone().unwrap_or_else(|| "–".into()), state]
        };
        let mut text = table(&["device", "what", "state"], &[], self.devices.iter().map(row).collect());
        for d in &self.devices {
            if let Some(remedy) = &d.remedy {
                text += &format!("\n{}: {remedy}", d.device);
            }
        }
        text
    }
}
