//! The file around the streams: header, hash, manifest.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;

use pg_ir::input;
use pg_ir::quant::Grid;
use serde::{Deserialize, Serialize};

use super::codec::{self, Codec};
use super::error::ArtifactError;
use super::streams::{self, Assembly, Entry, Stream};
use super::{Artifact, MAX_VALUES, Manifest, Sizes, StreamSize, Tensor, count};
use crate::memory;

/// Version of the format that this program writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Not text, and damaged by any transfer that takes it for text.
const MAGIC: [u8; 8] = *b"\x89PGA\r\n\x1a\n";
const HEADER: usize = 60;
/// Where the hash lies.
const HASH: std::ops::Range<usize> = 28..60;
/// Largest file that is read.
pub(super) const MAX_FILE: u64 = 1 << 30;
/// Largest manifest before coding: a hundred times one with 1,000 tensors. In memory it may take thirty times its length.
const MAX_MANIFEST: usize = 4 << 20;

/// The manifest as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    manifest: Manifest,
    tensors: Vec<StoredTensor>,
    /// Codec and length of each stream of [`streams::plan`].
    streams: Vec<(Codec, u64)>,
}

/// Name, shape, and grid as [`Grid`] prints it (none for float16).
#[derive(Serialize, Deserialize)]
struct StoredTensor(String, Vec<usize>, Option<String>);

/// The bytes of an artifact, the same on every machine.
///
/// # Errors
/// [`ArtifactError::Tensor`] for data that does not match its shape or grid, is not finite, or has a name twice;
/// [`ArtifactError::Malformed`] for a manifest over its limit.
pub fn encode(manifest: &Manifest, tensors: &[Tensor]) -> Result<(Vec<u8>, Sizes), ArtifactError> {
    tensors.iter().try_for_each(Tensor::check)?;
    let entries: Vec<Entry> = tensors.iter().map(Entry::of).collect();
    check_table(&entries)?;

    let mut stored = Stored {
        manifest: manifest.clone(),
        tensors: entries
            .iter()
            .map(|e| StoredTensor(e.name.clone(), e.shape.clone(), e.grid.map(|g| g.to_string())))
            .collect(),
        streams: Vec::new(),
    };
    let mut body = Vec::new();
    let plan = streams::plan(&entries);
    for stream in &plan {
        let (codec, bytes) = codec::encode(&streams::symbols(stream, tensors), stream.layout);
        stored.streams.push((codec, bytes.len() as u64));
        body.extend(bytes);
    }

    let unwritable = |what: &str| ArtifactError::Malformed(format!("the manifest {what}"));
    let json = serde_json::to_vec(&stored).map_err(|e| unwritable(&e.to_string()))?;
    if json.len() > MAX_MANIFEST {
        return Err(unwritable(&format!("has {} bytes, at most {MAX_MANIFEST} are read", json.len())));
    }
    let coded = codec::brotli_encode(&json).ok_or_else(|| unwritable("cannot be compressed"))?;

    let total = (HEADER + coded.len() + body.len()) as u64;
    if total > MAX_FILE {
        return Err(ArtifactError::TooLarge { length: total });
    }
    let mut file = Vec::with_capacity(HEADER + coded.len() + body.len());
    file.extend(MAGIC);
    file.extend(FORMAT_VERSION.to_le_bytes());
    file.extend((coded.len() as u32).to_le_bytes());
    file.extend(total.to_le_bytes());
    file.extend((json.len() as u32).to_le_bytes());
    file.extend([0; HASH.end - HASH.start]);
    file.extend(&coded);
    file.extend(&body);
    let hash = content_hash(&file);
    file[HASH].copy_from_slice(hash.as_bytes());

    let raw_bytes = tensors.iter().map(Tensor::raw_bytes).sum();
    let sizes = sizes(raw_bytes, (HEADER + coded.len()) as u64, total, &plan, &stored.streams);
    Ok((file, sizes))
}

