//! Which values live in memory, and why: everything else is recomputed where it is read.
//!
//! A value is kept if something other than a region reads or writes it, if it leaves the program, or if
//! several regions read it and computing it again costs more than loading it. So an activation that is
//! a cheap function of one kept value is never saved for the backward pass. This pass must leave a
//! selection under which every kernel can be emitted: what emission refuses, it keeps.

use std::collections::HashMap;

use pg_ir::graph::{Graph, Node, NodeId, ValueId};
use pg_ir::op::{Binary, Op};
use pg_ir::slot::Slot;
use smallvec::SmallVec;

use crate::domain::Domain;
use crate::emit::{Blocked, Built, Context, build};
use crate::fold::Constants;
use crate::matmul::{only_reaches, operand, written_as};
use crate::plan::MatrixView;
use crate::{CodegenError, Options};

/// Values with more instructions below them are kept even if one load would recompute them.
const CHEAP_OPS: u32 = 16;
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
    pub(crate) why: HashMap<ValueId, &'static str>,
    /// One region for each stored value that a region computes, in graph order.
    pub(crate) regions: Vec<(ValueId, Built)>,
    /// Nodes with a kernel family of their own, in graph order.
    pub(crate) opaque: Vec<NodeId>,
    /// Dots that write into another value's buffer.
    pub(crate) absorbed: HashMap<NodeId, Absorbed>,
}

/// Whether the op is computed by a kernel family of its own.
pub(crate) fn is_opaque(op: &Op) -> bool {
    matches!(op, Op::Dot(_) | Op::Attention { .. } | Op::AttentionGrad { .. } | Op::ScatterAdd { .. })
}

/// Chooses what to keep.
pub(crate) fn select(
    graph: &Graph,
    constants: &Constants,
    options: &Options,
) -> Result<Selection, CodegenError> {
    let live = live_values(graph, constants);
    let mut s = Selector {
        graph,
        constants,
        stored: vec![false; graph.value_count()],
        why: HashMap::new(),
        readers: readers(graph, &live),
        live,
        absorbed: HashMap::new(),
    };
    if options.fuse {
        s.absorb();
    }
    s.must();
    if options.fuse {
        s.shared()
    } else {
        s.everything()
    }
    let regions = s.settle()?;
    let opaque = s.opaque();
    Ok(Selection { stored: s.stored, why: s.why, regions, opaque, absorbed: s.absorbed })
}

/// Values that kernels need, directly or to recompute others; nothing below a constant is.
fn live_values(graph: &Graph, constants: &Constants) -> Vec<bool> {
    let mut live = vec![false; graph.value_count()];
    graph.outputs.iter().for_each(|o| live[o.value.index()] = true);
    for (_, node) in graph.nodes().rev() {
        let known = |v| constants.uniform(v).is_some() || constants.tables.contains_key(&v);
        if graph.results(node).any(|v| live[v.index()] && !known(v)) {
            node.operands.iter().for_each(|v| live[v.index()] = true);
        }
    }
    live
}

/// First results of the live nodes that read each value.
fn readers(graph: &Graph, live: &[bool]) -> Vec<Vec<ValueId>> {
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

/// What recomputing a value would take.
#[derive(Clone, Default)]
struct Effort {
    /// Kept values of which elements are read.
    leaves: SmallVec<[ValueId; 3]>,
    /// Instructions.
    ops: u32,
    /// Longest chain.
    depth: u32,
    /// Elements that a row instruction below reads, 0 if there is none.
    row_work: usize,
    /// Whether an instruction below costs much more than an addition.
    slow: bool,
}

struct Selector<'a> {
    graph: &'a Graph,
    constants: &'a Constants,
    stored: Vec<bool>,
    why: HashMap<ValueId, &'static str>,
    live: Vec<bool>,
    readers: Vec<Vec<ValueId>>,
    absorbed: HashMap<NodeId, Absorbed>,
}

