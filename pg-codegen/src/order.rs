//! The order of launches, and which results are computed where they end up.
//!
//! It must never let a launch read a slot after it was overwritten.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use pg_ir::graph::{Graph, ValueId};
use pg_ir::op::Op;
use pg_ir::slot::Slot;

use crate::access::Context;
use crate::fuse::{Groups, Work};
use crate::region::{ArgId, Instr};

/// Graph position of the first value that a launch computes: of what others wait for, if it also gives a result
/// that leaves the program late. A matmul that adds to a gradient runs where
/// its dot stands: the sum may stand at the very end, and its operands would be kept until then.
fn position(graph: &Graph, work: &Work) -> usize {
    match work {
        Work::Region(_) | Work::Gone => work.writes().map(ValueId::index).min().unwrap_or(0),
        Work::Opaque(id, ..) | Work::Epilogue(id, ..) => graph.node(*id).first.index(),
        Work::Products(_, members) => members.iter().map(|m| position(graph, m)).min().unwrap_or(0),
    }
}

/// Which launch waits for which.
pub(crate) struct Order {
    /// By launch: those that wait for it.
    next: Vec<Vec<usize>>,
    /// Where each launch stands in the graph.
    position: Vec<usize>,
    /// Launches that read, and the one that writes, each value.
    readers: HashMap<ValueId, Vec<usize>>,
    writer: HashMap<ValueId, usize>,
}

impl Order {
    pub(crate) fn new(graph: &Graph, work: &[Work]) -> Self {
        let mut order = Order {
            next: vec![Vec::new(); work.len()],
            position: work.iter().map(|w| position(graph, w)).collect(),
            readers: HashMap::new(),
            writer: HashMap::new(),
        };
        for (i, w) in work.iter().enumerate() {
            order.writer.extend(w.writes().map(|v| (v, i)));
            w.reads().for_each(|v| order.readers.entry(v).or_default().push(i));
        }
        for (value, &from) in &order.writer {
            order.next[from].extend(order.readers.get(value).into_iter().flatten());
        }
        order.next.iter_mut().for_each(|n| n.sort_unstable());
        order
    }

    /// Whether `to` is `from` or waits for it.
    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        let mut seen = HashSet::from([from]);
        let mut stack = vec![from];
        while let Some(at) = stack.pop() {
            if at == to {
                return true;
            }
            stack.extend(self.next[at].iter().filter(|n| seen.insert(**n)));
        }
        false
    }

    /// Launches in an order that follows the graph's where there is a choice.
    pub(crate) fn sorted(&self) -> Vec<usize> {
        let mut waiting = vec![0; self.next.len()];
        self.next.iter().flatten().for_each(|&n| waiting[n] += 1);
        let mut ready: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
        let at = |i: usize| Reverse((self.position[i], i));
        ready.extend((0..waiting.len()).filter(|&i| waiting[i] == 0).map(at));
        let mut sorted = Vec::with_capacity(waiting.len());
        while let Some(Reverse((_, i))) = ready.pop() {
            sorted.push(i);
            for &n in &self.next[i] {
                waiting[n] -= 1;
                if waiting[n] == 0 {
                    ready.push(at(n));
                }
            }
        }
        debug_assert_eq!(sorted.len(), waiting.len(), "launches wait for each other");
        sorted
    }
}

/// How results get into their slots.
#[derive(Default)]
pub(crate) struct Outputs {
    /// Values that are computed in the slot's own buffer.
    pub(crate) in_place: HashMap<ValueId, Slot>,
    /// Values that are copied into a slot at the end.
    pub(crate) copied: Vec<(ValueId, Slot)>,
    /// Inputs to be saved before anything runs, because they are copied into another slot at the end
    /// and their own is overwritten.
    pub(crate) saved: Vec<ValueId>,
}

impl Outputs {
    pub(crate) fn choose(cx: Context<'_>, groups: &Groups, order: &mut Order) -> Self {
        let mut out = Outputs::default();
        let sums: HashMap<ValueId, &Slot> =
            groups.absorbed.values().filter_map(|a| Some((a.value, a.accumulate.as_ref()?))).collect();
        let inputs: HashMap<&Slot, ValueId> = cx.graph.inputs().collect();
        for output in &cx.graph.outputs {
            let value = cx.buffer_of(output.value).expect("outputs are in memory");
            if inputs.get(&output.slot) == Some(&value) {
                continue;
            }
            let is_written = groups.stored[value.index()] && !out.in_place.contains_key(&value);
            let is_its_sum = sums.get(&value).is_none_or(|slot| **slot == output.slot);
            let old = inputs.get(&output.slot).copied();
            if is_written && is_its_sum && old.is_none_or(|old| order.overwrite(&groups.work, value, old)) {
                out.in_place.insert(value, output.slot.clone());
            } else {
                out.copied.push((value, output.slot.clone()));
            }
        }
        let overwritten: HashSet<&Slot> = cx.graph.outputs.iter().map(|o| &o.slot).collect();
        for (value, _) in &out.copied {
            let is_lost = matches!(&cx.graph.producer(*value).op, Op::Input(s, _) if overwritten.contains(s));
            if is_lost && !groups.stored[value.index()] && !out.saved.contains(value) {
                out.saved.push(*value);
            }
        }
        out
    }
}

impl Order {
    /// Makes the launch that writes `value` wait for all that read `old`, so that it can write into the
    /// same buffer. Says no, and changes nothing, if it cannot.
    fn overwrite(&mut self, work: &[Work], value: ValueId, old: ValueId) -> bool {
        let writer = self.writer[&value];
        let readers = self.readers.get(&old).cloned().unwrap_or_default();
        let possible = readers.iter().all(|&r| {
            if r == writer { reads_where_it_writes(&work[r], value, old) } else { !self.reaches(writer, r) }
        });
        if possible {
            for r in readers.into_iter().filter(|&r| r != writer) {
                if !self.next[r].contains(&writer) {
                    self.next[r].push(writer);
                }
            }
        }
        possible
    }
}

/// Whether a region reads `old` only at the index at which it then writes `value`.
fn reads_where_it_writes(work: &Work, value: ValueId, old: ValueId) -> bool {
    let built = match work {
        Work::Region(built) => built,
        Work::Epilogue(_, operands, built) if !operands.contains(&old) => built,
        _ => return false,
    };
    let arg = |v, written| built.args.iter().position(|&a| a == (v, written)).map(|i| i as ArgId);
    let (from, to) = (arg(old, false), arg(value, true));
    let store = built.region.body.iter().enumerate().find_map(|(i, instr)| match instr {
        Instr::Store { arg, at, .. } if Some(*arg) == to => Some((i, at)),
        _ => None,
    });
    let Some((stored_at, store)) = store else { return false };
    // One element for a row of many lanes: executors that cut long rows read it in every piece, and one of
    // them writes it.
    if built.region.lanes > 1 && store.strides.last() == Some(&0) {
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