/// An artifact of which all is read but the values: what it says about itself, and which tensors it has.
#[derive(Debug)]
pub struct Opened<'a> {
    file: Cow<'a, [u8]>,
    hash: blake3::Hash,
    /// Where the streams begin.
    body: usize,
    manifest: Manifest,
    entries: Vec<Entry>,
    plan: Vec<Stream>,
    coded: Vec<(Codec, u64)>,
}

/// Reads a file of which the first bytes are those of an artifact of its length.
///
/// # Errors
/// Of the file system, and those of [`decode`] that the first bytes show.
pub(super) fn open(path: &Path) -> Result<Opened<'static>, ArtifactError> {
    let (file, length) = input::open(path)?;
    if length > MAX_FILE {
        return Err(ArtifactError::TooLarge { length });
    }
    let mut bytes = Vec::new();
    // Nothing is allocated for a file that is something else, however long.
    (&file).take(HEADER as u64).read_to_end(&mut bytes)?;
    Header::read(&bytes, length)?;
    bytes.try_reserve_exact(length as usize).map_err(io::Error::from)?;
    file.take(length - bytes.len() as u64).read_to_end(&mut bytes)?;
    Opened::new(bytes.into())
}

/// Reads the bytes of an artifact.
///
/// # Errors
/// One of [`ArtifactError`]'s for every file that [`encode`] did not write.
pub fn decode(file: &[u8]) -> Result<Artifact, ArtifactError> {
    Opened::new(file.into())?.decode()
}

impl<'a> Opened<'a> {
    /// Reads all but the values of a file's bytes. Allocates in proportion to them, and 128 MiB at most beside.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn new(file: Cow<'a, [u8]>) -> Result<Opened<'a>, ArtifactError> {
        let header = Header::read(&file, file.len() as u64)?;
        let hash = content_hash(&file);
        if hash.as_bytes() != &file[HASH] {
            return Err(ArtifactError::Damaged);
        }
        if header.manifest_raw > MAX_MANIFEST {
            let raw = header.manifest_raw;
            return Err(malformed(format!("a manifest of {raw} bytes, over {MAX_MANIFEST}")));
        }
        let (coded, body) = file[HEADER..]
            .split_at_checked(header.manifest)
            .ok_or_else(|| malformed("the manifest is longer than the file"))?;
        let json = codec::brotli_decode(coded, header.manifest_raw)
            .ok_or_else(|| malformed("the manifest does not decompress to its length"))?;
        let stored: Stored =
            serde_json::from_slice(&json).map_err(|e| malformed(format!("manifest: {e}")))?;

        let mut entries = Vec::with_capacity(stored.tensors.len());
        for StoredTensor(name, shape, grid) in stored.tensors {
            let grid = match grid {
                Some(g) => Some(g.parse::<Grid>().map_err(|e| malformed(format!("tensor `{name}`: {e}")))?),
                None => None,
            };
            entries.push(Entry { name, shape, grid });
        }
        check_table(&entries)?;
        let plan = streams::plan(&entries);
        if plan.len() != stored.streams.len() {
            let (have, need) = (stored.streams.len(), plan.len());
            return Err(malformed(format!("{have} streams where the tensors need {need}")));
        }
        let (body, manifest, coded) = (file.len() - body.len(), stored.manifest, stored.streams);
        Ok(Opened { file, hash, body, manifest, entries, plan, coded })
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names and shapes of its tensors. Their values are as many, whatever the length of the file.
    pub fn shapes(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        self.entries.iter().map(|e| (e.name.as_str(), e.shape.as_slice()))
    }

