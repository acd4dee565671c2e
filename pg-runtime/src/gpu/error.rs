//! What can be wrong with a device, a plan on it, or a call.

use pg_codegen::kernels::{CubeError, LaunchError};
use pg_codegen::plan::Plan;
use pg_ir::slot::Slot;

use crate::cpu::CallError;

/// An error of a GPU executor. A failed call leaves state that its launches wrote so far written.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CubeExecError {
    /// A launch cannot run on the device.
    #[error("launch {launch} of `{program}` ({note}): {error}")]
    Launch {
        /// The program.
        program: String,
        /// Position of the launch.
        launch: usize,
        /// What the launch computes, for people.
        note: String,
        /// What is wrong.
        error: Box<CubeError>,
    },
    /// A buffer of the plan is not what it must be.
    #[error("buffer `{label}` of `{program}`: {problem}")]
    Buffer {
        /// The program.
        program: String,
        /// The buffer.
        label: String,
        /// What is wrong.
        problem: String,
    },
    /// The program needs more memory at once than the device allocates.
    #[error("`{program}` needs {need} bytes in one allocation, {device} has {have}; use a smaller batch")]
    Memory {
        /// The program.
        program: String,
        /// The device.
        device: String,
        /// Bytes needed.
        need: u64,
        /// Bytes of the largest allocation.
        have: u64,
    },
    /// A call does not give what the program reads.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An id of the data lies outside the table that it is looked up in.
    #[error("`{program}`: {slot} holds {id}, but its table has {rows} rows; is it beyond the vocabulary?")]
    Index {
        /// The program.
        program: String,
        /// The data.
        slot: Slot,
        /// The id.
        id: i32,
        /// Rows of the table.
        rows: usize,
    },
    /// The device or its driver failed.
    #[error("{device} failed: {why}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        why: String,
    },
}

impl CubeExecError {
    /// A launch of a plan that cannot run on the device.
    pub(crate) fn launch(plan: &Plan, LaunchError { launch, error }: LaunchError) -> CubeExecError {
        let note = plan.launches[launch].note();
        CubeExecError::Launch { program: plan.program.clone(), launch, note, error: Box::new(error) }
    }
}
