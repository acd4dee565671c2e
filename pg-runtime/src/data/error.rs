//! What can be wrong with data: one message each, with the file, what was expected, and what to do.

use std::path::PathBuf;

use thiserror::Error;

use super::shard::{HEADER_BYTES, MAGIC, VERSION};

/// Why data could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system's error on a file.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: std::io::Error,
    },
    /// The glob is not one.
    #[error("`{pattern}` is not a file name pattern: {what}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        what: String,
    },
    /// No file matches.
    #[error(
        "no token shard matches `{pattern}`: expected files such as `data/fineweb_train_*.bin` (quote the pattern, so that the shell does not expand it)"
    )]
    NoFiles {
        /// The pattern.
        pattern: String,
    },
    /// A folder where a shard was expected.
    #[error("{}: is a folder: give a pattern for the shards in it, such as `{}`", path.display(), path.join("*_train_*.bin").display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Shorter than a shard's header.
    #[error("{}: {found} bytes are less than a token shard's header of {HEADER_BYTES}: the file is truncated, copy it again", path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// Another kind of file.
    #[error("{}: not a token shard: it begins with {found}, expected {MAGIC}; token shards are made by `pg data tokenize` or parameter-golf's `export_shards`", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// Its first word.
        found: i32,
    },
    /// Another version of the shard format.
    #[error("{}: token shard of version {found}, expected {VERSION}: export it again", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its second word.
        found: i32,
    },
    /// The header's count and the file's length disagree.
    #[error("{}: its header announces {tokens} tokens, so {expected} bytes, but it has {found}: {}, copy it again", path.display(), if found < expected { "it is truncated" } else { "it is too long" })]
    Length {
        /// The file.
        path: PathBuf,
        /// Token count of the header.
        tokens: i32,
        /// Bytes that a shard of this many tokens has.
        expected: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// A shard is not as long as it was when it was opened.
    #[error("{}: it had {expected} bytes when it was opened and has {found} now: do not write shards that are in use; copy it again and start anew", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its length when it was opened.
        expected: u64,
        /// Its length now.
        found: u64,
    },
    /// A token that the model has no embedding for.
    #[error("{}: token {index} is {token}, but the model's vocabulary has {vocab}: use shards made with the model's tokenizer, or set VOCAB", path.display())]
    TokenOutOfRange {
        /// The shard.
        path: PathBuf,
        /// Index of the first such token in the shard.
        index: usize,
        /// The token.
        token: u16,
        /// The model's vocabulary.
        vocab: usize,
    },
    /// Fewer tokens than are needed.
    #[error("`{pattern}` holds {found} tokens, needed are at least {needed}: add shards, or ask for fewer")]
    TooFew {
        /// The pattern.
        pattern: String,
        /// Tokens in all shards.
        found: usize,
        /// Tokens needed.
        needed: usize,
    },
    /// Text of no bytes.
    #[error(
        "`{pattern}`: none of the {targets} targets stands for a byte of text, so there are no bits per byte: give text to score with --val, and the tokenizer that it was made with"
    )]
    NoBytes {
        /// The pattern.
        pattern: String,
        /// Targets to score.
        targets: usize,
    },
    /// Byte counts that cannot be those of the tokens.
    #[error(
        "`{pattern}`: not the byte counts of the validation shards: {what}; expected a shard of counts for each shard of tokens, as the shards' maker writes them"
    )]
    Counts {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        what: String,
    },
    /// A batch of no tokens, or of more than memory can hold.
    #[error("a batch of {batch} sequences of {seq} tokens cannot be made")]
    Batch {
        /// Sequences.
        batch: usize,
        /// Tokens in each.
        seq: usize,
    },
    /// Not a SentencePiece model.
    #[error("{}: not a SentencePiece model ({what}): expected the `.model` file that the shards were made with", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The tokenizer of another model.
    #[error("{}: the tokenizer has {found} pieces, but the model's vocabulary has {vocab}: use the model's tokenizer, or set VOCAB", path.display())]
    Vocabulary {
        /// The tokenizer's file.
        path: PathBuf,
        /// Its pieces.
        found: usize,
        /// The model's vocabulary.
        vocab: usize,
    },
}
