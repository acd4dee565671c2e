//! Text to token shards: what `pg data tokenize` does.
//!
//! Documents are read in order from text or JSON Lines files ([`Format`], [`Split`]), encoded by a SentencePiece
//! BPE model ([`Encoder`], the same ids as SentencePiece gives), and written as the challenge writes them: BOS
//! before each document, no EOS, the first `val_docs` documents into `NAME_val_%06d.bin`, the others into
//! `NAME_train_%06d.bin`, a shard full at `shard_tokens` tokens wherever in a document that is.
//!
//! A shard appears whole or not at all. After each one, `NAME_tokenize.json` records how far the input was read
//! and a hash of it, so that a run which was stopped (a bad line, a full disk, a kill) is continued by the same
//! call, and the result is the same bytes.

mod documents;
mod encoder;
mod error;
mod job;
mod merge;
mod normalize;
mod record;
mod shards;
mod trie;

use std::borrow::Cow;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pg_ir::input::check_regular;
use rayon::prelude::*;
use serde::Serialize;

pub use self::documents::{Format, Split};
pub use self::encoder::Encoder;
pub use self::error::{EncodeError, TokenizeError};

use self::documents::{Documents, RawDocument};
use self::job::Job;
use self::record::{Part, Record};
use crate::report::{Event, Observer};

/// Tokens in a full shard of the challenge's data.
pub const SHARD_TOKENS: usize = 100_000_000;

/// The field of a JSON object that holds the text, where nobody says another.
pub const DEFAULT_FIELD: &str = "text";

/// What `pg data tokenize` was asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct TokenizeOptions {
    /// Text or JSON Lines files, gzipped or not, in order.
    pub inputs: Vec<PathBuf>,
    /// The SentencePiece `.model` file.
    pub tokenizer: PathBuf,
    /// Folder of the shards; made if it is missing.
    pub out: PathBuf,
    /// What the shards' names begin with.
    pub name: String,
    /// How the files are read.
    pub format: Format,
    /// The field of a JSON object that holds the text.
    pub field: String,
    /// What a document of plain text is.
    pub split: Split,
    /// How many documents, from the first on, are for validation.
    pub val_docs: u64,
    /// Tokens in a full shard.
    pub shard_tokens: usize,
    /// Remove the shards of an earlier run of this name, whatever made them.
    pub overwrite: bool,
}

impl TokenizeOptions {
    /// The defaults: formats by file name, the field `text`, a text file is a document, no validation documents,
    /// shards of the challenge's size.
    pub fn new(inputs: Vec<PathBuf>, tokenizer: PathBuf, out: PathBuf, name: &str) -> TokenizeOptions {
        TokenizeOptions {
            inputs,
            tokenizer,
            out,
            name: name.to_owned(),
            format: Format::default(),
            field: DEFAULT_FIELD.to_owned(),
            split: Split::default(),
            val_docs: 0,
            shard_tokens: SHARD_TOKENS,
            overwrite: false,
        }
    }

    fn check(&self) -> Result<(), TokenizeError> {
        let wrong = |option, what: &str| Err(TokenizeError::Option { option, what: what.to_owned() });
        if self.inputs.is_empty() {
            return Err(TokenizeError::NoInput);
        }
        if self.name.is_empty() || self.name.contains(['/', '\\', '\0', '*', '?', '[']) {
            return wrong("name", "expected the beginning of a file name, such as `fineweb`");
        }
        if !(1..1 << 31).contains(&self.shard_tokens) {
            return wrong("shard tokens", "expected 1 to 2147483647, what a shard's header can count");
        }
        Ok(())
    }
}

/// What was made.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TokenizeReport {
    /// Validation shards.
    pub val: PartReport,
    /// Training shards.
    pub train: PartReport,
    /// Bytes of text in all documents.
    pub text_bytes: u64,
    /// blake3 of the tokenizer's file.
    pub tokenizer_hash: String,
    /// Shards that an earlier run had finished.
    pub resumed_shards: usize,
    /// Seconds taken.
    pub seconds: f64,
    /// The record that lets a run continue: `OUT/NAME_tokenize.json`.
    pub record: PathBuf,
}

/// The shards of one part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PartReport {
    /// Files.
    pub shards: usize,
    /// Documents.
    pub documents: u64,
    /// Tokens, a BOS for each document among them.
    pub tokens: u64,
    /// A pattern for the files, as `--data` and `--val` take it.
    pub pattern: String,
}

/// Text is read in batches of about this many bytes, encoded on all cores and written in order.
const BATCH_BYTES: usize = 8 << 20;
/// Documents in a batch, however short.
const BATCH_DOCUMENTS: usize = 1 << 13;

