//! Golden plans of every model in `models/`: what is launched, what fused, and why boundaries are where they
//! are. Re-bless with `INSTA_UPDATE=always cargo test -p pg-codegen --test models`.

use std::collections::{HashMap, HashSet};

use pg_codegen::machine::{FEWEST_BINDINGS, H100};
use pg_codegen::plan::{BufferId, Kernel, Plan};
use pg_codegen::region::Instr;
use pg_codegen::report::summary::{Digest, passes};
use pg_codegen::{Options, compile, compile_for};
use pg_ir::lang::layout::Layout;
use pg_ir::programs::{self, Program};
use pg_ir::ty::DType;
use pg_testing::models::model;

/// Sequences and tokens of each: the full-size step on a CPU.
const SHAPE: (usize, usize) = (4, 512);

fn programs(name: &str) -> Vec<Program> {
    let model = model(&format!("{name}.rs"), &[]);
    let layout = Layout::new(&model);
    let qat = model.is_quantised(0);
    let grad = |next| programs::grad(&model, 0, SHAPE, qat, next).unwrap_or_else(|e| panic!("{e}"));
    let score = programs::score(&model, 0, SHAPE, false).unwrap_or_else(|e| panic!("{e}"));
    let mut all = vec![grad(false), grad(true), programs::update(&layout, &model.train), score];
    all.extend(model.eval.ttt.as_ref().map(|ttt| programs::adapt(&model, &layout, ttt)));
    all
}

