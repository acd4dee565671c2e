//! The schedule: launches in order, buffers with their places, kernels each once.
//!
//! State slots that the program overwrites are written in place where no launch can still need the old
//! value, otherwise through a temporary that is copied at the end. It must never let a launch read a
//! slot after it was overwritten.

mod arena;
mod contraction;
mod order;

use pg_ir::graph::{Graph, Node, NodeId, ValueId};
use pg_ir::op::Op;
use pg_ir::slot::Slot;
use pg_ir::ty::DType;
use rustc_hash::FxHashMap;

use crate::CodegenError;
use crate::index::access::Context;
use crate::passes::emit::Built;
use crate::passes::fold_constants::{Constants, Tables};
use crate::passes::fuse::{Groups, Work, dag};
use crate::passes::schedule::arena::{Lifetime, place};
use crate::passes::schedule::order::{Outputs, sorted};
use crate::plan::cost::{self, LaunchCost};
use crate::plan::witness::{Lowered, Roles};
use crate::plan::{AttentionShape, Buffer, BufferId, Computed, Kernel, KernelId, Launch, Place, Plan};
use crate::region::{ArgId, Instr, Region};
use crate::report::print;
use crate::report::provenance::Provenance;

/// A launch in the making, or a member of one with its own arguments.
struct Made<K> {
    kernel: K,
    args: Vec<BufferId>,
    roles: Roles,
    nodes: Vec<NodeId>,
    cost: LaunchCost,
}

/// Why slots are in memory.
const OUTSIDE: &str = "it lives outside the program";

/// Orders launches and lays out memory.
pub(crate) fn plan(
    program: &str,
    graph: Graph,
    constants: &Constants,
    tables: &Tables,
    groups: Groups,
) -> Result<Lowered, CodegenError> {
    let cx = Context { graph: &graph, constants, stored: &groups.stored };
    let mut dag = dag(&graph, &groups.work)?;
    let outputs = Outputs::choose(cx, &groups, &mut dag);
    let mut planner = Planner {
        cx,
        tables,
        groups: &groups,
        in_place: &outputs.in_place,
        plan: Plan { program: program.into(), ..Plan::default() },
        roles: Vec::new(),
        by_value: FxHashMap::default(),
        by_slot: FxHashMap::default(),
        by_kernel: FxHashMap::default(),
    };
    planner.save(&outputs)?;
    for i in sorted(&graph, &dag, &groups.work) {
        planner.launch(&groups.work[i])?;
    }
    planner.copy_out(&outputs)?;
    let (plan, roles) = planner.finish();
    Ok(Lowered { plan, graph, roles })
}

struct Planner<'a> {
    cx: Context<'a>,
    tables: &'a Tables,
    groups: &'a Groups,
    in_place: &'a FxHashMap<ValueId, Slot>,
    plan: Plan,
    roles: Vec<Roles>,
    by_value: FxHashMap<ValueId, BufferId>,
    by_slot: FxHashMap<Slot, BufferId>,
    by_kernel: FxHashMap<String, KernelId>,
}

