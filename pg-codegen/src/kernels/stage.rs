//! The launches that one launch of a plan becomes.

use std::sync::Arc;

use pg_ir::ty::DType;

use super::kernel::Generated;

/// What is known of an argument where a kernel is launched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ArgInfo {
    /// Element type.
    pub dtype: DType,
    /// Elements.
    pub len: usize,
    /// Elements between where the buffer is bound, an aligned address, and where it begins.
    pub shift: usize,
    /// Whether it shares memory with an argument that the kernel writes.
    pub aliased: bool,
}

impl ArgInfo {
    /// A buffer of its own.
    pub fn whole(dtype: DType, len: usize) -> ArgInfo {
        ArgInfo { dtype, len, shift: 0, aliased: false }
    }
}

/// A buffer of a generated launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StageArg {
    /// An argument of the plan's launch.
    Arg(usize),
    /// A workspace, by position in [`Launches::workspaces`].
    Workspace(usize),
}

/// One generated launch.
#[derive(Clone, PartialEq, Debug)]
pub struct Stage {
    /// The kernel.
    pub kernel: Arc<Generated>,
    /// Its buffers.
    pub args: Vec<StageArg>,
    /// Thread blocks along each axis.
    pub grid: [u32; 3],
    /// Its part of the operations and bytes of the plan's launch. What only the split into several launches
    /// costs is nobody's part.
    pub share: f64,
}

/// Generated launches, to run in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Launches {
    /// The launches.
    pub stages: Vec<Stage>,
    /// Bytes of each workspace, whose contents matter only from one of the stages to the next.
    pub workspaces: Vec<usize>,
}

impl Launches {
    pub(crate) fn workspace(&mut self, bytes: usize) -> usize {
        self.workspaces.push(bytes);
        self.workspaces.len() - 1
    }

    pub(crate) fn push(&mut self, kernel: Generated, args: Vec<StageArg>, grid: [u32; 3], share: f64) {
        self.stages.push(Stage { kernel: Arc::new(kernel), args, grid, share });
    }

    /// Adds another's stages and workspaces, whose argument i is `args[i]` here.
    pub(crate) fn merge(&mut self, other: Launches, args: &[StageArg]) {
        let first = self.workspaces.len();
        self.workspaces.extend(other.workspaces);
        for mut stage in other.stages {
            for arg in &mut stage.args {
                *arg = match *arg {
                    StageArg::Arg(i) => args[i],
                    StageArg::Workspace(i) => StageArg::Workspace(first + i),
                };
            }
            self.stages.push(stage);
        }
    }

    /// As [`Self::merge`], for stages that only prepare what stages after them finish, or finish what stages before
    /// them began.
    pub(crate) fn append(&mut self, mut other: Launches, args: &[StageArg]) {
        other.stages.iter_mut().for_each(|stage| stage.share = 0.0);
        self.merge(other, args);
    }
}
