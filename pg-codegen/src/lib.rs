//! From a graph to a plan: views folded into loads, ops fused into regions, matmuls and attention
//! scheduled, memory laid out. It knows no training, no data and no optimiser policy.
//!
//! The road, one pass a file: [`canon`] (canonical graph), [`fold`] (constants), [`select`] (which
//! values live in memory, and why; [`effort`] estimates the alternative), [`emit`] (values to region
//! instructions, over [`access`], [`view`] and [`domain`]), [`fuse`] (which stores share a region),
//! [`schedule`] (order, buffers, launches) with [`matmul`] and [`memory`], and [`text`] (the plan for
//! people). Behind the feature `cube`, kernels of a plan become CubeCL kernels, which
//! `cuda` compiles for Hopper without a device.

use std::fmt;

use pg_ir::graph::{Graph, Node, Origin};

mod access;
mod canon;
mod cost;
#[cfg(feature = "cube")]
pub mod cube;
#[cfg(feature = "cube")]
pub mod cuda;
mod domain;
mod effort;
mod emit;
mod fold;
mod fuse;
mod matmul;
mod memory;
pub mod plan;
pub mod region;
mod schedule;
mod select;
mod text;
mod view;

/// How to lower.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fuse ops into regions. Without it every op that is not a view is a kernel of its own, which
    /// must give the same numbers.
    pub fuse: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { fuse: true }
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

/// Compiles one program into a plan.
pub fn compile(program_name: &str, graph: &Graph, options: &Options) -> Result<plan::Plan, CodegenError> {
    let graph = canon::canonical(graph)?;
    let constants = fold::fold(&graph);
    let selection = select::select(&graph, &constants, options)?;
    let groups = fuse::groups(&graph, &constants, selection, options)?;
    schedule::plan(program_name, &graph, &constants, groups)
}
