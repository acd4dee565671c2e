//! Shards on their way to the disk, and the record that an interrupted job goes on from.

use std::io;
use std::path::{Path, PathBuf};

use super::documents::{Documents, RawDocument};
use super::encoder::Encoder;
use super::error::TokenizeError;
use super::record::{Finished, Mark, Part, Record};
use super::shards::ShardWriter;
use super::{BATCH_DOCUMENTS, PartReport, TokenizeOptions, earlier_shards, hash, remove_earlier};
use crate::report::{Event, Observer};

/// Shards on their way to the disk.
pub(super) struct Job<'a, 'o> {
    options: &'a TokenizeOptions,
    pub(super) observer: &'a mut Observer<'o>,
    pub(super) record: Record,
    pub(super) record_path: PathBuf,
    /// Whether the record on disk is `record`, up to its last shard.
    recorded: bool,
    part: Part,
    writer: Option<ShardWriter>,
    /// Where the input is; its digest is in `digest` until a shard ends.
    pub(super) at: Mark,
    digest: blake3::Hasher,
}

impl<'a, 'o> Job<'a, 'o> {
    /// A new job, or what an earlier run left of it.
    pub(super) fn open(
        options: &'a TokenizeOptions,
        encoder: &Encoder,
        observer: &'a mut Observer<'o>,
    ) -> Result<Job<'a, 'o>, TokenizeError> {
        let record_path = Record::path(options);
        let mut record = Record::new(options, encoder.tokenizer());
        if options.overwrite {
            remove_earlier(options)?;
        } else if let Some(earlier) = record.earlier(options)? {
            record = earlier;
        } else if let Some(path) = earlier_shards(options)?.into_iter().next() {
            return Err(TokenizeError::Exists { path });
        }
        let (part, writer, digest) = (Part::Val, None, blake3::Hasher::new());
        let at = Mark::default();
        Ok(Job { options, observer, record, record_path, recorded: false, part, writer, at, digest })
    }

    /// Passes over the documents that are in finished shards, and begins the next shard with what is left of the
    /// last of them.
    pub(super) fn resume(
        &mut self,
        documents: &mut Documents<'_>,
        tokens: impl Fn(&RawDocument) -> Result<(Vec<u16>, usize), TokenizeError>,
    ) -> Result<(), TokenizeError> {
        let mark = self.record.mark();
        let Some(last_shard) = self.record.shards.last() else { return Ok(()) };
        self.part = last_shard.part;
        let kept = self.record.shards.len();
        let path = self.record_path.clone();
        let other = |what: &str| TokenizeError::OtherJob { path: path.clone(), what: what.into() };
        let mut last = None;
        for done in 0..mark.documents {
            if done % BATCH_DOCUMENTS as u64 == 0 {
                (self.observer)(Event::Progress(documents.bytes_read()));
            }
            let raw = documents.next()?.ok_or_else(|| other("from more documents than there are now"))?;
            hash(&mut self.digest, &raw);
            last = Some(raw);
        }
        if self.digest.finalize().to_hex().as_str() != mark.digest {
            return Err(other("from other documents"));
        }
        let note = format!("{kept} shards are finished; continuing after document {}", mark.documents);
        (self.observer)(Event::Note(note));
        let pending = mark.pending;
        self.at = Mark { pending: 0, digest: String::new(), ..mark };
        if let Some(raw) = last.filter(|_| pending > 0) {
            let (tokens, _) = tokens(&raw)?;
            let start = tokens.len().checked_sub(pending);
            let start = start.ok_or_else(|| other("by an encoder that gave other tokens"))?;
            self.write(&tokens[start..])?;
        }
        Ok(())
    }

    /// Adds a document.
    pub(super) fn add(
        &mut self,
        raw: &RawDocument,
        tokens: &[u16],
        text_bytes: usize,
    ) -> Result<(), TokenizeError> {
        let part = if self.at.documents < self.options.val_docs { Part::Val } else { Part::Train };
        if part != self.part {
            self.end_shard(0)?;
            self.part = part;
        }
        hash(&mut self.digest, raw);
        self.at.documents += 1;
        self.at.text_bytes += text_bytes as u64;
        self.write(tokens)
    }

    fn write(&mut self, tokens: &[u16]) -> Result<(), TokenizeError> {
        let mut rest = tokens;
        while !rest.is_empty() {
            let mut writer = match self.writer.take() {
                Some(writer) => writer,
                None => self.begin_shard()?,
            };
            let room = self.options.shard_tokens - writer.tokens();
            let (now, later) = rest.split_at(rest.len().min(room));
            writer.push(now).map_err(|e| self.write_error(writer.path(), e))?;
            rest = later;
            let full = writer.tokens() == self.options.shard_tokens;
            self.writer = Some(writer);
            if full {
                self.end_shard(rest.len())?;
            }
        }
        Ok(())
    }

    fn begin_shard(&mut self) -> Result<ShardWriter, TokenizeError> {
        if !self.recorded {
            let out = &self.options.out;
            std::fs::create_dir_all(out).map_err(|e| self.write_error(out, e))?;
            self.save()?;
            self.recorded = true;
        }
        let path = self.options.out.join(self.part.shard(&self.options.name, self.record.count(self.part)));
        ShardWriter::create(&path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => TokenizeError::Busy { path },
            _ => self.write_error(&path, error),
        })
    }

    /// Finishes the shard being written, if any; the last document has `pending` tokens after it.
    fn end_shard(&mut self, pending: usize) -> Result<(), TokenizeError> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        writer.finish().map_err(|e| self.write_error(writer.path(), e))?;
        let digest = self.digest.finalize().to_hex().to_string();
        let end = Mark { pending, digest, ..self.at.clone() };
        self.record.shards.push(Finished { part: self.part, tokens: writer.tokens(), end });
        self.save()?;
        let note = format!("wrote {} ({} tokens)", writer.path().display(), writer.tokens());
        (self.observer)(Event::Note(note));
        Ok(())
    }

    /// Finishes the last shard, and removes those that an earlier run with more documents left after it.
    pub(super) fn complete(&mut self) -> Result<(), TokenizeError> {
        self.end_shard(0)?;
        if self.at.documents == 0 {
            return Err(TokenizeError::Empty { inputs: self.options.inputs.clone() });
        }
        for part in Part::ALL {
            let later =
                (self.record.count(part)..).map(|i| self.options.out.join(part.shard(&self.options.name, i)));
            // The first that cannot be removed is one that is not there.
            later.take_while(|path| std::fs::remove_file(path).is_ok()).for_each(drop);
        }
        self.record.complete = true;
        self.save()
    }

    fn write_error(&self, path: &Path, error: io::Error) -> TokenizeError {
        TokenizeError::Write { path: path.to_owned(), error, kept: self.record.shards.len() }
    }

    fn save(&self) -> Result<(), TokenizeError> {
        self.record.save(&self.record_path).map_err(|e| self.write_error(&self.record_path, e))
    }

    pub(super) fn part_report(&self, part: Part) -> PartReport {
        let val = self.at.documents.min(self.options.val_docs);
        let documents = match part {
            Part::Val => val,
            Part::Train => self.at.documents - val,
        };
        let pattern = self.options.out.join(part.shard(&self.options.name, 0)).display().to_string();
        PartReport {
            shards: self.record.count(part),
            documents,
            tokens: self.record.tokens(part),
            pattern: pattern.replace("_000000.bin", "_*.bin"),
        }
    }
}
