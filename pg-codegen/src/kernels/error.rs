//! Why a kernel cannot be made or launched.

use std::fmt;

/// Why a kernel cannot be made or launched.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CubeError {
    /// A launch exceeds a limit of the target.
    Limit {
        /// The kernel.
        kernel: String,
        /// Name of the machine.
        machine: String,
        /// What there is too much of.
        what: &'static str,
        /// How much the kernel needs.
        need: u64,
        /// How much the target has.
        have: u64,
    },
    /// The kernel needs something that the target or the generator does not have.
    Unsupported {
        /// The kernel.
        kernel: String,
        /// What.
        what: String,
    },
    /// The description of the kernel contradicts itself: a bug in the lowering.
    Malformed {
        /// The kernel.
        kernel: String,
        /// How.
        what: String,
    },
    /// CubeCL's compiler refused the kernel.
    Compile {
        /// The kernel.
        kernel: String,
        /// What it said.
        why: String,
    },
}

impl fmt::Display for CubeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CubeError::Limit { kernel, machine, what, need, have } => {
                write!(f, "kernel `{kernel}` needs {need} {what}, {machine} has {have}")
            }
            CubeError::Unsupported { kernel, what } => write!(f, "kernel `{kernel}`: {what}"),
            CubeError::Malformed { kernel, what } => {
                write!(f, "kernel `{kernel}` is malformed: {what} (a bug in the lowering)")
            }
            CubeError::Compile { kernel, why } => write!(f, "kernel `{kernel}` does not compile: {why}"),
        }
    }
}

impl std::error::Error for CubeError {}
