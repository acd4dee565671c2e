//! Machines of another architecture have no AMX: see `mod.rs`, which stands for this file on x86-64.

use super::matmul::Matrix;
use super::workspace::{Workspace, WorkspaceSize};

/// Never made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Amx {}

impl Amx {
    pub(crate) fn detect() -> Option<Amx> {
        None
    }

    pub(crate) fn suits(_: [usize; 3], _: Matrix) -> bool {
        false
    }
}

pub(crate) fn workspace(_: [usize; 3]) -> WorkspaceSize {
    WorkspaceSize::default()
}

/// # Safety
/// None is asked for.
pub(crate) unsafe fn product(amx: Amx, _: [usize; 3], _: [Matrix; 3], _: bool, _: bool, _: &mut Workspace) {
    match amx {}
}
