//! Contractions that write straight into another value's buffer, and results that are rounded as they are written.

use pg_ir::graph::ValueId;
use pg_ir::op::{Binary, Op};
use pg_ir::ty::DType;

use super::{Absorbed, Selector};
use crate::index::matrix::{only_reaches, written_as};
use crate::passes::rewrites::Rewrite;

impl Selector<'_> {
    /// Finds dots that can write into the buffer of an output: a view of the dot, or the sum of a state
    /// slot with the dot that goes back to the slot (gradient accumulation).
    pub(super) fn absorb(&mut self) {
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
                let rewrite = if sum.is_some() { Rewrite::AccumulateIntoSlot } else { Rewrite::WriteView };
                rewrite.taken();
                self.absorbed
                    .insert(id, Absorbed { value: target, c, accumulate: sum.map(|_| output.slot.clone()) });
            }
        }
    }

    /// Finds results that nothing but a round reads: their kernels round as they write.
    pub(super) fn round(&mut self) {
        for id in self.library() {
            for result in self.graph.results(self.graph.node(id)) {
                let is_output = self.graph.outputs.iter().any(|o| o.value == result);
                if let [reader] = self.readers[result.index()][..]
                    && !is_output
                    && self.graph.producer(reader).op == Op::Cast(DType::BF16)
                {
                    Rewrite::RoundAsWritten.taken();
                    self.rounded.insert(result, reader);
                }
            }
        }
    }
}
