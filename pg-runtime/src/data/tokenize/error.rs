//! What can be wrong with tokenizing: one message each, with the file, the line where there is one, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::merge::MAX_WORD;
use crate::data::DataError;

/// Why a text was not encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A word that memory should not hold.
    #[error(
        "{bytes} bytes without a space, of which at most {MAX_WORD} are encoded together: cut the text into shorter \
         documents"
    )]
    Word {
        /// Bytes of it, as normalised; of all of the text where the tokenizer's pieces may contain spaces.
        bytes: usize,
    },
    /// The tokenizer's rules make far more of a text than there is.
    #[error("the tokenizer's rules make more than {most} bytes of {bytes}: is it damaged?")]
    Rules {
        /// Bytes of the text.
        bytes: usize,
        /// Most bytes that its normal form may have.
        most: usize,
    },
}

/// Why text was not tokenized. Finished shards are kept; the same call continues after them.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenizeError {
    /// The tokenizer, or a shard of an earlier run.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A SentencePiece model, but not BPE.
    #[error("{}: a SentencePiece model of kind `{found}`, expected `bpe`: train it with model_type=bpe", path.display())]
    Kind {
        /// The tokenizer's file.
        path: PathBuf,
        /// Its kind.
        found: &'static str,
    },
    /// No token begins a document.
    #[error("{}: the tokenizer has no BOS token, which begins each document: train it with bos_id=1", path.display())]
    NoBos {
        /// The tokenizer's file.
        path: PathBuf,
    },
    /// A document that cannot be read.
    #[error("{}:{line}: {what}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system's error on an input file.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// The operating system's error on an output file, such as a full disk.
    #[error("{}: {error}; the {kept} shards that were finished are kept: make room and give the same command to continue", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
        /// Shards that are finished.
        kept: usize,
    },
    /// Nothing to read.
    #[error("no input file is named: give text files, or JSON Lines files such as `docs_selected.jsonl`")]
    NoInput,
    /// Files without any document.
    #[error("no document in {}", inputs.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Empty {
        /// The files.
        inputs: Vec<PathBuf>,
    },
    /// An option out of range.
    #[error("{option}: {what}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Shards that this command did not make.
    #[error("{}: is in the way: it was not made by this command; choose another name or folder, or overwrite", path.display())]
    Exists {
        /// The first such file.
        path: PathBuf,
    },
    /// An earlier run under the same name was another job.
    #[error("{}: the shards beside it were made {what}: choose another name or folder, or overwrite", path.display())]
    OtherJob {
        /// The earlier run's record.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The record of an earlier run cannot be understood.
    #[error("{}: not a record of tokenizing ({what}): remove it, or overwrite", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process writes the same shards.
    #[error("{}: another process is writing it", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
}

impl TokenizeError {
    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> TokenizeError {
        move |error| TokenizeError::Read { path: path.to_owned(), error }
    }
}
