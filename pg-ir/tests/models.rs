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
