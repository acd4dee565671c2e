//! One kernel at a time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use pg_codegen::machine::{self, Machine};
use pg_codegen::pipeline::Pass;
use pg_codegen::plan::{Buffer, BufferId, Kernel, KernelId, Launch, Place, Plan};
use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_codegen::report::provenance::Provenance;
use pg_codegen::{Options, compile_for, graph_after};
use pg_fuzz::exec;
use pg_ir::interp::{Environment, Tensor};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use pg_runtime::device::Device;
use pg_runtime::executor::Inputs;
use pg_runtime::session::{Key, Session};
use pg_runtime::state::State;
use pg_testing::files::model_file;
use pg_testing::models::{Noise, session};

/// Error of float32 arithmetic that every kernel may have, relative to the largest element.
const ROUNDING: f64 = 2e-6;

/// A result may be off by this many times what a relative change of 1e-7 of every argument does to it.
const AMPLIFIED: f64 = 64.0;

/// Error of results that are rounded to bfloat16, or computed from factors that are, relative to the largest
/// element: four units in bfloat16's last place.
const STORED: f64 = 1.0 / 64.0;

/// Constants of a model, sequences, and tokens of each.
type Size = (&'static [&'static str], usize, usize);

/// Sizes that no vector and no tile divides.
const ODD: Size = (
    &[
        "LAYERS=4",
        "DIM=42",
        "HEADS=3",
        "KV_HEADS=1",
        "ROPE_DIMS=6",
        "VOCAB=67",
        "BIGRAM_BUCKETS=31",
        "BIGRAM_DIM=7",
        "VE_DIM=5",
        "VE_LAYERS=[2,3]",
        "XSA_LAST=2",
        "LOOP_FROM=1",
        "LOOP_TO=3",
    ],
    2,
    13,
);

/// As small as it goes.
const LEAST: Size = (
    &[
        "LAYERS=4",
        "DIM=4",
        "HEADS=1",
        "KV_HEADS=1",
        "ROPE_DIMS=4",
        "VOCAB=5",
        "BIGRAM_BUCKETS=3",
        "BIGRAM_DIM=1",
        "VE_DIM=1",
        "VE_LAYERS=[2,3]",
        "XSA_LAST=2",
        "LOOP_FROM=1",
        "LOOP_TO=3",
    ],
    1,
    1,
);

/// Sizes that vectors and tiles divide.
const EVEN: Size = (
    &[
        "LAYERS=4",
        "DIM=64",
        "HEADS=4",
        "KV_HEADS=2",
        "ROPE_DIMS=8",
        "VOCAB=128",
        "BIGRAM_BUCKETS=64",
        "BIGRAM_DIM=16",
        "VE_DIM=16",
        "VE_LAYERS=[2,3]",
        "XSA_LAST=2",
        "LOOP_FROM=1",
        "LOOP_TO=3",
    ],
    2,
    32,
);

/// Heads as wide as tensor cores take them, and products of more than a tile.
const WIDE: Size = (
    &[
        "LAYERS=4",
        "DIM=128",
        "HEADS=2",
        "KV_HEADS=1",
        "VOCAB=200",
        "BIGRAM_BUCKETS=64",
        "BIGRAM_DIM=24",
        "VE_DIM=24",
        "VE_LAYERS=[2,3]",
        "XSA_LAST=2",
        "LOOP_FROM=1",
        "LOOP_TO=3",
    ],
    2,
    136,
);

const MODELS: [&str; 10] = [
    "int4mlp_12l",
    "pr910",
    "leaky_11l",
    "naive_9l",
    "tiny",
    "ideas/causal_conv",
    "ideas/depth_recurrence",
    "ideas/swiglu",
    "ideas/two_lanes",
    "ideas/value_residual",
];

/// A model at a size; constants that it does not have are left out.
fn small(name: &str, (settings, ..): Size) -> Session {
    let file = model_file(&format!("{name}.rs"));
    let mut text = std::fs::read_to_string(&file).unwrap();
    if let Some((_, rest)) = text.split_once(" from \"") {
        let base = file.with_file_name(rest.split('"').next().unwrap());
        text += &std::fs::read_to_string(base).unwrap();
    }
    let has = |s: &&&str| text.contains(&format!("const {} =", s.split('=').next().unwrap()));
    let settings: Vec<&str> = settings.iter().filter(has).copied().collect();
    session(&format!("{name}.rs"), &settings)
}

