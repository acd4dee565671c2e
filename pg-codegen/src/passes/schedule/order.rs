//! The order of launches, and which results are computed where they end up.
//!
//! It must never let a launch read a slot after it was overwritten.

use pg_ir::graph::{Graph, ValueId};
use pg_ir::op::Op;
use pg_ir::slot::Slot;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::index::access::Context;
use crate::passes::dag::Dag;
use crate::passes::fuse::{Dot, DotResult, Groups, Work};
use crate::passes::rewrites::Rewrite;
use crate::region::{ArgId, Instr};

/// Graph position of the first value that a launch computes: of what others wait for, if it also gives a result
/// that leaves the program late. A matmul that adds to a gradient runs where
/// its dot stands: the sum may stand at the very end, and its operands would be kept until then.
fn position(graph: &Graph, work: &Work) -> usize {
    match work {
        Work::Region(_) | Work::Gone => work.writes().into_iter().map(ValueId::index).min().unwrap_or(0),
        Work::Library(id, ..) => graph.node(*id).first.index(),
        Work::Contraction(_, dots) => {
            dots.iter().map(|dot| graph.node(dot.node).first.index()).min().unwrap_or(0)
        }
    }
}

/// The launches in an order that follows the graph's where there is a choice.
pub(crate) fn sorted(graph: &Graph, dag: &Dag, work: &[Work]) -> Vec<usize> {
    let at: Vec<usize> = work.iter().map(|w| position(graph, w)).collect();
    dag.sorted(|i| at[i])
}

/// How results get into their slots.
#[derive(Default)]
pub(crate) struct Outputs {
    /// Values that are computed in the slot's own buffer.
    pub(crate) in_place: FxHashMap<ValueId, Slot>,
    /// Values that are copied into a slot at the end.
    pub(crate) copied: Vec<(ValueId, Slot)>,
    /// Inputs to be saved before anything runs, because they are copied into another slot at the end
    /// and their own is overwritten.
    pub(crate) saved: Vec<ValueId>,
}

impl Outputs {
    pub(crate) fn choose(cx: Context<'_>, groups: &Groups, dag: &mut Dag) -> Self {
        let mut out = Outputs::default();
        let sums: FxHashMap<ValueId, &Slot> =
            groups.absorbed.values().filter_map(|a| Some((a.value, a.accumulate.as_ref()?))).collect();
        let inputs: FxHashMap<&Slot, ValueId> = cx.graph.inputs().collect();
        for output in &cx.graph.outputs {
            let value = cx.buffer_of(output.value).expect("outputs are in memory");
            if inputs.get(&output.slot) == Some(&value) {
                continue;
            }
            let is_written = groups.stored[value.index()] && !out.in_place.contains_key(&value);
            let is_its_sum = sums.get(&value).is_none_or(|slot| **slot == output.slot);
            let old = inputs.get(&output.slot).copied();
            if is_written && is_its_sum && old.is_none_or(|old| overwrite(dag, &groups.work, value, old)) {
                let rewrite = if old.is_some() { Rewrite::OverwriteSlot } else { Rewrite::WriteSlot };
                rewrite.taken();
                out.in_place.insert(value, output.slot.clone());
            } else {
                Rewrite::CopyToSlot.taken();
                out.copied.push((value, output.slot.clone()));
            }
        }
        let overwritten: FxHashSet<&Slot> = cx.graph.outputs.iter().map(|o| &o.slot).collect();
        for (value, _) in &out.copied {
            let is_lost = matches!(&cx.graph.producer(*value).op, Op::Input(s, _) if overwritten.contains(s));
            if is_lost && !groups.stored[value.index()] && !out.saved.contains(value) {
                Rewrite::SaveSlot.taken();
                out.saved.push(*value);
            }
        }
        out
    }
}

/// Makes the launch that writes `value` wait for all that read `old`, so that it can write into the same buffer. Says
/// no if it cannot; launches that were made to wait by then do so in vain.
fn overwrite(dag: &mut Dag, work: &[Work], value: ValueId, old: ValueId) -> bool {
    let Some(writer) = dag.writer(value) else { return false };
    let readers = dag.readers(old).to_vec();
    let is_possible = readers.iter().all(|&r| {
        if r == writer { reads_where_it_writes(&work[r], value, old) } else { !dag.reaches(writer, r) }
    });
    is_possible && readers.into_iter().all(|r| r == writer || dag.run_before(r, writer))
}

/// Whether a region reads `old` only at the index at which it then writes `value`.
fn reads_where_it_writes(work: &Work, value: ValueId, old: ValueId) -> bool {
    let built = match (work, work.single()) {
        (Work::Region(built), _) => built,
        (_, Some(Dot { operands, result: DotResult::Epilogue(built), .. })) if !operands.contains(&old) => {
            built
        }
        _ => return false,
    };
    let arg = |v, written| built.args.iter().position(|&a| a == (v, written)).map(|i| i as ArgId);
    let (from, to) = (arg(old, false), arg(value, true));
    let store = built.region.body.iter().enumerate().find_map(|(i, instr)| match instr {
        Instr::Store { arg, at, .. } if Some(*arg) == to => Some((i, at)),
        _ => None,
    });
    let Some((stored_at, store)) = store else { return false };
    // One element for a row of many columns: executors that cut long rows read it in every part, and one of
    // them writes it.
    if built.region.columns > 1 && !store.varies_along_columns() {
        return false;
    }
    built.region.body.iter().enumerate().all(|(i, instr)| match instr {
        Instr::Load { arg, map } if Some(*arg) == from => {
            i < stored_at && map.at == *store && map.guards.is_empty()
        }
        Instr::Gather { arg, .. } => Some(*arg) != from,
        _ => true,
    })
}
