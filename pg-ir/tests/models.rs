//! The model files, through the front end.

use std::path::PathBuf;

use pg_ir::lang::model::Model;
use pg_ir::lang::{Diagnostics, Head, Options, Override, Source, Trace, elaborate};

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(file)
}

fn build(file: &str, set: &[(&str, &str)], profile: Option<&str>) -> Result<Model, Diagnostics> {
    let source = Source::load(path(file))?;
    let overrides = set.iter().map(|(k, v)| Override::set(*k, *v)).collect();
    elaborate(&source, &Options { overrides, profile: profile.map(Into::into) })
}

#[track_caller]
fn good(result: Result<Model, Diagnostics>) -> Model {
    result.unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn int4mlp_12l_has_the_published_size() {
    let count = |set: &[(&str, &str)]| good(build("int4mlp_12l.rs", set, None)).param_count();
    assert_eq!(count(&[]), 29_355_620);
    assert_eq!(count(&[("LAYERS", "11")]), 26_993_756);
    assert_eq!(count(&[("LAYERS", "11"), ("BIGRAM_BUCKETS", "1536")]), 26_928_220);
}

#[test]
fn profiles_elaborate_and_trace() {
    for profile in ["full", "quick", "wide"] {
        let model = good(build("int4mlp_12l.rs", &[], Some(profile)));
        for head in [Head::Logits, Head::Nll, Head::Loss] {
            let request = Trace { phase: 0, batch: 1, seq: 7, qat: head == Head::Loss, head };
            let traced = model.trace(&request).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(traced.params.len(), model.params.len());
        }
    }
}

#[test]
fn every_model_elaborates() {
    let counts = [
        ("int4mlp_12l.rs", 29_355_620),
        ("pr910.rs", 29_355_620),
        ("leaky_11l.rs", 26_928_220),
        ("naive_9l.rs", 17_059_912),
        ("tiny.rs", 722_960),
        ("ideas/swiglu.rs", 29_355_620),
        ("ideas/value_residual.rs", 29_355_644),
        ("ideas/causal_conv.rs", 29_380_196),
        ("ideas/depth_recurrence.rs", 29_356_644),
        ("ideas/two_lanes.rs", 721_960),
    ];
    for (file, params) in counts {
        let model = good(build(file, &[], None));
        assert_eq!(model.param_count(), params, "{file}");
        assert_eq!(model.notes.to_string(), "", "{file}");
        let request = Trace { phase: 0, batch: 1, seq: 5, qat: true, head: Head::Logits };
        let traced = model.trace(&request).unwrap_or_else(|e| panic!("{e}"));
        pg_ir::causality::prove_causal(traced.builder.graph(), traced.value).unwrap();
        if model.profiles.iter().any(|p| p == "quick") {
            good(build(file, &[], Some("quick")));
        }
    }
}

#[test]
fn artifacts_are_estimated_and_fit() {
    for file in ["int4mlp_12l.rs", "pr910.rs", "leaky_11l.rs", "naive_9l.rs", "tiny.rs"] {
        let model = good(build(file, &[], None));
        let size = model.predict_size(pg_ir::footprint::Moment::Trained).unwrap();
        println!(
            "{file}: raw {} estimate {} text {}",
            size.raw_bytes,
            size.estimate_bytes,
            model.code_bytes()
        );
        assert!(!model.check_size().has_errors(), "{}", model.check_size());
    }
}

#[test]
fn an_artifact_over_the_cap_is_an_error_at_the_export_block() {
    let model = good(build("int4mlp_12l.rs", &[("MLP_CLIP", "31")], None));
    let findings = model.check_size();
    assert!(findings.has_errors());
    assert!(findings.to_string().contains("over the cap of 16000000"), "{findings}");
}

const IDEAS: [&str; 5] = ["swiglu", "value_residual", "causal_conv", "depth_recurrence", "two_lanes"];

/// "At most 15 lines away from its base."
#[test]
fn ideas_are_small() {
    for idea in IDEAS {
        let text = std::fs::read_to_string(path(&format!("ideas/{idea}.rs"))).unwrap();
        let inside = text.lines().skip_while(|l| !l.contains(" from ")).skip(1).map(str::trim);
        let lines = inside.filter(|l| !l.is_empty() && !l.starts_with("//") && l.chars().any(|c| c != '}'));
        let count = lines.count();
        assert!(count <= 15, "{idea}: {count} lines");
    }
}

/// The gradient of every idea, along a random direction, against the central difference.
#[test]
fn gradients_of_the_ideas_are_right() {
    use pg_ir::interp::{Environment, run};
    use pg_ir::slot::{Slot, Space};

    let small = [
        ("LAYERS", "6"),
        ("DIM", "16"),
        ("HEADS", "2"),
        ("KV_HEADS", "1"),
        ("VOCAB", "32"),
        ("SEQ_LEN", "64"),
    ];
    let more = [
        ("BIGRAM_BUCKETS", "16"),
        ("BIGRAM_DIM", "4"),
        ("VE_DIM", "4"),
        ("VE_LAYERS", "[1, 5]"),
        ("ROPE_DIMS", "4"),
    ];
    let batch = [("BATCH_TOKENS", "64"), ("MICRO_BATCH_TOKENS", "64")];
    for idea in IDEAS {
        let tiny = idea == "two_lanes";
        let set: Vec<_> = if tiny { small.to_vec() } else { [&small[..], &more, &batch].concat() };
        let model = good(build(&format!("ideas/{idea}.rs"), &set, None));
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
        };
        let (b, t) = (2, 9);
        let mut ids = || (0..b * t).map(|_| ((uniform() + 0.5) * 32.0).floor()).collect::<Vec<f64>>();
        let mut env = Environment::new();
        env.insert(Slot::new(Space::Data, "tokens"), ids());
        env.insert(Slot::new(Space::Data, "targets"), ids());
        env.insert(Slot::new(Space::Scalar, "inv_accum"), vec![1.0]);
        let mut along = Vec::new();
        for p in model.params.values() {
            let slot = Slot::new(Space::Param, &p.name);
            env.insert(slot.clone(), (0..p.len()).map(|_| 0.3 + uniform()).collect());
            along.push((slot, (0..p.len()).map(|_| uniform()).collect::<Vec<f64>>()));
        }
        let program =
            pg_ir::programs::grad(&model, 0, (b, t), false, false).unwrap_or_else(|e| panic!("{e}"));
        let out = run(&program.graph, &env).unwrap();
        let analytic: f64 = along
            .iter()
            .map(|(slot, d)| {
                let g = &out[&Slot::new(Space::Grad, &slot.name)];
                g.iter().zip(d).map(|(g, d)| g * d).sum::<f64>()
            })
            .sum();
        let loss = |step: f64| {
            let mut moved = env.clone();
            for (slot, d) in &along {
                moved.get_mut(slot).unwrap().iter_mut().zip(d).for_each(|(p, d)| *p += step * d);
            }
            run(&program.graph, &moved).unwrap()[&Slot::new(Space::Result, "loss")][0]
        };
        let h = 1e-5;
        let numeric = (loss(h) - loss(-h)) / (2.0 * h);
        let off = (analytic - numeric).abs() / numeric.abs().max(1e-3);
        assert!(off < 1e-5, "{idea}: {analytic} against {numeric}");
    }
}