    /// Reads the values. Allocates in proportion to [`Self::shapes`].
    ///
    /// # Errors
    /// As [`decode`], and `Io` where memory cannot hold them.
    pub fn decode(self) -> Result<Artifact, ArtifactError> {
        memory::check(streams::bytes(&self.plan)).map_err(io::Error::from)?;
        let mut body = &self.file[self.body..];
        let mut assembly = Assembly::new(self.entries);
        for (stream, (codec, length)) in self.plan.iter().zip(&self.coded) {
            let what = || format!("{} of `{}`", stream.part.name(), stream.role);
            let (bytes, rest) = usize::try_from(*length)
                .ok()
                .and_then(|n| body.split_at_checked(n))
                .ok_or_else(|| malformed(format!("{} are longer than the file", what())))?;
            body = rest;
            let symbols = codec::decode(*codec, bytes, stream.layout)
                .ok_or_else(|| malformed(format!("{} are not valid {codec}", what())))?;
            assembly.add(stream, &symbols);
        }
        if !body.is_empty() {
            return Err(malformed(format!("{} bytes belong to no stream", body.len())));
        }
        let tensors = assembly.finish();
        tensors.iter().try_for_each(Tensor::check)?;

        let raw_bytes = tensors.iter().map(Tensor::raw_bytes).sum();
        let sizes = sizes(raw_bytes, self.body as u64, self.file.len() as u64, &self.plan, &self.coded);
        Ok(Artifact { manifest: self.manifest, tensors, hash: self.hash.to_hex().to_string(), sizes })
    }
}

struct Header {
    manifest: usize,
    manifest_raw: usize,
}

impl Header {
    /// Reads and checks the header of a file of `found` bytes; `file` is the first [`HEADER`] of them or more.
    fn read(file: &[u8], found: u64) -> Result<Header, ArtifactError> {
        // A few bytes of an artifact are a truncated artifact, not another kind of file.
        if !file.starts_with(&MAGIC[..MAGIC.len().min(file.len())]) || file.is_empty() {
            return Err(ArtifactError::NotAnArtifact);
        }
        if file.len() < HEADER {
            return Err(ArtifactError::Truncated { expected: HEADER as u64, found });
        }
        let word = |at: usize| u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]);
        let version = word(8);
        if version != FORMAT_VERSION {
            return Err(ArtifactError::Version { found: version });
        }
        let expected = u64::from(word(16)) | u64::from(word(20)) << 32;
        if found < expected {
            return Err(ArtifactError::Truncated { expected, found });
        }
        if found > expected {
            return Err(ArtifactError::TrailingBytes { expected, found });
        }
        Ok(Header { manifest: word(12) as usize, manifest_raw: word(24) as usize })
    }
}

/// blake3 of everything but the hash itself.
fn content_hash(file: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&file[..HASH.start]).update(&file[HASH.end..]);
    hasher.finalize()
}

/// Names are unique, and all shapes together are within the limit.
fn check_table(entries: &[Entry]) -> Result<(), ArtifactError> {
    let mut names = HashSet::new();
    let (mut values, mut rows) = (0, 0);
    for e in entries {
        let fail = |what: String| ArtifactError::Tensor { name: e.name.clone(), what };
        if !names.insert(&e.name) {
            return Err(fail("its name occurs twice".into()));
        }
        let over = || fail(format!("with it, the artifact is over {MAX_VALUES} values"));
        values += count(&e.shape).ok_or_else(over)?;
        rows += e.shape.iter().rev().skip(1).product::<usize>();
        if values > MAX_VALUES || rows > MAX_VALUES {
            return Err(over());
        }
        if e.shape.last() > Some(&MAX_VALUES) {
            return Err(over());
        }
    }
    Ok(())
}

fn sizes(raw: u64, manifest: u64, total: u64, plan: &[Stream], coded: &[(Codec, u64)]) -> Sizes {
    let streams = plan.iter().zip(coded).map(|(s, (codec, bytes))| StreamSize {
        role: s.role.clone(),
        part: s.part.name(),
        codec: *codec,
        values: s.layout.count,
        bytes: *bytes,
    });
    Sizes { total_bytes: total, manifest_bytes: manifest, raw_bytes: raw, streams: streams.collect() }
}

fn malformed(what: impl Into<String>) -> ArtifactError {
    ArtifactError::Malformed(what.into())
}
