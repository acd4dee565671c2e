//! What can go wrong in a session.

use pg_codegen::CodegenError;
#[cfg(feature = "cube")]
use pg_codegen::cuda::BundleError;
use pg_ir::lang::Diagnostics;
use thiserror::Error;

use crate::executor::ExecError;
use crate::state::StateError;

/// Why a program cannot be compiled or run.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The model does not elaborate at this shape, or a proof that must hold of every program failed: it is not causal, or
    /// the compiler has a bug.
    #[error("{0}")]
    Model(Diagnostics),
    /// The graph could not be lowered.
    #[error(transparent)]
    Codegen(#[from] CodegenError),
    /// Binding or running failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The bundle has not what programs will ask for.
    #[cfg(feature = "cube")]
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The model has no `ttt` block.
    #[error("the model asks for no test-time training: its `eval` block has no `ttt`")]
    NoTtt,
    /// State of the wrong shape.
    #[error(transparent)]
    State(#[from] StateError),
    /// A micro-batch that is not its step's first, without the first.
    #[error(
        "`{0}` finds nothing to add to: the first micro-batch of the same phase must run on this state before it, \
         and the weights must not change between them"
    )]
    NotBegun(String),
}
