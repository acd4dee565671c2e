//! From a graph to a plan: views folded into loads, ops fused into regions, matmuls and attention
//! scheduled, memory laid out. It knows no training, no data and no optimiser policy.
//!
//! The road, one pass a file: [`precision`] (rounds, for targets that store bf16), [`working`] (what is computed
//! of parameters alone: left in memory or found there), [`canon`] (canonical graph), [`recompute`] (what the
//! backward computes again instead of keeping it), [`fold`] (constants), [`select`] (which values live in memory,
//! and why; [`effort`] and [`points`] estimate the alternative, [`halve`] cuts what binds too much), [`emit`] (values
//! to region instructions, over [`access`], [`view`] and [`domain`]), [`fuse`] (which stores share a region), [`epilogue`]
//! (which regions ride on a matmul), [`beside`] (which matmuls share a launch), [`schedule`] (buffers, launches)
//! with [`order`] over [`dag`], [`matmul`] and [`memory`]. [`pipeline`] runs them in order. Every graph is verified
//! after its pass, and every plan against its graph by [`verify`], which shares no code with what made it. [`provenance`]
//! says what launches compute in the model's terms, [`text`] prints plans, [`digest`] shortens them, [`structure`] tells kernels apart that differ
//! in more than size, [`target`] describes machines and [`roofline`] predicts launches on them; [`rewrites`] counts
//! what passes do. Behind the feature `cube`, kernels of a plan become CubeCL kernels, which `cuda` compiles for Hopper
//! without a device.

use std::fmt;

use pg_ir::graph::{Graph, Node, Origin};
use pg_ir::programs::{Program, Working};

mod access;
mod beside;
mod canon;
mod cost;
#[cfg(feature = "cube")]
pub mod cube;
#[cfg(feature = "cube")]
pub mod cuda;
mod dag;
pub mod digest;
mod domain;
mod effort;
mod emit;
mod epilogue;
mod fold;
mod fuse;
mod halve;
mod matmul;
mod memory;
mod order;
pub mod pipeline;
pub mod plan;
mod points;
pub mod precision;
pub mod provenance;
mod recompute;
pub mod region;
pub mod rewrites;
pub mod roofline;
mod schedule;
mod select;
mod structure;
pub mod target;
mod text;
pub mod tuning;
pub mod verify;
mod view;
pub mod witness;
mod working;

pub use pipeline::{compile_for, graph_after, lower_for};

/// How to lower.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fuse ops into regions. Without it every op that is not a view is a kernel of its own, which
    /// must give the same numbers.
    pub fuse: bool,
    /// How the program comes by working forms of parameters. What is lowered for a run takes it from
    /// the program: see [`Options::of`].
    pub working: Working,
}

impl Default for Options {
    fn default() -> Self {
        Options { fuse: true, working: Working::Own }
    }
}

impl Options {
    /// These options for one program of a run, beside the others.
    pub fn of(&self, program: &Program) -> Options {
        Options { working: program.working, ..self.clone() }
    }
}

/// Why a graph could not be lowered, with the place in the model that it comes from.
#[derive(Clone, PartialEq, Debug)]
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

impl fmt::Display for CodegenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot lower {}", self.origin.loc, self.message)
    }
}

impl std::error::Error for CodegenError {}

/// [`compile_for`] the CPU, which stores what the graph says: float32, unless it was rounded before.
///
/// # Errors
/// If an op cannot be lowered; the error names its place in the model.
pub fn compile(program_name: &str, graph: &Graph, options: &Options) -> Result<plan::Plan, CodegenError> {
    compile_for(program_name, graph, options, &target::CPU)
}
