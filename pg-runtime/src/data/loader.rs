//! Shards as one stream, and its walk in batches.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::error::DataError;
use super::shard::Shard;

/// Bytes that are hashed at a time.
const HASHED_BYTES: usize = 1 << 16;

/// The shards of a pattern in lexicographic order, as one stream of tokens.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    shards: Vec<Shard>,
    /// Index in the stream of each shard's first token.
    starts: Vec<usize>,
    len: usize,
    vocab: usize,
}

impl Dataset {
    /// Opens every shard that matches `pattern`, and checks each and all of their tokens against `vocab`, so
    /// that bad data is found before training and not in the middle of it.
    ///
    /// # Errors
    /// [`DataError`]: no match, a defect of a shard, a token outside the vocabulary, no tokens at all.
    pub fn open(pattern: &str, vocab: usize) -> Result<Dataset, DataError> {
        let bad = |what: String| DataError::Pattern { pattern: pattern.to_owned(), what };
        let mut paths = Vec::<PathBuf>::new();
        for path in glob::glob(pattern).map_err(|e| bad(e.to_string()))? {
            paths.push(path.map_err(|e| DataError::Io { path: e.path().to_owned(), error: e.into() })?);
        }
        if paths.is_empty() {
            return Err(DataError::NoFiles { pattern: pattern.to_owned() });
        }
        paths.sort();
        let shards = paths.iter().map(|p| Shard::open(p)).collect::<Result<_, _>>()?;
        Dataset::new(pattern, shards, vocab)
    }

    /// A dataset of opened shards in the given order; `name` is for messages.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`], or [`DataError::TooFew`] where there are no tokens.
    pub fn new(name: &str, shards: Vec<Shard>, vocab: usize) -> Result<Dataset, DataError> {
        shards.iter().try_for_each(|s| s.check_vocabulary(vocab))?;
        let mut len = 0;
        let starts = shards
            .iter()
            .map(|s| {
                len += s.len();
                len - s.len()
            })
            .collect();
        let dataset = Dataset { name: name.to_owned(), shards, starts, len, vocab };
        dataset.need(1)?;
        Ok(dataset)
    }

    /// The pattern or name it was opened with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shards, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Tokens in all shards; at least 1.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a dataset without tokens is not made.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives all tokens from stream index `start` on to `f`. They are read as it takes them.
    ///
    /// # Errors
    /// Those of [`Shard::read`], at which the tokens end; what `f` made of them is dropped.
    pub fn scan<T>(&self, start: usize, f: impl FnOnce(&mut Tokens<'_>) -> T) -> Result<T, DataError> {
        let mut tokens = Tokens { dataset: self, next: start, chunk: Vec::new(), at: 0, failed: None };
        let made = f(&mut tokens);
        tokens.failed.map_or(Ok(made), Err)
    }

    /// Replaces `out` by tokens from stream index `start` on: at least one and at most `count`, none where there is
    /// none or none is wanted.
    fn read(&self, start: usize, count: usize, out: &mut Vec<u16>) -> Result<(), DataError> {
        out.clear();
        // The last shard that begins at or before `start`; empty shards begin where the next one does.
        let Some(at) = self.starts.partition_point(|s| *s <= start).checked_sub(1) else { return Ok(()) };
        self.shards[at].read(start - self.starts[at], count.min(READ), self.vocab, out)
    }

    /// The first `targets + 1` tokens: what `targets` scored positions need.
    ///
    /// # Errors
    /// [`DataError::TooFew`] where there are not as many.
    pub fn head(&self, targets: usize) -> Result<Vec<i32>, DataError> {
        let tokens = targets.saturating_add(1);
        self.need(tokens)?;
        self.scan(0, |all| all.take(tokens).map(i32::from).collect())
    }

    /// blake3 of all tokens, in hexadecimal: of the hashes of the shards' tokens.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub fn hash(&self) -> Result<String, DataError> {
        let hashes: Vec<blake3::Hash> = (self.shards.par_iter().zip(&self.starts))
            .map(|(shard, start)| self.scan(*start, |tokens| hash_of(tokens.take(shard.len()))))
            .collect::<Result<_, _>>()?;
        let mut hasher = blake3::Hasher::new();
        hashes.iter().for_each(|hash| _ = hasher.update(hash.as_bytes()));
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn need(&self, needed: usize) -> Result<(), DataError> {
        if self.len < needed {
            return Err(DataError::TooFew { pattern: self.name.clone(), found: self.len, needed });
        }
        Ok(())
    }
}

/// Tokens that are read at once: 1 MiB.
const READ: usize = 1 << 19;

/// Tokens of a dataset, in order, as [`Dataset::scan`] gives them.
#[derive(Debug)]
pub struct Tokens<'a> {
    dataset: &'a Dataset,
    /// Stream index after `chunk`.
    next: usize,
    chunk: Vec<u16>,
    /// First token of `chunk` that was not taken.
    at: usize,
    failed: Option<DataError>,
}

