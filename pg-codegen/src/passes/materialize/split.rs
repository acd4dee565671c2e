//! Values that read more buffers than a kernel binds, long sums for example: which part of one to keep in memory.

use std::collections::BTreeSet;

use pg_ir::graph::ValueId;
use rustc_hash::FxHashMap;

use crate::index::access::Context;
use crate::passes::fuse::MAX_ARGS;

/// The value below `value` that reads the most buffers, but no more than fit into a region of its own.
pub(crate) fn part_of(cx: Context<'_>, value: ValueId) -> Option<ValueId> {
    let mut leaves: FxHashMap<ValueId, BTreeSet<ValueId>> = FxHashMap::default();
    let mut stack = vec![(value, false)];
    let mut best: Option<(usize, ValueId)> = None;
    while let Some((at, is_done)) = stack.pop() {
        if leaves.contains_key(&at) {
            continue;
        }
        let node = cx.graph.producer(at);
        if at != value && (cx.in_memory(at) || cx.constants.uniform(at).is_some()) {
            let found = cx.in_memory(at).then_some(at);
            leaves.insert(at, found.into_iter().collect());
        } else if is_done {
            let all: BTreeSet<ValueId> =
                node.operands.iter().flat_map(|v| leaves[v].iter().copied()).collect();
            let fits = at != value && !node.op.is_view() && all.len() < MAX_ARGS;
            if fits && best.is_none_or(|(most, _)| all.len() > most) {
                best = Some((all.len(), at));
            }
            leaves.insert(at, all);
        } else {
            stack.push((at, true));
            stack.extend(node.operands.iter().map(|&v| (v, false)));
        }
    }
    best.filter(|(most, _)| *most > 1).map(|(_, at)| at)
}
