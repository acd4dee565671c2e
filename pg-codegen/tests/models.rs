//! Golden plans of every model in `models/`: what is launched, what fused, and why boundaries are where they
//! are. Re-bless with `INSTA_UPDATE=always cargo test -p pg-codegen --test models`.

use std::path::Path;

use pg_codegen::digest::Digest;
use pg_codegen::plan::Plan;
use pg_codegen::target::H100;
use pg_codegen::{Options, compile, compile_for};
use pg_ir::dsl::{Options as Settings, Source, elaborate};
use pg_ir::layout::Layout;
use pg_ir::programs::{self, Program};

/// Sequences and tokens of each: the full-size step on a CPU.
const SHAPE: (usize, usize) = (4, 512);

fn programs(name: &str) -> Vec<Program> {
    let path = format!("{}/../models/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    let source = Source::load(Path::new(&path)).unwrap_or_else(|e| panic!("{e}"));
    let model = elaborate(&source, &Settings::default()).unwrap_or_else(|e| panic!("{e}"));
    let layout = Layout::new(&model);
    let qat = model.is_quantised(0);
    let grad = |next| programs::grad(&model, 0, SHAPE, qat, next).unwrap_or_else(|e| panic!("{e}"));
    let score = programs::score(&model, 0, SHAPE, false).unwrap_or_else(|e| panic!("{e}"));
    let mut all = vec![grad(false), grad(true), programs::update(&layout, &model.train), score];
    all.extend(model.eval.ttt.as_ref().map(|ttt| programs::adapt(&model, &layout, ttt)));
    all
}

fn plan(program: &Program, fuse: bool) -> Plan {
    compile(&program.name, &program.graph, &Options { fuse }).unwrap_or_else(|e| panic!("{e}"))
}

/// The digests of a model's programs, after what must hold of each.
fn digest(name: &str) -> String {
    let mut text = String::new();
    for program in programs(name) {
        let (apart, fused) = (plan(&program, false), plan(&program, true));
        let what = format!("{name} {}", program.name);
        assert!(fused.launches.len() <= apart.launches.len(), "{what}");
        assert!(fused.bytes() <= apart.bytes(), "{what}");
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
    ($($test:ident: $name:literal,)*) => {$(
        #[test]
        fn $test() {
            insta::assert_snapshot!($name.replace('/', "_"), digest($name));
        }
    )*};
}

golden! {
    int4mlp_12l: "int4mlp_12l",
    pr910: "pr910",
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
        let plan = compile_for(&program.name, &program.graph, &Options::default(), &H100);
        text += &format!("{}\n", Digest(&plan.unwrap_or_else(|e| panic!("{e}"))));
    }
    insta::assert_snapshot!(text);
}

/// A model without a golden plan would go unnoticed.
#[test]
fn every_model_has_a_golden_plan() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let text = include_str!("models.rs");
    for (folder, prefix) in [(models.clone(), ""), (models.join("ideas"), "ideas/")] {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let is_model = path.extension().is_some_and(|e| e == "rs") && name != "lib";
            assert!(!is_model || text.contains(&format!("\"{prefix}{name}\"")), "{}", path.display());
        }
    }
}