/// Every program of a model, compiled for a machine.
fn plans(session: &Session, (_, batch, seq): Size, machine: &Machine) -> Vec<(Plan, Environment)> {
    let qat = session.model.is_quantised(0);
    let mut keys = vec![
        Key::Grad { phase: 0, batch, seq, qat, accumulate: false },
        Key::Grad { phase: 0, batch, seq, qat, accumulate: true },
        Key::Update,
        Key::Score { batch, seq, qat: false },
    ];
    keys.extend(session.model.eval.ttt.is_some().then_some(Key::Adapt));
    let plan = |key| {
        let program = session.program(key).unwrap();
        let options = Options::default().of(&program);
        let plan = compile_for(&program.name, &program.graph, &options, machine).unwrap();
        // Beside what the program reads, what another has left it.
        let graph = graph_after(Pass::CachedWeights, &program.graph, &options, machine).unwrap();
        let mut noise = Noise(7);
        let mut values = |slot: &Slot, len: usize| -> Tensor {
            match slot.space {
                Space::Data => noise.tokens(len, session.model.vocab).into_iter().map(f64::from).collect(),
                Space::Scalar => vec![0.5; len],
                // A variance is not negative.
                Space::Variance => (0..len).map(|_| f64::from(0.01 + noise.sample().abs())).collect(),
                // What bfloat16 holds exactly, whether or not it is stored so.
                Space::CachedWeight => {
                    (0..len).map(|_| half::bf16::from_f32(0.5 * noise.sample()).to_f64()).collect()
                }
                _ => (0..len).map(|_| f64::from(0.5 * noise.sample())).collect(),
            }
        };
        let env = graph.inputs().map(|(s, v)| (s.clone(), values(s, graph.ty(v).len())));
        let env = env.collect();
        (plan, env)
    };
    keys.into_iter().map(plan).collect()
}

fn slot(space: Space, i: usize) -> Slot {
    Slot::new(space, format!("arg{i}"))
}

/// A plan of one launch: what it only reads is constant, what it writes is state, or copied out if it is not
/// float32.
fn alone(kernel: &Kernel, types: &[DType], args: &[Tensor]) -> (Plan, State) {
    let mut plan = Plan { program: "kernel".into(), kernels: vec![kernel.clone()], ..Plan::default() };
    let mut state = State::new([]);
    let mut copies = Vec::new();
    for (i, (&dtype, values)) in types.iter().zip(args).enumerate() {
        let bits = |&v: &f64| if dtype == DType::I32 { v as i32 as u32 } else { (v as f32).to_bits() };
        let flag = |&v: &f64| u32::from(v != 0.0);
        let place = match (kernel.writes(i), dtype) {
            (false, DType::Bool) => Place::Constant(values.iter().map(flag).collect()),
            (false, _) => Place::Constant(values.iter().map(bits).collect()),
            (true, DType::F32) => {
                let slot = slot(Space::Param, i);
                state.allocate(slot.space, &slot.name, values.len()).unwrap();
                let memory = state.get_mut(&slot).unwrap();
                memory.iter_mut().zip(values).for_each(|(m, &v)| *m = v as f32);
                Place::External(slot)
            }
            (true, _) => {
                copies.push((i, values.len()));
                let offset = plan.arena_bytes;
                plan.arena_bytes += (4 * values.len()).next_multiple_of(64);
                Place::Temp { offset }
            }
        };
        plan.buffers.push(Buffer { dtype, len: values.len(), place, label: format!("arg{i}"), why: "" });
    }
    let launch = |kernel, args: &[usize]| Launch {
        kernel: KernelId(kernel),
        args: args.iter().map(|&a| BufferId(a as u32)).collect(),
        provenance: Provenance::task("test"),
        flops: 0.0,
        bytes: 0.0,
    };
    plan.launches.push(launch(0, &(0..args.len()).collect::<Vec<_>>()));
    for (i, len) in copies {
        let at = Affine { offset: 0, strides: [1].into_iter().collect() };
        let load = Instr::Load { arg: 0, map: IndexMap { at: at.clone(), guards: vec![] } };
        let body = vec![load, Instr::Cast(DType::F32, 0), Instr::Store { arg: 1, value: 1, at }];
        let args = vec![types[i], DType::F32];
        plan.kernels.push(Kernel::Region(Region { rows: vec![], reduced: 0, columns: len, body, args }));
        let place = Place::External(slot(Space::Result, i));
        plan.buffers.push(Buffer { dtype: DType::F32, len, place, label: format!("arg{i}"), why: "" });
        let launch = launch(plan.kernels.len() as u32 - 1, &[i, plan.buffers.len() - 1]);
        plan.launches.push(launch);
    }
    (plan, state)
}

