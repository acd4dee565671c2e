//! Every kernel family at the shapes that int4mlp_12l has with 4 × 512 tokens: of each distinct kernel kind in
//! the compiled plans, the launch that moves or computes most.
//!
//! `cargo bench --bench kernels`, with a filter behind `--`; `PG_DEVICE=vulkan` (and `--features vulkan`) for another
//! device. The roof comes first: a plain matrix product and a plain copy on the same threads.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use common::{BATCH, SEQ, device, session};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pg_codegen::plan::{Kernel, Launch, Place, Plan};
use pg_ir::ty::DType;
use pg_runtime::executor::Inputs;
use pg_runtime::profile::Roof;
use pg_runtime::session::Key;
use pg_runtime::state::State;

/// One launch of a plan by itself, all its buffers temporaries.
fn alone(plan: &Plan, launch: &Launch) -> Plan {
    let mut out = Plan { program: "bench".into(), ..Plan::default() };
    let mut launch = launch.clone();
    for arg in &mut launch.args {
        let mut buffer = plan.buffers[arg.0 as usize].clone();
        if !matches!(buffer.place, Place::Constant(_)) {
            buffer.place = Place::Temp { offset: out.arena_bytes };
            out.arena_bytes += (buffer.len * buffer.dtype.size()).next_multiple_of(64);
        }
        arg.0 = out.buffers.len() as u32;
        out.buffers.push(buffer);
    }
    out.kernels.push(plan.kernels[launch.kernel.0 as usize].clone());
    launch.kernel.0 = 0;
    out.launches.push(launch);
    out
}

/// What tells kernels of a family apart here: products by shape, regions by whether they combine rows.
fn kind(kernel: &Kernel) -> String {
    match kernel {
        Kernel::Region(region) if region.reduced > 0 => "region, columns combined".into(),
        Kernel::Region(region) if region.columns > 1 && region.rows.len() > 1 => "region, rows".into(),
        Kernel::Region(_) => "region, flat".into(),
        other => match other.products().next() {
            Some(m) => format!("{} {} × {} × {} × {}", other.family(), m.batch, m.m, m.n, m.k),
            None => other.family().into(),
        },
    }
}

fn kernels(c: &mut Criterion) {
    let roof = Roof::measure(&device()).expect("the roof can be measured");
    println!("roof: {:.0} GFLOP/s in a product, {:.1} GB/s in a copy", roof.gemm_gflop_s, roof.copy_gb_s);
    let precisions = [("float32", DType::F32), ("bf16", DType::BF16)];
    for (precision, storage) in precisions {
        let mut group = c.benchmark_group(precision);
        group.sample_size(10);
        let mut session = session(true).storing(storage);
        let grad = Key::Grad { phase: 0, batch: BATCH, seq: SEQ, qat: true, accumulate: false };
        for (program, key) in [("grad", grad), ("update", Key::Update)] {
            let plan = Arc::clone(session.plan(key).expect("the program compiles"));
            let cost = |l: &Launch| l.flops + 10.0 * l.bytes;
            let mut chosen: Vec<(String, &Launch)> = Vec::new();
            for launch in &plan.launches {
                let kind = format!("{program} {}", kind(&plan.kernels[launch.kernel.0 as usize]));
                match chosen.iter_mut().find(|(k, _)| *k == kind) {
                    Some((_, best)) if cost(best) >= cost(launch) => {}
                    Some((_, best)) => *best = launch,
                    None => chosen.push((kind, launch)),
                }
            }
            for (kind, launch) in chosen {
                let computes = launch.flops > 10.0 * launch.bytes;
                let mut executor = device().prepare(Arc::new(alone(&plan, launch))).expect("the launch runs");
                let mut state = State::new([]);
                group.throughput(match computes {
                    true => Throughput::Elements(launch.flops as u64),
                    false => Throughput::Bytes(launch.bytes as u64),
                });
                group.bench_function(&kind, |b| {
                    b.iter(|| black_box(executor.run(&mut state, Inputs::default(), None)).expect("it runs"));
                });
            }
        }
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
