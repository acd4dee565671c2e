//! What `pg data stats` reports.

use serde::Serialize;

use super::error::DataError;
use super::loader::Dataset;
use super::tokenizer::Tokenizer;

/// Counts over a dataset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Stats {
    /// Shard files.
    pub shards: usize,
    /// Tokens in them.
    pub tokens: u64,
    /// Documents that begin in them: BOS tokens.
    pub documents: u64,
    /// Tokens that have one before them.
    pub targets: u64,
    /// Bytes of text that the targets stand for.
    pub bytes: u64,
}

/// Counts a dataset, shards taken as one stream.
///
/// # Errors
/// Those of [`Dataset::scan`].
pub fn stats(dataset: &Dataset, tokenizer: &Tokenizer) -> Result<Stats, DataError> {
    let bos = tokenizer.bos();
    Ok(Stats {
        shards: dataset.shards().len(),
        tokens: dataset.len() as u64,
        documents: dataset.scan(0, |tokens| tokens.filter(|t| Some(*t) == bos).count() as u64)?,
        targets: (dataset.len() as u64).saturating_sub(1),
        bytes: dataset.scan(0, |tokens| tokenizer.tables().stream_bytes(tokens))?,
    })
}
