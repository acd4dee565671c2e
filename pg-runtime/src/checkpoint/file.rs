//! The format of a checkpoint: magic, version, length of a header in JSON, the header, the banks' elements as little-endian
//! float32 in the header's order, blake3 of everything before. Nothing is allocated for a file that is not as long as
//! its header says, and nothing of a file is used whose hash is not its own.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use pg_ir::input;
use pg_ir::slot::Slot;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, CheckpointError, Meta};
use crate::artifact::write_atomically_with;

const MAGIC: [u8; 4] = *b"PGCK";
const VERSION: u32 = 1;
/// Bytes of magic, version and header length.
const PREFIX: usize = 16;
/// Longest header: some hundred thousand banks.
const MAX_HEADER: u64 = 16 << 20;
const HASH: usize = blake3::OUT_LEN;
/// Elements that are converted at a time.
const CHUNK: usize = 1 << 14;

#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(flatten)]
    meta: Meta,
    banks: Vec<(String, u64)>,
}

/// Writes a checkpoint. The file appears whole or not at all.
///
/// # Errors
/// [`CheckpointError::Io`].
pub fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let banks = checkpoint.banks.iter().map(|(slot, values)| (slot.to_string(), values.len() as u64));
    let header = Header { meta: checkpoint.meta.clone(), banks: banks.collect() };
    let write = |file: &mut File| -> io::Result<()> {
        let header = serde_json::to_vec(&header)?;
        let mut out = Hashed { inner: BufWriter::new(file), hasher: blake3::Hasher::new() };
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        let mut bytes = Vec::with_capacity(4 * CHUNK);
        for values in checkpoint.banks.iter().flat_map(|(_, values)| values.chunks(CHUNK)) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&bytes)?;
        }
        let hash = out.hasher.finalize();
        out.inner.write_all(hash.as_bytes())?;
        out.inner.flush()
    };
    write_atomically_with(path, write).map_err(|error| CheckpointError::Io { path: path.to_owned(), error })
}

/// Reads a checkpoint.
///
/// # Errors
/// [`CheckpointError::Io`], or [`CheckpointError::Format`] for anything but the bytes that `write()` wrote.
pub fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let opened = input::open(path);
    let (file, length) = opened.map_err(|error| CheckpointError::Io { path: path.to_owned(), error })?;
    read_from(path, BufReader::new(file), length)
}

/// Reads the bytes of a checkpoint; `path` is for messages.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    read_from(path, bytes, bytes.len() as u64)
}

fn read_from(path: &Path, inner: impl Read, length: u64) -> Result<Checkpoint, CheckpointError> {
    let fail = |what: &str| CheckpointError::Format { path: path.to_owned(), what: what.to_owned() };
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => fail("it ends too early"),
        _ => CheckpointError::Io { path: path.to_owned(), error },
    };
    let mut stream = Hashed { inner, hasher: blake3::Hasher::new() };
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).map_err(io)?;
    let [m0, m1, m2, m3, v0, v1, v2, v3, rest @ ..] = prefix;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(fail("it is another kind of file"));
    }
    let version = u32::from_le_bytes([v0, v1, v2, v3]);
    if version != VERSION {
        return Err(fail(&format!("it is of version {version}, this program reads {VERSION}")));
    }
    let header_length = u64::from_le_bytes(rest);
    if header_length > MAX_HEADER.min(length) {
        return Err(fail("its header is longer than a header can be"));
    }
    let mut header = vec![0; header_length as usize];
    stream.read_exact(&mut header).map_err(io)?;
    let header: Header = serde_json::from_slice(&header).map_err(|e| fail(&format!("its header: {e}")))?;
    let elements = header.banks.iter().try_fold(0u64, |sum, (_, len)| sum.checked_add(*len));
    let bytes = elements.and_then(|n| n.checked_mul(4));
    let expected = bytes.and_then(|n| n.checked_add(PREFIX as u64 + header_length + HASH as u64));
    if expected != Some(length) {
        return Err(fail("its length is not what its header says"));
    }
    let mut banks = Vec::with_capacity(header.banks.len());
    for (name, len) in header.banks {
        let slot: Slot = name.parse().map_err(|_| fail(&format!("`{name}` is no bank")))?;
        banks.push((slot, read_values(&mut stream, len as usize).map_err(io)?));
    }
    let found = stream.hasher.finalize();
    let mut stated = [0; HASH];
    stream.inner.read_exact(&mut stated).map_err(io)?;
    if found != blake3::Hash::from(stated) {
        return Err(fail("its hash is not that of its bytes"));
    }
    Ok(Checkpoint { meta: header.meta, banks })
}

fn read_values(input: &mut impl Read, len: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len)?;
    let mut bytes = [0; 4 * CHUNK];
    while values.len() < len {
        let bytes = &mut bytes[..4 * CHUNK.min(len - values.len())];
        input.read_exact(bytes)?;
        values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }
    Ok(values)
}

/// A stream whose bytes are hashed.
struct Hashed<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::checkpoint;
    use super::*;

    #[test]
    fn reads_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for mut saved in [checkpoint(7), checkpoint(8)] {
            saved.banks.push(("@ema:mlp".parse().unwrap(), vec![0.5; 3 * CHUNK + 1]));
            write(&path, &saved).unwrap();
            assert_eq!(read(&path).unwrap(), saved);
        }
        assert!(matches!(read(folder.path()), Err(CheckpointError::Io { .. })));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, &checkpoint(7)).unwrap();
        let good = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(read(&path), Err(CheckpointError::Format { .. })));
        };
        for bit in 0..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            refused(&bad);
        }
        (0..good.len()).for_each(|length| refused(&good[..length]));
        refused(&[&good[..], &[0]].concat());
    }
}
