//! The record of a job, `NAME_tokenize.json`: what was asked for, and after each shard how far the input was
//! read, so that a stopped job continues and another one is not mistaken for it.

use std::path::{Path, PathBuf};

use pg_ir::input::Kind;
use serde::{Deserialize, Serialize};

use super::TokenizeOptions;
use super::documents::Split;
use super::error::TokenizeError;
use crate::artifact::write_atomically;
use crate::data::{Shard, Tokenizer};

/// Version of the record.
const VERSION: u32 = 1;

/// `val` or `train`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    Val,
    Train,
}

impl Part {
    pub(super) const ALL: [Part; 2] = [Part::Val, Part::Train];

    /// File name of a shard, as the challenge's.
    pub(super) fn shard(self, name: &str, index: usize) -> String {
        let part = match self {
            Part::Val => "val",
            Part::Train => "train",
        };
        format!("{name}_{part}_{index:06}.bin")
    }
}

/// What decides the tokens beside the documents themselves.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Settings {
    tokenizer: String,
    val_docs: u64,
    shard_tokens: usize,
    field: String,
    split: Split,
}

/// A finished shard.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Finished {
    pub(super) part: Part,
    /// Tokens in it.
    pub(super) tokens: usize,
    /// Where the input was when it ended.
    #[serde(flatten)]
    pub(super) end: Mark,
}

/// A place in the input: between two tokens of it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Documents that begin before it.
    pub(super) documents: u64,
    /// Tokens of the last of them that come after it.
    pub(super) pending: usize,
    /// Bytes of text of these documents.
    pub(super) text_bytes: u64,
    /// blake3 of these documents, each after its length and kind: a later run finds the same, or it is another job.
    pub(super) digest: String,
}

/// The record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    settings: Settings,
    /// Whether all of the input is in the shards.
    pub(super) complete: bool,
    pub(super) shards: Vec<Finished>,
}

impl Record {
    /// A job that has not begun.
    pub(super) fn new(options: &TokenizeOptions, tokenizer: &Tokenizer) -> Record {
        let settings = Settings {
            tokenizer: tokenizer.hash().to_owned(),
            val_docs: options.val_docs,
            shard_tokens: options.shard_tokens,
            field: options.field.clone(),
            split: options.split,
        };
        Record { version: VERSION, settings, complete: false, shards: Vec::new() }
    }

    /// Where the record of a job lies.
    pub(super) fn path(options: &TokenizeOptions) -> PathBuf {
        options.out.join(format!("{}_tokenize.json", options.name))
    }

    /// Writes it, in place of an older one.
    pub(super) fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        write_atomically(path, &text)
    }

    /// The record that an earlier run left, if any, cut back to the shards which can be kept: those before the
    /// first that is not as it was written, and not a last short one, which more input would make longer.
    ///
    /// # Errors
    /// [`TokenizeError::Record`], or [`TokenizeError::OtherJob`] where its settings are not `self`'s.
    pub(super) fn earlier(&self, options: &TokenizeOptions) -> Result<Option<Record>, TokenizeError> {
        let path = Record::path(options);
        let text = match Kind::JSON.read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TokenizeError::Read { path, error }),
        };
        let broken = |what| TokenizeError::Record { path: path.clone(), what };
        let mut record: Record = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        if record.version != VERSION {
            return Err(broken(format!("version {}, expected {VERSION}", record.version)));
        }
        if let Some(what) = self.settings.difference(&record.settings) {
            return Err(TokenizeError::OtherJob { path, what });
        }
        let mut counts = [0; 2];
        let kept = record.shards.iter().take_while(|shard| {
            let count = &mut counts[shard.part as usize];
            let file = options.out.join(shard.part.shard(&options.name, *count));
            *count += 1;
            let ends_val =
                shard.part == Part::Val && shard.end.documents == options.val_docs && shard.end.pending == 0;
            (shard.tokens == options.shard_tokens || ends_val)
                && Shard::open(&file).is_ok_and(|s| s.len() == shard.tokens)
        });
        let kept = kept.count();
        record.shards.truncate(kept);
        record.complete = false;
        Ok(Some(record))
    }

    /// Finished shards of a part.
    pub(super) fn count(&self, part: Part) -> usize {
        self.shards.iter().filter(|s| s.part == part).count()
    }

    /// Tokens in the finished shards of a part.
    pub(super) fn tokens(&self, part: Part) -> u64 {
        self.shards.iter().filter(|s| s.part == part).map(|s| s.tokens as u64).sum()
    }

    /// Where the input was when the last shard ended.
    pub(super) fn mark(&self) -> Mark {
        self.shards.last().map(|s| s.end.clone()).unwrap_or_default()
    }
}

impl Settings {
    /// What is different in `earlier`, in words.
    fn difference(&self, earlier: &Settings) -> Option<String> {
        let Settings { tokenizer, val_docs, shard_tokens, field, split } = earlier;
        if *tokenizer != self.tokenizer {
            return Some("with another tokenizer".into());
        }
        if *val_docs != self.val_docs {
            return Some(format!("with {val_docs} validation documents, not {}", self.val_docs));
        }
        if *shard_tokens != self.shard_tokens {
            return Some(format!("with {shard_tokens} tokens a shard, not {}", self.shard_tokens));
        }
        if *field != self.field {
            return Some(format!("from the field `{field}`, not `{}`", self.field));
        }
        if *split != self.split {
            return Some("with text cut into documents in another way".into());
        }
        None
    }
}
