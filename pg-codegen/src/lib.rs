//! From a graph to a plan: views folded into loads, ops fused into regions, matmuls and attention
//! scheduled, memory laid out. It knows no training, no data and no optimiser policy.
//!
//! The road, one pass a file: [`precision`] (rounds, for targets that store bf16), [`working`] (what is computed
//! of parameters alone: left in memory or found there), [`canon`] (canonical graph), [`recompute`] (what the
//! backward computes again instead of keeping it), [`fold`] (constants), [`select`] (which values live in memory,
//! and why; [`effort`] and [`points`] estimate the alternative, [`halve`] cuts what binds too much), [`emit`] (values to region
//! instructions, over [`access`], [`view`] and [`domain`]), [`fuse`] (which stores share a region), [`epilogue`]
//! (which regions ride on a matmul), [`beside`] (which matmuls share a launch), [`schedule`] (buffers, launches)
//! with [`order`] over [`dag`], [`matmul`] and [`memory`]. Every graph is verified after its pass, and every plan
//! against its graph by [`verify`], which shares no code with what made it. [`provenance`] says what launches compute
//! in the model's terms, [`text`] prints plans, [`digest`] shortens them, [`structure`] tells kernels apart that differ
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

/// Compiles one program into a plan for a target: one fused graph, stored as the target stores it, and the plan
/// [verified](verify) against it.
///
/// # Errors
/// If an op cannot be lowered, or if the plan is found to be wrong; the error names its place in the model.
pub fn compile_for(
    program_name: &str,
    graph: &Graph,
    options: &Options,
    target: &target::Target,
) -> Result<plan::Plan, CodegenError> {
    let lowered = lower_for(program_name, graph, options, target)?;
    verify::verify(&lowered)?;
    Ok(lowered.plan)
}

/// A plan that is not verified, with what verifying takes. For tests of the verifier: nothing may run it.
///
/// # Errors
/// If an op cannot be lowered; the error names its place in the model.
pub fn lower_for(
    program_name: &str,
    graph: &Graph,
    options: &Options,
    target: &target::Target,
) -> Result<witness::Lowered, CodegenError> {
    let Prepared { recomputed: graph, again, .. } = prepare(graph, options, target)?;
    let constants = fold::fold(&graph);
    let selection = select::select(&graph, &constants, options)?;
    let mut groups = fuse::groups(&graph, &constants, selection, &again, options)?;
    if let Some(epilogues) = target.epilogues.filter(|_| options.fuse) {
        epilogue::attach(&graph, &mut groups, epilogues)?;
    }
    if options.fuse && target.side_by_side {
        beside::join(&graph, &constants, &mut groups, target.storage)?;
    }
    schedule::plan(program_name, graph, &constants, groups)
}

/// [`compile_for`] the CPU, which stores what the graph says: float32, unless it was rounded before.
///
/// # Errors
/// If an op cannot be lowered; the error names its place in the model.
pub fn compile(program_name: &str, graph: &Graph, options: &Options) -> Result<plan::Plan, CodegenError> {
    compile_for(program_name, graph, options, &target::CPU)
}

/// A pass after which a program still is a graph, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GraphPass {
    /// [`precision`]: storage types of the target, as explicit rounds.
    Precision,
    /// [`working`]: working forms of parameters written for other programs, or read.
    Working,
    /// Only live nodes, no identities, contractions in one form.
    Canonical,
    /// Saved activations chosen: what the backward pass computes again is there twice.
    Recompute,
}

/// The graph after a pass, as [`compile_for`] has it. For people: it compiles nothing.
///
/// # Errors
/// If an op cannot be lowered; the error names its place in the model.
pub fn graph_after(
    pass: GraphPass,
    graph: &Graph,
    options: &Options,
    target: &target::Target,
) -> Result<Graph, CodegenError> {
    let prepared = prepare(graph, options, target)?;
    Ok(match pass {
        GraphPass::Precision => prepared.stored,
        GraphPass::Working => prepared.placed,
        GraphPass::Canonical => prepared.canonical,
        GraphPass::Recompute => prepared.recomputed,
    })
}

/// What selection and fusion work on, and how it came to be.
struct Prepared {
    stored: Graph,
    placed: Graph,
    canonical: Graph,
    recomputed: Graph,
    again: recompute::Again,
}

fn prepare(graph: &Graph, options: &Options, target: &target::Target) -> Result<Prepared, CodegenError> {
    sound("what was to be lowered", graph)?;
    let stored = precision::store_as(graph, target.storage)?;
    after("precision", graph, &stored)?;
    let placed = working::place(&stored, options.working)?;
    after("working", &stored, &placed)?;
    let canonical = canon::canonical(&placed)?;
    after("canon", &placed, &canonical)?;
    let (recomputed, again) = recompute::recompute(&canonical, options, target.recompute_traffic)?;
    after("recompute", &canonical, &recomputed)?;
    Ok(Prepared { stored, placed, canonical, recomputed, again })
}

/// Verifies a graph after a pass, unless the pass has left it alone.
fn after(pass: &str, before: &Graph, graph: &Graph) -> Result<(), CodegenError> {
    if before == graph { Ok(()) } else { sound(&format!("the graph after `{pass}`"), graph) }
}

/// Holds a graph to what must hold of every graph.
fn sound(what: &str, graph: &Graph) -> Result<(), CodegenError> {
    let failed = |why| {
        let message = format!("anything: {what} is not well formed: {why}");
        CodegenError { origin: Origin::pass("verify"), message }
    };
    pg_ir::verify::verify(graph).map_err(failed)
}
