//! Devices by name: `cpu`, `vulkan`, `vulkan:1`, `cuda:0`.
//!
//! A device is probed before anything is made on it, and a missing one is an error that says what to do.
//! Nothing here may fall back to another device than the one that was asked for.

use std::fmt;
#[cfg(feature = "cube")]
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

#[cfg(feature = "cube")]
use pg_codegen::cuda::BundleError;
use pg_codegen::machine::Machine;
use pg_codegen::plan::Plan;
use pg_ir::lang::layout::Layout;
use serde::Serialize;
use thiserror::Error;

use crate::executor::{Backend, Cpu, ExecError, Executor};
#[cfg(feature = "cuda")]
use crate::gpu::cuda;
#[cfg(feature = "vulkan")]
use crate::gpu::vulkan;
#[cfg(feature = "cube")]
use crate::gpu::{self, Absent, CubeExecError, LoadedBundle};
use crate::report::BundleReport;

/// A module like `gpu::vulkan`, for a binary without it.
#[cfg(not(all(feature = "vulkan", feature = "cuda")))]
macro_rules! not_built {
    ($kind:ident) => {
        mod $kind {
            use super::{DeviceError, Opened};

            pub(super) fn find() -> Vec<String> {
                Vec::new()
            }

            fn missing() -> DeviceError {
                let kind = stringify!($kind);
                let remedy = format!("build it with `cargo build --release -p pg-runtime --features {kind}`");
                DeviceError::new(format!("this pg was built without {kind}"), remedy)
            }

            pub(super) fn check(_: usize) -> Result<(), DeviceError> {
                Err(missing())
            }

            pub(super) fn open(_: usize, _: &str) -> Opened {
                Err(missing())
            }
        }
    };
}

/// What a device is called, and what runs on it.
pub(crate) type Opened = Result<(String, Arc<dyn Backend>), DeviceError>;

#[cfg(not(feature = "cuda"))]
not_built!(cuda);
#[cfg(not(feature = "vulkan"))]
not_built!(vulkan);

/// Which device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum DeviceName {
    /// This machine's processor.
    #[default]
    Cpu,
    /// A Vulkan device, by number.
    Vulkan(usize),
    /// A CUDA device, by number.
    Cuda(usize),
}

/// Why a device cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{what}; {remedy}")]
pub struct DeviceError {
    /// What is missing.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl DeviceError {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> DeviceError {
        DeviceError { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Cpu => write!(f, "cpu"),
            DeviceName::Vulkan(n) => write!(f, "vulkan:{n}"),
            DeviceName::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceName, String> {
        let expected =
            || format!("expected cpu, vulkan, cuda, or one with a number as in cuda:1, not `{text}`");
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse().map_err(|_| expected())?)),
            None => (text, None),
        };
        match (kind, number) {
            ("cpu", None) => Ok(DeviceName::Cpu),
            ("vulkan", n) => Ok(DeviceName::Vulkan(n.unwrap_or(0))),
            ("cuda", n) => Ok(DeviceName::Cuda(n.unwrap_or(0))),
            _ => Err(expected()),
        }
    }
}

impl DeviceName {
    /// Probes and opens the device.
    ///
    /// # Errors
    /// If it is not there, lacks something that kernels need, or this binary was built without it.
    pub fn open(self) -> Result<Device, DeviceError> {
        self.open_tuned("")
    }

    /// As [`Self::open`], with the text of a tuning file on top of the checked-in choices.
    ///
    /// # Errors
    /// Also if the text is wrong, or the device generates no kernels that it could change.
    pub fn open_tuned(self, tuning: &str) -> Result<Device, DeviceError> {
        let (description, backend) = match self {
            DeviceName::Cpu if !tuning.is_empty() => {
                let what = "a tuning file changes generated kernels, and the CPU runs none";
                return Err(DeviceError::new(what, "name another device, or leave the file out"));
            }
            DeviceName::Cpu => return Ok(Device::cpu()),
            DeviceName::Vulkan(number) => vulkan::open(number, tuning)?,
            DeviceName::Cuda(number) => cuda::open(number, tuning)?,
        };
        Ok(Device::new(self, description, backend))
    }

    /// As [`Self::open_tuned`], with kernels from a bundle: none is compiled, and no compiler is needed.
    ///
    /// # Errors
    /// Also if the device runs no kernels of a bundle, or the bundle is missing, damaged or of another build.
    #[cfg(feature = "cube")]
    pub fn open_bundled(self, tuning: &str, folder: &Path) -> Result<Device, OpenError> {
        let DeviceName::Cuda(number) = self else {
            let what = format!("a bundle holds kernels for CUDA, and {self} does not run them");
            let remedy = "leave --bundle out, or name a CUDA device with --device";
            return Err(DeviceError::new(what, remedy).into());
        };
        let ahead = LoadedBundle::load(folder)?;
        #[cfg(feature = "cuda")]
        let (description, backend) = cuda::open_cached(number, tuning, ahead.cache_root())?;
        #[cfg(not(feature = "cuda"))]
        let (description, backend) = cuda::open(number, tuning)?;
        let device = Device::new(self, description, backend);
        Ok(Device { ahead: Some(Arc::new(ahead)), ..device })
    }
}

