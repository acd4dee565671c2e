//! The plan verifier: a plan is checked against the graph that it was made of, before anything runs it, in every
//! build. It trusts nothing that made the plan: scheduling only says which value each argument holds
//! ([`Roles`]), and each file here holds that claim, and the plan, to one family of rules.
//!
//! | file | what it checks |
//! |---|---|
//! | [`launch`] | kernels, buffers and arguments: that they exist, their number, types and lengths |
//! | [`region`] | regions: types of registers, rows and elements, shapes of index maps |
//! | [`product`] | what products, alone, with regions and side by side, promise to executors |
//! | [`bounds`] | every index map inside its buffer for all its domain, over [`range`] |
//! | [`cover`] | every element of what is written is written, once |
//! | [`contents`] | which value each buffer holds when: nothing read before it is there or after it is gone, every output |
//! | [`in_place`] | what is read and written by one launch |
//! | [`arena`] | temporaries that live together lie apart |
//! | [`library`], [`dot`] | attention, scatters, constants, and products, against their nodes |
//! | [`meaning`], [`walk`] | regions against the graph, instruction by instruction, at [`points`] of their domain |
//! | [`census`] | every node with a kernel of its own in one launch, FLOPs, provenance |
//!
//! [`element`] follows one element of a value through views, [`known`] evaluates what depends on no input. Together
//! the rules are an induction over launches: if arguments hold what is claimed before a launch, they do after it. What
//! they cannot see is arithmetic inside a kernel's execution; index maps in `meaning` and `library` are compared at
//! points that tell affine maps apart, not at all of them. A finding is a fault of the compiler, never of a model,
//! and the verifier must never change a plan. Its time is linear in instructions and launches, but for one sort.

use pg_ir::graph::{Graph, Origin, ValueId};
use smallvec::SmallVec;

use crate::CodegenError;
use crate::plan::witness::{Lowered, Roles};
use crate::plan::{Buffer, Kernel, Launch, Plan};

mod access;
mod arena;
mod bounds;
mod census;
mod contents;
mod cover;
mod dot;
mod element;
mod in_place;
mod known;
mod launch;
mod library;
mod meaning;
mod number;
mod points;
mod product;
mod range;
mod region;
mod walk;

/// A family of rules.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Check {
    /// Kernels, buffers and arguments exist and have the types and lengths that they need.
    Shapes,
    /// Regions and products are well formed.
    Kernels,
    /// Index maps stay inside their buffers.
    Bounds,
    /// What is written is written whole, and each element once.
    Cover,
    /// Buffers hold what is read of them; outputs are written.
    Contents,
    /// Launches that read what they write do so element by element.
    InPlace,
    /// Temporaries that live together lie apart.
    Arena,
    /// Launches compute what the graph says.
    Meaning,
    /// Every node with a kernel of its own is in one launch.
    Census,
}

/// What is wrong with a plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Finding {
    /// The rules that it breaks.
    pub check: Check,
    /// The launch, if it is about one.
    pub launch: Option<usize>,
    /// The value of the graph, if it is about one and no launch.
    pub value: Option<ValueId>,
    /// What is wrong.
    pub message: String,
}

impl Finding {
    fn new(check: Check, message: impl Into<String>) -> Finding {
        Finding { check, launch: None, value: None, message: message.into() }
    }

    fn of(check: Check, value: ValueId, message: impl Into<String>) -> Finding {
        Finding { value: Some(value), ..Finding::new(check, message) }
    }

    fn at(check: Check, launch: usize, message: impl Into<String>) -> Finding {
        Finding { launch: Some(launch), ..Finding::new(check, message) }
    }
}

/// A plan under test. Until [`Check::Shapes`] has passed, no id in it may be followed.
#[derive(Clone, Copy)]
struct Subject<'a> {
    plan: &'a Plan,
    graph: &'a Graph,
    roles: &'a [Roles],
    known: &'a known::Known<'a>,
}

impl<'a> Subject<'a> {
    fn launches(self) -> impl Iterator<Item = (usize, &'a Launch, &'a Roles)> {
        self.plan.launches.iter().zip(self.roles).enumerate().map(|(i, (l, r))| (i, l, r))
    }

