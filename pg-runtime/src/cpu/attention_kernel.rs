//! Attention as kernel families: on AMX where it suits, otherwise on vectors.

use std::sync::atomic::AtomicBool;

use pg_codegen::plan::AttentionShape;
use pg_ir::ty::DType;

use super::amx::{self, Amx};
use super::attention;
use super::error::Problem;
use super::kernel::{CpuKernel, Positions};
use super::machine::Machine;
use super::raw::Arg;

/// Results and log-sum-exps.
#[derive(Debug)]
pub(crate) struct Forward(pub(crate) AttentionShape);

/// Gradients of queries, keys and values.
#[derive(Debug)]
pub(crate) struct Backward(pub(crate) AttentionShape);

impl CpuKernel for Forward {
    fn written(&self) -> Positions {
        Positions::from_slice(&[3, 4])
    }

    fn suits_amx(&self, dtypes: &[DType]) -> bool {
        Amx::suits_attention(self.0, dtypes)
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        attention::check(&self.0, args)
    }

    fn reserve(&self, args: &[(DType, usize)], amx: Option<Amx>, machine: &mut Machine) {
        machine.workspace.reserve(match amx {
            Some(_) => amx::attention::workspace(self.0, args[0].0),
            None => attention::workspace(self.0),
        });
    }

    fn run(&self, args: &[Arg], amx: Option<Amx>, machine: &mut Machine, _: &AtomicBool) {
        let Machine { workspace, isa, .. } = machine;
        match amx {
            Some(amx) => amx::attention::run(amx, self.0, args, workspace, *isa),
            None => attention::run(self.0, args, workspace, *isa),
        }
    }
}

impl CpuKernel for Backward {
    fn written(&self) -> Positions {
        Positions::from_slice(&[6, 7, 8])
    }

    fn suits_amx(&self, dtypes: &[DType]) -> bool {
        Amx::suits_attention(self.0, dtypes)
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        attention::check_grad(&self.0, args)
    }

    fn reserve(&self, args: &[(DType, usize)], amx: Option<Amx>, machine: &mut Machine) {
        machine.workspace.reserve(match amx {
            Some(_) => amx::attention::grad_workspace(self.0, args[0].0),
            None => attention::grad_workspace(self.0),
        });
    }

    fn run(&self, args: &[Arg], amx: Option<Amx>, machine: &mut Machine, _: &AtomicBool) {
        let Machine { workspace, isa, .. } = machine;
        match amx {
            Some(amx) => amx::attention::run_grad(amx, self.0, args, workspace, *isa),
            None => attention::run_grad(self.0, args, workspace, *isa),
        }
    }
}
