//! Regions as a kernel family.

use std::sync::atomic::AtomicBool;

use pg_ir::ty::DType;

use super::super::amx::Amx;
use super::super::error::Problem;
use super::super::kernel::{CpuKernel, Positions};
use super::super::machine::Machine;
use super::super::raw::Arg;
use super::check::{check_touches, check_types};
use super::compile::CompiledRegion;
use super::run::run;

impl CpuKernel for CompiledRegion {
    fn written(&self) -> Positions {
        self.touches.iter().filter(|t| t.write).map(|t| t.arg).collect()
    }

    fn takes_storage(&self) -> bool {
        true
    }

    fn in_words(&self, _: &[DType], _: Option<Amx>) -> String {
        let blocks = self.columns > self.block_columns;
        let pieces = !self.accumulators.is_empty() && self.pieces() > 1;
        format!("{} passes, rows cut: {blocks}, sums cut: {pieces}", self.passes.len())
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        check_types(&self.types, args)?;
        check_touches(&self.touches, &self.domain(), args)
    }

    fn reserve(&self, _: &[(DType, usize)], _: Option<Amx>, machine: &mut Machine) {
        machine.scratch.reserve(self.scratch());
    }

    fn run(&self, args: &[Arg], _: Option<Amx>, machine: &mut Machine, outside: &AtomicBool) {
        run(self, args, &mut machine.scratch, machine.isa, outside);
    }
}
