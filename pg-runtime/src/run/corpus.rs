//! The text of a run: training shards, scored targets, and the bytes that targets stand for.

use std::sync::Arc;

use pg_ir::lang::model::Model;

use super::RunOptions;
use crate::data::{DataError, Dataset, Tokenizer, sample, whole_sequences};

/// Training and validation text with their tokenizer, checked against a model.
pub struct Corpus {
    /// Training tokens.
    pub train: Arc<Dataset>,
    /// Tokens to score: one more than there are targets.
    pub val: Vec<i32>,
    /// Byte counts of the tokens.
    pub tokenizer: Tokenizer,
    /// Whether this is the embedded sample, whose reference points are known.
    pub is_sample: bool,
    /// What may be wrong about the choice, in words.
    pub doubts: Vec<String>,
}

impl Corpus {
    /// Opens what the options name; the embedded sample for what they do not.
    ///
    /// The scored text is trimmed to whole sequences and to the model's `max_targets`.
    pub fn open(options: &RunOptions, model: &Model) -> Result<Corpus, DataError> {
        let tokenizer = match &options.tokenizer {
            Some(path) => Tokenizer::open(path)?,
            None => sample::tokenizer(),
        };
        tokenizer.check_vocabulary(model.vocab)?;
        let open = |pattern: &Option<String>, fallback: fn() -> Dataset| match pattern {
            Some(pattern) => Dataset::open(pattern, model.vocab),
            None => Ok(fallback()),
        };
        let train = open(&options.data, sample::train)?;
        // Without a validation set of its own, foreign training data is scored on itself, and said so.
        let val = match (&options.val, &options.data) {
            (None, Some(data)) => Dataset::open(data, model.vocab)?,
            (val, _) => open(val, sample::val)?,
        };
        let longest = model.train.seq_len.max(model.eval.seq_len);
        let whole = match whole_sequences(val.len(), longest) {
            0 => val.len().saturating_sub(1),
            n => n,
        };
        let targets = model.eval.max_targets.map_or(whole, |max| whole.min(max));
        let is_sample = options.data.is_none() && options.val.is_none() && options.tokenizer.is_none();
        let doubts = doubts(options);
        Ok(Corpus { train: Arc::new(train), val: val.head(targets)?, tokenizer, is_sample, doubts })
    }
}

fn doubts(options: &RunOptions) -> Vec<String> {
    let mut doubts = Vec::new();
    if options.data.is_some() && options.val.is_none() {
        let text =
            "--data without --val: the scores are of the training text, not of text that is new to the model";
        doubts.push(text.to_string());
    }
    let foreign_text = options.data.is_some() || options.val.is_some();
    let doubt = match (foreign_text, options.tokenizer.is_some()) {
        (true, false) => {
            "the shards are counted in bytes by the built-in tokenizer: give theirs with --tokenizer"
        }
        (false, true) => "--tokenizer without shards: the built-in text was not made with that tokenizer",
        _ => return doubts,
    };
    doubts.push(format!("{doubt}, unless it is the same; else the bits per byte mean nothing"));
    doubts
}