/// Why a device cannot be opened with a bundle.
#[cfg(feature = "cube")]
#[derive(Debug, Error)]
pub enum OpenError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// An open device; clones are the same device.
#[derive(Clone, Debug)]
pub struct Device {
    name: DeviceName,
    description: String,
    backend: Arc<dyn Backend>,
    #[cfg(feature = "cube")]
    ahead: Option<Arc<LoadedBundle>>,
}

impl Default for Device {
    fn default() -> Device {
        Device::cpu()
    }
}

impl Device {
    /// The processor: always there.
    pub fn cpu() -> Device {
        Device::new(DeviceName::Cpu, cpu_description(), Arc::new(Cpu::default()))
    }

    /// A device of the caller's own, such as one that watches what it is given, or, in a test, breaks it.
    pub fn new(name: DeviceName, description: String, backend: Arc<dyn Backend>) -> Device {
        Device {
            name,
            description,
            backend,
            #[cfg(feature = "cube")]
            ahead: None,
        }
    }

    /// A machine that is not here: programs can be compiled for it, and none can run.
    #[cfg(feature = "cube")]
    pub fn absent(name: DeviceName, machine: Machine) -> Device {
        let description = format!("{}, not here", machine.name);
        Device::new(name, description, Arc::new(Absent(machine)))
    }

    /// The bundle that its kernels come from.
    #[cfg(feature = "cube")]
    pub fn ahead(&self) -> Option<&LoadedBundle> {
        self.ahead.as_deref()
    }

    /// What the bundle did for a run so far; `None` without one.
    pub fn bundle_report(&self) -> Option<BundleReport> {
        #[cfg(feature = "cube")]
        return self.ahead().map(LoadedBundle::report);
        #[cfg(not(feature = "cube"))]
        None
    }

    /// The machine that plans are compiled and kernels are generated for.
    pub fn machine(&self) -> &Machine {
        self.backend.machine()
    }

    /// Its name on the command line.
    pub fn name(&self) -> DeviceName {
        self.name
    }

    /// What it is, in its driver's words.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Makes a plan ready to run.
    ///
    /// # Errors
    /// If the plan does not fit the device.
    pub fn prepare(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        self.backend.prepare(plan)
    }

    /// Whether plans run without anything being generated or compiled for them.
    pub fn runs_plans_as_they_are(&self) -> bool {
        self.machine().isa.is_none()
    }

    /// How it runs each launch of a plan of a model with this layout, as far as it chooses by sizes: kinds of kernels,
    /// tiles, splits, without the sizes.
    ///
    /// # Errors
    /// If the plan does not fit the device.
    pub fn ways(
        &self,
        plan: &Plan,
        #[cfg_attr(not(feature = "cube"), expect(unused, reason = "only generated kernels depend on it"))]
        layout: &Layout,
    ) -> Result<Vec<String>, ExecError> {
        #[cfg(feature = "cube")]
        if !self.runs_plans_as_they_are() {
            return Ok(gpu::ways(plan, layout, self.machine()).map_err(|e| CubeExecError::launch(plan, e))?);
        }
        Ok(self.backend.ways(plan))
    }
}

/// A device that `pg devices` lists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Listed {
    /// What `--device` takes.
    pub device: String,
    /// What it is; `null` if nothing of the kind was found.
    pub description: Option<String>,
    /// What keeps it from being used; `null` if nothing does.
    pub missing: Option<String>,
    /// What to do about that.
    pub remedy: Option<String>,
}

impl Listed {
    fn new(name: DeviceName, description: Option<String>, error: Option<DeviceError>) -> Listed {
        let (missing, remedy) = error.map(|e| (e.what, e.remedy)).unzip();
        Listed { device: name.to_string(), description, missing, remedy }
    }
}

/// Every device of this machine, and for each kind without one, why there is none.
pub fn list() -> Vec<Listed> {
    let mut all = vec![Listed::new(DeviceName::Cpu, Some(cpu_description()), None)];
    all.extend(of_kind(vulkan::find(), DeviceName::Vulkan, vulkan::check));
    all.extend(of_kind(cuda::find(), DeviceName::Cuda, cuda::check));
    all
}

fn of_kind(
    found: Vec<String>,
    name: impl Fn(usize) -> DeviceName,
    check: impl Fn(usize) -> Result<(), DeviceError>,
) -> Vec<Listed> {
    if found.is_empty() {
        return vec![Listed::new(name(0), None, check(0).err())];
    }
    let listed = |(n, description)| Listed::new(name(n), Some(description), check(n).err());
    found.into_iter().enumerate().map(listed).collect()
}

fn cpu_description() -> String {
    let threads = rayon::current_num_threads();
    format!("{} with {threads} thread{}", std::env::consts::ARCH, if threads == 1 { "" } else { "s" })
}
