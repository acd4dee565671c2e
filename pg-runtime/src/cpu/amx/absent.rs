//! Machines of another architecture have no AMX: see `mod.rs`, which stands for this file on x86-64.

use pg_codegen::plan::AttentionShape;
use pg_ir::ty::DType;

use super::matmul::Matrix;
use super::workspace::{Workspace, WorkspaceSize};

/// Never made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Amx {}

impl Amx {
    pub(crate) fn detect() -> Option<Amx> {
        None
    }

    pub(crate) fn suits(_: [usize; 3], _: [DType; 3], _: [usize; 2]) -> bool {
        false
    }

    pub(crate) fn suits_attention(_: AttentionShape, _: &[DType]) -> bool {
        false
    }
}

/// No product runs on units.
pub(crate) const BATCH: usize = usize::MAX;

pub(crate) fn workspace(_: usize, _: [usize; 3], _: [DType; 3]) -> WorkspaceSize {
    WorkspaceSize::default()
}

/// # Safety
/// None is asked for.
pub(crate) unsafe fn products(
    amx: Amx,
    _: [usize; 3],
    _: (usize, impl Fn(usize) -> [Matrix; 3] + Sync),
    _: bool,
    _: bool,
    _: &mut Workspace,
) {
    match amx {}
}

pub(crate) mod attention {
    use pg_codegen::plan::AttentionShape;
    use pg_ir::ty::DType;

    use super::super::raw::Arg;
    use super::super::simd::Isa;
    use super::{Amx, Workspace, WorkspaceSize};

    pub(crate) fn workspace(_: AttentionShape, _: DType) -> WorkspaceSize {
        WorkspaceSize::default()
    }

    pub(crate) fn grad_workspace(_: AttentionShape, _: DType) -> WorkspaceSize {
        WorkspaceSize::default()
    }

    pub(crate) fn run(amx: Amx, _: AttentionShape, _: &[Arg], _: &mut Workspace, _: Isa) {
        match amx {}
    }

    pub(crate) fn run_grad(amx: Amx, _: AttentionShape, _: &[Arg], _: &mut Workspace, _: Isa) {
        match amx {}
    }
}
