//! Generated kernels executed on the CPU against float64 references: every family at small and odd sizes,
//! and whole programs of a model.

use pg_codegen::kernels::{extents, generate};
use pg_codegen::machine::{CUDA, H100, Machine};
use pg_codegen::plan::{
    AttentionShape, Buffer, BufferId, Kernel, KernelId, Launch, Matmul, MatrixView, Place, Plan,
};
use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_codegen::report::provenance::Provenance;
use pg_codegen::stored;
use pg_codegen::{Options, compile};
use pg_ir::graph::Graph;
use pg_ir::interp::Environment;
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use crate::device::Device;
use crate::models;
use pg_fuzz::exec;
use pg_fuzz::regions::{Case, Limits, TOLERANCE, case};
use pg_fuzz::rng::Rng;

/// A plan of one launch over buffers of its own.
pub(crate) fn single(kernel: Kernel, buffers: &[(DType, usize)]) -> Plan {
    one_launch_each([(kernel, buffers.to_vec())])
}

/// A plan that launches each kernel once, over buffers of its own.
fn one_launch_each(kernels: impl IntoIterator<Item = (Kernel, Vec<(DType, usize)>)>) -> Plan {
    let mut plan = Plan { program: "test".into(), ..Plan::default() };
    for (kernel, buffers) in kernels {
        let from = plan.buffers.len();
        plan.buffers.extend(buffers.iter().enumerate().map(|(i, &(dtype, len))| Buffer {
            dtype,
            len,
            place: Place::External(slot(from + i)),
            label: String::new(),
            why: "",
        }));
        let args = (from..plan.buffers.len()).map(|i| BufferId(i as u32)).collect();
        let (provenance, kernel_id) = (Provenance::default(), KernelId(plan.kernels.len() as u32));
        plan.launches.push(Launch { kernel: kernel_id, args, provenance, flops: 0.0, bytes: 0.0 });
        plan.kernels.push(kernel);
    }
    plan
}

/// The slot of an argument of such a plan.
pub(crate) fn slot(i: usize) -> Slot {
    Slot::new(Space::Param, format!("a{i}"))
}

/// Runs a plan on the CPU and against the reference executor of plans; each element must be within
/// `tolerance` of the largest magnitude of its buffer.
pub(crate) fn check(plan: &Plan, env: &Environment, target: &Machine, tolerance: f64, what: &str) {
    let expected = exec::run(plan, env);
    let found = Device::new(plan, target).run_both(env);
    compare(&found, &expected, tolerance, what);
}

pub(crate) fn compare(found: &Environment, expected: &Environment, tolerance: f64, what: &str) {
    for (slot, want) in expected {
        let got = &found[slot];
        let scale = want.iter().filter(|v| v.is_finite()).fold(1e-3f64, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let same = (g - w).abs() <= tolerance * scale || g == w || (g.is_nan() && w.is_nan());
            assert!(same, "{what}: {slot}[{i}] is {g}, should be {w}");
        }
    }
}

/// An environment for the arguments that are read.
pub(crate) fn inputs(plan: &Plan, read: &[usize], seed: u64) -> Environment {
    let mut rng = Rng::new(seed);
    let values = |i: usize, rng: &mut Rng| {
        let b = &plan.buffers[i];
        // What bfloat16 holds exactly, so that references need not round.
        let round = |x: f64| match b.dtype {
            DType::BF16 => f64::from(half::bf16::from_f32(x as f32).to_f32()),
            _ => f64::from(x as f32),
        };
        (slot(i), (0..b.len).map(|_| round(rng.float())).collect())
    };
    read.iter().map(|&i| values(i, &mut rng)).collect()
}

