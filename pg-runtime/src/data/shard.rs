//! Token shards: 256 little-endian int32 (magic, version, token count, zeros), then the tokens as
//! little-endian uint16.

use std::borrow::Cow;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pg_ir::input;

use super::error::DataError;

/// First word of a shard.
pub const MAGIC: i32 = 20_240_520;
/// Second word of a shard.
pub const VERSION: i32 = 1;
/// Bytes before the first token.
pub const HEADER_BYTES: usize = 1024;
/// Tokens that are read at once where all of a shard is: 1 MiB.
const CHUNK: usize = 1 << 19;

/// A checked shard. Tokens are read from the file where they are used.
///
/// The file is opened at each reading, so that a pattern may match more files than a process may have open. It is not
/// mapped: the end of a mapping that another process shortens ends this one.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    tokens: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File,
    Embedded(Cow<'static, [u8]>),
}

impl Shard {
    /// Checks a shard's magic, version and length.
    ///
    /// # Errors
    /// [`DataError::Io`], `Folder`, `NoHeader`, `Magic`, `Version` or `Length`.
    pub fn open(path: &Path) -> Result<Shard, DataError> {
        let io = |error: io::Error| match error.kind() {
            io::ErrorKind::IsADirectory => DataError::Folder { path: path.to_owned() },
            _ => DataError::Io { path: path.to_owned(), error },
        };
        let (file, length) = input::open(path).map_err(io)?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(io)?;
        let tokens = check(path, &header, length)?;
        Ok(Shard { path: path.to_owned(), tokens, content: Content::File })
    }

