//! The model files, through the front end.

use std::path::PathBuf;

use pg_ir::dsl::{Diagnostics, Head, Options, Source, Trace, elaborate};
use pg_ir::model::Model;

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(file)
}

fn build(file: &str, set: &[(&str, &str)], profile: Option<&str>) -> Result<Model, Diagnostics> {
    let source = Source::load(path(file))?;
    let overrides = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
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
        ("pr910.rs", 29_355_620),
        ("leaky_11l.rs", 26_928_220),
        ("naive_9l.rs", 17_059_912),
        ("tiny.rs", 0),
        ("ideas/swiglu.rs", 0),
        ("ideas/value_residual.rs", 0),
        ("ideas/causal_conv.rs", 0),
        ("ideas/depth_recurrence.rs", 0),
        ("ideas/two_lanes.rs", 0),
    ];
    for (file, params) in counts {
        let model = good(build(file, &[], None));
        println!("{file}: {} parameters", model.param_count());
        assert!(params == 0 || model.param_count() == params, "{file}: {}", model.param_count());
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
