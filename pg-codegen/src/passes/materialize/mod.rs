//! Which values live in memory, and why: everything else is recomputed where it is read.
//!
//! A value is kept if something other than a region reads or writes it, if it leaves the program, or if
//! several regions read it and computing it again costs more than loading it. So an activation that is
//! a cheap function of one kept value is never saved for the backward pass. This pass must leave a
//! selection under which every kernel can be emitted: what emission refuses, it keeps.

mod absorb;
mod points;
mod recompute_cost;
mod split;

use pg_ir::graph::{Graph, Node, NodeId, ValueId};
use pg_ir::op::Op;
use pg_ir::slot::Slot;
use pg_ir::ty::DType;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::index::access::{Blocked, Context};
use crate::index::domain::Domain;
use crate::index::matrix::operand;
use crate::passes::emit::{Built, build};
use crate::passes::fold_constants::Constants;
use crate::passes::fuse::MAX_ARGS;
use crate::passes::materialize::points::Points;
use crate::passes::materialize::recompute_cost::recompute_costs;
use crate::passes::materialize::split::part_of;
use crate::passes::rewrites::Rewrite;
use crate::plan::MatrixView;
use crate::{CodegenError, Options};

/// Longer chains are cut, so that no region grows without bound.
const DEEPEST: u32 = 64;

/// A dot that writes straight into another value's buffer.
#[derive(Clone, Debug)]
pub(crate) struct Absorbed {
    /// The value that the dot's buffer holds: a view of the dot, or a sum with it.
    pub(crate) value: ValueId,
    /// How the dot's matrices lie there.
    pub(crate) c: MatrixView,
    /// The state slot to whose old value the dot adds.
    pub(crate) accumulate: Option<Slot>,
}

/// The outcome.
pub(crate) struct Selection {
    /// By value: whether a kernel writes it to memory.
    pub(crate) stored: Vec<bool>,
    /// Why values are stored.
    pub(crate) why: FxHashMap<ValueId, &'static str>,
    /// One region for each stored value that a region computes, in graph order.
    pub(crate) regions: Vec<(ValueId, Built)>,
    /// Nodes with a kernel family of their own, in graph order.
    pub(crate) library: Vec<NodeId>,
    /// Dots that write into another value's buffer.
    pub(crate) absorbed: FxHashMap<NodeId, Absorbed>,
    /// Results of kernels of their own family that are rounded where they are written, with the rounded value.
    pub(crate) rounded: FxHashMap<ValueId, ValueId>,
}

/// Whether a node gives what bf16 storage holds as float32: what is loaded is that already.
pub(crate) fn is_widening(graph: &Graph, node: &Node) -> bool {
    node.op == Op::Cast(DType::F32) && graph.ty(node.operands[0]).dtype == DType::BF16
}

/// By value: whether it is worth keeping. [`select`] may keep more: values without which a region that reads them cannot be
/// emitted.
pub(crate) fn worth_keeping(graph: &Graph, constants: &Constants, options: &Options) -> Vec<bool> {
    Selector::decide(graph, constants, options).stored
}

/// Chooses what to keep, and emits it.
pub(crate) fn select(
    graph: &Graph,
    constants: &Constants,
    options: &Options,
) -> Result<Selection, CodegenError> {
    let mut s = Selector::decide(graph, constants, options);
    let regions = s.settle(options.fuse)?;
    let library = s.library();
    let Selector { stored, why, absorbed, rounded, .. } = s;
    Ok(Selection { stored, why, regions, library, absorbed, rounded })
}

/// Values that kernels need, directly or to recompute others; nothing below a constant is.
fn live_values(graph: &Graph, constants: &Constants) -> Vec<bool> {
    let mut live = vec![false; graph.value_count()];
    graph.outputs.iter().for_each(|o| live[o.value.index()] = true);
    for (_, node) in graph.nodes().rev() {
        let known = |v| constants.uniform(v).is_some() || constants.is_table(v);
        if graph.results(node).any(|v| live[v.index()] && !known(v)) {
            node.operands.iter().for_each(|v| live[v.index()] = true);
        }
    }
    live
}

/// First results of the live nodes that read each value.
pub(crate) fn readers(graph: &Graph, live: &[bool]) -> Vec<Vec<ValueId>> {
    let mut readers = vec![Vec::new(); graph.value_count()];
    for (_, node) in graph.nodes() {
        if graph.results(node).any(|v| live[v.index()]) {
            for v in &node.operands {
                if !readers[v.index()].contains(&node.first) {
                    readers[v.index()].push(node.first);
                }
            }
        }
    }
    readers
}

struct Selector<'a> {
    graph: &'a Graph,
    constants: &'a Constants,
    stored: Vec<bool>,
    why: FxHashMap<ValueId, &'static str>,
    live: Vec<bool>,
    readers: Vec<Vec<ValueId>>,
    absorbed: FxHashMap<NodeId, Absorbed>,
    rounded: FxHashMap<ValueId, ValueId>,
    /// Producers of what was kept, in the order of the decisions.
    kept: Vec<NodeId>,
}

