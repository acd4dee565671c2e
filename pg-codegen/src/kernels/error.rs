//! Why a kernel cannot be made or launched.

/// Why a kernel cannot be made or launched.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CubeError {
    /// A launch exceeds a limit of the target.
    #[error("kernel `{kernel}` needs {need} {what}, {machine} has {have}")]
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
    #[error("kernel `{kernel}`: {what}")]
    Unsupported {
        /// The kernel.
        kernel: String,
        /// What.
        what: String,
    },
    /// The description of the kernel contradicts itself: a bug in the lowering.
    #[error("kernel `{kernel}` is malformed: {what} (a bug in the lowering)")]
    Malformed {
        /// The kernel.
        kernel: String,
        /// How.
        what: String,
    },
    /// CubeCL's compiler refused the kernel.
    #[error("kernel `{kernel}` does not compile: {why}")]
    Compile {
        /// The kernel.
        kernel: String,
        /// What it said.
        why: String,
    },
}