impl Iterator for Tokens<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.at == self.chunk.len() {
            if self.failed.is_some() {
                return None;
            }
            self.at = 0;
            if let Err(error) = self.dataset.read(self.next, READ, &mut self.chunk) {
                self.failed = Some(error);
                self.chunk.clear();
            }
            self.next += self.chunk.len();
        }
        let token = self.chunk.get(self.at).copied()?;
        self.at += 1;
        Some(token)
    }
}

/// blake3 of tokens as little-endian words.
fn hash_of(tokens: impl Iterator<Item = u16>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::with_capacity(HASHED_BYTES);
    for token in tokens {
        bytes.extend(token.to_le_bytes());
        if bytes.len() == HASHED_BYTES {
            hasher.update(&bytes);
            bytes.clear();
        }
    }
    hasher.update(&bytes).finalize()
}

/// Targets that `tokens` tokens have in whole sequences of `seq`, `floor((tokens - 1) / seq) * seq`: how the
/// original trims its validation set. 0 where `seq` is 0.
pub fn whole_sequences(tokens: usize, seq: usize) -> usize {
    tokens.saturating_sub(1).checked_div(seq).map_or(0, |n| n * seq)
}

/// One micro-batch, row major.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// `[batch, seq]`.
    pub inputs: Vec<i32>,
    /// `[batch, seq]`: the token after each input.
    pub targets: Vec<i32>,
}

/// An endless walk over a dataset in the original's order: no shuffling, no document masking, the first token
/// again after the last.
#[derive(Clone, Debug)]
pub struct Loader {
    dataset: Arc<Dataset>,
    cursor: usize,
}

impl Loader {
    /// A walk from the first token.
    pub fn new(dataset: Arc<Dataset>) -> Loader {
        Loader { dataset, cursor: 0 }
    }

    /// Where it stands: the token that the next batch begins with.
    pub fn position(&self) -> usize {
        self.cursor
    }

    /// Goes to a token; to the first where there are not as many.
    pub fn seek(&mut self, token: usize) {
        self.cursor = token % self.dataset.len();
    }

    /// The next micro-batch of `batch * seq` targets. It consumes one token more than it has inputs: the last
    /// one is only a target, as each slice of the original's stream. Successive calls are thus the
    /// accumulation steps of one process, and equally the ranks of a run on several.
    ///
    /// # Errors
    /// [`DataError::Batch`] where `batch * seq` is 0 or more than memory holds, and those of [`Shard::read`].
    pub fn next(&mut self, batch: usize, seq: usize) -> Result<Batch, DataError> {
        // Ids are 4 bytes; an eighth of the address space is more than any machine has.
        let inputs = batch.checked_mul(seq).filter(|n| (1..usize::MAX / 32).contains(n));
        let inputs = inputs.ok_or(DataError::Batch { batch, seq })?;
        let mut tokens = Vec::new();
        tokens.try_reserve_exact(inputs + 1).map_err(|_| DataError::Batch { batch, seq })?;
        let mut read = Vec::new();
        while tokens.len() <= inputs {
            self.dataset.read(self.cursor, inputs + 1 - tokens.len(), &mut read)?;
            tokens.extend(read.iter().copied().map(i32::from));
            self.cursor = (self.cursor + read.len()) % self.dataset.len();
        }
        let targets = tokens[1..].to_vec();
        tokens.truncate(inputs);
        Ok(Batch { inputs: tokens, targets })
    }
}

