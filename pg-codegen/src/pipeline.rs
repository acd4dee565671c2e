//! The passes from a graph to a plan, in their order. Every graph is verified after the pass that made it, and the plan
//! against its graph, in every build; each pass is timed.
//!
//! This file decides the order and nothing else: what a pass does, and what it must never do, stands on top of its own
//! file.

use std::time::{Duration, Instant};

use pg_ir::graph::{Graph, Origin};

use crate::machine::Machine;
use crate::passes::{
    cached_weights, canonicalize, concatenate_k, fold_constants, fuse, fuse_epilogues, fuse_horizontally,
    materialize, precision, rematerialize, schedule,
};
use crate::plan::Plan;
use crate::plan::witness::Lowered;
use crate::{CodegenError, Options, verify};

macro_rules! passes {
    ($(#[doc = $doc:literal] $pass:ident = $name:literal,)+) => {
        /// A pass, in the order in which they run.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Pass {
            $(#[doc = $doc] $pass,)+
        }

        impl Pass {
            /// Every pass.
            pub const ALL: [Pass; [$($name,)+].len()] = [$(Pass::$pass,)+];

            /// Its name, that of its file.
            pub fn name(self) -> &'static str {
                match self {
                    $(Pass::$pass => $name,)+
                }
            }
        }
    };
}

passes! {
    /// `concatenate_k`: sums of dots as dots over segments of k.
    ConcatenateK = "concatenate_k",
    /// [`precision`]: storage types of the machine, as explicit rounds.
    Precision = "precision",
    /// `cached_weights`: quantised and rounded weights written for other programs, or read.
    CachedWeights = "cached_weights",
    /// `canonicalize`: only live nodes, no identities, dots in one form.
    Canonicalize = "canonicalize",
    /// `rematerialize`: which activations are saved; what the backward pass computes again is there twice.
    Rematerialize = "rematerialize",
    /// `fold_constants`: constants computed.
    FoldConstants = "fold_constants",
    /// `materialize`: what lives in memory chosen, and a region emitted for each of it.
    Materialize = "materialize",
    /// `fuse`: regions joined.
    Fuse = "fuse",
    /// `fuse_epilogues`: regions attached to contractions.
    FuseEpilogues = "fuse_epilogues",
    /// `fuse_horizontally`: contractions that share an operand joined.
    FuseHorizontally = "fuse_horizontally",
    /// `schedule`: launches ordered, buffers placed.
    Schedule = "schedule",
    /// The graph's verifier, after every pass that changed it, and [`verify`], of the plan.
    Verify = "verify",
}

/// How long passes took, of one compilation or of several.
#[derive(Clone, Copy, Default, Debug)]
pub struct Timing([Duration; Pass::ALL.len()]);

impl Timing {
    /// The time of a pass.
    pub fn of(&self, pass: Pass) -> Duration {
        self.0[pass as usize]
    }

    /// Adds another compilation's.
    pub fn add(&mut self, other: &Timing) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, t)| *sum += t);
    }

    /// All passes together.
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    fn run<T>(&mut self, pass: Pass, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = f();
        self.0[pass as usize] += start.elapsed();
        out
    }
}

/// Compiles one program into a plan for a target: one fused graph, stored as the target stores it, and the plan
/// [verified](verify) against it.
///
/// # Errors
/// If an op cannot be lowered, or if the plan is found to be wrong; the error names its place in the model.
pub fn compile_for(
    program_name: &str,
    graph: &Graph,
    options: &Options,
    machine: &Machine,
) -> Result<Plan, CodegenError> {
    compile_timed(program_name, graph, options, machine).map(|(plan, _)| plan)
}

/// [`compile_for`], and how long each pass took.
///
/// # Errors
/// As [`compile_for`].
pub fn compile_timed(
    program_name: &str,
    graph: &Graph,
    options: &Options,
    machine: &Machine,
) -> Result<(Plan, Timing), CodegenError> {
    let (lowered, mut timing) = lower(program_name, graph, options, machine)?;
    timing.run(Pass::Verify, || verify::verify(&lowered))?;
    Ok((lowered.plan, timing))
}

/// A plan that is not verified, with what verifying takes. For tests of the verifier: nothing may run it.
///
/// # Errors
/// If an op cannot be lowered; the error names its place in the model.
pub fn lower_for(
    program_name: &str,
    graph: &Graph,
    options: &Options,
    machine: &Machine,
) -> Result<Lowered, CodegenError> {
    lower(program_name, graph, options, machine).map(|(lowered, _)| lowered)
}

