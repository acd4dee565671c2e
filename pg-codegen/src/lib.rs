//! From a graph to a plan: views folded into loads, ops fused into regions, matmuls and attention
//! scheduled, memory laid out. It knows no training, no data and no optimiser policy.
//!
//! [`pipeline`] is the list of passes, in order; each is a file in `passes/`. A graph is rebuilt by `precision`,
//! `cached_weights`, `canonicalize` and `rematerialize`, and verified after each. `fold_constants` and `materialize`
//! choose the values that live in memory and emit a [`region`] for each, over `index` maps; `fuse`, `fuse_epilogues`
//! and `fuse_horizontally` join launches; `schedule` orders them and lays out memory. [`verify`] holds every [`plan`] to
//! its graph and shares no code with the passes.
//!
//! [`machine`] describes devices, predicts launches on them and holds the tuning table. [`report`] is plans for
//! people. Behind the feature `cube`, [`kernels`] turns launches into CubeCL kernels, which [`cuda`] compiles for Hopper
//! without a device.

use pg_ir::graph::{Graph, Node, Origin};
use pg_ir::programs::{Program, WeightCache};

#[cfg(feature = "cube")]
pub mod cuda;
mod index;
#[cfg(feature = "cube")]
pub mod kernels;
pub mod machine;
pub mod passes;
pub mod pipeline;
pub mod plan;
pub mod region;
pub mod report;
pub mod verify;

pub use pipeline::{compile_for, graph_after, lower_for, stored};

/// How to lower.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fuse ops into regions. Without it every op that is not a view is a kernel of its own, which
    /// must give the same numbers.
    pub fuse: bool,
    /// How the program comes by cached weights. What is lowered for a run takes it from
    /// the program: see [`Options::of`].
    pub weight_cache: WeightCache,
}

impl Default for Options {
    fn default() -> Self {
        Options { fuse: true, weight_cache: WeightCache::None }
    }
}

impl Options {
    /// These options for one program of a run, beside the others.
    pub fn of(&self, program: &Program) -> Options {
        Options { weight_cache: program.weight_cache, ..self.clone() }
    }
}

/// Why a graph could not be lowered, with the place in the model that it comes from.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("{}: cannot lower {message}", .origin.loc)]
pub struct CodegenError {
    /// Where the op comes from.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
}

impl CodegenError {
    pub(crate) fn at(node: &Node, message: impl Into<String>) -> Self {
        CodegenError { origin: node.origin.clone(), message: format!("{}: {}", node.op, message.into()) }
    }
}

/// [`compile_for`] the CPU, which stores what the graph says: float32, unless it was rounded before.
///
/// # Errors
/// If an op cannot be lowered; the error names its place in the model.
pub fn compile(program_name: &str, graph: &Graph, options: &Options) -> Result<plan::Plan, CodegenError> {
    compile_for(program_name, graph, options, &machine::CPU)
}