/// Tokenizes files.
///
/// # Errors
/// [`TokenizeError`]. Finished shards are kept, and the same call continues after them.
pub fn tokenize(
    options: &TokenizeOptions,
    observer: &mut Observer<'_>,
) -> Result<TokenizeReport, TokenizeError> {
    let started = Instant::now();
    options.check()?;
    let encoder = Encoder::open(&options.tokenizer)?;
    let bos = encoder.tokenizer().bos();
    let bos = bos.ok_or_else(|| TokenizeError::NoBos { path: options.tokenizer.clone() })?;
    let total = input_bytes(&options.inputs)?;
    let mut documents = Documents::new(&options.inputs, options.format, options.split);
    let tokens = |raw: &RawDocument| -> Result<(Vec<u16>, usize), TokenizeError> {
        let text = raw.text(&options.field)?;
        let mut tokens = vec![bos];
        encoder.encode_into(&text, &mut tokens).map_err(|e| raw.fail(0, e.to_string()))?;
        Ok((tokens, text.len()))
    };

    observer(Event::Begin { stage: "tokenize".into(), total });
    let mut job = Job::open(options, &encoder, observer)?;
    job.resume(&mut documents, tokens)?;
    let resumed_shards = job.record.shards.len();
    loop {
        let batch = read_batch(&mut documents)?;
        if batch.is_empty() {
            break;
        }
        let encoded: Vec<_> = batch.par_iter().map(tokens).collect();
        // In order, so that what stands before a bad document is written.
        for (raw, encoded) in batch.iter().zip(encoded) {
            let (tokens, text_bytes) = encoded?;
            job.add(raw, &tokens, text_bytes)?;
        }
        (job.observer)(Event::Progress(documents.bytes_read().min(total)));
    }
    job.complete()?;
    let report = TokenizeReport {
        val: job.part_report(Part::Val),
        train: job.part_report(Part::Train),
        text_bytes: job.at.text_bytes,
        tokenizer_hash: encoder.tokenizer().hash().to_owned(),
        resumed_shards,
        seconds: started.elapsed().as_secs_f64(),
        record: job.record_path.clone(),
    };
    let (val, train) = (&report.val, &report.train);
    if val.documents > 0 && train.documents == 0 {
        let all =
            format!("all {} documents are validation documents: there is no training shard", val.documents);
        observer(Event::Warning(all));
    }
    observer(Event::End(format!(
        "{} documents, {} tokens, {:.2} bytes a token",
        val.documents + train.documents,
        val.tokens + train.tokens,
        report.text_bytes as f64 / (val.tokens + train.tokens) as f64,
    )));
    Ok(report)
}

/// Gives `each` the texts of an input that is in memory, as [`tokenize`] reads them from a file of this name, or why a
/// document has none.
///
/// # Errors
/// [`TokenizeError`] where the next document cannot be found.
pub fn for_each_text(
    name: &Path,
    bytes: Vec<u8>,
    (format, split): (Format, Split),
    field: &str,
    mut each: impl FnMut(Result<Cow<'_, str>, TokenizeError>),
) -> Result<(), TokenizeError> {
    let mut documents = Documents::of(name, io::Cursor::new(bytes), format, split)?;
    while let Some(raw) = documents.next()? {
        each(raw.text(field));
    }
    Ok(())
}

/// Gives `each` the text of every document of some files, in order, as [`tokenize`] reads them, until it breaks.
///
/// # Errors
/// [`TokenizeError`] where a file or a document cannot be read; those of `each`.
pub fn for_each_document<E: From<TokenizeError>>(
    files: &[PathBuf],
    mut each: impl FnMut(&str) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let mut documents = Documents::new(files, Format::Auto, Split::File);
    while let Some(raw) = documents.next()? {
        if each(&raw.text(DEFAULT_FIELD)?)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Bytes of all files; what is missing is said before any work.
fn input_bytes(inputs: &[PathBuf]) -> Result<u64, TokenizeError> {
    let size = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).map_err(TokenizeError::read(path))?;
        check_regular(&metadata).map_err(TokenizeError::read(path))?;
        Ok(metadata.len())
    };
    inputs.iter().map(size).sum()
}

fn read_batch(documents: &mut Documents<'_>) -> Result<Vec<RawDocument>, TokenizeError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES && batch.len() < BATCH_DOCUMENTS {
        let Some(raw) = documents.next()? else { break };
        bytes += raw.raw.len();
        batch.push(raw);
    }
    Ok(batch)
}

fn hash(digest: &mut blake3::Hasher, raw: &RawDocument) {
    digest.update(&(raw.raw.len() as u64).to_le_bytes());
    digest.update(&[u8::from(raw.json)]);
    digest.update(&raw.raw);
}

/// Shards, finished or not, that stand under the job's name, in order.
fn earlier_shards(options: &TokenizeOptions) -> Result<Vec<PathBuf>, TokenizeError> {
    let entries = match std::fs::read_dir(&options.out) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TokenizeError::Read { path: options.out.clone(), error }),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(TokenizeError::read(&options.out))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let rest = name.strip_prefix(options.name.as_str());
        let rest = rest.and_then(|r| r.strip_prefix("_val_").or_else(|| r.strip_prefix("_train_")));
        let number = rest.and_then(|r| r.strip_suffix(".bin").or_else(|| r.strip_suffix(".bin.partial")));
        if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what stands under the job's name: the record first, so that a stop half way leaves nothing to continue.
fn remove_earlier(options: &TokenizeOptions) -> Result<(), TokenizeError> {
    let record = Record::path(options);
    let record = record.exists().then_some(record);
    for path in record.into_iter().chain(earlier_shards(options)?) {
        std::fs::remove_file(&path).map_err(|error| TokenizeError::Write { path, error, kept: 0 })?;
    }
    Ok(())
}