#[cfg(test)]
mod tests {
    use super::super::shard::shard_bytes;
    use super::*;

    /// A dataset, and the folder that its shards are in.
    fn dataset(shards: &[&[u16]]) -> (tempfile::TempDir, Dataset) {
        let folder = tempfile::tempdir().unwrap();
        for (i, tokens) in shards.iter().enumerate() {
            std::fs::write(folder.path().join(format!("t_{i:06}.bin")), shard_bytes(tokens)).unwrap();
        }
        let dataset = Dataset::open(&format!("{}/t_*.bin", folder.path().display()), 100).unwrap();
        (folder, dataset)
    }

    #[test]
    fn walks_across_shards_and_wraps() {
        let (_folder, data) = dataset(&[&[0, 1, 2], &[], &[3], &[4, 5, 6]]);
        let data = Arc::new(data);
        assert_eq!(data.len(), 7);
        for start in 0..=7 {
            let want: Vec<u16> = (start as u16..7).collect();
            assert_eq!(data.scan(start, |tokens| tokens.collect::<Vec<_>>()).unwrap(), want);
        }
        let mut loader = Loader::new(data);
        let mut expected = (0..).map(|i| i % 7);
        // Sizes below, at and beyond the stream's length.
        for (batch, seq) in [(1, 2), (2, 2), (1, 6), (2, 3), (1, 7), (3, 8), (1, 1)] {
            let want: Vec<i32> = expected.by_ref().take(batch * seq + 1).collect();
            let got = loader.next(batch, seq).unwrap();
            assert_eq!((&got.inputs[..], &got.targets[..]), (&want[..batch * seq], &want[1..]));
        }
    }

    #[test]
    fn a_shard_that_changes_is_an_error_where_it_is_read() {
        let (folder, data) = dataset(&[&[0, 1, 2], &[3]]);
        std::fs::write(folder.path().join("t_000001.bin"), shard_bytes(&[3, 4])).unwrap();
        assert!(matches!(data.scan(0, |tokens| tokens.count()), Err(DataError::Changed { .. })));
        assert_eq!(data.scan(0, |tokens| tokens.take(3).count()).unwrap(), 3, "the other can be read");
        let mut loader = Loader::new(Arc::new(data));
        assert_eq!(loader.next(1, 2).unwrap().targets, [1, 2]);
        assert!(matches!(loader.next(1, 2), Err(DataError::Changed { .. })));
    }

    #[test]
    fn impossible_requests_are_errors() {
        let (_folder, data) = dataset(&[&[1, 2]]);
        assert_eq!(data.head(1).unwrap(), [1, 2]);
        assert!(matches!(data.head(2), Err(DataError::TooFew { found: 2, needed: 3, .. })));
        assert!(matches!(data.head(usize::MAX), Err(DataError::TooFew { .. })));
        let mut loader = Loader::new(Arc::new(data));
        for (batch, seq) in [(0, 1), (1, 0), (usize::MAX, 2), (1, usize::MAX)] {
            assert!(matches!(loader.next(batch, seq), Err(DataError::Batch { .. })));
        }
        assert!(matches!(Dataset::open("/none/*.bin", 9), Err(DataError::NoFiles { .. })));
        assert!(matches!(Dataset::open("a***", 9), Err(DataError::Pattern { .. })));
        assert!(matches!(Dataset::new("x", vec![], 9), Err(DataError::TooFew { needed: 1, .. })));
    }

    #[test]
    fn trims_to_whole_sequences() {
        assert_eq!(whole_sequences(62_021_846, 2048), 62_021_632);
        assert_eq!(whole_sequences(2049, 2048), 2048);
        assert_eq!(whole_sequences(2048, 2048), 0);
        assert_eq!((whole_sequences(0, 2048), whole_sequences(5, 0)), (0, 0));
    }
}
