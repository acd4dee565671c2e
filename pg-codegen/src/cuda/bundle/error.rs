//! Why a bundle cannot be made or used.

use std::path::PathBuf;

/// Why a bundle cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file could not be read or written.
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, std::io::Error),
    /// The folder holds no bundle.
    #[error("there is no bundle in {}: `pg build FILE --out DIR` makes one", .0.display())]
    None(PathBuf),
    /// The bundle is damaged.
    #[error("the bundle {} is damaged: {what}; build it again", .folder.display())]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The bundle is of another build, or for another run.
    #[error("the bundle {} does not fit: {what}; build it again", .folder.display())]
    Stale {
        /// The folder.
        folder: PathBuf,
        /// What differs, and how.
        what: String,
    },
    /// A bundle is to be written where something else is.
    #[error("{} {what}", .folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// What is there, and what to do.
        what: String,
    },
}