    fn kernel(self, launch: &Launch) -> &'a Kernel {
        &self.plan.kernels[launch.kernel.0 as usize]
    }

    fn buffer(self, launch: &Launch, arg: usize) -> &'a Buffer {
        &self.plan.buffers[launch.args[arg].0 as usize]
    }

    /// Holds each launch to a rule, but for one whose kernel ran last on buffers of the same lengths.
    fn each(self, check: Check, rule: fn(Self, &Launch) -> Result<(), String>) -> Result<(), Finding> {
        // By kernel: the lengths of the buffers of the last launch that ran it.
        let mut seen: Vec<Option<SmallVec<[usize; 12]>>> = vec![None; self.plan.kernels.len()];
        for (i, launch, _) in self.launches() {
            let lens = Some(launch.args.iter().map(|b| self.plan.buffers[b.0 as usize].len).collect());
            let known = &mut seen[launch.kernel.0 as usize];
            if *known != lens {
                *known = lens;
                rule(self, launch).map_err(|e| Finding::at(check, i, e))?;
            }
        }
        Ok(())
    }

    /// A value for people: its op, type and place.
    fn describe(self, value: ValueId) -> String {
        describe(self.graph, value)
    }
}

/// A value for people: `%12 = mul f32[b2, t4] at std/norm.pg:4, called at model.rs:4`.
fn describe(graph: &Graph, value: ValueId) -> String {
    let node = graph.producer(value);
    let loc = &node.origin.loc;
    let call = node.origin.call.as_ref();
    let call = call.map_or(String::new(), |call| format!(", called at {}:{}", call.file, call.line));
    format!("{value} = {} {} at {}:{}{call}", node.op.record().name, graph.ty(value), loc.file, loc.line)
}

/// Verifies a plan.
///
/// # Errors
/// The first finding, with the program, the launch and the lines of the model that it computes.
pub fn verify(lowered: &Lowered) -> Result<(), CodegenError> {
    match findings(lowered, true).into_iter().next() {
        None => Ok(()),
        Some(finding) => Err(error(lowered, &finding)),
    }
}

/// The first finding of each check.
pub fn all_findings(lowered: &Lowered) -> Vec<Finding> {
    findings(lowered, false)
}

fn findings(lowered: &Lowered, only_one: bool) -> Vec<Finding> {
    type Rules = fn(Subject<'_>) -> Result<(), Finding>;
    // What the first ones establish, the others rely on.
    let malformed: [Rules; 3] = [launch::check, region::check, product::check];
    let wrong: [Rules; 8] = [
        census::check,
        contents::check,
        bounds::check,
        cover::check,
        in_place::check,
        arena::check,
        library::check,
        meaning::check,
    ];
    let Lowered { plan, graph, roles } = lowered;
    let known = known::Known::new(graph);
    let subject = Subject { plan, graph, roles, known: &known };
    if let Some(finding) = malformed.into_iter().find_map(|rules| rules(subject).err()) {
        return vec![finding];
    }
    let mut found = wrong.into_iter().filter_map(|rules| rules(subject).err());
    if only_one { found.next().into_iter().collect() } else { found.collect() }
}

/// A finding as the error of a compilation.
fn error(lowered: &Lowered, finding: &Finding) -> CodegenError {
    let Lowered { plan, graph, roles } = lowered;
    let written = |launch: usize| roles.get(launch)?.writes.iter().flatten().next().copied();
    let value =
        finding.value.or(finding.launch.and_then(written)).filter(|v| v.index() < graph.value_count());
    let origin = value.map_or(Origin::pass("verify"), |v| graph.producer(v).origin.clone());
    let mut place = String::new();
    if let Some(i) = finding.launch {
        let note = plan.launches.get(i).map_or(String::new(), |launch| {
            let mut lines: Vec<String> = launch.provenance.model_lines().map(ToString::to_string).collect();
            lines.dedup();
            let lines =
                if lines.is_empty() { String::new() } else { format!("; model lines {}", lines.join(" ")) };
            format!(" ({}{lines})", launch.note())
        });
        place = format!(", launch #{i}{note}");
    }
    let message = format!(
        "program `{}`{place}: {}; this is a fault of the compiler, please report it with the model",
        plan.program, finding.message
    );
    CodegenError { origin, message }
}
