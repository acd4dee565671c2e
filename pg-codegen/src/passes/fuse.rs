//! Fusion: which stores share a region.
//!
//! It starts from one region for each kept value and joins regions as long as that saves traffic, the largest saving
//! first: a region with what it reads from another, and regions that read the same buffer; at last small regions over one
//! domain, which saves launches. A join is tried by emitting it; a value that only the joined region reads is then no
//! longer stored. It must never make two kernels wait for each other, and never widen a region beyond what devices bind.

use std::collections::BTreeMap;

use pg_ir::graph::{Graph, NodeId, Origin, ValueId};
use pg_ir::op::{Op, Operands};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::index::access::{Blocked, Context};
use crate::index::domain::Domain;
use crate::index::matrix::operand;
use crate::machine::FEWEST_BINDINGS;
use crate::passes::dag::{Access, Dag};
use crate::passes::emit::{Built, build};
use crate::passes::fold_constants::Constants;
use crate::passes::materialize::{Absorbed, Selection};
use crate::passes::rematerialize::Copies;
use crate::passes::rewrites::Rewrite;
use crate::plan::Side;
use crate::{CodegenError, Options};

/// Buffers that one region binds: one fused graph serves all targets, and CubeCL binds one of its own.
pub(crate) const MAX_ARGS: usize = FEWEST_BINDINGS - 1;
/// Regions that touch no more than this are joined with their like, whatever they read.
const SMALL_BYTES: usize = 64 << 10;
/// Instructions of one region.
const MAX_INSTRS: usize = 400;

/// What one launch computes.
pub(crate) enum Work {
    /// A region.
    Region(Built),
    /// Dots: one, or several that share the operand on one side, none of which waits for another.
    Contraction(Option<Side>, Vec<Dot>),
    /// A node with another kernel family of its own, the buffers that it reads and those that it writes.
    Library(NodeId, Vec<ValueId>, Vec<ValueId>),
    /// Nothing any more: another launch has taken it up.
    Gone,
}

/// A dot of a contraction.
pub(crate) struct Dot {
    /// The node.
    pub(crate) node: NodeId,
    /// The buffers of its operands, in pairs.
    pub(crate) operands: Operands,
    /// What becomes of its result.
    pub(crate) result: DotResult,
}

/// What becomes of a dot's result.
pub(crate) enum DotResult {
    /// It is written to this value's buffer.
    Stored(ValueId),
    /// A region takes it, whose argument 0 it is.
    Epilogue(Built),
}

/// The launches of a program, unordered.
pub(crate) struct Groups {
    /// The launches.
    pub(crate) work: Vec<Work>,
    /// By value: whether a launch writes it to memory.
    pub(crate) stored: Vec<bool>,
    /// Why values are stored.
    pub(crate) why: FxHashMap<ValueId, &'static str>,
    /// Dots that write into another value's buffer.
    pub(crate) absorbed: FxHashMap<NodeId, Absorbed>,
    /// Values in memory that leave the program, as they are or as a view.
    pub(crate) outputs: FxHashSet<ValueId>,
}

impl Dot {
    /// Values whose buffers it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.operands.iter().copied().chain(self.epilogue_args(false))
    }

    /// Values whose buffers it writes.
    pub(crate) fn writes(&self) -> impl Iterator<Item = ValueId> + '_ {
        let stored = if let DotResult::Stored(value) = self.result { Some(value) } else { None };
        stored.into_iter().chain(self.epilogue_args(true))
    }

    fn epilogue_args(&self, written: bool) -> impl Iterator<Item = ValueId> + '_ {
        let args = if let DotResult::Epilogue(built) = &self.result { &built.args[1..] } else { &[] };
        args.iter().filter(move |a| a.1 == written).map(|a| a.0)
    }
}

impl Work {
    /// Values whose buffers it reads.
    pub(crate) fn reads(&self) -> Vec<ValueId> {
        match self {
            Work::Region(built) => built.args.iter().filter(|a| !a.1).map(|a| a.0).collect(),
            Work::Contraction(_, dots) => dots.iter().flat_map(Dot::reads).collect(),
            Work::Library(_, reads, _) => reads.clone(),
            Work::Gone => Vec::new(),
        }
    }

    /// Values whose buffers it writes.
    pub(crate) fn writes(&self) -> Vec<ValueId> {
        match self {
            Work::Region(built) => built.args.iter().filter(|a| a.1).map(|a| a.0).collect(),
            Work::Contraction(_, dots) => dots.iter().flat_map(Dot::writes).collect(),
            Work::Library(_, _, writes) => writes.clone(),
            Work::Gone => Vec::new(),
        }
    }

