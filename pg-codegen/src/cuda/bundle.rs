//! Bundles: every kernel of a run compiled ahead of time, in the format of CubeCL's own kernel cache, with a
//! manifest. A CUDA server whose cache is a bundle's folder loads binaries and compiles nothing.
//!
//! An entry's `ptx` goes to the driver, which takes a binary as well; so entries hold cubins, and no driver
//! compiles either. Keys do not name the architecture: a bundle is for one.

use std::ffi::c_char;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cubecl_common::cache::CacheOption;
use cubecl_common::compilation_cache::CompilationCache;
use serde::{Deserialize, Serialize};

use super::compile::Resources;
use super::tools::{Tools, ToolsError};
use crate::cube::{CUBECL, CubeError, Generated, emit_cuda_launch};

/// The architecture of bundles: Hopper with its own instructions, which later devices do not run.
const ARCHITECTURE: &str = "sm_90a";
const MANIFEST: &str = "manifest.json";

/// What a bundle holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of pg that generated the kernels.
    pub pg: String,
    /// Version of CubeCL.
    pub cubecl: String,
    /// The architecture.
    pub architecture: String,
    /// Version of CUDA's compiler.
    pub compiler: (i32, i32),
    /// The kernels, by name.
    pub kernels: Vec<Entry>,
}

/// One kernel of a bundle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel's name.
    pub name: String,
    /// Its key in the cache, in hexadecimal.
    pub key: String,
    /// Bytes of its binary.
    pub bytes: usize,
    /// Hash of its binary (BLAKE3).
    pub digest: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory that a launch asks for.
    pub shared_bytes: usize,
}

/// CubeCL's cache entry, field by field (`cubecl-cuda/src/compute/context.rs`).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cached {
    entrypoint_name: String,
    shared_mem_bytes: usize,
    ptx: Vec<c_char>,
}

/// Why a bundle cannot be made or used.
#[derive(Debug)]
#[non_exhaustive]
pub enum BundleError {
    /// A kernel could not be emitted.
    Emit(CubeError),
    /// A kernel could not be compiled.
    Compile(ToolsError),
    /// A file could not be read or written.
    File(PathBuf, std::io::Error),
    /// The folder holds no bundle, or a damaged one.
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The bundle is of another build.
    Stale {
        /// The folder.
        folder: PathBuf,
        /// What differs, and how.
        what: String,
    },
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BundleError::Emit(e) => write!(f, "{e}"),
            BundleError::Compile(e) => write!(f, "{e}"),
            BundleError::File(path, e) => write!(f, "{}: {e}", path.display()),
            BundleError::Damaged { folder, what } => {
                write!(f, "{} is no bundle that can be used: {what}; build it again", folder.display())
            }
            BundleError::Stale { folder, what } => {
                write!(f, "the bundle {} is of another build: {what}; build it again", folder.display())
            }
        }
    }
}

impl std::error::Error for BundleError {}

