//! What can be wrong with an artifact.

use std::path::PathBuf;

use thiserror::Error;

use super::container::{FORMAT_VERSION, MAX_FILE};

/// Why an artifact could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The file begins with something else.
    #[error("this is not a pg artifact (its first bytes are not an artifact's)")]
    NotAnArtifact,
    /// Another version of the format.
    #[error(
        "the artifact has format version {found}, this program reads version {FORMAT_VERSION}: export it again, or use the pg that wrote it"
    )]
    Version {
        /// The file's version.
        found: u32,
    },
    /// The file ends early.
    #[error("the artifact is truncated: {found} bytes of {expected}; copy it again")]
    Truncated {
        /// Length that the header states (or the header's own).
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// The file goes on after its end.
    #[error("the artifact has {found} bytes where its header states {expected}; copy it again")]
    TrailingBytes {
        /// Length that the header states.
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// The hash does not match.
    #[error("the artifact is damaged: its contents do not match its hash; copy or export it again")]
    Damaged,
    /// The hash matches, but the contents make no sense: a defect in the writer, or a forged file.
    #[error("the artifact is malformed: {0}")]
    Malformed(String),
    /// Larger than any artifact that this program writes.
    #[error("the file has {length} bytes; an artifact has at most {MAX_FILE}")]
    TooLarge {
        /// Length of the file.
        length: u64,
    },
    /// A tensor's data does not match its shape or grid, or is not finite.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The operating system's error.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// An [`ArtifactError`], and the file that it is about.
#[derive(Debug, Error)]
#[error("{}: {error}", path.display())]
pub struct FileError {
    /// The artifact's path.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub error: ArtifactError,
}
