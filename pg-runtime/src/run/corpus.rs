//! The text of a run: training shards, scored targets, and the bytes that targets stand for.

use std::path::PathBuf;
use std::sync::Arc;

use pg_ir::lang::model::Model;
use serde::{Deserialize, Serialize};

use crate::data::tokenize::{Encoder, TokenizeError};
use crate::data::{DataError, Dataset, Overlap, Tokenizer, check_counts, overlap, sample, whole_sequences};
use crate::eval::Windows;
use crate::report::{DatasetReport, TextReport};

/// The text that a run is asked to use; `None` is the embedded sample.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TextOptions {
    /// `--data GLOB`.
    pub data: Option<String>,
    /// `--val GLOB`.
    pub val: Option<String>,
    /// `--tokenizer FILE`.
    pub tokenizer: Option<PathBuf>,
    /// `--val-bytes GLOB`: shards that hold the bytes of text behind each token of the validation shards.
    pub val_bytes: Option<String>,
}

impl TextOptions {
    /// What makes tokens of text as they were made.
    ///
    /// # Errors
    /// The tokenizer, if it cannot be read or is not one that pg encodes with.
    pub fn encoder(&self) -> Result<Encoder, TokenizeError> {
        self.tokenizer.as_deref().map_or_else(|| Ok(sample::encoder()), Encoder::open)
    }
}

/// Training and validation text with their tokenizer, checked against a model.
pub struct Corpus {
    /// Training tokens.
    pub train: Arc<Dataset>,
    /// Tokens to score: one more than there are targets.
    pub val: Vec<i32>,
    /// Bytes of text behind each target.
    pub val_bytes: Vec<u32>,
    /// The tokenizer of both.
    pub tokenizer: Tokenizer,
    /// Whether this is the embedded sample, whose reference points are known.
    pub is_sample: bool,
    /// What may be wrong about the choice, in words.
    pub doubts: Vec<String>,
    /// Where `val` begins, in full.
    all_val: Dataset,
    /// Counts of `all_val`, where they do not come from the tokenizer.
    counts: Option<Dataset>,
}

impl Corpus {
    /// Opens what the options name; the embedded sample for what they do not.
    ///
    /// The scored text is trimmed to whole sequences and to the model's `max_targets`.
    ///
    /// # Errors
    /// [`DataError`]: a file, a token outside the vocabulary, counts that cannot be, or nothing to score.
    pub fn open(options: &TextOptions, model: &Model) -> Result<Corpus, DataError> {
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
        let all_val = match (&options.val, &options.data) {
            (None, Some(data)) => Dataset::open(data, model.vocab)?,
            (val, _) => open(val, sample::val)?,
        };
        let available = available_targets(&all_val, model);
        let targets = model.eval.max_targets.map_or(available, |max| available.min(max));
        let val = all_val.head(targets)?;
        let counts = options.val_bytes.as_ref().map(|counts| Dataset::open(counts, 1 << 16)).transpose()?;
        let val_bytes = match &counts {
            Some(counts) => check_counts(&all_val, counts, &tokenizer)?,
            None => all_val.scan(0, |all| tokenizer.tables().target_bytes(all.take(targets + 1)))?,
        };
        let val_bytes = val_bytes[..targets].to_vec();
        if val_bytes.iter().all(|&bytes| bytes == 0) {
            return Err(DataError::NoBytes { pattern: all_val.name().to_owned(), targets });
        }
        let doubts = doubts(options);
        let is_sample = *options == TextOptions::default();
        Ok(Corpus { train: Arc::new(train), val, val_bytes, tokenizer, is_sample, doubts, all_val, counts })
    }

    /// Targets that are scored.
    pub fn targets(&self) -> usize {
        self.val.len() - 1
    }

    /// Whether the scored text occurs in the training text. Reads all of that.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn overlap(&self) -> Result<Overlap, DataError> {
        overlap(&self.train, &self.val)
    }

    /// What was opened, with hashes of all of it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn report(&self, model: &Model, overlap: Option<Overlap>) -> Result<TextReport, DataError> {
        let describe = |data: &Dataset| -> Result<DatasetReport, DataError> {
            Ok(DatasetReport { name: data.name().to_owned(), tokens: data.len() as u64, hash: data.hash()? })
        };
        Ok(TextReport {
            train: overlap.is_some().then(|| describe(&self.train)).transpose()?,
            val: describe(&self.all_val)?,
            val_bytes: self.counts.as_ref().map(describe).transpose()?,
            tokenizer: self.tokenizer.hash().to_owned(),
            targets: self.targets() as u64,
            available_targets: available_targets(&self.all_val, model) as u64,
            scored_again: Windows::sliding(model, self.targets()).scored_again(self.targets()) as u64,
            bytes: self.val_bytes.iter().map(|&bytes| u64::from(bytes)).sum(),
            overlap,
        })
    }
}

/// Targets of a text in whole sequences of the model's longest; of a shorter text, all of them.
fn available_targets(val: &Dataset, model: &Model) -> usize {
    match whole_sequences(val.len(), model.train.seq_len.max(model.eval.seq_len)) {
        0 => val.len().saturating_sub(1),
        n => n,
    }
}

fn doubts(options: &TextOptions) -> Vec<String> {
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
