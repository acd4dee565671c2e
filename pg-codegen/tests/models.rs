//! Plans of the models: how many launches there are, and what fused.

use std::time::Instant;

use pg_codegen::plan::{Kernel, Plan};
use pg_codegen::{Options, compile};
use pg_ir::dsl::{Options as Settings, Source, elaborate};
use pg_ir::layout::Layout;
use pg_ir::programs::{self, Program};

fn int4mlp_12l(shape: (usize, usize)) -> Vec<Program> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/int4mlp_12l.rs");
    let source = Source::load(path).unwrap_or_else(|e| panic!("{e}"));
    let model = elaborate(&source, &Settings::default()).unwrap_or_else(|e| panic!("{e}"));
    let layout = Layout::new(&model);
    let grad = |next| programs::grad(&model, 0, shape, true, next).unwrap_or_else(|e| panic!("{e}"));
    let score = programs::score(&model, 0, shape, false).unwrap_or_else(|e| panic!("{e}"));
    vec![grad(false), grad(true), programs::update(&layout, &model.train), score]
}

fn plan(program: &Program, fuse: bool) -> Plan {
    let start = Instant::now();
    let plan = compile(&program.name, &program.graph, &Options { fuse }).unwrap_or_else(|e| panic!("{e}"));
    let count = |family: &str| {
        plan.launches.iter().filter(|l| plan.kernels[l.kernel.0 as usize].family() == family).count()
    };
    println!(
        "{:12} fuse {fuse:5}: {:5} nodes, {:4} launches ({} region, {} matmul, {} copy) of {:3} kernels, {:.2e} bytes, arena {:.2e}, {:.3} s",
        program.name,
        program.graph.nodes().len(),
        plan.launches.len(),
        count("region"),
        count("matmul"),
        count("copy"),
        plan.kernels.len(),
        plan.bytes(),
        plan.arena_bytes as f64,
        start.elapsed().as_secs_f64()
    );
    plan
}

#[test]
fn fusion_saves_launches_and_traffic() {
    for program in int4mlp_12l((4, 512)) {
        let (apart, fused) = (plan(&program, false), plan(&program, true));
        assert!(fused.launches.len() < apart.launches.len());
        assert!(fused.bytes() < apart.bytes());
        if let Ok(dir) = std::env::var("PG_PLANS") {
            std::fs::write(format!("{dir}/{}.plan", program.name), fused.to_string()).unwrap();
        }
        let regions = fused.kernels.iter().filter(|k| matches!(k, Kernel::Region(_))).count();
        assert!(regions < fused.launches.len(), "layers share kernels");
    }
}
