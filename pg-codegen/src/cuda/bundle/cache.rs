//! CubeCL's kernel cache on disk: its place, its entries, and how many there are. It is read and written through
//! CubeCL's own types, so that its server reads what is written here.

use std::ffi::c_char;
use std::panic::catch_unwind;
use std::path::Path;

use cubecl_common::cache::{Cache, CacheOption};
use cubecl_common::compilation_cache::CompilationCache;
use serde::{Deserialize, Serialize};

use crate::cuda::Built;

/// CubeCL's cache entry, field by field (`cubecl-cuda/src/compute/context.rs`).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cached {
    entrypoint_name: String,
    shared_mem_bytes: usize,
    ptx: Vec<c_char>,
}

impl Cached {
    pub(super) fn of(built: &Built) -> Cached {
        Cached {
            entrypoint_name: built.emitted.entry_point.clone(),
            shared_mem_bytes: built.emitted.shared_bytes,
            ptx: built.compiled.cubin.iter().map(|&b| c_char::from_ne_bytes([b])).collect(),
        }
    }

    pub(super) fn binary(&self) -> Vec<u8> {
        self.ptx.iter().map(|&c| c.to_ne_bytes()[0]).collect()
    }
}

/// The cache as CubeCL's CUDA server opens it; `None` where it cannot be read. CubeCL panics there.
pub(super) fn open(root: &Path) -> Option<CompilationCache<u128, Cached>> {
    catch_unwind(|| CompilationCache::new("ptx", options(root))).ok()
}

/// Kernels in a cache; `None` where it cannot be read.
pub(super) fn entries(root: &Path) -> Option<usize> {
    catch_unwind(|| Cache::<u128, String>::new("ptx/toc", options(root)).len()).ok()
}

fn options(root: &Path) -> CacheOption {
    CacheOption::default().name("cuda").root(root)
}
