//! What can be wrong with a device, a plan on it, or a call.

use pg_codegen::kernels::{CubeError, LaunchError};
use pg_codegen::plan::Plan;
use pg_ir::slot::Slot;

use crate::cpu::CallError;

/// An error of a GPU executor. A failed call leaves state that its launches wrote so far written.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CubeExecError {
    /// A launch cannot run on the device.
    #[error("launch {launch} of `{program}` ({note}): {error}")]
    Launch { program: String, launch: usize, note: String, error: Box<CubeError> },
    /// A buffer of the plan is not what it must be.
    #[error("buffer `{label}` of `{program}`: {problem}")]
    Buffer { program: String, label: String, problem: String },
    /// The program needs more memory at once than the device allocates.
    #[error("`{program}` needs {need} bytes in one allocation, {device} has {have}; use a smaller batch")]
    Memory { program: String, device: String, need: u64, have: u64 },
    /// A call does not give what the program reads.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An id of the data lies outside the table that it is looked up in.
    #[error("`{program}`: {slot} holds {id}, but its table has {rows} rows; is it beyond the vocabulary?")]
    Index { program: String, slot: Slot, id: i32, rows: usize },
    /// The device or its driver failed.
    #[error("{device} failed: {why}")]
    Device { device: String, why: String },
}

impl CubeExecError {
    /// A launch of a plan that cannot run on the device.
    pub(crate) fn launch(plan: &Plan, LaunchError { launch, error }: LaunchError) -> CubeExecError {
        let note = plan.launches[launch].note();
        CubeExecError::Launch { program: plan.program.clone(), launch, note, error: Box::new(error) }
    }
}
