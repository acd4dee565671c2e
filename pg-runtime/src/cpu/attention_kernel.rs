//! Attention as a kernel family: on AMX where it suits, otherwise on vectors.

use std::sync::atomic::AtomicBool;

use pg_codegen::plan::AttentionShape;
use pg_ir::ty::DType;

use super::amx::{self, Amx};
use super::attention;
use super::error::Problem;
use super::kernel::{CpuKernel, Positions};
use super::machine::Machine;
use super::raw::Arg;

/// Results and log-sum-exps; or gradients of queries, keys and values.
#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) shape: AttentionShape,
    pub(crate) is_gradient: bool,
}

impl CpuKernel for Attention {
    fn written(&self) -> Positions {
        Positions::from_slice(if self.is_gradient { &[6, 7, 8] } else { &[3, 4] })
    }

    fn suits_amx(&self, dtypes: &[DType]) -> bool {
        Amx::suits_attention(self.shape, dtypes)
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        let check = if self.is_gradient { attention::check_grad } else { attention::check };
        check(&self.shape, args)
    }

    fn reserve(&self, args: &[(DType, usize)], amx: Option<Amx>, machine: &mut Machine) {
        machine.workspace.reserve(match (amx, self.is_gradient) {
            (Some(_), false) => amx::attention::workspace(self.shape, args[0].0),
            (Some(_), true) => amx::attention::grad_workspace(self.shape, args[0].0),
            (None, false) => attention::workspace(self.shape),
            (None, true) => attention::grad_workspace(self.shape),
        });
    }

    fn run(&self, args: &[Arg], amx: Option<Amx>, machine: &mut Machine, _: &AtomicBool) {
        let (workspace, isa) = (&mut machine.workspace, machine.isa);
        match (amx, self.is_gradient) {
            (Some(amx), false) => amx::attention::run(amx, self.shape, args, workspace, isa),
            (Some(amx), true) => amx::attention::run_grad(amx, self.shape, args, workspace, isa),
            (None, false) => attention::run(self.shape, args, workspace, isa),
            (None, true) => attention::run_grad(self.shape, args, workspace, isa),
        }
    }
}
