//! One optimiser step of int4mlp_12l at full size, 786,432 tokens in eight micro-batches: what its launches take
//! at least on an H100 and an H200, and what its kernels use of a multiprocessor. Predicted from peaks and read
//! from the assembler's report; nothing here ran on a GPU.

use std::collections::BTreeMap;
use std::sync::Arc;

use pg_codegen::cuda::Resources;
use pg_codegen::kernels::{Entry, Generated, emit_cuda, extents, generate, inventory};
use pg_codegen::machine::{H100, H200, Machine};

use crate::models;
use crate::offline::{FULL, tools};

/// Kernels of the step's programs on a machine, with how often a step runs each program.
fn step(machine: &Machine) -> Vec<(f64, Entry)> {
    let model = models::model(&models::file("int4mlp_12l.rs"), &[]);
    let programs = models::programs(&model, FULL);
    let mut all = Vec::new();
    for (name, times) in [("grad.first.qat", 1.0), ("grad.next.qat", 7.0), ("update", 1.0)] {
        let program = programs.iter().find(|p| p.name == name).expect("a program of training");
        let plan = models::plan(program);
        let made = generate(&plan, &extents(&plan, |_| None), &H100);
        let made = made.unwrap_or_else(|e| panic!("{name}: {e}"));
        all.extend(inventory(&plan, &made, machine).into_iter().map(|entry| (times, entry)));
    }
    all
}

fn family(kernel: &Generated) -> &str {
    kernel.name().rsplit_once('_').map_or("", |(family, _)| family)
}

#[test]
fn a_step_has_the_operations_of_the_model_and_a_floor_in_time() {
    for machine in [&H100, &H200] {
        let step = step(machine);
        let sum = |f: &dyn Fn(&Entry) -> f64| step.iter().map(|(times, e)| times * f(e)).sum::<f64>();
        let (flops, bytes) = (sum(&|e| e.flops), sum(&|e| e.bytes));
        let seconds = sum(&|e| e.seconds);
        let mut families: BTreeMap<&str, (f64, f64, f64)> = BTreeMap::new();
        for (times, e) in &step {
            let f = families.entry(family(&e.kernel)).or_default();
            f.0 += times * e.launches.len() as f64;
            f.1 += times * e.seconds * 1e3;
            f.2 += times * e.flops * 1e-12;
        }
        println!(
            "{}: {:.1} ms, {:.1} TFLOP, {:.2} TB (predicted)",
            machine.name,
            seconds * 1e3,
            flops * 1e-12,
            bytes * 1e-12
        );
        for (name, (launches, ms, tflop)) in families {
            println!("| {name} | {launches} | {ms:.1} | {tflop:.1} |");
        }
        // 249.1 million a token forward and backward; the backward recomputes, and the update has its own.
        let least = 249.1e6 * 786_432.0;
        assert!((least..1.15 * least).contains(&flops), "{flops:e} operations, at least {least:e}");
        assert!(seconds >= flops / machine.rates.matrix_flops, "{seconds} s is below the floor");
        // The bulk must run where the machine is fast.
        let fast = step
            .iter()
            .filter(|(_, e)| matches!(family(&e.kernel), "mma" | "flash" | "flash_dq" | "flash_dkv"));
        let on_units: f64 = fast.map(|(times, e)| times * e.flops).sum();
        assert!(on_units > 0.95 * flops, "{on_units:e} of {flops:e} operations on tensor cores");
    }
}

/// What a kernel uses, how many of its blocks a multiprocessor holds, and their shared memory in bytes.
type Use = (Resources, u32, usize);

/// Prints the table of MEASURED.md: `PG_REQUIRE_CUDA_TOOLS=1 cargo test -p pg-codegen --features cube --test cuda
/// resources -- --ignored --nocapture`.
#[test]
#[ignore = "a report; offline.rs asserts what must hold"]
fn resources_of_a_step() {
    let Some(tools) = tools() else { return };
    let mut families: BTreeMap<String, Vec<Use>> = BTreeMap::new();
    let mut seen: Vec<Arc<Generated>> = Vec::new();
    for (_, e) in step(&H100) {
        if seen.contains(&e.kernel) {
            continue;
        }
        let compiled = tools.compile(&emit_cuda(&e.kernel).unwrap()).unwrap_or_else(|e| panic!("{e}"));
        let r = compiled.resources;
        let (threads, shared) = (e.kernel.threads(), e.kernel.shared_bytes());
        let uses = (r, r.occupancy(threads, shared).blocks, shared);
        families.entry(family(&e.kernel).into()).or_default().push(uses);
        seen.push(e.kernel);
    }
    println!("| family | kernels | registers | spilled bytes | shared KiB | blocks a multiprocessor |");
    for (name, all) in families {
        let range = |f: &dyn Fn(&Use) -> usize| {
            let values = || all.iter().map(f);
            let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
            if low == high { low.to_string() } else { format!("{low}–{high}") }
        };
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            all.len(),
            range(&|x| x.0.registers as usize),
            range(&|x| x.0.spill_bytes as usize),
            range(&|x| x.2.div_ceil(1024)),
            range(&|x| x.1 as usize)
        );
    }
}
