//! Why a bundle cannot be made or used.

use std::fmt;
use std::path::PathBuf;

/// Why a bundle cannot be made or used.
#[derive(Debug)]
#[non_exhaustive]
pub enum BundleError {
    /// A file could not be read or written.
    File(PathBuf, std::io::Error),
    /// The folder holds no bundle.
    None(PathBuf),
    /// The bundle is damaged.
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The bundle is of another build, or for another run.
    Stale {
        /// The folder.
        folder: PathBuf,
        /// What differs, and how.
        what: String,
    },
    /// A bundle is to be written where something else is.
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// What is there, and what to do.
        what: String,
    },
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BundleError::File(path, e) => write!(f, "{}: {e}", path.display()),
            BundleError::None(folder) => {
                write!(f, "there is no bundle in {}: `pg build FILE --out DIR` makes one", folder.display())
            }
            BundleError::Damaged { folder, what } => {
                write!(f, "the bundle {} is damaged: {what}; build it again", folder.display())
            }
            BundleError::Stale { folder, what } => {
                write!(f, "the bundle {} does not fit: {what}; build it again", folder.display())
            }
            BundleError::Occupied { folder, what } => write!(f, "{} {what}", folder.display()),
        }
    }
}

impl std::error::Error for BundleError {}
