//! Bundles: every kernel of a run compiled ahead of time, in the format of CubeCL's own kernel cache, with a
//! manifest. A CUDA server whose cache is a bundle's folder loads binaries and compiles nothing.
//!
//! An entry's `ptx` goes to the driver, which takes a binary as well; so entries hold cubins, and no driver
//! compiles either. Keys do not name the architecture: a bundle is for one.

mod cache;
mod error;
mod manifest;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pg_ir::input::Kind;

pub use self::error::BundleError;
pub use self::manifest::{Entry, Manifest};
use self::manifest::{digest, key};
use super::batch::distinct;
use crate::kernels::Generated;

/// The architecture of bundles: Hopper with its own instructions, which later devices do not run.
const ARCHITECTURE: &str = "sm_90a";
const MANIFEST: &str = "manifest.json";
const CACHE: &str = "cache";

/// Names in a message.
const NAMED: usize = 5;

/// Kernels that belong together, and what for.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The kernels; equal ones count once.
    pub kernels: Vec<Arc<Generated>>,
    /// For people, and to say what differs: model, precision, target, tuning, programs.
    pub built_for: BTreeMap<String, String>,
}

impl Recipe {
    /// Each kernel once, in order of names.
    pub fn distinct(&self) -> Vec<&Arc<Generated>> {
        distinct(&self.kernels)
    }
}

/// A bundle on disk.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    /// Opens a bundle and checks it: its versions are this build's, and every binary is there and whole.
    ///
    /// # Errors
    /// If it is stale, damaged or missing, with the reason.
    pub fn open(folder: &Path) -> Result<Bundle, BundleError> {
        let path = folder.join(MANIFEST);
        let text = Kind::JSON.read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => BundleError::None(folder.into()),
            _ => BundleError::File(path, e),
        })?;
        let damaged = |what: String| BundleError::Damaged { folder: folder.into(), what };
        let stale = |what: String| BundleError::Stale { folder: folder.into(), what };
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|e| damaged(format!("its manifest cannot be read: {e}")))?;
        if let Some(what) = manifest.differs() {
            return Err(stale(what));
        }
        let bundle = Bundle { folder: folder.into(), manifest };
        // CubeCL would create what it does not find.
        let found = Some(bundle.cache_root()).filter(|root| root.is_dir());
        if let Some(root) = &found {
            cache::check(root).map_err(|(path, e)| BundleError::File(path, e))?;
        }
        let cache = found.as_deref().and_then(cache::open);
        let cache = cache.ok_or_else(|| damaged("its kernels cannot be read".into()))?;
        for entry in &bundle.manifest.kernels {
            let key = u128::from_str_radix(&entry.key, 16);
            let found = key.ok().and_then(|key| cache::find(&cache, key));
            let found = found.ok_or_else(|| damaged(format!("the kernel `{}` is missing", entry.name)))?;
            if digest(&found.binary()) != entry.digest {
                return Err(damaged(format!("the binary of `{}` is not the manifest's", entry.name)));
            }
        }
        Ok(bundle)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The root for `compilation.cache` of CubeCL's configuration.
    pub fn cache_root(&self) -> PathBuf {
        self.folder.join(CACHE)
    }

    /// Kernels in a cache of CubeCL's CUDA server, such as one that began as a copy of [`Self::cache_root`];
    /// `None` where it cannot be read.
    pub fn cached(root: &Path) -> Option<usize> {
        cache::entries(root)
    }

    /// Checks that all these kernels are in it, under the keys that CubeCL will ask for.
    ///
    /// # Errors
    /// If one is not: which are missing, and how what the bundle was built for differs.
    pub fn check(&self, wanted: &Recipe) -> Result<(), BundleError> {
        let keys: HashSet<&str> = self.manifest.kernels.iter().map(|e| e.key.as_str()).collect();
        let all = wanted.distinct();
        let missing = all.iter().filter(|k| !keys.contains(key(k).as_str()));
        let missing: Vec<String> = missing.map(|k| format!("`{}`", k.name())).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let named = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if missing.len() > NAMED { ", …" } else { "" };
        let what = format!("{} of {} kernels are missing ({named}{more})", missing.len(), all.len());
        let what = [vec![what], self.differences(&wanted.built_for)].concat().join("; ");
        Err(BundleError::Stale { folder: self.folder.clone(), what })
    }

    /// How what it was built for differs from what is wanted, in words.
    fn differences(&self, wanted: &BTreeMap<String, String>) -> Vec<String> {
        let differs = |(name, ours): (&String, &String)| {
            let theirs = self.manifest.built_for.get(name)?;
            (theirs != ours).then(|| format!("{name}: {theirs} there, {ours} here"))
        };
        wanted.iter().filter_map(differs).collect()
    }
}
