//! Tokens to shard files, each whole or not there.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use crate::data::{HEADER_BYTES, shard_header};

/// A shard being written, beside where it will stand, under a name that no pattern for shards matches. It is
/// removed unless it is finished; one that a killed process left is written over.
#[derive(Debug)]
pub(super) struct ShardWriter {
    path: PathBuf,
    partial: PathBuf,
    /// `None` once finished.
    file: Option<BufWriter<File>>,
    tokens: usize,
}

impl ShardWriter {
    /// Begins the shard that will be `path`.
    ///
    /// # Errors
    /// Any of the file system; `WouldBlock` where another process is writing it.
    pub(super) fn create(path: &Path) -> io::Result<ShardWriter> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&partial)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            // Where the file system has no locks, two runs at once are the user's to avoid.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let file = Some(BufWriter::with_capacity(1 << 18, file));
        let mut writer = ShardWriter { path: path.to_owned(), partial, file, tokens: 0 };
        if let Some(file) = &mut writer.file {
            file.write_all(&shard_header(0))?;
        }
        Ok(writer)
    }

    /// Where it will stand.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tokens so far.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(super) fn push(&mut self, tokens: &[u16]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        for token in tokens {
            file.write_all(&token.to_le_bytes())?;
        }
        self.tokens += tokens.len();
        Ok(())
    }

    /// Makes it the shard.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.rewind()?;
        file.write_all(&shard_header(self.tokens))?;
        file.flush()?;
        // What a killed run left may have been longer.
        file.get_ref().set_len(HEADER_BYTES as u64 + 2 * self.tokens as u64)?;
        // Some file systems report a full disk only here.
        file.get_ref().sync_all()?;
        std::fs::rename(&self.partial, &self.path)?;
        self.file = None;
        Ok(())
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is still buffered is not worth writing.
            let _ = file.into_parts();
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}