    /// The buffers that it reads and writes; `None` if it is gone.
    pub(crate) fn access(&self) -> Option<Access> {
        let is_there = !matches!(self, Work::Gone);
        is_there.then(|| Access { reads: self.reads().into(), writes: self.writes().into() })
    }

    /// The dot of a contraction of one.
    pub(crate) fn single(&self) -> Option<&Dot> {
        if let Work::Contraction(None, dots) = self { dots.first() } else { None }
    }
}

/// Joins regions.
pub(crate) fn groups(
    graph: &Graph,
    constants: &Constants,
    selection: Selection,
    copies: &Copies,
    options: &Options,
) -> Result<Groups, CodegenError> {
    let Selection { stored, why, regions, library, absorbed, rounded } = selection;
    let cx = Context { graph, constants, stored: &stored };
    let mut work: Vec<Work> = regions.into_iter().map(|(_, built)| Work::Region(built)).collect();
    for id in library {
        let node = graph.node(id);
        let reads: Result<Vec<ValueId>, Blocked> =
            (0..node.operands.len()).map(|i| operand(cx, node, i)).collect();
        let reads = reads.map_err(|e| CodegenError::at(node, format!("internal error: {e:?}")))?;
        let writes = match absorbed.get(&id) {
            Some(a) => vec![a.value],
            None => graph.results(node).map(|r| rounded.get(&r).copied().unwrap_or(r)).collect(),
        };
        work.push(match (&node.op, &writes[..]) {
            (Op::Dot(_), &[value]) => {
                let (operands, result) = (reads.into(), DotResult::Stored(value));
                Work::Contraction(None, vec![Dot { node: id, operands, result }])
            }
            _ => Work::Library(id, reads, writes),
        });
    }
    let outputs = graph.outputs.iter().filter_map(|o| cx.buffer_of(o.value)).collect();
    let dag = dag(graph, &work)?;
    let mut fuser =
        Fuser { graph, constants, copies, stored, work, outputs, dag, failed: FxHashSet::default() };
    if options.fuse {
        while fuser.round() {}
    }
    let Fuser { stored, mut work, outputs, .. } = fuser;
    work.retain(|w| !matches!(w, Work::Gone));
    Ok(Groups { work, stored, why, absorbed, outputs })
}

/// Which launch waits for which.
///
/// # Errors
/// If launches wait for each other: a pass has joined what it must not.
pub(crate) fn dag(graph: &Graph, work: &[Work]) -> Result<Dag, CodegenError> {
    Dag::new(graph.value_count(), work.iter().map(Work::access)).map_err(|stuck| {
        let first = work[stuck].writes().into_iter().min().map(|v| graph.producer(v));
        let origin = first.map_or_else(|| Origin::pass("fuse"), |node| node.origin.clone());
        CodegenError { origin, message: "internal error: its launch waits for itself".into() }
    })
}

struct Fuser<'a> {
    graph: &'a Graph,
    constants: &'a Constants,
    copies: &'a Copies,
    stored: Vec<bool>,
    /// Launches; joined ones are gone.
    work: Vec<Work>,
    /// Values that leave the program.
    outputs: FxHashSet<ValueId>,
    /// Which launch waits for which.
    dag: Dag,
    /// Pairs that cannot be joined. Launches never change in place, so this stays true.
    failed: FxHashSet<(usize, usize)>,
}

