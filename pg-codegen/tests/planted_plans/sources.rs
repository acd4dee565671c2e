//! Good plans to plant in: of models at small sizes and of random graphs, of every program and target, fused and not.

use pg_codegen::machine::{CPU, Epilogues, H100, Machine};
use pg_codegen::plan::witness::Lowered;
use pg_codegen::{Options, lower_for};
use pg_ir::graph::Graph;
use pg_ir::programs::Program;
use pg_ir::ty::DType;
use pg_testing::files::model_file;
use pg_testing::programs::{ODD, SMALL, programs};

/// Rows of any length, for a target whose products take regions of all of them.
const ANY: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn lowered(name: String, program: (&str, &Graph), options: &Options, target: &Machine) -> (String, Lowered) {
    let found = lower_for(program.0, program.1, options, target);
    (name.clone(), found.unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// Plans of models at small sizes.
pub(crate) fn models() -> Vec<(String, Lowered)> {
    let mut plans = Vec::new();
    let mut add = |model: &str, settings: &[(&str, &str)], shape, wanted: &[&str], target: &Machine, fuse| {
        let wants = |p: &Program| wanted.contains(&p.name.as_str());
        for program in programs(&model_file(model), settings, shape).iter().filter(|p| wants(p)) {
            let name = format!("{model} {} on {}, fuse {fuse}", program.name, target.name);
            let options = Options { fuse, ..Options::default() }.of(program);
            plans.push(lowered(name, (&program.name, &program.graph), &options, target));
        }
    };
    let steps = ["grad.first", "grad.next", "update", "score", "adapt"];
    add("tiny.rs", SMALL, (2, 6), &steps, &CPU, true);
    add("tiny.rs", SMALL, (2, 6), &["grad.next", "score", "update"], &CPU, false);
    add("tiny.rs", ODD, (3, 5), &steps, &H100, true);
    let quantised = ["grad.first.qat", "grad.next.qat", "score.qat", "update"];
    add("int4mlp_12l.rs", ODD, (2, 7), &quantised, &CPU, true);
    add("int4mlp_12l.rs", SMALL, (2, 8), &quantised, &H100, true);
    add("ideas/two_lanes.rs", SMALL, (1, 5), &["grad.first"], &H100, true);
    add("naive_9l.rs", SMALL, (2, 3), &["grad.first", "logits"], &CPU, true);
    plans
}

/// Plans of random graphs.
pub(crate) fn random() -> Vec<(String, Lowered)> {
    let anywhere = Epilogues { rows: &ANY, of: DType::F32, chunk: 1 };
    let any = Machine {
        name: "any".into(),
        epilogues: Some(anywhere),
        fuse_horizontally: true,
        concatenate_k: true,
        ..CPU
    };
    let mut plans = Vec::new();
    for seed in 0..14 {
        let (graph, _) = pg_fuzz::graphs::graph(seed);
        for (target, fuse) in [(&CPU, true), (&CPU, false), (&H100, true), (&any, true)] {
            let name = format!("seed {seed} on {}, fuse {fuse}", target.name);
            let options = Options { fuse, ..Options::default() };
            plans.push(lowered(name, ("random", &graph), &options, target));
        }
    }
    plans
}
