//! What the static proofs refuse: one leaking graph for each op that could carry the leak.

use pg_ir::causality::prove_causal;
use pg_ir::graph::{Builder, ValueId};
use pg_ir::op::{Bits, DotDims, Op, Reduction};
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axis, DType, Role, Type};

const B: Axis = Axis { size: 2, role: Role::Batch };
const T: Axis = Axis { size: 6, role: Role::Time };

/// A graph over `tokens` as int32 and as float [batch, time], and what `prove_causal` says of the result.
fn proof(build: impl FnOnce(&mut Builder, ValueId, ValueId) -> ValueId) -> Result<(), String> {
    let mut b = Builder::default();
    let ids = b.input(Slot::new(Space::Data, "tokens"), Type::new(DType::I32, [B, T]));
    let x = b.op(Op::Cast(DType::F32), &[ids]);
    let y = build(&mut b, ids, x);
    prove_causal(b.graph(), y)
}

#[track_caller]
fn refused(build: impl FnOnce(&mut Builder, ValueId, ValueId) -> ValueId) {
    let error = proof(build).expect_err("a graph that mixes the rows of a batch was proved causal");
    assert!(error.contains("later tokens"), "{error}");
}

fn transposed(b: &mut Builder, x: ValueId) -> ValueId {
    b.op(Op::Transpose([1, 0].into_iter().collect()), &[x])
}

#[test]
fn position_by_position_is_causal() {
    proof(|b, _, x| b.scale(2.0, x)).unwrap();
    proof(|b, _, x| b.op(Op::Shift { axis: 1, by: 1 }, &[x])).unwrap();
    // [B, T, 1] · [B, 1, 3], walked in step along the batch: each row with itself.
    proof(|b, _, x| {
        let x = b.reshape(x, [B, T, Axis::channel(1)].into_iter().collect());
        let w = b.input(Slot::new(Space::Param, "w"), Type::channels(&[3, 1]));
        b.dot(DotDims::contract(2, 1), x, w)
    })
    .unwrap();
}

#[test]
fn reductions_over_a_batch_are_refused() {
    refused(|b, _, x| b.reduce(Reduction::Sum, x, &[0]));
    refused(|b, _, x| b.reduce(Reduction::Max, x, &[0]));
}

#[test]
fn shifts_slices_pads_and_lanes_along_a_batch_are_refused() {
    for by in [1, -1] {
        refused(|b, _, x| b.op(Op::Shift { axis: 0, by }, &[x]));
    }
    refused(|b, _, x| b.op(Op::Slice { axis: 0, start: 1, len: 1 }, &[x]));
    refused(|b, _, x| b.op(Op::Pad { axis: 0, before: 1, after: 0 }, &[x]));
    refused(|b, _, x| {
        let x = transposed(b, x);
        b.op(Op::Lanes([1, 0].into()), &[x])
    });
}

#[test]
fn contractions_that_mix_a_batch_are_refused() {
    let weights = |b: &mut Builder, n| b.input(Slot::new(Space::Param, "w"), Type::channels(&[n, 3]));
    // Contracted.
    refused(|b, _, x| {
        let w = weights(b, 2);
        b.dot(DotDims::contract(0, 0), x, w)
    });
    // Free on both sides.
    refused(|b, _, x| {
        let x = b.reshape(x, [B, T, Axis::channel(1)].into_iter().collect());
        b.dot(DotDims::contract(2, 2), x, x)
    });
    // Walked in step with, and free beside, another axis of the batch.
    refused(|b, _, x| {
        let c = b.reduce(Reduction::Max, x, &[1]);
        let c = b.reshape(c, [B].into_iter().collect());
        let wide = b.broadcast(c, [B, B].into_iter().collect());
        b.dot(DotDims { batch: [(0, 0)].into_iter().collect(), ..DotDims::default() }, wide, c)
    });
    // Walked in step with an axis of another role, which would be the result's.
    refused(|b, _, x| {
        let w = weights(b, 2);
        b.dot(DotDims { batch: [(0, 0)].into_iter().collect(), ..DotDims::default() }, w, x)
    });
}

#[test]
fn rows_of_a_batch_as_a_table_are_refused() {
    refused(|b, ids, x| b.op(Op::Gather, &[x, ids]));
    refused(|b, ids, x| b.op(Op::ScatterAdd { rows: 9 }, &[ids, x]));
    // The batch is inside the rows.
    refused(|b, ids, x| {
        let x = b.reshape(x, [Axis::channel(1), B, T].into_iter().collect());
        b.op(Op::Gather, &[x, ids])
    });
}

#[test]
fn attention_among_sequences_is_refused() {
    refused(|b, _, x| {
        let ones = |n: usize| Axis::new(n, Role::Batch);
        let axes = [Axis { size: 1, ..B }, T, ones(2), Axis::channel(1)];
        let x = transposed(b, x);
        let x = b.reshape(x, axes.into_iter().collect());
        b.push(Op::Attention { scale: Bits::new(1.0) }, &[x, x, x]).unwrap()[0]
    });
}

#[test]
fn quantising_across_a_sequence_is_refused() {
    refused(|b, _, x| b.op(Op::FakeQuant(Grid { clip: 7, rule: ScaleRule::Amax }), &[x]));
}