impl Planner<'_> {
    fn add_buffer(
        &mut self,
        dtype: DType,
        len: usize,
        place: Place,
        label: String,
        why: &'static str,
    ) -> BufferId {
        self.plan.buffers.push(Buffer { dtype, len, place, label, why });
        BufferId(self.plan.buffers.len() as u32 - 1)
    }

    fn slot(&mut self, slot: &Slot, value: ValueId) -> Result<BufferId, CodegenError> {
        let ty = self.cx.graph.ty(value).clone();
        if let Some(&id) = self.by_slot.get(slot) {
            let buffer = &self.plan.buffers[id.0 as usize];
            if (buffer.dtype, buffer.len) != (ty.dtype, ty.len()) {
                let why = format!("{slot} is read and written with different types, one of them {ty}");
                return Err(CodegenError::at(self.cx.graph.producer(value), why));
            }
            return Ok(id);
        }
        let id = self.add_buffer(ty.dtype, ty.len(), Place::External(slot.clone()), ty.to_string(), OUTSIDE);
        self.by_slot.insert(slot.clone(), id);
        Ok(id)
    }

    /// The buffer of a value in memory.
    fn buffer(&mut self, value: ValueId) -> Result<BufferId, CodegenError> {
        if let Some(&id) = self.by_value.get(&value) {
            return Ok(id);
        }
        let (node, ty) = (self.cx.graph.producer(value), self.cx.graph.ty(value));
        let why = self.groups.why.get(&value).copied().unwrap_or("known at compile time");
        let label = print::label(self.cx.graph, value);
        let id = if let Some(slot) = self.in_place.get(&value) {
            self.slot(slot, value)?
        } else if let Op::Input(slot, _) = &node.op {
            self.slot(slot, value)?
        } else if let Some(bits) = self.tables.get(&value) {
            self.add_buffer(ty.dtype, ty.len(), Place::Constant(bits.clone()), label, why)
        } else {
            self.add_buffer(ty.dtype, ty.len(), Place::Temp { offset: 0 }, label, why)
        };
        self.by_value.insert(value, id);
        Ok(id)
    }

    fn push(
        &mut self,
        kernel: Kernel,
        args: Vec<BufferId>,
        roles: Roles,
        provenance: Provenance,
        cost: LaunchCost,
    ) {
        let next = KernelId(self.plan.kernels.len() as u32);
        let id = *self.by_kernel.entry(format!("{kernel:?}")).or_insert(next);
        if id == next {
            self.plan.kernels.push(kernel);
        }
        self.plan.launches.push(Launch {
            kernel: id,
            args,
            provenance,
            flops: cost.flops,
            bytes: cost.bytes,
        });
        self.roles.push(roles);
    }

    fn copy(&mut self, value: ValueId, from: BufferId, to: BufferId, task: String) {
        let buffer = &self.plan.buffers[from.0 as usize];
        let cost = LaunchCost { flops: 0.0, bytes: (2 * buffer.len * buffer.dtype.size()) as f64 };
        let mut roles = Roles::default();
        roles.read(value);
        roles.write(value);
        self.push(Kernel::Copy { len: buffer.len }, vec![from, to], roles, Provenance::task(task), cost);
    }

    /// Copies inputs that would be lost before they are needed.
    fn save(&mut self, outputs: &Outputs) -> Result<(), CodegenError> {
        for &value in &outputs.saved {
            let from = self.buffer(value)?;
            let ty = self.cx.graph.ty(value);
            let to = self.add_buffer(
                ty.dtype,
                ty.len(),
                Place::Temp { offset: 0 },
                format!("old value {ty}"),
                "its slot is overwritten",
            );
            self.copy(value, from, to, "saves a slot that is overwritten".into());
        }
        Ok(())
    }

    fn copy_out(&mut self, outputs: &Outputs) -> Result<(), CodegenError> {
        for (value, slot) in &outputs.copied {
            let from = match outputs.saved.iter().position(|v| v == value) {
                // Saved values have the temporaries of the first launches.
                Some(i) => self.plan.launches[i].args[1],
                None => self.buffer(*value)?,
            };
            let to = self.slot(slot, *value)?;
            self.copy(*value, from, to, format!("writes {slot}"));
        }
        Ok(())
    }

    fn launch(&mut self, work: &Work) -> Result<(), CodegenError> {
        let made = match work {
            Work::Region(built) => self.region(built)?,
            Work::Contraction(shared, dots) => self.contraction(*shared, dots)?,
            Work::Library(id, reads, writes) => self.library(*id, reads, writes)?,
            Work::Gone => return Ok(()),
        };
        let provenance = Provenance::of(self.cx.graph, &made.nodes);
        self.push(made.kernel, made.args, made.roles, provenance, made.cost);
        Ok(())
    }

    fn region(&mut self, built: &Built) -> Result<Made<Kernel>, CodegenError> {
        let buffers: Result<Vec<BufferId>, _> = built.args.iter().map(|&(v, _)| self.buffer(v)).collect();
        let (region, args, roles) = share_args(built, buffers?);
        let lens: Vec<usize> = args.iter().map(|b| self.plan.buffers[b.0 as usize].len).collect();
        let cost = cost::region(&region, &lens);
        Ok(Made { kernel: Kernel::Region(region), args, roles, nodes: built.nodes.clone(), cost })
    }

    /// A node with a kernel family of its own that is no contraction.
    fn library(
        &mut self,
        id: NodeId,
        reads: &[ValueId],
        writes: &[ValueId],
    ) -> Result<Made<Kernel>, CodegenError> {
        let graph = self.cx.graph;
        let node = graph.node(id);
        let types = graph.operand_types(node);
        let args: Vec<BufferId> =
            reads.iter().chain(writes).map(|&v| self.buffer(v)).collect::<Result<_, _>>()?;
        let mut roles = Roles { library: vec![id], ..Roles::default() };
        reads.iter().for_each(|&v| roles.read(v));
        writes.iter().for_each(|&v| roles.write(v));
        let shape = |scale: f64| {
            let (q, k) = (types[0].shape(), types[1].shape());
            let [batch, time, heads, dim] = [q[0], q[1], q[2], q[3]];
            AttentionShape { batch, time, heads, kv_heads: k[2], dim, scale: scale as f32 }
        };
        let kernel = match &node.op {
            Op::Attention { scale } => Kernel::Attention(shape(scale.get())),
            Op::AttentionGrad { scale } => Kernel::AttentionGrad(shape(scale.get())),
            &Op::ScatterAdd { rows } => {
                let count = types[0].len();
                Kernel::ScatterAdd { rows, width: types[1].len() / count, count }
            }
            _ => return Err(CodegenError::at(node, "no kernel family computes it")),
        };
        Ok(Made { kernel, args, roles, nodes: vec![id], cost: self.cost(node, writes) })
    }

    /// What an op costs whose results have the types of what is written.
    fn cost(&self, node: &Node, writes: &[ValueId]) -> LaunchCost {
        let graph = self.cx.graph;
        let results = graph.result_types(node);
        let whole = node.op.cost(&graph.operand_types(node), &results);
        // Results that are rounded as they are written take less than the op says.
        let written: usize = writes.iter().map(|&v| graph.ty(v).bytes()).sum();
        let asked: usize = results.iter().map(|t| t.bytes()).sum();
        LaunchCost { flops: whole.flops, bytes: whole.bytes + written as f64 - asked as f64 }
    }

    /// Places temporaries.
    fn finish(mut self) -> (Plan, Vec<Roles>) {
        let temporaries: Vec<usize> = (0..self.plan.buffers.len())
            .filter(|&i| matches!(self.plan.buffers[i].place, Place::Temp { .. }))
            .collect();
        let uses = self.plan.uses();
        let lifetime = |&i: &usize| {
            let b = &self.plan.buffers[i];
            let (first, last) = uses[i].unwrap_or((0, 0));
            Lifetime { bytes: b.len * b.dtype.size(), first, last }
        };
        let lifetimes: Vec<Lifetime> = temporaries.iter().map(lifetime).collect();
        let (offsets, arena) = place(&lifetimes);
        for (i, offset) in temporaries.into_iter().zip(offsets) {
            self.plan.buffers[i].place = Place::Temp { offset };
        }
        self.plan.arena_bytes = arena;
        let computed = |(launch, (roles, made)): (usize, (&Roles, &Launch))| {
            let written = roles.writes.iter().zip(made.args.clone());
            let written = written
                .filter_map(move |(value, buffer)| Some(Computed { launch, buffer, value: (*value)? }));
            written.collect::<Vec<_>>()
        };
        self.plan.computed =
            self.roles.iter().zip(&self.plan.launches).enumerate().flat_map(computed).collect();
        (self.plan, self.roles)
    }
}

/// Gives arguments that are one buffer one number: a slot that is read and overwritten.
fn share_args(built: &Built, buffers: Vec<BufferId>) -> (Region, Vec<BufferId>, Roles) {
    let mut region = built.region.clone();
    let mut kept: Vec<BufferId> = Vec::new();
    let mut dtypes = Vec::new();
    let mut renamed: Vec<ArgId> = Vec::new();
    let mut roles = Roles::default();
    for ((buffer, dtype), &(value, is_written)) in buffers.into_iter().zip(&region.args).zip(&built.args) {
        let at = kept.iter().position(|b| *b == buffer).unwrap_or_else(|| {
            kept.push(buffer);
            dtypes.push(*dtype);
            roles.reads.push(None);
            roles.writes.push(None);
            kept.len() - 1
        });
        let side = if is_written { &mut roles.writes } else { &mut roles.reads };
        side[at] = Some(value);
        renamed.push(at as ArgId);
    }
    region.body.iter_mut().filter_map(Instr::arg_mut).for_each(|a| *a = renamed[*a as usize]);
    region.args = dtypes;
    (region, kept, roles)
}