    /// A shard that is in memory; `name` is for messages.
    ///
    /// # Errors
    /// As [`Shard::open`], without `Io` and `Folder`.
    pub fn embedded(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Shard, DataError> {
        let bytes = bytes.into();
        let tokens = check(Path::new(name), &bytes, bytes.len() as u64)?;
        Ok(Shard { path: name.into(), tokens, content: Content::Embedded(bytes) })
    }

    /// The file, or the embedded shard's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether the shard has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces `out` by the tokens from `start` on, at most `count`; by none where `start` is past the end.
    ///
    /// # Errors
    /// [`DataError::Changed`] where the file is not as long as it was, [`DataError::Io`], and
    /// [`DataError::TokenOutOfRange`] for a token that is not below `vocab`: the file may have been written since all
    /// were checked.
    pub fn read(
        &self,
        start: usize,
        count: usize,
        vocab: usize,
        out: &mut Vec<u16>,
    ) -> Result<(), DataError> {
        let count = count.min(self.tokens.saturating_sub(start));
        out.clear();
        out.resize(count, 0);
        let at = HEADER_BYTES + 2 * start.min(self.tokens);
        match &self.content {
            Content::Embedded(bytes) => {
                bytemuck::cast_slice_mut(out).copy_from_slice(&bytes[at..at + 2 * count]);
            }
            Content::File => self.read_file(at as u64, bytemuck::cast_slice_mut(out))?,
        }
        out.iter_mut().for_each(|token| *token = u16::from_le(*token));
        self.check_tokens(start, out, vocab)
    }

    fn read_file(&self, at: u64, out: &mut [u8]) -> Result<(), DataError> {
        let io = |error| DataError::Io { path: self.path.clone(), error };
        let expected = (HEADER_BYTES + 2 * self.tokens) as u64;
        let changed = |found| DataError::Changed { path: self.path.clone(), expected, found };
        let (mut file, length) = input::open(&self.path).map_err(io)?;
        if length != expected {
            return Err(changed(length));
        }
        file.seek(SeekFrom::Start(at)).map_err(io)?;
        file.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(file.metadata().map_or(0, |m| m.len())),
            _ => io(error),
        })
    }

    /// Checks that every token is below `vocab`. Reads the whole shard.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`] for the first that is not, and those of [`Self::read`].
    pub fn check_vocabulary(&self, vocab: usize) -> Result<(), DataError> {
        let mut chunk = Vec::new();
        (0..self.tokens).step_by(CHUNK).try_for_each(|start| self.read(start, CHUNK, vocab, &mut chunk))
    }

    fn check_tokens(&self, start: usize, tokens: &[u16], vocab: usize) -> Result<(), DataError> {
        // A maximum is a vector operation; the search for the culprit is not.
        let max = tokens.iter().copied().fold(0, u16::max);
        if tokens.is_empty() || usize::from(max) < vocab {
            return Ok(());
        }
        let culprit = tokens.iter().copied().enumerate().find(|(_, t)| usize::from(*t) >= vocab);
        let (index, token) = culprit.unwrap_or((0, max));
        Err(DataError::TokenOutOfRange { path: self.path.clone(), index: start + index, token, vocab })
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

/// Checks a shard's first bytes against the length of the whole; the number of tokens.
fn check(path: &Path, header: &[u8], found: u64) -> Result<usize, DataError> {
    let path = || path.to_owned();
    if header.len() < HEADER_BYTES {
        return Err(DataError::NoHeader { path: path(), found });
    }
    let word = |i: usize| i32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let (magic, version, tokens) = (word(0), word(4), word(8));
    if magic != MAGIC {
        return Err(DataError::Magic { path: path(), found: magic });
    }
    if version != VERSION {
        return Err(DataError::Version { path: path(), found: version });
    }
    let count = usize::try_from(tokens);
    let expected = HEADER_BYTES as u64 + 2 * *count.as_ref().unwrap_or(&0) as u64;
    match count {
        Ok(count) if found == expected => Ok(count),
        _ => Err(DataError::Length { path: path(), tokens, expected, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<Shard, DataError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Shard::open(file.path())
    }

    fn tokens(shard: &Shard, start: usize, count: usize) -> Vec<u16> {
        let mut out = vec![7];
        shard.read(start, count, 1 << 16, &mut out).unwrap();
        out
    }

    #[test]
    fn reads_what_was_written() {
        let bytes = shard_bytes(&[1, 2, 65_535]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        for shard in [Shard::open(file.path()).unwrap(), Shard::embedded("memory", bytes).unwrap()] {
            assert_eq!(tokens(&shard, 0, 9), [1, 2, 65_535]);
            assert_eq!(tokens(&shard, 1, 1), [2]);
            assert_eq!(tokens(&shard, 2, usize::MAX), [65_535]);
            assert_eq!(tokens(&shard, usize::MAX, 9), [0u16; 0]);
        }
        assert!(open(&shard_bytes(&[])).unwrap().is_empty());
    }

    #[test]
    fn a_shard_that_changes_under_a_run_is_an_error_and_no_signal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let whole = shard_bytes(&vec![1; 100_000]);
        std::fs::write(file.path(), &whole).unwrap();
        let shard = Shard::open(file.path()).unwrap();
        let read = || shard.read(99_000, 10, 2, &mut Vec::new());
        read().unwrap();
        for length in [0, 1024, whole.len() as u64 - 1, whole.len() as u64 + 1] {
            file.as_file().set_len(length).unwrap();
            let error = read().unwrap_err();
            assert!(matches!(error, DataError::Changed { found, .. } if found == length), "{error}");
        }
        std::fs::write(file.path(), shard_bytes(&vec![2; 100_000])).unwrap();
        assert!(matches!(read(), Err(DataError::TokenOutOfRange { index: 99_000, token: 2, .. })));
        std::fs::remove_file(file.path()).unwrap();
        assert!(matches!(read(), Err(DataError::Io { .. })));
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
        let shard = Shard::embedded("memory", shard_bytes(&[5, 1023, 1024, 2000])).unwrap();
        assert!(shard.check_vocabulary(2001).is_ok());
        let error = shard.check_vocabulary(1024).unwrap_err();
        assert!(matches!(error, DataError::TokenOutOfRange { index: 2, token: 1024, vocab: 1024, .. }));
        // In a later chunk, too.
        let mut many = vec![0; 2 * CHUNK + 3];
        many[2 * CHUNK + 1] = 9;
        let error = Shard::embedded("memory", shard_bytes(&many)).unwrap().check_vocabulary(9).unwrap_err();
        assert!(matches!(error, DataError::TokenOutOfRange { index, .. } if index == 2 * CHUNK + 1));
    }
}
