//! Models of `models/` at small sizes, with weights that carry signal everywhere.

use std::path::Path;
use std::sync::Arc;

use pg_ir::lang::model::Model;
use pg_ir::lang::{Options, Override, Source, elaborate};
use pg_runtime::session::Session;
use pg_runtime::weights::Weights;

use crate::files::model_file;

/// Constants of a small int4mlp_12l: those of `tests/training`, too.
pub const SMALL: &[&str] = &[
    "LAYERS=4",
    "DIM=32",
    "HEADS=2",
    "KV_HEADS=1",
    "ROPE_DIMS=8",
    "BIGRAM_BUCKETS=256",
    "BIGRAM_DIM=8",
    "VE_DIM=8",
    "VE_LAYERS=[2,3]",
    "XSA_LAST=2",
];

/// Settings `NAME=VALUE` as pairs.
pub fn overrides(settings: &[&str]) -> Vec<(String, String)> {
    let pair = |s: &&str| s.split_once('=').map(|(k, v)| (k.to_string(), v.to_string())).unwrap();
    settings.iter().map(pair).collect()
}

/// A model file of `models/` under settings `NAME=VALUE`.
///
/// # Panics
/// If it cannot be read or elaborated.
pub fn model(file: &str, settings: &[&str]) -> Model {
    elaborated(&source(&model_file(file)), overrides(settings))
}

/// A model file with some of its constants replaced.
///
/// # Panics
/// If it cannot be read or elaborated.
pub fn model_with(file: &Path, constants: &[(&str, &str)]) -> Model {
    elaborated(&source(file), pairs(constants))
}

/// Constants and their values, owned.
pub(crate) fn pairs(constants: &[(&str, &str)]) -> Vec<(String, String)> {
    constants.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// A model's text; what a test begins with must be there.
pub(crate) fn source(file: &Path) -> Source {
    Source::load(file).unwrap_or_else(|e| panic!("{e}"))
}

/// A text's model; its messages name the file.
pub(crate) fn elaborated(source: &Source, overrides: Vec<(String, String)>) -> Model {
    let overrides = overrides.into_iter().map(Override::from).collect();
    elaborate(source, &Options { overrides, profile: None }).unwrap_or_else(|e| panic!("{e}"))
}

/// A session of [`model`] on the CPU.
pub fn session(file: &str, settings: &[&str]) -> Session {
    Session::new(Arc::new(model(file, settings)), Default::default())
}

/// Initial weights with noise on top, so that nothing is zero and every path carries signal.
pub fn noisy_weights(session: &Session, seed: u64) -> Weights {
    let mut weights = session.initial_weights(seed).unwrap();
    let mut noise = Noise(seed | 1);
    for values in weights.values_mut() {
        values.iter_mut().for_each(|v| *v += 0.1 * noise.sample());
    }
    weights
}

/// xorshift64, uniform in −1 … 1.
pub struct Noise(pub u64);

impl Noise {
    /// The next number.
    pub fn sample(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Tokens of a vocabulary.
    pub fn tokens(&mut self, n: usize, vocab: usize) -> Vec<i32> {
        (0..n).map(|_| ((self.sample() * 0.5 + 0.5) * vocab as f32) as i32 % vocab as i32).collect()
    }
}