/// A bundle on disk.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    /// Compiles kernels into a bundle at `folder`, which must not exist yet. Equal kernels are compiled once.
    ///
    /// # Errors
    /// If a kernel does not compile, or the folder exists or cannot be written.
    pub fn build(folder: &Path, kernels: &[Arc<Generated>], tools: &Tools) -> Result<Bundle, BundleError> {
        let mut kernels: Vec<&Arc<Generated>> = kernels.iter().collect();
        kernels.sort_by_key(|k| (k.name(), k.hash()));
        kernels.dedup_by_key(|k| k.hash());
        let file = |e| BundleError::File(folder.into(), e);
        std::fs::create_dir(folder).map_err(file)?;
        let mut cache = cache(folder);
        let mut entries = Vec::new();
        for kernel in kernels {
            let (entry, cached) = compile(kernel, tools)?;
            let what =
                |_| BundleError::Damaged { folder: folder.into(), what: "two kernels of one key".into() };
            cache.insert(kernel.cache_key(), cached).map_err(what)?;
            entries.push(entry);
        }
        let manifest = Manifest {
            pg: env!("CARGO_PKG_VERSION").into(),
            cubecl: CUBECL.into(),
            architecture: ARCHITECTURE.into(),
            compiler: tools.version(),
            kernels: entries,
        };
        // Last: a bundle with a manifest is whole.
        let text = serde_json::to_string_pretty(&manifest).map_err(|e| file(e.into()))?;
        std::fs::write(folder.join(MANIFEST), text).map_err(file)?;
        Ok(Bundle { folder: folder.into(), manifest })
    }

    /// Opens a bundle and checks it: its versions are this build's, and every binary is there and whole.
    ///
    /// # Errors
    /// If it is stale, damaged or missing, with the reason.
    pub fn open(folder: &Path) -> Result<Bundle, BundleError> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(|e| BundleError::File(path, e))?;
        let damaged = |what: String| BundleError::Damaged { folder: folder.into(), what };
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|e| damaged(format!("its manifest cannot be read: {e}")))?;
        for (what, theirs, ours) in [
            ("pg", &manifest.pg, env!("CARGO_PKG_VERSION")),
            ("CubeCL", &manifest.cubecl, CUBECL),
            ("the architecture", &manifest.architecture, ARCHITECTURE),
        ] {
            if theirs != ours {
                let what = format!("{what} is {theirs} there and {ours} here");
                return Err(BundleError::Stale { folder: folder.into(), what });
            }
        }
        let bundle = Bundle { folder: folder.into(), manifest };
        // CubeCL's reader panics on what it cannot decode, and would compile what it does not find.
        let cache = std::panic::catch_unwind(|| cache(folder))
            .map_err(|_| damaged("its kernels cannot be read".into()))?;
        for entry in &bundle.manifest.kernels {
            let key = u128::from_str_radix(&entry.key, 16);
            let found = key.ok().and_then(|key| cache.get(&key));
            let found = found.ok_or_else(|| damaged(format!("the kernel `{}` is missing", entry.name)))?;
            if digest(&binary(found)) != entry.digest {
                return Err(damaged(format!("the binary of `{}` is not the manifest's", entry.name)));
            }
        }
        Ok(bundle)
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The root for `compilation.cache` of CubeCL's configuration.
    pub fn cache_root(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Checks that all these kernels are in it, under the keys that CubeCL will ask for.
    ///
    /// # Errors
    /// If one is not, by name.
    pub fn check(&self, kernels: &[Arc<Generated>]) -> Result<(), BundleError> {
        let keys: std::collections::HashSet<&str> =
            self.manifest.kernels.iter().map(|e| e.key.as_str()).collect();
        let missing: Vec<&str> =
            kernels.iter().filter(|k| !keys.contains(key(k).as_str())).map(|k| k.name()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let what =
            format!("it has not {} of {} kernels, such as `{}`", missing.len(), kernels.len(), missing[0]);
        Err(BundleError::Stale { folder: self.folder.clone(), what })
    }
}

fn key(kernel: &Generated) -> String {
    format!("{:032x}", kernel.cache_key())
}

fn digest(binary: &[u8]) -> String {
    blake3::hash(binary).to_hex().to_string()
}

fn binary(cached: &Cached) -> Vec<u8> {
    cached.ptx.iter().map(|&c| c.to_ne_bytes()[0]).collect()
}

/// The cache as CubeCL's CUDA server opens it.
fn cache(folder: &Path) -> CompilationCache<u128, Cached> {
    CompilationCache::new("ptx", CacheOption::default().name("cuda").root(folder.join("cache")))
}

fn compile(kernel: &Generated, tools: &Tools) -> Result<(Entry, Cached), BundleError> {
    let emitted = emit_cuda_launch(kernel).map_err(BundleError::Emit)?;
    let compiled = tools.compile(&emitted.source).map_err(BundleError::Compile)?;
    let Resources { registers, .. } = compiled.resources;
    let entry = Entry {
        name: kernel.name().into(),
        key: key(kernel),
        bytes: compiled.cubin.len(),
        digest: digest(&compiled.cubin),
        registers,
        shared_bytes: emitted.shared_bytes,
    };
    let cached = Cached {
        entrypoint_name: emitted.entry_point,
        shared_mem_bytes: emitted.shared_bytes,
        ptx: compiled.cubin.iter().map(|&b| c_char::from_ne_bytes([b])).collect(),
    };
    Ok((entry, cached))
}