#[test]
fn matmuls_of_odd_sizes() {
    for (batch, m, n, k, transposed) in
        [(1, 1, 1, 1, false), (1, 7, 5, 3, false), (2, 33, 65, 17, true), (1, 64, 64, 40, true)]
    {
        let view = |rows: usize, cols: usize, flip: bool| {
            let (row, col) = if flip { (1, rows) } else { (cols, 1) };
            MatrixView { offset: 0, batch: rows * cols, row, col }
        };
        let (a, b, c) = (view(m, k, transposed), view(k, n, !transposed), view(m, n, false));
        for accumulate in [false, true] {
            let kernel = Kernel::from(Matmul { batch, m, n, k, a, b, c, accumulate, symmetric: false });
            let plan = single(
                kernel,
                &[(DType::F32, batch * m * k), (DType::F32, batch * k * n), (DType::F32, batch * m * n)],
            );
            let read: &[usize] = if accumulate { &[0, 1, 2] } else { &[0, 1] };
            let env = inputs(&plan, read, 7);
            check(&plan, &env, &CUDA, 1e-5, &format!("{batch}×{m}×{n}×{k} {transposed} {accumulate}"));
        }
    }
}

#[test]
fn attention_of_odd_sizes() {
    for (batch, time, heads, kv_heads, dim) in [(1, 1, 1, 1, 4), (2, 37, 4, 2, 16), (1, 70, 2, 1, 64)] {
        let shape = AttentionShape { batch, time, heads, kv_heads, dim, scale: 0.3 };
        let (q, kv, rows) = (batch * time * heads * dim, batch * time * kv_heads * dim, batch * time * heads);
        let f = |len| (DType::F32, len);
        let forward = single(Kernel::Attention(shape), &[f(q), f(kv), f(kv), f(q), f(rows)]);
        let mut env = inputs(&forward, &[0, 1, 2], 3);
        check(&forward, &env, &CUDA, 1e-5, &format!("{shape:?}"));
        let results = exec::run(&forward, &env);
        let all = [f(q), f(kv), f(kv), f(q), f(rows), f(q), f(q), f(kv), f(kv)];
        let backward = single(Kernel::AttentionGrad(shape), &all);
        env.extend(inputs(&backward, &[5], 4));
        for i in [3, 4] {
            let rounded = results[&slot(i)].iter().map(|&x| f64::from(x as f32)).collect();
            env.insert(slot(i), rounded);
        }
        check(&backward, &env, &CUDA, 1e-5, &format!("{shape:?} backward"));
    }
}

#[test]
fn sums_by_id_of_odd_sizes() {
    // Then: ids whose stretches are in many pieces; rows beyond one table of counts, in several segments; stretches that
    // begin and end with a piece, half of the rows without any.
    let sizes = [
        (1, 1, 1, 1),
        (5, 3, 17, 5),
        (10, 8, 300, 10),
        (3, 4, 2600, 3),
        (2100, 1, 2100, 2100),
        (8, 4, 512, 4),
    ];
    for (rows, width, count, ids) in sizes {
        let kernel = Kernel::ScatterAdd { rows, width, count };
        let plan =
            single(kernel, &[(DType::I32, count), (DType::F32, count * width), (DType::F32, rows * width)]);
        let mut env = inputs(&plan, &[1], 5);
        let mut rng = Rng::new(6);
        let id = |i: usize| if count == 512 { i % ids } else { rng.below(ids) };
        env.insert(slot(0), (0..count).map(id).map(|id| id as f64).collect());
        check(&plan, &env, &CUDA, 1e-5, &format!("{rows}×{width} of {count}"));
    }
}

#[test]
fn copies() {
    let plan = single(Kernel::Copy { len: 261 }, &[(DType::F32, 261), (DType::F32, 261)]);
    check(&plan, &inputs(&plan, &[0], 8), &CUDA, 0.0, "copy");
}