/// Runs a kernel on the device, twice with the same bits, and holds what it wrote to the reference.
fn check(device: &Device, what: &str, kernel: &Kernel, types: &[DType], args: &[Tensor]) {
    let single = |v: &Tensor| v.iter().map(|&x| f64::from(x as f32)).collect::<Tensor>();
    let args: Vec<Tensor> = args.iter().map(single).collect();
    let reference = |change: f64| {
        let change = |(values, dtype): (&Tensor, &DType)| -> Tensor {
            if *dtype == DType::F32 { values.iter().map(|x| x * change).collect() } else { values.clone() }
        };
        let mut args: Vec<Tensor> = args.iter().zip(types).map(change).collect();
        exec::launch(kernel, &mut args);
        args
    };
    let (want, moved) = (reference(1.0), reference(1.0 + 1e-7));
    let run = || -> BTreeMap<usize, Vec<f32>> {
        let (plan, mut state) = alone(kernel, types, &args);
        let mut executor =
            device.prepare(Arc::new(plan)).unwrap_or_else(|e| panic!("{what}: {e}\n{kernel:?}"));
        executor
            .run(&mut state, Inputs::default(), None)
            .unwrap_or_else(|e| panic!("{what}: {e}\n{kernel:?}"));
        assert_eq!(executor.host_launches(), 0);
        let written = (0..types.len()).filter(|&i| kernel.writes(i));
        let read = |i: usize| match types[i] {
            DType::F32 => state.get(&slot(Space::Param, i)).unwrap().to_vec(),
            _ => executor.result(&slot(Space::Result, i).name).unwrap().to_vec(),
        };
        written.map(|i| (i, read(i))).collect()
    };
    let found = run();
    let bits = |v: &BTreeMap<usize, Vec<f32>>| v.values().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&found), bits(&run()), "{what}: two runs differ\n{kernel:?}");
    for (i, found) in found {
        let finite = want[i].iter().filter(|w| w.is_finite());
        let scale = finite.fold(1e-6f64, |m, v| m.max(v.abs()));
        let change = want[i].iter().zip(&moved[i]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let rounding = if types.contains(&DType::BF16) { STORED } else { ROUNDING };
        let bound = rounding * scale + AMPLIFIED * change;
        for (j, (&g, &w)) in found.iter().zip(&want[i]).enumerate() {
            // What nobody wrote before is NaN in the reference.
            let ok = w.is_nan() || (f64::from(g) - w).abs() <= bound;
            assert!(ok, "{what}: argument {i}, element {j} is {g}, should be {w} ± {bound:e}\n{kernel:?}");
        }
    }
}

fn every_kernel(size: Size) {
    if let Some(device) = crate::device() {
        every_kernel_on(&device, device.machine(), size);
    }
}

/// Runs what is compiled for a machine on a device.
fn every_kernel_on(device: &Device, machine: &Machine, size: Size) {
    let mut known: HashSet<String> = HashSet::new();
    let mut families: BTreeMap<&str, usize> = BTreeMap::new();
    for model in MODELS {
        for (plan, env) in plans(&small(model, size), size, machine) {
            exec::run_watched(&plan, &env, |i, before, _| {
                let launch = &plan.launches[i];
                let kernel = &plan.kernels[launch.kernel.0 as usize];
                if known.insert(format!("{kernel:?}")) {
                    *families.entry(kernel.family()).or_default() += 1;
                    let types: Vec<DType> =
                        launch.args.iter().map(|a| plan.buffers[a.0 as usize].dtype).collect();
                    let what = format!("{model} {} #{i}, {}", plan.program, launch.note());
                    check(device, &what, kernel, &types, before);
                }
            });
        }
    }
    println!("{}: {} kernels: {families:?}", device.description(), known.len());
    for family in ["region", "contraction", "attention", "attention_grad", "scatter_add"] {
        assert!(families.contains_key(family), "no model has a kernel of the family {family}: {families:?}");
    }
}

#[test]
fn every_kernel_of_every_model_at_odd_sizes() {
    every_kernel(ODD);
}

/// What is generated for Hopper's tensor cores is held to what the CPU makes of the same plans.
#[test]
fn every_kernel_of_hoppers_plans_on_the_cpu() {
    every_kernel_on(&Device::cpu(), &machine::H100, WIDE);
}

#[test]
#[ignore = "minutes more: part of the full grid"]
fn every_kernel_of_every_model_at_wide_sizes() {
    every_kernel(WIDE);
}

#[test]
#[ignore = "a minute more: part of the full grid"]
fn every_kernel_of_every_model_at_the_least_sizes() {
    every_kernel(LEAST);
}

#[test]
#[ignore = "minutes more: part of the full grid"]
fn every_kernel_of_every_model_at_even_sizes() {
    every_kernel(EVEN);
}
