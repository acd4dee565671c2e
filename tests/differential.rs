//! Random graphs through the whole road: interpreter in float64, and the CPU executor on the fused and on
//! the unfused plan. The generator covers every op, operand kind, and axis sizes 1 and primes; coverage is
//! asserted here for what reaches the executor.

#[path = "../pg-codegen/tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use pg_codegen::{Options, compile};
use pg_ir::graph::Graph;
use pg_ir::interp::{self, Environment};
use pg_ir::op::Op;
use pg_ir::slot::Space;
use pg_runtime::cpu::CpuExecutor;
use pg_runtime::state::State;

const SEEDS: u64 = 300;

/// A float32 error is taken for right up to this many times the error of rounding the result itself: chains of
/// a few dozen ops amplify.
const TOLERANCE: f64 = 2e-3;

fn execute(graph: &Graph, env: &Environment, fuse: bool) -> Environment {
    let plan = compile("random", graph, &Options { fuse }).unwrap_or_else(|e| panic!("{e}"));
    let mut executor = CpuExecutor::new(Arc::new(plan)).unwrap_or_else(|e| panic!("{e}"));
    let mut state = State::new([]);
    let written = graph.outputs.iter().map(|o| (&o.slot, o.value));
    for (slot, value) in graph.inputs().chain(written).filter(|(slot, _)| slot.space.is_state()) {
        state.allocate(slot.space, &slot.name, graph.ty(value).len()).unwrap();
        if let Some(given) = env.get(slot) {
            let memory = state.get_mut(slot).unwrap();
            memory.iter_mut().zip(given).for_each(|(m, &v)| *m = v as f32);
        }
    }
    let of = |space: Space| env.iter().filter(move |(slot, _)| slot.space == space);
    let data: Vec<(&str, Vec<i32>)> =
        of(Space::Data).map(|(s, v)| (s.name.as_str(), v.iter().map(|&x| x as i32).collect())).collect();
    let data: Vec<(&str, &[i32])> = data.iter().map(|(n, v)| (*n, v.as_slice())).collect();
    let scalars: Vec<(&str, f32)> = of(Space::Scalar).map(|(s, v)| (s.name.as_str(), v[0] as f32)).collect();
    executor.run(&mut state, &data, &scalars).unwrap_or_else(|e| panic!("{e}"));
    let found = graph.outputs.iter().map(|o| {
        let values = match o.slot.space {
            Space::Result => executor.result(&o.slot.name).unwrap().to_vec(),
            _ => state.get(&o.slot).unwrap().to_vec(),
        };
        (o.slot.clone(), values.into_iter().map(f64::from).collect())
    });
    found.collect()
}

#[test]
fn the_executor_agrees_with_the_interpreter() {
    let mut covered = BTreeSet::new();
    let mut compared = 0;
    for seed in 0..SEEDS {
        let (graph, env) = common::random::graph(seed);
        // What a rounding of the inputs alone does to the result: graphs that amplify it say nothing about
        // an executor.
        let rounded: Environment =
            env.iter().map(|(s, v)| (s.clone(), v.iter().map(|&x| f64::from(x as f32)).collect())).collect();
        let expected = interp::run(&graph, &rounded).unwrap();
        for fuse in [false, true] {
            let found = execute(&graph, &rounded, fuse);
            for (slot, want) in &expected {
                let got = &found[slot];
                let scale = want.iter().fold(1.0f64, |m, v| if v.is_finite() { m.max(v.abs()) } else { m });
                for (i, (g, w)) in got.iter().zip(want).enumerate() {
                    // Beyond float32 there is nothing to compare.
                    if w.abs() > 1e30 || w.is_nan() {
                        continue;
                    }
                    compared += 1;
                    let error = (g - w).abs() / scale;
                    assert!(
                        error <= TOLERANCE,
                        "seed {seed}, fuse {fuse}: {slot}[{i}] is {g}, should be {w}"
                    );
                }
            }
        }
        covered.extend(graph.nodes().map(|(_, n)| n.op.record().name));
        let quantises = graph.nodes().any(|(_, n)| matches!(n.op, Op::FakeQuant(_)));
        covered.extend(quantises.then_some("fake_quant"));
    }
    let missing: Vec<_> = pg_ir::ops::all().iter().map(|r| r.name).filter(|n| !covered.contains(n)).collect();
    assert!(missing.is_empty(), "no random graph held {missing:?}");
    assert!(compared > 10_000, "only {compared} values were compared");
}
