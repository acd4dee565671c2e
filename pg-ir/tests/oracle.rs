//! The traced model and its gradients, in the interpreter, against the oracle's gradient cases. The root's
//! `tests/parity` runs every kind of case on every executor; this one runs nothing but pg-ir.

use std::path::PathBuf;

use pg_ir::interp::Environment;
use pg_ir::lang::model::Model;
use pg_ir::lang::{Head, Options, Override, Source, Trace, elaborate};
use pg_ir::programs;
use pg_ir::slot::{Slot, Space};
use pg_testing::oracle::place;
use safetensors::{Dtype, SafeTensors};

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    match view.dtype() {
        Dtype::F32 => words.map(|b| f32::from_le_bytes(b).into()).collect(),
        Dtype::I32 => words.map(|b| i32::from_le_bytes(b).into()).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

fn error(found: &[f64], reference: &[f64]) -> f64 {
    assert_eq!(found.len(), reference.len());
    let off: f64 = found.iter().zip(reference).map(|(f, r)| (f - r).powi(2)).sum();
    let size: f64 = reference.iter().map(|r| r * r).sum();
    if size == 0.0 { off.sqrt() } else { (off / size).sqrt() }
}

fn part(all: &[f64], index: usize, len: usize) -> &[f64] {
    &all[index * len..][..len]
}

fn build(json: &serde_json::Value) -> Model {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/int4mlp_12l.rs");
    let overrides = json["model"].as_object().unwrap().iter();
    let overrides = overrides.map(|(k, v)| Override::set(k.to_uppercase(), v.to_string())).collect();
    let source = Source::load(file).unwrap_or_else(|e| panic!("{e}"));
    elaborate(&source, &Options { overrides, profile: None }).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn losses_and_gradients_agree() {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"));
    let mut checked = 0;
    for case in std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()) {
        let json: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(case.join("case.json")).unwrap()).unwrap();
        if json["kind"] != "gradient" {
            continue;
        }
        let bytes = std::fs::read(case.join("tensors.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let model = build(&json);
        let layers = json["model"]["layers"].as_u64().unwrap() as usize;

        let mut env = Environment::new();
        env.insert(Slot::new(Space::Data, "tokens"), floats(&file, "x"));
        env.insert(Slot::new(Space::Data, "targets"), floats(&file, "y"));
        env.insert(Slot::new(Space::Scalar, "inv_accum"), vec![1.0]);
        for p in model.params.values() {
            let (tensor, index) = place(&p.name, layers);
            let all = floats(&file, &format!("param.{tensor}"));
            env.insert(Slot::new(Space::Param, &p.name), part(&all, index, p.len()).to_vec());
        }

        let shape = file.tensor("x").unwrap().shape().to_vec();
        let request = Trace { phase: 0, batch: shape[0], seq: shape[1], qat: true, head: Head::Nll };
        let traced = model.trace(&request).unwrap_or_else(|e| panic!("{e}"));
        let values = pg_ir::interp::evaluate(traced.builder.graph(), &env).unwrap();
        let off = error(&values[traced.value.index()], &floats(&file, "nll"));
        assert!(off < 1e-6, "{}: nll is off by {off:e}", case.display());

        let program =
            programs::grad(&model, 0, (shape[0], shape[1]), true, false).unwrap_or_else(|e| panic!("{e}"));
        let out = pg_ir::interp::run(&program.graph, &env).unwrap();
        for p in model.params.values() {
            let (tensor, index) = place(&p.name, layers);
            let all = floats(&file, &format!("grad.{tensor}"));
            let off = error(&out[&Slot::new(Space::Grad, &p.name)], part(&all, index, p.len()));
            assert!(off < 1e-5, "{}: gradient of {} is off by {off:e}", case.display(), p.name);
        }
        checked += 1;
    }
    assert!(checked >= 5, "only {checked} gradient cases");
}