fn lower(
    program_name: &str,
    graph: &Graph,
    options: &Options,
    machine: &Machine,
) -> Result<(Lowered, Timing), CodegenError> {
    let (graphs, mut timing) = graphs(graph, options, machine)?;
    let Graphs { rematerialized: graph, copies, .. } = graphs;
    let constants = timing.run(Pass::FoldConstants, || fold_constants::find(&graph));
    let tables = timing.run(Pass::FoldConstants, || fold_constants::evaluate(&graph, &constants));
    let selection = timing.run(Pass::Materialize, || materialize::select(&graph, &constants, options))?;
    let mut groups =
        timing.run(Pass::Fuse, || fuse::groups(&graph, &constants, selection, &copies, options))?;
    if let Some(epilogues) = machine.epilogues.filter(|_| options.fuse) {
        timing.run(Pass::FuseEpilogues, || fuse_epilogues::attach(&graph, &mut groups, epilogues))?;
    }
    if options.fuse && machine.fuse_horizontally {
        timing.run(Pass::FuseHorizontally, || {
            fuse_horizontally::join(&graph, &constants, &mut groups, machine.storage)
        })?;
    }
    let lowered =
        timing.run(Pass::Schedule, || schedule::plan(program_name, graph, &constants, &tables, groups))?;
    Ok((lowered, timing))
}

/// The graph after a pass, as [`compile_for`] has it; later passes leave it as it is. For people: it compiles nothing.
///
/// # Errors
/// If an op cannot be lowered; the error names its place in the model.
pub fn graph_after(
    pass: Pass,
    graph: &Graph,
    options: &Options,
    machine: &Machine,
) -> Result<Graph, CodegenError> {
    let (graphs, _) = graphs(graph, options, machine)?;
    Ok(match pass {
        Pass::ConcatenateK => graphs.concatenated,
        Pass::Precision => graphs.stored,
        Pass::CachedWeights => graphs.placed,
        Pass::Canonicalize => graphs.canonical,
        _ => graphs.rematerialized,
    })
}

/// The graph as a machine stores it, before any pass that has to leave its numbers alone: with its sums of dots and with
/// its roundings. What the numbers of plans are compared with in tests; the verifier holds plans to [`Lowered`]'s graph.
///
/// # Errors
/// If an op cannot be lowered; the error names its place in the model.
pub fn stored(graph: &Graph, machine: &Machine) -> Result<Graph, CodegenError> {
    precision::store_as(&concatenated(graph, machine)?, machine.storage)
}

fn concatenated(graph: &Graph, machine: &Machine) -> Result<Graph, CodegenError> {
    match machine.concatenate_k {
        true => concatenate_k::concatenate(&canonicalize::canonical(graph)?),
        false => Ok(graph.clone()),
    }
}

/// What selection and fusion work on, and how it came to be.
struct Graphs {
    concatenated: Graph,
    stored: Graph,
    placed: Graph,
    canonical: Graph,
    rematerialized: Graph,
    copies: rematerialize::Copies,
}

fn graphs(graph: &Graph, options: &Options, machine: &Machine) -> Result<(Graphs, Timing), CodegenError> {
    let mut timing = Timing::default();
    let t = &mut timing;
    t.run(Pass::Verify, || sound("what was to be lowered", graph))?;
    let concatenated = t.run(Pass::ConcatenateK, || concatenated(graph, machine))?;
    t.run(Pass::Verify, || after(Pass::ConcatenateK, graph, &concatenated))?;
    let stored = t.run(Pass::Precision, || precision::store_as(&concatenated, machine.storage))?;
    t.run(Pass::Verify, || after(Pass::Precision, &concatenated, &stored))?;
    let placed = t.run(Pass::CachedWeights, || cached_weights::place(&stored, options.weight_cache))?;
    t.run(Pass::Verify, || after(Pass::CachedWeights, &stored, &placed))?;
    let canonical = t.run(Pass::Canonicalize, || canonicalize::canonical(&placed))?;
    t.run(Pass::Verify, || after(Pass::Canonicalize, &placed, &canonical))?;
    let (rematerialized, copies) = t.run(Pass::Rematerialize, || {
        rematerialize::rematerialize(&canonical, options, machine.remat_traffic)
    })?;
    t.run(Pass::Verify, || after(Pass::Rematerialize, &canonical, &rematerialized))?;
    Ok((Graphs { concatenated, stored, placed, canonical, rematerialized, copies }, timing))
}

/// Verifies a graph after a pass, unless the pass has left it alone.
fn after(pass: Pass, before: &Graph, graph: &Graph) -> Result<(), CodegenError> {
    if before == graph { Ok(()) } else { sound(&format!("the graph after `{}`", pass.name()), graph) }
}

/// Holds a graph to what must hold of every graph.
fn sound(what: &str, graph: &Graph) -> Result<(), CodegenError> {
    let failed = |why| {
        let message = format!("anything: {what} is not well formed: {why}");
        CodegenError { origin: Origin::pass("verify"), message }
    };
    pg_ir::verify::verify(graph).map_err(failed)
}