fn plan(program: &Program, fuse: bool) -> Plan {
    compile(&program.name, &program.graph, &Options { fuse, weight_cache: program.weight_cache })
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Whether one launch waits for another through a third.
fn waits_through_another(plan: &Plan, from: usize, to: usize) -> bool {
    let kernel = |i: usize| &plan.kernels[plan.launches[i].kernel.0 as usize];
    let written = |i: usize| {
        let args = plan.launches[i].args.iter().enumerate();
        args.filter(move |(at, _)| kernel(i).writes(*at)).map(|(_, b)| *b)
    };
    let mut tainted: HashSet<BufferId> = HashSet::new();
    for i in from + 1..to {
        let reads_source = plan.launches[i].args.iter().any(|b| written(from).any(|w| w == *b));
        if reads_source || plan.launches[i].args.iter().any(|b| tainted.contains(b)) {
            tainted.extend(written(i));
        }
    }
    plan.launches[to].args.iter().any(|b| tainted.contains(b))
}

/// Whether a region reads what another wrote, everything of it, at the very index at which it was written.
fn reads_as_written(plan: &Plan, from: usize, to: usize) -> bool {
    let region = |i: usize| match &plan.kernels[plan.launches[i].kernel.0 as usize] {
        Kernel::Region(region) => Some(region),
        _ => None,
    };
    let (Some(source), Some(reader)) = (region(from), region(to)) else { return false };
    let arg = |i: usize, at: u32| plan.launches[i].args[at as usize];
    let stored = |buffer: BufferId| {
        source.body.iter().find_map(|instr| match instr {
            Instr::Store { arg: a, at, .. } if arg(from, *a) == buffer => Some(at),
            _ => None,
        })
    };
    let written = |buffer: BufferId| {
        source.body.iter().any(|instr| match instr {
            Instr::Store { arg: a, .. } | Instr::Accumulate { arg: a, .. } => arg(from, *a) == buffer,
            _ => false,
        })
    };
    let same_domain = (&source.rows, source.columns) == (&reader.rows, reader.columns);
    same_domain
        && reader.body.iter().all(|instr| match instr {
            Instr::Load { arg: a, map } if written(arg(to, *a)) => {
                map.guards.is_empty() && stored(arg(to, *a)) == Some(&map.at)
            }
            Instr::Gather { arg: a, .. } => !written(arg(to, *a)),
            _ => true,
        })
}

/// Asserts that no region hands a tensor to another that reads it as it was written, unless a third launch
/// stands between them or they would bind too many buffers together: every element-wise op, norm, residual,
/// activation, rotation and gain rides on its neighbour where it can.
fn check_fused(plan: &Plan, what: &str) {
    let mut writer: HashMap<BufferId, usize> = HashMap::new();
    for (to, launch) in plan.launches.iter().enumerate() {
        let kernel = &plan.kernels[launch.kernel.0 as usize];
        for (at, buffer) in launch.args.iter().enumerate().filter(|(at, _)| !kernel.writes(*at)) {
            let Some(&from) = writer.get(buffer) else { continue };
            let together: HashSet<_> = launch.args.iter().chain(&plan.launches[from].args).collect();
            assert!(
                !reads_as_written(plan, from, to)
                    || together.len() + 4 > FEWEST_BINDINGS
                    || waits_through_another(plan, from, to),
                "{what}: #{to} reads argument {at} that #{from} writes, and could ride on it\n  {}\n  {}",
                plan.launches[from].note(),
                launch.note()
            );
        }
        writer.extend(
            launch.args.iter().enumerate().filter(|(at, _)| kernel.writes(*at)).map(|(_, b)| (*b, to)),
        );
    }
}

/// The digests of a model's programs, after what must hold of each.
fn digest(name: &str) -> String {
    let mut text = String::new();
    for program in programs(name) {
        let (apart, fused) = (plan(&program, false), plan(&program, true));
        let what = format!("{name} {}", program.name);
        assert!(fused.launches.len() <= apart.launches.len(), "{what}");
        assert!(fused.bytes() <= apart.bytes(), "{what}");
        check_fused(&fused, &what);
        if let Ok(dir) = std::env::var("PG_PLANS") {
            let file = format!("{dir}/{}.{}.plan", name.replace('/', "_"), program.name);
            std::fs::write(file, fused.to_string()).unwrap();
        }
        let (n, bytes) = (apart.launches.len(), apart.bytes());
        text += &format!("{}  unfused: {n} launches, {bytes:.3e} bytes\n\n", Digest(&fused));
    }
    text
}

macro_rules! golden {
    ($($test:ident: $name:literal,)*) => {
        const GOLDEN: &[&str] = &[$($name),*];

        $(
            #[test]
            fn $test() {
                insta::assert_snapshot!($name.replace('/', "_"), digest($name));
            }
        )*
    };
}

golden! {
    int4mlp_12l: "int4mlp_12l",
    leaky_11l: "leaky_11l",
    naive_9l: "naive_9l",
    tiny: "tiny",
    causal_conv: "ideas/causal_conv",
    depth_recurrence: "ideas/depth_recurrence",
    swiglu: "ideas/swiglu",
    two_lanes: "ideas/two_lanes",
    value_residual: "ideas/value_residual",
}

/// The training step as an H100 would run it: stored in bf16.
#[test]
fn int4mlp_12l_on_h100() {
    let mut text = String::new();
    for program in programs("int4mlp_12l").iter().take(3) {
        let plan = compile_for(&program.name, &program.graph, &Options::default().of(program), &H100);
        let plan = plan.unwrap_or_else(|e| panic!("{e}"));
        check_fused(&plan, &program.name);
        text += &format!("{}\n", Digest(&plan));
    }
    insta::assert_snapshot!(text);
}

/// A layer's share of a micro-batch's traffic, in passes over tokens × 512 in bf16, at the size of a real step.
#[test]
fn a_layer_of_int4mlp_12l_takes_few_passes_on_h100() {
    let model = model("int4mlp_12l.rs", &[]);
    let shape = (48, 2048);
    let program = programs::grad(&model, 0, shape, true, true).unwrap_or_else(|e| panic!("{e}"));
    let plan = compile_for("grad", &program.graph, &Options::default().of(&program), &H100);
    let passes = passes(&plan.unwrap_or_else(|e| panic!("{e}")), shape.0 * shape.1).unwrap();
    println!("{passes:?}");
    assert_eq!((passes.layers, passes.width, passes.dtype), (12, 512, DType::BF16));
    // See MEASURED.md for what they are.
    assert!(passes.per_layer <= 95.0, "{passes:?}");
}

#[test]
#[should_panic(expected = "could ride on it")]
fn the_check_finds_what_is_not_fused() {
    check_fused(&plan(&programs("tiny")[0], false), "tiny");
}

/// It differs in how it is trained, and computes the same.
#[test]
fn pr910_compiles_as_int4mlp_12l_does() {
    assert_eq!(digest("pr910"), digest("int4mlp_12l"));
}

/// A published model without a golden plan would go unnoticed. Others may be in the folder: somebody's ideas.
#[test]
fn every_published_model_has_a_golden_plan() {
    let text = include_str!("../../models/lib.rs");
    let mut prefix = "";
    let mut found = 0;
    for line in text.lines() {
        if line.starts_with("pub mod ") && line.ends_with('{') {
            prefix = "ideas/";
        }
        let Some(name) = line.trim().strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';')) else {
            continue;
        };
        let name = format!("{prefix}{name}");
        assert!(GOLDEN.contains(&&*name) || name == "pr910", "{name}");
        found += 1;
    }
    assert_eq!(found, GOLDEN.len() + 1);
}