impl<'a> Selector<'a> {
    /// Decides without emitting anything.
    fn decide(graph: &'a Graph, constants: &'a Constants, options: &Options) -> Self {
        let live = live_values(graph, constants);
        let mut s = Selector {
            graph,
            constants,
            stored: vec![false; graph.value_count()],
            why: FxHashMap::default(),
            readers: readers(graph, &live),
            live,
            absorbed: FxHashMap::default(),
            rounded: FxHashMap::default(),
            kept: Vec::new(),
        };
        if options.fuse {
            s.absorb();
            s.round();
        }
        s.must();
        if options.fuse {
            s.shared();
        } else {
            s.everything();
        }
        s
    }

    fn context(&self) -> Context<'_> {
        Context { graph: self.graph, constants: self.constants, stored: &self.stored }
    }

    /// Live nodes with a kernel family of their own.
    fn library(&self) -> Vec<NodeId> {
        let is_live = |n: &Node| self.graph.results(n).any(|v| self.live[v.index()]);
        self.graph.nodes().filter(|(_, n)| n.op.has_kernel() && is_live(n)).map(|(id, _)| id).collect()
    }

    /// Keeps a value; for a reshape, what it is a reshape of.
    fn store(&mut self, value: ValueId, why: &'static str) -> bool {
        let mut at = value;
        while let Op::Reshape(_) = self.graph.producer(at).op {
            at = self.graph.producer(at).operands[0];
        }
        let new = !self.context().in_memory(at);
        if new {
            self.stored[at.index()] = true;
            self.why.insert(at, why);
            self.kept.push(self.graph.producer_id(at));
        }
        new
    }

    /// What has to be in memory whatever is fused.
    fn must(&mut self) {
        for id in self.library() {
            let absorbed = self.absorbed.get(&id).map(|a| a.value);
            if let Some(value) = absorbed {
                self.store(value, "a matmul writes it");
                continue;
            }
            for result in self.graph.results(self.graph.node(id)) {
                let written = self.rounded.get(&result).copied().unwrap_or(result);
                self.store(written, "its kernel writes it");
            }
        }
        for output in &self.graph.outputs {
            self.store(output.value, "it leaves the program");
        }
        for id in self.library() {
            self.store_operands(id);
        }
    }

    /// Keeps what a node of its own family reads. A view rides on its operand's buffer if the kernel
    /// can walk it there; otherwise the view itself is copied, and its operand need not be kept.
    fn store_operands(&mut self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        let mut new = false;
        for (i, &wanted) in node.operands.iter().enumerate() {
            let mut tried: Vec<ValueId> = Vec::new();
            while let Err(Blocked::Store(value, why)) = operand(self.context(), node, i) {
                if value == wanted {
                    Rewrite::CopyView.taken();
                    tried.drain(..).for_each(|v| self.stored[v.index()] = false);
                }
                if !self.store(value, why) {
                    break;
                }
                new = true;
                tried.push(value);
            }
        }
        new
    }

    /// Without fusion: every op that is not a view or a constant.
    fn everything(&mut self) {
        for (_, node) in self.graph.nodes() {
            let v = node.first;
            let is_free = node.op.is_view() || matches!(node.op, Op::Iota(_) | Op::Const(..) | Op::Input(..));
            if self.live[v.index()]
                && !is_free
                && !node.op.has_kernel()
                && self.constants.uniform(v).is_none()
            {
                self.store(v, "nothing is fused");
            }
        }
    }

    /// With fusion: values that several regions read and that are not cheap to compute again.
    fn shared(&mut self) {
        let costs = recompute_costs(self.context(), &self.readers);
        // By value, the kept value that alone reads it; `Err` if there are several.
        let mut user: Vec<Option<Result<ValueId, ()>>> = vec![None; self.graph.value_count()];
        let mut points = Points::new(self.graph);
        for (_, node) in self.graph.nodes().rev() {
            let v = node.first;
            if !self.live[v.index()] || node.op.has_kernel() || self.context().in_memory(v) {
                continue;
            }
            let mut users: SmallVec<[Result<ValueId, ()>; 4]> = SmallVec::new();
            for &r in &self.readers[v.index()] {
                let op = &self.graph.producer(r).op;
                if self.stored[r.index()] && !op.has_kernel() {
                    users.push(Ok(r));
                } else if !op.has_kernel() {
                    users.extend(user[r.index()]);
                }
            }
            points.collect(self.context(), v, &self.readers[v.index()]);
            let first = users.first().copied();
            let is_shared = users.contains(&Err(())) || users.iter().any(|u| Some(*u) != first);
            user[v.index()] = if is_shared { Some(Err(())) } else { first };
            if node.op.is_view()
                || is_widening(self.graph, node)
                || matches!(node.op, Op::Iota(_) | Op::Const(..))
                || self.constants.uniform(v).is_some()
            {
                continue;
            }
            let cost = &costs[v.index()];
            let reason = if is_column_reduction(self.graph, node) {
                Some(("it reduces over rows", Rewrite::KeepColumnReduction))
            } else if cost.depth >= DEEPEST && cost.depth.is_multiple_of(DEEPEST) {
                Some(("its chain of instructions is cut here", Rewrite::CutChain))
            } else if points.are_many(v) {
                Some(("one kernel wants it at many points", Rewrite::KeepManyPoints))
            } else if cost.is_repeated(self.graph, v, &self.readers[v.index()]) {
                Some(("it is computed once for many rows", Rewrite::KeepRepeated))
            } else if is_shared && !cost.is_cheap(self.graph, v) {
                Some(("several kernels read it", Rewrite::KeepShared))
            } else {
                None
            };
            if let Some((why, rewrite)) = reason {
                rewrite.taken();
                self.store(v, why);
            }
        }
    }

    /// Emits one region for every kept value, keeping more until all can be emitted.
    fn settle(&mut self, fuse: bool) -> Result<Vec<(ValueId, Built)>, CodegenError> {
        // By value: its region, and how many decisions it was emitted under.
        let mut emitted: Vec<Option<(Built, usize)>> = vec![None; self.graph.value_count()];
        loop {
            let mut changed = false;
            for id in self.library() {
                changed |= self.store_operands(id);
            }
            for (_, node) in self.graph.nodes() {
                let v = node.first;
                let absorbed = self.absorbed.values().any(|a| a.value == v);
                let rounded = node.operands.first().and_then(|x| self.rounded.get(x)) == Some(&v);
                if !self.stored[v.index()] || node.op.has_kernel() || absorbed || rounded {
                    continue;
                }
                if emitted[v.index()].as_ref().is_some_and(|(built, at)| self.still_holds(v, built, *at)) {
                    continue;
                }
                match standalone(self.context(), v) {
                    Ok(built) if fuse && built.args.len() > MAX_ARGS => {
                        let inner = part_of(self.context(), v).ok_or_else(|| {
                            let found = built.args.len();
                            CodegenError::at(
                                node,
                                format!("reads {found} buffers, a kernel binds {MAX_ARGS}"),
                            )
                        })?;
                        Rewrite::SplitBindings.taken();
                        changed |= self.store(inner, "its reader would bind too many buffers");
                    }
                    Ok(built) => emitted[v.index()] = Some((built, self.kept.len())),
                    Err(Blocked::Store(inner, why)) if self.store(inner, why) => {
                        Rewrite::KeepForEmission.taken();
                        changed = true;
                    }
                    Err(e) => return Err(CodegenError::at(node, format!("internal error: {e:?}"))),
                }
            }
            if !changed {
                let values = self.graph.nodes().map(|(_, node)| node.first);
                let built = values.filter_map(|v| Some((v, emitted[v.index()].take()?.0)));
                return Ok(built.collect());
            }
        }
    }

    /// Whether a region that was emitted after `at` decisions would be emitted the same way now: over its first
    /// choice of domains, so that nothing else was looked at, and computing nothing that has been kept since.
    fn still_holds(&self, value: ValueId, built: &Built, at: usize) -> bool {
        built.domain == domains(self.graph, value)[0]
            && self.kept[at..].iter().all(|id| built.nodes.binary_search(id).is_err())
    }
}