/// `PG_CUDA_SEEDS`, or so many.
fn seeds(default: usize) -> usize {
    std::env::var("PG_CUDA_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// Random graphs: every op, operand kind and region instruction. Their kernels must have no fault and give the
/// same bits in both orders; numbers are compared where float32 can follow float64.
#[test]
fn regions_of_random_graphs() {
    for seed in 0..seeds(12) {
        let (graph, env) = pg_fuzz::graphs::graph(seed as u64);
        let plan = compile("random", &graph, &Options::default()).unwrap();
        let expected = exec::run(&plan, &env);
        // Units that share a row meet in shared memory, or directly.
        for target in [CUDA, H100] {
            let found = Device::new(&plan, &target).run_both(&env);
            compare(&found, &expected, 1e-4, &format!("seed {seed} on {}", target.name));
        }
    }
}

/// Random regions, by the dozen in one plan: a compiler of C++ takes its time for each. `PG_CUDA_SEEDS` dozens.
#[test]
fn random_regions_agree_with_their_meaning() {
    for (which, target) in [CUDA, H100].iter().cycle().take(seeds(4)).enumerate() {
        let from = 12 * which as u64;
        let cases: Vec<_> = (from..from + 12).map(|seed| case(seed, Limits::default())).collect();
        let (plan, env) = regions(&cases);
        let expected = exec::run(&plan, &env);
        let found = Device::new(&plan, target).run_both(&env);
        compare(&found, &expected, TOLERANCE, &format!("seeds {from} and on, on {}", target.name));
    }
}

/// A plan that runs each region once, and what its buffers hold.
fn regions(cases: &[Case]) -> (Plan, Environment) {
    let kernel = |case: &Case| {
        let lens = case.args.iter().map(Vec::len);
        (Kernel::Region(case.region.clone()), case.region.args.iter().copied().zip(lens).collect())
    };
    let mut env = Environment::new();
    let args = cases.iter().flat_map(|case| case.args.iter().enumerate().map(|(i, x)| (x, i < case.loaded)));
    for (i, (data, _)) in args.enumerate().filter(|(_, (_, is_loaded))| *is_loaded) {
        env.insert(slot(i), data.clone());
    }
    (one_launch_each(cases.iter().map(kernel)), env)
}

/// Rows that are too long for a cube: their sums, of which one needs the other, are launches of their own, and what
/// is stored for each column and for each row comes out as if one had walked them.
#[test]
fn long_rows_are_cut() {
    let affine = |strides: &[i64], offset| Affine { offset, strides: strides.iter().copied().collect() };
    // Even, with loads of 16 bytes; in parts of no even length; a prime, which cannot be cut.
    for (rows, columns, launches) in [(1, 40_960, 5), (3, 36_855, 5), (2, 32_771, 1)] {
        let own = affine(&[columns as i64, 1], 0);
        let load = |arg, at| Instr::Load { arg, map: IndexMap { at, guards: vec![] } };
        let body = vec![
            load(0, own.clone()),
            Instr::RowReduce(Reduction::Max, 0),
            Instr::Binary(Binary::Sub, 0, 1),
            Instr::Store { arg: 1, value: 2, at: own.clone() },
            Instr::Unary(Unary::Exp, 2),
            load(2, affine(&[0, 0], 1)),
            Instr::Binary(Binary::Mul, 4, 5),
            Instr::RowReduce(Reduction::Sum, 6),
            Instr::Store { arg: 3, value: 7, at: affine(&[1, 0], 0) },
            Instr::Binary(Binary::Div, 4, 7),
            Instr::Store { arg: 0, value: 9, at: own.clone() },
        ];
        let args = vec![DType::F32; 4];
        let region = Region { rows: vec![rows], reduced: 0, columns, body, args };
        let buffers = [rows * columns, rows * columns, 2, rows].map(|len| (DType::F32, len));
        let plan = single(Kernel::Region(region), &buffers);
        for target in [CUDA, H100] {
            let made = generate(&plan, &extents(&plan, |_| None), &target).unwrap();
            assert_eq!(made.launches.len(), launches, "{rows} × {columns}");
            check(&plan, &inputs(&plan, &[0, 2], 47), &target, 1e-5, &format!("{rows} × {columns}"));
        }
    }
    // Nothing of what is left knows columns: it is one row of one.
    let body = vec![
        Instr::Load { arg: 0, map: IndexMap { at: affine(&[1], 0), guards: vec![] } },
        Instr::RowReduce(Reduction::Sum, 0),
        Instr::Store { arg: 1, value: 1, at: affine(&[0], 0) },
    ];
    let region =
        Region { rows: vec![], reduced: 0, columns: 65_536, body, args: vec![DType::BF16, DType::F32] };
    let plan = single(Kernel::Region(region), &[(DType::BF16, 65_536), (DType::F32, 1)]);
    let made = generate(&plan, &extents(&plan, |_| None), &H100).unwrap();
    assert_eq!(made.launches.last().unwrap().stage.grid, [1, 1, 1]);
    check(&plan, &inputs(&plan, &[0], 53), &H100, 1e-5, "a sum of all");
}

/// A permutation of columns without any pattern becomes a table of constants.
#[test]
fn irregular_permutations_are_tables() {
    for columns in [64, 37] {
        let mut rng = Rng::new(59);
        let mut perm: Vec<u32> = (0..columns as u32).collect();
        (1..columns).rev().for_each(|i| perm.swap(i, rng.below(i + 1)));
        let at = |strides: &[i64]| Affine { offset: 0, strides: strides.iter().copied().collect() };
        let own = at(&[columns as i64, 1]);
        let body = vec![
            Instr::Load { arg: 0, map: IndexMap { at: own.clone(), guards: vec![] } },
            Instr::Permute(perm.into(), 0),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Store { arg: 1, value: 2, at: own },
        ];
        let region = Region { rows: vec![5], reduced: 0, columns, body, args: vec![DType::F32; 2] };
        let plan = single(Kernel::Region(region), &[(DType::F32, 5 * columns); 2]);
        for target in [CUDA, H100] {
            check(&plan, &inputs(&plan, &[0], 61), &target, 1e-6, &format!("{columns} columns"));
        }
    }
}

/// Values for the inputs of a model's program: small weights, ids below `vocab`, scalars in (0, 1).
fn program_inputs(graph: &Graph, vocab: usize) -> Environment {
    let mut rng = Rng::new(11);
    let mut value = |slot: &Slot| match slot.space {
        Space::Data => rng.below(vocab) as f64,
        Space::Scalar | Space::Variance => f64::from((0.1 + 0.4 * rng.float().abs()) as f32),
        _ => f64::from((0.2 * rng.float()) as f32),
    };
    let values = |(slot, id): (&Slot, pg_ir::graph::ValueId)| {
        (slot.clone(), (0..graph.ty(id).len()).map(|_| value(slot)).collect())
    };
    graph.inputs().map(values).collect()
}

/// Whole programs of tiny, narrow and short, in bfloat16 on tensor cores: gradients of a first micro-batch and of one
/// that finds what the first left, scores, the update and a step of test-time training.
#[test]
fn whole_programs_of_tiny() {
    let sizes = [
        ("LAYERS", "2"),
        ("DIM", "64"),
        ("HEADS", "2"),
        ("KV_HEADS", "1"),
        ("VOCAB", "50"),
        ("SEQ_LEN", "13"),
        ("train.batch_tokens", "26"),
        ("eval.stride", "5"),
        ("eval.ttt.chunk", "26"),
    ];
    let model = models::model(&models::file("tiny.rs"), &sizes);
    let mut programs = models::programs(&model, 26);
    let chosen = ["grad.first.qat", "grad.next.qat", "score", "update", "adapt"];
    programs.retain(|p| chosen.contains(&p.name.as_str()));
    assert_eq!(programs.len(), chosen.len());
    let mut env = Environment::new();
    for program in &programs {
        for (slot, values) in program_inputs(&program.graph, 50) {
            env.entry(slot).or_insert(values);
        }
        let plan = models::plan(program);
        let found = Device::new(&plan, &H100).run_both(&env);
        let left = found.iter().filter(|(slot, _)| slot.space == Space::CachedWeight);
        env.extend(left.map(|(slot, values)| (slot.clone(), values.clone())));
        let rounded = stored(&program.graph, &H100).unwrap();
        let expected = pg_ir::interp::run(&rounded, &env).unwrap();
        // Attention rounds probabilities to bfloat16, which the graph does not; small sums of large terms feel it.
        compare(&found, &expected, 1.0 / 32.0, &program.name);
    }
}
