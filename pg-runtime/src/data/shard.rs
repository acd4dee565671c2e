//! Token shards: 256 little-endian int32 (magic, version, token count, zeros), then the tokens as
//! little-endian uint16.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::error::DataError;

/// First word of a shard.
pub const MAGIC: i32 = 20_240_520;
/// Second word of a shard.
pub const VERSION: i32 = 1;
/// Bytes before the first token.
pub const HEADER_BYTES: usize = 1024;

/// A checked shard. Tokens are read from the mapped file where they are used.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Embedded(&'static [u8]),
}

impl Shard {
    /// Maps a shard and checks magic, version and length.
    ///
    /// # Errors
    /// [`DataError::Io`], `Folder`, `NoHeader`, `Magic`, `Version` or `Length`.
    pub fn open(path: &Path) -> Result<Shard, DataError> {
        let io = |error| DataError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(DataError::Folder { path: path.to_owned() });
        }
        let found = metadata.len();
        // Mapping an empty file is an error of its own on some systems.
        if found < HEADER_BYTES as u64 {
            return Err(DataError::NoHeader { path: path.to_owned(), found });
        }
        // SAFETY: the mapping is read-only and tokens are read as bytes, any value of which is valid. Another
        // process that shortens the file meanwhile can end this one, as with any program that maps its input;
        // shards are written once.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        check(path, &map)?;
        Ok(Shard { path: path.to_owned(), content: Content::Mapped(map) })
    }

    /// A shard that is part of the program.
    ///
    /// # Errors
    /// As [`Shard::open`], without `Io`.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Shard, DataError> {
        check(Path::new(name), bytes)?;
        Ok(Shard { path: name.into(), content: Content::Embedded(bytes) })
    }

    /// The file, or the embedded shard's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.token_bytes().len() / 2
    }

    /// Whether the shard has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens from `start` on, in order; none where `start` is past the end.
    pub fn tokens_from(&self, start: usize) -> impl ExactSizeIterator<Item = u16> {
        let bytes = self.token_bytes().get(start.saturating_mul(2)..).unwrap_or(&[]);
        bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    /// Checks that every token is below `vocab`. Reads the whole shard.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`] for the first that is not.
    pub fn check_vocabulary(&self, vocab: usize) -> Result<(), DataError> {
        // A maximum is a vector operation; the search for the culprit is not.
        let max = self.tokens_from(0).fold(0, u16::max);
        if self.is_empty() || usize::from(max) < vocab {
            return Ok(());
        }
        let culprit = self.tokens_from(0).enumerate().find(|(_, t)| usize::from(*t) >= vocab);
        let (index, token) = culprit.unwrap_or((0, max));
        Err(DataError::TokenOutOfRange { path: self.path.clone(), index, token, vocab })
    }

    fn token_bytes(&self) -> &[u8] {
        let all: &[u8] = match &self.content {
            Content::Mapped(map) => map,
            Content::Embedded(bytes) => bytes,
        };
        // `check` has seen the header.
        &all[HEADER_BYTES..]
    }
}

/// A shard file's first 1024 bytes.
///
/// `tokens` beyond 2^31 - 1 do not fit the header's count; the format ends a shard at 100,000,000.
pub fn shard_header(tokens: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    for (to, word) in header.chunks_exact_mut(4).zip([MAGIC, VERSION, tokens as i32]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    header
}

/// A shard file's bytes.
pub fn shard_bytes(tokens: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 2 * tokens.len());
    bytes.extend(shard_header(tokens.len()));
    bytes.extend(tokens.iter().flat_map(|t| t.to_le_bytes()));
    bytes
}

fn check(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let found = bytes.len() as u64;
    let path = || path.to_owned();
    if bytes.len() < HEADER_BYTES {
        return Err(DataError::NoHeader { path: path(), found });
    }
    let word = |i: usize| i32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let (magic, version, tokens) = (word(0), word(4), word(8));
    if magic != MAGIC {
        return Err(DataError::Magic { path: path(), found: magic });
    }
    if version != VERSION {
        return Err(DataError::Version { path: path(), found: version });
    }
    let expected = HEADER_BYTES as u64 + 2 * u64::try_from(tokens).unwrap_or(0);
    if tokens < 0 || found != expected {
        return Err(DataError::Length { path: path(), tokens, expected, found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<Shard, DataError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Shard::open(file.path())
    }

    #[test]
    fn reads_what_was_written() {
        let shard = open(&shard_bytes(&[1, 2, 65_535])).unwrap();
        assert_eq!(shard.tokens_from(0).collect::<Vec<_>>(), [1, 2, 65_535]);
        assert_eq!(shard.tokens_from(2).collect::<Vec<_>>(), [65_535]);
        assert_eq!(shard.tokens_from(9).len(), 0);
        assert!(open(&shard_bytes(&[])).unwrap().is_empty());
    }

    #[test]
    fn each_defect_has_its_message() {
        let good = shard_bytes(&[1, 2, 3]);
        let changed = |at: usize, to: i32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
            open(&bytes).unwrap_err()
        };
        assert!(matches!(changed(0, 7), DataError::Magic { found: 7, .. }));
        assert!(matches!(changed(4, 2), DataError::Version { found: 2, .. }));
        assert!(matches!(changed(8, -1), DataError::Length { tokens: -1, .. }));
        assert!(matches!(changed(8, i32::MAX), DataError::Length { .. }));
        assert!(matches!(open(&good[..1023]), Err(DataError::NoHeader { found: 1023, .. })));
        assert!(matches!(open(&[]), Err(DataError::NoHeader { found: 0, .. })));
        let truncated = open(&good[..good.len() - 1]).unwrap_err();
        assert!(matches!(truncated, DataError::Length { expected: 1030, found: 1029, .. }));
        assert!(truncated.to_string().contains("truncated"));
        assert!(matches!(Shard::open(Path::new("/none")), Err(DataError::Io { .. })));
        assert!(matches!(Shard::open(&std::env::temp_dir()), Err(DataError::Folder { .. })));
    }

    #[test]
    fn tokens_outside_the_vocabulary_are_named() {
        let shard = open(&shard_bytes(&[5, 1023, 1024, 2000])).unwrap();
        assert!(shard.check_vocabulary(2001).is_ok());
        let error = shard.check_vocabulary(1024).unwrap_err();
        assert!(matches!(error, DataError::TokenOutOfRange { index: 2, token: 1024, vocab: 1024, .. }));
    }
}
