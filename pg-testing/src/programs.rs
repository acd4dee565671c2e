//! Programs of model files, at any size.

use std::path::Path;

use pg_ir::lang::layout::Layout;
use pg_ir::lang::model::Model;
use pg_ir::programs::{self, Program};

use crate::models::{elaborated, pairs, source};

/// Settings that make any model small. What a model does not have is left out.
pub const SMALL: &[(&str, &str)] = &[
    ("LAYERS", "2"),
    ("DIM", "32"),
    ("HEADS", "2"),
    ("KV_HEADS", "1"),
    ("VOCAB", "48"),
    ("BIGRAM_BUCKETS", "64"),
    ("BIGRAM_DIM", "16"),
    ("VE_DIM", "16"),
    ("VE_LAYERS", "[1]"),
    ("XSA_LAST", "1"),
    ("ROPE_DIMS", "8"),
    ("LOOP_FROM", "0"),
    ("LOOP_TO", "1"),
];

/// The same at sizes that nothing divides.
pub const ODD: &[(&str, &str)] = &[
    ("LAYERS", "3"),
    ("DIM", "30"),
    ("HEADS", "3"),
    ("KV_HEADS", "1"),
    ("VOCAB", "53"),
    ("BIGRAM_BUCKETS", "61"),
    ("BIGRAM_DIM", "7"),
    ("VE_DIM", "9"),
    ("VE_LAYERS", "[0, 2]"),
    ("XSA_LAST", "2"),
    ("ROPE_DIMS", "6"),
    ("LOOP_FROM", "1"),
    ("LOOP_TO", "2"),
];

/// A model file under those of some settings that it has.
///
/// # Panics
/// If it cannot be read or elaborated.
pub fn small_model(path: &Path, settings: &[(&str, &str)]) -> Model {
    let text = source(path);
    let has = |name: &str| text.texts().iter().any(|t| t.text.contains(&format!("const {name} =")));
    let settings: Vec<(&str, &str)> = settings.iter().copied().filter(|(name, _)| has(name)).collect();
    elaborated(&text, pairs(&settings))
}

/// Every program of a model file: gradients with and without quantisers, update, scores, logits and test-time
/// training, at (sequences, tokens of each).
pub fn programs(path: &Path, settings: &[(&str, &str)], shape: (usize, usize)) -> Vec<Program> {
    let model = small_model(path, settings);
    let layout = Layout::new(&model);
    let made = |program: Result<Program, pg_ir::lang::Diagnostics>| program.unwrap_or_else(|e| panic!("{e}"));
    let mut all = Vec::new();
    let mut quantised = vec![false];
    if model.is_quantised(0) {
        quantised.push(true);
    }
    for qat in quantised {
        all.extend([false, true].map(|next| made(programs::grad(&model, 0, shape, qat, next))));
        all.push(made(programs::score(&model, 0, shape, qat)));
    }
    all.push(made(programs::logits(&model, 0, shape, false)));
    all.push(programs::update(&layout, &model.train));
    all.extend(model.eval.ttt.as_ref().map(|ttt| programs::adapt(&model, &layout, ttt)));
    all
}
