//! At how many points of a value one region would compute it: through shifts, slices and pads a value may be read at
//! several elements for each element of the result, and is computed anew for each of them.
//!
//! An estimate only: it decides what is worth keeping, never what is computed.

use std::hash::BuildHasher;

use pg_ir::graph::{Graph, ValueId};
use pg_ir::op::Op;
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::index::access::Context;

/// Points of a value that one region computes. A sum by doubled shifts wants twice as many of its terms with each
/// shift, so that without a limit a region may grow exponentially.
const MOST_POINTS: usize = 32;

/// At which points of values regions want them, as hashes of the views that lead there, from users to operands.
pub(crate) struct Points<'a> {
    graph: &'a Graph,
    by_value: Vec<FxHashSet<u64>>,
}

impl<'a> Points<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Self {
        Points { graph, by_value: vec![FxHashSet::default(); graph.value_count()] }
    }

    /// Finds the points of a value whose readers have theirs.
    pub(crate) fn collect(&mut self, cx: Context<'_>, value: ValueId, readers: &[ValueId]) {
        let mut found = FxHashSet::default();
        for &reader in readers {
            let op = &self.graph.producer(reader).op;
            let through = |point: u64| match op {
                // The same element, or the same for many.
                Op::Reshape(_) | Op::Broadcast(_) => point,
                op if op.is_view() || matches!(op, Op::Permute(_)) => FxBuildHasher.hash_one((point, op)),
                _ => point,
            };
            if cx.in_memory(reader) {
                found.insert(through(0));
            } else {
                found.extend(self.by_value[reader.index()].iter().map(|&p| through(p)));
            }
        }
        self.by_value[value.index()] = found;
    }

    /// Whether the value should be kept instead.
    pub(crate) fn are_many(&self, value: ValueId) -> bool {
        self.by_value[value.index()].len() > MOST_POINTS
    }
}
