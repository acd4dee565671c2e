//! Random graphs through the whole road: interpreter in float64, and the CPU executor on the fused and on
//! the unfused plan. The generator covers every op, operand kind, and axis sizes 1 and primes; coverage is
//! asserted here for what reaches the executor.

use std::collections::BTreeSet;
use std::sync::Arc;

use pg_codegen::plan::{BufferId, Kernel, KernelId, Plan};
use pg_codegen::{Options, compile};
use pg_ir::graph::{Builder, Graph};
use pg_ir::interp::{self, Environment};
use pg_ir::op::{DotDims, Op};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{DType, Type};
use pg_runtime::cpu::CpuExecutor;
use pg_runtime::state::State;

const SEEDS: u64 = 300;

/// Error of float32 arithmetic that every graph may have, relative to the largest element.
const ROUNDING: f64 = 1e-6;

/// A result may be off by this many times what a relative change of 1e-7 of every input does to it: graphs of
/// a few dozen ops round as often, and some amplify.
const AMPLIFIED: f64 = 64.0;

/// Whether a plan is float32 where this executor is: bf16 it knows in regions only.
fn is_for_this_executor(plan: &Plan) -> bool {
    let is_bf16 = |id: &BufferId| plan.buffers[id.0 as usize].dtype == DType::BF16;
    let region = |kernel: &KernelId| matches!(plan.kernels[kernel.0 as usize], Kernel::Region(_));
    plan.launches.iter().all(|launch| region(&launch.kernel) || !launch.args.iter().any(is_bf16))
}

/// What the plan writes; `None` if the executor does not take it.
fn execute(graph: &Graph, env: &Environment, fuse: bool) -> Option<Environment> {
    let plan =
        compile("random", graph, &Options { fuse, ..Options::default() }).unwrap_or_else(|e| panic!("{e}"));
    if !is_for_this_executor(&plan) {
        return None;
    }
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
    Some(found.collect())
}

/// Changes every float; ids stay.
fn map(env: &Environment, change: impl Fn(f64) -> f64) -> Environment {
    let values = |(slot, v): (&Slot, &Vec<f64>)| {
        let v = if slot.space == Space::Data { v.clone() } else { v.iter().map(|&x| change(x)).collect() };
        (slot.clone(), v)
    };
    env.iter().map(values).collect()
}

#[test]
fn the_executor_agrees_with_the_interpreter() {
    let mut covered = BTreeSet::new();
    let (mut compared, mut refused) = (0, 0);
    for seed in 0..SEEDS {
        let (graph, env) = pg_fuzz::graphs::graph(seed);
        let rounded = map(&env, |x| f64::from(x as f32));
        let nudged = map(&rounded, |x| x * (1.0 + 1e-7));
        let expected = interp::run(&graph, &rounded).unwrap();
        let moved = interp::run(&graph, &nudged).unwrap();
        for fuse in [false, true] {
            let Some(found) = execute(&graph, &rounded, fuse) else {
                refused += 1;
                continue;
            };
            for (slot, want) in &expected {
                let finite = want.iter().copied().filter(|w| w.is_finite());
                let scale = finite.fold(1.0f64, |m, v| m.max(v.abs()));
                let change = want.iter().zip(&moved[slot]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                let bound = ROUNDING * scale + AMPLIFIED * change;
                for (i, (g, w)) in found[slot].iter().zip(want).enumerate() {
                    // Beyond float32's range there is nothing to compare.
                    if w.abs() > 1e30 || w.is_nan() {
                        continue;
                    }
                    compared += 1;
                    let error = (g - w).abs();
                    assert!(
                        error <= bound,
                        "seed {seed}, fuse {fuse}: {slot}[{i}] is {g}, should be {w} ± {bound}"
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
    println!(
        "{compared} values compared; {refused} plans of {} have bf16 matmul operands and did not run",
        2 * SEEDS
    );
    assert!(refused < SEEDS, "most random graphs did not run");
    assert!(compared > 10_000, "only {compared} values were compared");
}

/// A gradient of a scalar, added to what earlier micro-batches left, over a row that no block holds whole.
#[test]
fn a_long_sum_is_added_to_a_scalar_of_the_state() {
    let mut b = Builder::default();
    let ty = Type::channels(&[100_000]);
    let x = b.input(Slot::new(Space::Param, "x"), ty.clone());
    let y = b.input(Slot::new(Space::Param, "y"), ty);
    let product = b.mul(x, y);
    let sum = b.sum_all(product);
    let slot = Slot::new(Space::Grad, "g");
    let old = b.input(slot.clone(), Type::scalar(DType::F32));
    let new = b.add(old, sum);
    b.output(slot.clone(), new);
    let graph = b.finish();
    let ones = |n: usize| vec![1.0; n];
    let env = Environment::from([
        (Slot::new(Space::Param, "x"), ones(100_000)),
        (Slot::new(Space::Param, "y"), vec![0.5; 100_000]),
        (slot.clone(), vec![7.0]),
    ]);
    for fuse in [false, true] {
        assert_eq!(execute(&graph, &env, fuse).unwrap()[&slot], [50_007.0]);
    }
}

/// Of a matrix times its own transpose one half is computed and copied to the other, but not where it is added.
#[test]
fn a_matrix_times_its_transpose_is_added_to_the_state() {
    let mut b = Builder::default();
    let n = 40;
    let x = b.input(Slot::new(Space::Param, "x"), Type::channels(&[n, 3]));
    let dot = b.dot(DotDims::contract(1, 1), x, x);
    let slot = Slot::new(Space::Grad, "g");
    let old = b.input(slot.clone(), Type::channels(&[n, n]));
    let new = b.add(old, dot);
    b.output(slot.clone(), new);
    let graph = b.finish();
    let ramp = |n: usize| (0..n).map(|i| (i % 7) as f64).collect::<Vec<_>>();
    let env = Environment::from([(Slot::new(Space::Param, "x"), ramp(3 * n)), (slot.clone(), ramp(n * n))]);
    let want = &interp::run(&graph, &env).unwrap()[&slot];
    for fuse in [false, true] {
        assert_eq!(&execute(&graph, &env, fuse).unwrap()[&slot], want);
    }
}
