//! What can be wrong with a plan or with a call.

use pg_codegen::region::verify::Malformed;
use pg_ir::slot::Slot;
use pg_ir::ty::DType;

use crate::state::StateError;

/// An error of the CPU executor. A failed call leaves state that its launches wrote so far written.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// A launch does not fit its kernel. Only a bug in the lowering gives these.
    #[error("launch {launch} of `{program}` ({note}): {problem}")]
    Launch {
        /// The program.
        program: String,
        /// Position of the launch.
        launch: usize,
        /// What the launch computes, for people.
        note: String,
        /// What is wrong.
        problem: Problem,
    },
    /// A buffer of the plan is not what it must be.
    #[error("buffer `{label}` of `{program}`: {problem}")]
    Buffer {
        /// The program.
        program: String,
        /// The buffer.
        label: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The machine has not the memory for the program's temporaries.
    #[error(
        "`{program}` needs {bytes} bytes of memory at once, which this machine does not have: take a smaller batch or \
         shorter sequences"
    )]
    Memory {
        /// The program.
        program: String,
        /// Bytes asked for.
        bytes: usize,
    },
    /// A call does not give what the program reads.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An index read from data lies outside its table.
    #[error("`{program}`, {note}: an index is outside its table; is a token id beyond the vocabulary?")]
    Index {
        /// The program.
        program: String,
        /// What the launch computes, for people.
        note: String,
    },
}

/// What is missing or does not fit of what a call gives a program, on any device.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The call did not supply an input.
    #[error("`{program}` reads {slot}, which the call does not supply")]
    NoInput {
        /// The program.
        program: String,
        /// The input.
        slot: Slot,
    },
    /// The call supplied an input, or the state holds a parameter, of another length.
    #[error("`{program}` takes {want} elements for {slot}, not {have}")]
    Length {
        /// The program.
        program: String,
        /// The slot.
        slot: Slot,
        /// Elements of the plan's buffer.
        want: usize,
        /// Elements supplied.
        have: usize,
    },
    /// The state does not hold what the program needs.
    #[error("`{program}`: {error}")]
    State {
        /// The program.
        program: String,
        /// What is missing.
        error: StateError,
    },
}

/// What a call supplies for an input of a program.
pub(crate) fn supplied<T: Copy>(program: &str, slot: &Slot, inputs: &[(&str, T)]) -> Result<T, CallError> {
    let found = inputs.iter().find(|(name, _)| *name == slot.name);
    found.map(|i| i.1).ok_or_else(|| CallError::NoInput { program: program.into(), slot: slot.clone() })
}

/// Holds what is supplied, or kept in the state, to the elements of a program's buffer.
pub(crate) fn check_length(program: &str, slot: &Slot, want: usize, have: usize) -> Result<(), CallError> {
    match have == want {
        true => Ok(()),
        false => Err(CallError::Length { program: program.into(), slot: slot.clone(), want, have }),
    }
}

/// Why a launch does not fit its kernel.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("there is no kernel {0}")]
    NoKernel(u32),
    #[error("there is no buffer {0}")]
    NoBuffer(u32),
    #[error("{have} arguments for a kernel that takes {want}")]
    ArgCount { want: usize, have: usize },
    #[error("argument {arg} is {have}, the kernel takes {want}")]
    ArgType { arg: usize, want: DType, have: DType },
    #[error("argument {arg} has {len} elements, the kernel touches {first}..={last}")]
    ArgRange { arg: usize, len: usize, first: i64, last: i64 },
    #[error("argument {arg} has {have} elements, not {want}")]
    ArgLength { arg: usize, want: usize, have: usize },
    #[error("argument {arg} is written but is an input or a constant")]
    ReadOnly { arg: usize },
    #[error("argument {written} is written where argument {read} is read, at other indices")]
    Hazard { written: usize, read: usize },
    #[error(transparent)]
    Region(#[from] Malformed),
    #[error("{0}")]
    Shape(&'static str),
}