impl Selector<'_> {
    fn context(&self) -> Context<'_> {
        Context { graph: self.graph, constants: self.constants, stored: &self.stored }
    }

    /// Live nodes with a kernel family of their own.
    fn opaque(&self) -> Vec<NodeId> {
        let is_live = |n: &Node| self.graph.results(n).any(|v| self.live[v.index()]);
        self.graph.nodes().filter(|(_, n)| is_opaque(&n.op) && is_live(n)).map(|(id, _)| id).collect()
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
        }
        new
    }

    /// Finds dots that can write into the buffer of an output: a view of the dot, or the sum of a state
    /// slot with the dot that goes back to the slot (gradient accumulation).
    fn absorb(&mut self) {
        for output in &self.graph.outputs {
            let mut target = output.value;
            while let Op::Reshape(_) = self.graph.producer(target).op {
                target = self.graph.producer(target).operands[0];
            }
            let node = self.graph.producer(target);
            let sum = match &node.op {
                Op::Binary(Binary::Add) => {
                    let is_slot = |v: ValueId| {
                        matches!(&self.graph.producer(v).op, Op::Input(s, _) if *s == output.slot)
                            && self.readers[v.index()].len() == 1
                    };
                    match node.operands[..] {
                        [a, b] if a != b && is_slot(a) => Some(b),
                        [a, b] if a != b && is_slot(b) => Some(a),
                        _ => None,
                    }
                }
                _ => None,
            };
            let source = sum.unwrap_or(target);
            let mut dot = source;
            while self.graph.producer(dot).op.is_view() {
                dot = self.graph.producer(dot).operands[0];
            }
            let id = self.graph.producer_id(dot);
            if dot == target
                || self.absorbed.contains_key(&id)
                || !only_reaches(self.graph, &self.readers, dot, target)
            {
                continue;
            }
            self.stored[dot.index()] = true;
            let c = written_as(self.context(), dot, source);
            self.stored[dot.index()] = false;
            if let Some(c) = c {
                self.absorbed
                    .insert(id, Absorbed { value: target, c, accumulate: sum.map(|_| output.slot.clone()) });
            }
        }
    }

    /// What has to be in memory whatever is fused.
    fn must(&mut self) {
        for id in self.opaque() {
            let absorbed = self.absorbed.get(&id).map(|a| a.value);
            if let Some(value) = absorbed {
                self.store(value, "a matmul writes it");
                continue;
            }
            for result in self.graph.results(self.graph.node(id)) {
                self.store(result, "its kernel writes it");
            }
        }
        for output in &self.graph.outputs {
            self.store(output.value, "it leaves the program");
        }
        for id in self.opaque() {
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
            if self.live[v.index()] && !is_free && !is_opaque(&node.op) && self.constants.uniform(v).is_none()
            {
                self.store(v, "nothing is fused");
            }
        }
    }

    /// With fusion: values that several regions read and that are not cheap to compute again.
    fn shared(&mut self) {
        let efforts = self.efforts();
        // By value, the kept value that alone reads it; `Err` if there are several.
        let mut user: Vec<Option<Result<ValueId, ()>>> = vec![None; self.graph.value_count()];
        for (_, node) in self.graph.nodes().rev() {
            let v = node.first;
            if !self.live[v.index()] || is_opaque(&node.op) || self.context().in_memory(v) {
                continue;
            }
            let mut users: SmallVec<[Result<ValueId, ()>; 4]> = SmallVec::new();
            for &r in &self.readers[v.index()] {
                let op = &self.graph.producer(r).op;
                if self.stored[r.index()] && !is_opaque(op) {
                    users.push(Ok(r));
                } else if !is_opaque(op) {
                    users.extend(user[r.index()]);
                }
            }
            let first = users.first().copied();
            let is_shared = users.contains(&Err(())) || users.iter().any(|u| Some(*u) != first);
            user[v.index()] = if is_shared { Some(Err(())) } else { first };
            if node.op.is_view()
                || matches!(node.op, Op::Iota(_) | Op::Const(..))
                || self.constants.uniform(v).is_some()
            {
                continue;
            }
            let effort = &efforts[v.index()];
            let reason = if is_column_reduction(self.graph, node) {
                Some("it reduces over rows")
            } else if effort.depth >= DEEPEST && effort.depth % DEEPEST == 0 {
                Some("its chain of instructions is cut here")
            } else if self.is_repeated(v, effort) {
                Some("it is computed once for many rows")
            } else if is_shared && !self.is_cheap(v, effort) {
                Some("several kernels read it")
            } else {
                None
            };
            if let Some(why) = reason {
                self.store(v, why);
            }
        }
    }

    /// Whether recomputing a value reads no more than loading it would.
    fn is_cheap(&self, value: ValueId, effort: &Effort) -> bool {
        let len = self.graph.ty(value).len();
        let big = effort.leaves.iter().filter(|l| self.graph.ty(**l).len() * 2 > len).count();
        big <= 1 && effort.ops <= CHEAP_OPS && effort.row_work == 0
    }

    /// Whether some reader broadcasts the value so that inlining it would repeat slow work.
    fn is_repeated(&self, value: ValueId, effort: &Effort) -> bool {
        let ty = self.graph.ty(value);
        let work = if effort.row_work > 0 {
            effort.row_work
        } else if effort.slow && ty.axes.last().is_some_and(|a| a.size > 1) {
            ty.len()
        } else {
            return false;
        };
        self.readers[value.index()].iter().any(|&r| {
            matches!(self.graph.producer(r).op, Op::Broadcast(_)) && self.graph.ty(r).len() >= 2 * work
        })
    }

    fn efforts(&self) -> Vec<Effort> {
        let mut efforts = vec![Effort::default(); self.graph.value_count()];
        for (_, node) in self.graph.nodes() {
            let v = node.first;
            if self.constants.uniform(v).is_some() || matches!(node.op, Op::Iota(_)) {
                continue;
            }
            if self.context().in_memory(v) || is_opaque(&node.op) {
                self.graph.results(node).for_each(|r| efforts[r.index()].leaves.push(r));
                continue;
            }
            let mut sum = Effort::default();
            for operand in &node.operands {
                let e = &efforts[operand.index()];
                for leaf in &e.leaves {
                    if !sum.leaves.contains(leaf) {
                        sum.leaves.push(*leaf);
                    }
                }
                sum.ops = sum.ops.saturating_add(e.ops);
                sum.depth = sum.depth.max(e.depth);
                sum.row_work = sum.row_work.max(e.row_work);
                sum.slow |= e.slow;
            }
            if !node.op.is_view() {
                sum.ops = sum.ops.saturating_add(1);
                sum.depth += 1;
                sum.slow |= matches!(node.op, Op::Unary(_) | Op::Binary(Binary::Div));
                if matches!(node.op, Op::Reduce(..) | Op::FakeQuant(_)) {
                    sum.row_work = sum.row_work.max(self.graph.ty(node.operands[0]).len());
                }
            }
            // What mixes many values will be kept itself, so that what is above it reads it instead.
            if sum.leaves.len() > 2 && !node.op.is_view() && self.readers[v.index()].len() > 1 {
                sum = Effort { leaves: SmallVec::from_slice(&[v]), depth: sum.depth, ..Effort::default() };
            }
            efforts[v.index()] = sum;
        }
        efforts
    }

    /// Emits one region for every kept value, keeping more until all can be emitted.
    fn settle(&mut self) -> Result<Vec<(ValueId, Built)>, CodegenError> {
        loop {
            let mut changed = false;
            let mut regions = Vec::new();
            for id in self.opaque() {
                changed |= self.store_operands(id);
            }
            for (_, node) in self.graph.nodes() {
                let v = node.first;
                let absorbed = self.absorbed.values().any(|a| a.value == v);
                if !self.stored[v.index()] || is_opaque(&node.op) || absorbed {
                    continue;
                }
                match standalone(self.context(), v) {
                    Ok(built) => regions.push((v, built)),
                    Err(Blocked::Store(inner, why)) if self.store(inner, why) => changed = true,
                    Err(e) => return Err(CodegenError::at(node, format!("internal error: {e:?}"))),
                }
            }
            if !changed {
                return Ok(regions);
            }
        }
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
            if rows.lanes > 0 {
                out.push(rows);
            }
            out.push(Domain::pointwise(&shape));
            out
        }
        Op::FakeQuant(_) | Op::Lanes(_) => SmallVec::from_iter([Domain::new(&shape, shape.len().min(1))]),
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