/// Whether a reduction is over other than the innermost axes.
fn is_column_reduction(graph: &Graph, node: &Node) -> bool {
    let Op::Reduce(_, axes) = &node.op else { return false };
    let shape = graph.ty(node.operands[0]).shape();
    let inner = (0..shape.len()).rev().take_while(|a| shape[*a] == 1 || axes.contains(a)).count();
    axes.iter().any(|&a| shape[a] > 1 && a + inner < shape.len())
}

/// The domains that suit a value best, in order of preference.
pub(crate) fn domains(graph: &Graph, value: ValueId) -> SmallVec<[Domain; 2]> {
    let node = graph.producer(value);
    let shape = graph.ty(value).shape();
    match &node.op {
        Op::Reduce(_, axes) => {
            let shape = graph.ty(node.operands[0]).shape();
            let inner = (0..shape.len()).rev().take_while(|a| shape[*a] == 1 || axes.contains(a)).count();
            let rows = Domain::new(&shape, inner);
            let mut out = SmallVec::new();
            if rows.columns > 0 {
                out.push(rows);
            }
            out.push(Domain::pointwise(&shape));
            out
        }
        Op::FakeQuant(_) | Op::Permute(_) => SmallVec::from_iter([Domain::new(&shape, shape.len().min(1))]),
        _ => SmallVec::from_iter([Domain::pointwise(&shape)]),
    }
}

/// A region that computes one value.
fn standalone(cx: Context<'_>, value: ValueId) -> Result<Built, Blocked> {
    let mut first = None;
    for domain in domains(cx.graph, value) {
        match build(cx, &[value], &domain) {
            Err(e @ Blocked::Misfit(_)) => first = first.or(Some(e)),
            other => return other,
        }
    }
    Err(first.expect("at least one domain"))
}
