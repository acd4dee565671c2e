//! What is on this machine, as far as building, running and testing need it. Nothing here judges.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use pg_runtime::device::{Listed, list};

use super::{Finding, Purpose};

/// Something found, or what is missing and the remedy.
type Found = Result<String, (String, String)>;

/// What was found.
pub(super) struct Environment {
    /// CUDA's compiler, headers and disassembler.
    pub(super) tools: Vec<(String, Found)>,
    pub(super) vulkan_loader: Option<String>,
    pub(super) cuda_driver: Option<String>,
    pub(super) devices: Vec<Listed>,
    /// A C++ compiler.
    pub(super) compiler: Option<String>,
    /// Python's package installer, which fetches CUDA's tools.
    pub(super) pip: Option<String>,
}

impl Environment {
    /// Of this machine.
    pub(super) fn here() -> Environment {
        let cxx = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        Environment {
            tools: tools(),
            vulkan_loader: library("libvulkan.so.1"),
            cuda_driver: library("libcuda.so.1"),
            devices: list(),
            compiler: runs(&cxx, &["--version"]).then_some(cxx),
            pip: runs("python3", &["-m", "pip", "--version"]).then(|| "python3 -m pip".into()),
        }
    }

    /// Everything that is needed, in order of purposes.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let needed = |found: &Option<String>, missing: &str, remedy: &str| {
            found.clone().ok_or_else(|| (missing.to_string(), remedy.to_string()))
        };
        let mut all: Vec<Finding> = Vec::new();
        let tools = self.tools.iter();
        all.extend(tools.clone().map(|(what, found)| Finding::new(Purpose::Build, what, found.clone())));
        let loader = needed(
            &self.vulkan_loader,
            "libvulkan.so.1 is in no usual folder",
            "on Debian, apt-get install libvulkan1 mesa-vulkan-drivers",
        );
        all.push(Finding::new(Purpose::Vulkan, "Vulkan's loader", loader));
        all.extend(self.of_kind(Purpose::Vulkan, "vulkan"));
        let driver = needed(
            &self.cuda_driver,
            "libcuda.so.1 is in no usual folder",
            "install NVIDIA's driver; without a GPU, `pg build` still compiles for one",
        );
        all.push(Finding::new(Purpose::Cuda, "NVIDIA's driver", driver));
        all.extend(self.of_kind(Purpose::Cuda, "cuda"));
        all.extend(tools.map(|(what, found)| Finding::new(Purpose::Tests, what, found.clone())));
        let compiler = needed(&self.compiler, "no c++ runs", "on Debian, apt-get install g++; or set CXX");
        all.push(Finding::new(Purpose::Tests, "a C++ compiler", compiler));
        let pip = needed(&self.pip, "python3 has no pip", "on Debian, apt-get install python3-pip");
        all.push(Finding::new(Purpose::Tests, "pip, for scripts/cuda-tools", pip));
        all.extend(self.of_kind(Purpose::Tests, "vulkan"));
        all
    }

    /// The devices of a kind.
    fn of_kind(&self, purpose: Purpose, kind: &str) -> Vec<Finding> {
        let finding = |d: &Listed| {
            let found = match (&d.missing, &d.remedy) {
                (None, _) => Ok(d.description.clone().unwrap_or_default()),
                (Some(missing), remedy) => Err((missing.clone(), remedy.clone().unwrap_or_default())),
            };
            Finding::new(purpose, &format!("device {}", d.device), found)
        };
        self.devices.iter().filter(|d| d.device.starts_with(kind)).map(finding).collect()
    }
}

#[cfg(feature = "cube")]
fn tools() -> Vec<(String, Found)> {
    let found = |(what, found): pg_codegen::cuda::Part| {
        let found = found.map(|path| path.display().to_string()).map_err(|e| {
            let text = e.to_string();
            let (missing, remedy) = text.split_once("; ").unwrap_or((&text, "run scripts/cuda-tools"));
            (missing.to_string(), remedy.to_string())
        });
        (what.to_string(), found)
    };
    pg_codegen::cuda::Tools::survey().into_iter().map(found).collect()
}

#[cfg(not(feature = "cube"))]
fn tools() -> Vec<(String, Found)> {
    let missing = "this pg was built without kernels".to_string();
    let remedy = "build it with `cargo build --release -p pg-runtime --features cube`".to_string();
    vec![("CUDA's tools".into(), Err((missing, remedy)))]
}

/// A shared library in the folders where loaders look.
fn library(name: &str) -> Option<String> {
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let arch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let usual = [&arch, "/usr/lib64", "/usr/lib", "/lib64", "/usr/local/lib", "/usr/lib/wsl/lib"];
    let folders = std::env::split_paths(&named).chain(usual.into_iter().map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|path| path.exists()).map(|path| path.display().to_string())
}

/// Whether a command runs and succeeds.
fn runs(command: &str, args: &[&str]) -> bool {
    let mut command = Command::new(command);
    let status = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
