//! Why a kernel cannot be made or launched.

/// Why a kernel cannot be made or launched.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CubeError {
    /// A launch exceeds a limit of the target.
    #[error("kernel `{kernel}` needs {need} {what}, {machine} has {have}")]
    Limit { kernel: String, machine: String, what: &'static str, need: u64, have: u64 },
    /// The kernel needs something that the target or the generator does not have.
    #[error("kernel `{kernel}`: {what}")]
    Unsupported { kernel: String, what: String },
    /// The description of the kernel contradicts itself: a bug in the lowering.
    #[error("kernel `{kernel}` is malformed: {what} (a bug in the lowering)")]
    Malformed { kernel: String, what: String },
    /// CubeCL's compiler refused the kernel.
    #[error("kernel `{kernel}` does not compile: {why}")]
    Compile { kernel: String, why: String },
}
