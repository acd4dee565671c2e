//! Which program made a report, on what, and when.

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, RefreshKind, System};

/// The commit that this program was built from: what `PG_COMMIT` said to its build, or git. `-dirty` follows where files that
/// decide what programs compute had been changed since.
pub const COMMIT: Option<&str> = option_env!("PG_COMMIT");

/// The machine of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct MachineReport {
    /// The processor's name, where the system says it.
    pub cpu: Option<String>,
    /// Threads of the processor that the process may use.
    pub cores: usize,
    /// The system with its version, where it says that.
    pub os: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
}

impl MachineReport {
    /// Of this machine.
    pub fn here() -> MachineReport {
        let cpus = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(cpus).ok();
        let name = system.as_ref().and_then(|s| s.cpus().first()).map(|cpu| cpu.brand().trim().to_owned());
        MachineReport {
            cpu: name.filter(|name| !name.is_empty()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.into()),
            arch: std::env::consts::ARCH.into(),
        }
    }
}

/// The time, as reports and records write it: UTC, to the second.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