impl Fuser<'_> {
    fn alive(&self) -> impl Iterator<Item = (usize, &Work)> {
        self.work.iter().enumerate().filter(|(_, w)| !matches!(w, Work::Gone))
    }

    fn region(&self, i: usize) -> Option<&Built> {
        match &self.work[i] {
            Work::Region(built) => Some(built),
            _ => None,
        }
    }

    /// Tries every promising pair once; says whether anything was joined.
    fn round(&mut self) -> bool {
        let mut joined = false;
        for (_, a, b) in self.candidates() {
            if [a, b].iter().any(|&i| matches!(self.work[i], Work::Gone)) {
                continue;
            }
            match self.join(a, b) {
                true => joined = true,
                false => drop(self.failed.insert((a, b))),
            }
        }
        joined
    }

    /// Pairs of regions with the bytes that joining them saves, the best first.
    fn candidates(&self) -> Vec<(usize, usize, usize)> {
        let mut writer: FxHashMap<ValueId, usize> = FxHashMap::default();
        let mut readers: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
        for (i, work) in self.alive().filter(|(_, w)| matches!(w, Work::Region(_))) {
            writer.extend(work.writes().into_iter().map(|v| (v, i)));
            work.reads().into_iter().for_each(|v| readers.entry(v).or_default().push(i));
        }
        let mut saved: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for (value, who) in &readers {
            let bytes = self.graph.ty(*value).bytes();
            if let Some(&from) = writer.get(value) {
                // The load goes, and perhaps the store.
                who.iter().for_each(|&to| *saved.entry((from, to)).or_default() += 2 * bytes);
            }
            let mut ordered = who.clone();
            ordered.sort_by_key(|&i| self.position(i));
            for pair in ordered.windows(2) {
                let len = |i: usize| self.region(pair[i]).map_or(0, |b| b.domain.len());
                if self.graph.ty(*value).len() * 4 >= len(0).max(len(1)) {
                    *saved.entry((pair[0], pair[1])).or_default() += bytes;
                }
            }
        }
        for pair in self.small_pairs() {
            saved.entry(pair).or_insert(0);
        }
        let mut pairs: Vec<(usize, usize, usize)> = saved
            .into_iter()
            .filter(|(pair, _)| !self.failed.contains(pair))
            .map(|((a, b), bytes)| (bytes, a, b))
            .collect();
        pairs.sort_by_key(|&(bytes, a, b)| (std::cmp::Reverse(bytes), a, b));
        pairs
    }

    /// Neighbours among the small regions of one domain: joined they save a launch, if no traffic.
    fn small_pairs(&self) -> Vec<(usize, usize)> {
        let mut alike: BTreeMap<(&[usize], usize), Vec<usize>> = BTreeMap::new();
        for (i, _) in self.alive() {
            let Some(built) = self.region(i) else { continue };
            let bytes: usize = built.args.iter().map(|(v, _)| self.graph.ty(*v).bytes()).sum();
            if bytes <= SMALL_BYTES {
                alike.entry((&built.domain.sizes, built.domain.columns)).or_default().push(i);
            }
        }
        let mut pairs = Vec::new();
        for who in alike.values_mut() {
            who.sort_by_key(|&i| self.position(i));
            pairs.extend(who.windows(2).map(|pair| (pair[0], pair[1])));
        }
        pairs
    }

    /// Graph positions of the last and the first value that a launch writes.
    fn position(&self, i: usize) -> (usize, usize) {
        let (mut first, mut last) = (usize::MAX, 0);
        for v in self.work[i].writes() {
            first = first.min(v.index());
            last = last.max(v.index());
        }
        (last, first)
    }

    /// Joins two regions if they can be.
    fn join(&mut self, a: usize, b: usize) -> bool {
        if !self.dag.can_join(a, b) {
            Rewrite::RefuseCycle.taken();
            return false;
        }
        let (Some(x), Some(y)) = (self.region(a), self.region(b)) else { return false };
        let written = |built: &Built| built.args.iter().filter(|w| w.1).map(|w| w.0).collect::<Vec<_>>();
        let mut roots = [written(x), written(y)].concat();
        roots.sort_unstable();
        let mut domains: Vec<Domain> = vec![x.domain.clone(), y.domain.clone()];
        domains.sort_by_key(|d| std::cmp::Reverse(d.len()));
        domains.dedup();
        if self.copies.is_too_early(&roots) {
            return false;
        }
        let cx = Context { graph: self.graph, constants: self.constants, stored: &self.stored };
        let Some(domain) = domains.iter().find(|d| self.fits(build(cx, &roots, d))) else { return false };
        let is_inner = |v: &ValueId| {
            let readers = self.dag.readers(*v);
            !self.outputs.contains(v) && !readers.is_empty() && readers.iter().all(|&i| i == a || i == b)
        };
        let (inner, outer): (Vec<ValueId>, Vec<ValueId>) = roots.iter().copied().partition(is_inner);
        let mut stored = self.stored.clone();
        inner.iter().for_each(|v| stored[v.index()] = false);
        let lean = build(Context { stored: &stored, ..cx }, &outer, domain);
        let (built, stored) = match lean {
            Ok(built) => (built, stored),
            // A value that is only read here, but not where it is computed, stays stored.
            Err(_) => match build(cx, &roots, domain) {
                Ok(built) => (built, self.stored.clone()),
                Err(_) => return false,
            },
        };
        let work = Work::Region(built);
        let access = work.access().expect("a region is there");
        if !self.dag.join(a, b, self.work.len(), access) {
            return false;
        }
        let is_through_registers = self.stored != stored;
        let rewrite =
            if is_through_registers { Rewrite::JoinThroughRegisters } else { Rewrite::JoinSideBySide };
        rewrite.taken();
        self.stored = stored;
        for old in [a, b] {
            self.work[old] = Work::Gone;
        }
        self.work.push(work);
        true
    }

    fn fits(&self, built: Result<Built, Blocked>) -> bool {
        built.is_ok_and(|b| b.args.len() <= MAX_ARGS && b.region.body.len() <= MAX_INSTRS)
    }
}
