//! CubeCL's kernel cache on disk: its place, its entries, and how many there are. It is read and written through
//! CubeCL's own types, so that its server reads what is written here.

use std::ffi::c_char;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cubecl_common::cache::{Cache, CacheOption};
use cubecl_common::compilation_cache::CompilationCache;
use pg_ir::input::check_regular;
use serde::{Deserialize, Serialize};

use crate::cuda::Built;

/// The one file in which CubeCL keeps kernels (`cubecl-common/src/compilation_cache.rs`).
const CHUNK: &str = "chunk0.cbor";

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

/// Most bytes of a cache: ten thousand kernels of 100 kB.
const MAX_BYTES: u64 = 1 << 30;
/// Most files and folders of a cache. CubeCL makes six.
const MAX_ENTRIES: usize = 64;

/// Checks what CubeCL, which reads whatever there is, would read: regular files, few, and not too long together.
///
/// # Errors
/// What is wrong, and with which file or folder.
pub(super) fn check(root: &Path) -> Result<(), (PathBuf, io::Error)> {
    let mut folders = vec![root.to_path_buf()];
    let (mut bytes, mut entries) = (0, 0);
    while let Some(folder) = folders.pop() {
        let within = |e| (folder.clone(), e);
        for entry in std::fs::read_dir(&folder).map_err(within)? {
            let path = entry.map_err(within)?.path();
            let failed = |e| (path.clone(), e);
            // Of what a link leads to: that is what would be read.
            let metadata = path.metadata().map_err(failed)?;
            entries += 1;
            if metadata.is_dir() {
                folders.push(path.clone());
            } else {
                check_regular(&metadata).map_err(failed)?;
                bytes += metadata.len();
            }
            if bytes > MAX_BYTES || entries > MAX_ENTRIES {
                let what = format!(
                    "with it, the cache has over {MAX_BYTES} bytes or {MAX_ENTRIES} files, and kernels have not; \
                     build the bundle again"
                );
                return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, what)));
            }
        }
    }
    Ok(())
}

/// The cache as CubeCL's CUDA server opens it; `None` where it cannot be read. CubeCL panics there.
pub(super) fn open(root: &Path) -> Option<CompilationCache<u128, Cached>> {
    // The table of contents names the file of each kernel, and CubeCL reads it wherever that is.
    let contents = catch_unwind(|| Cache::<u128, String>::new("ptx/toc", options(root))).ok()?;
    if contents.values().any(|file| file != CHUNK) {
        return None;
    }
    catch_unwind(|| CompilationCache::new("ptx", options(root))).ok()
}

/// A kernel of a cache.
pub(super) fn find(cache: &CompilationCache<u128, Cached>, key: u128) -> Option<&Cached> {
    // CubeCL panics where the file of a kernel is gone.
    catch_unwind(AssertUnwindSafe(|| cache.get(&key))).ok().flatten()
}

/// Kernels in a cache; `None` where it cannot be read.
pub(super) fn entries(root: &Path) -> Option<usize> {
    catch_unwind(|| Cache::<u128, String>::new("ptx/toc", options(root)).len()).ok()
}

fn options(root: &Path) -> CacheOption {
    CacheOption::default().name("cuda").root(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of contents of a new cache.
    fn contents(root: &Path) -> Cache<u128, String> {
        open(root).unwrap();
        Cache::new("ptx/toc", options(root))
    }

    #[test]
    fn kernels_are_in_the_caches_own_file() {
        let root = tempfile::tempdir().unwrap();
        let mut contents = contents(root.path());
        contents.insert(1, CHUNK.into()).unwrap();
        check(root.path()).unwrap();
        assert!(open(root.path()).is_some_and(|cache| find(&cache, 1).is_none()), "nothing is in it");
        contents.insert(2, "/dev/zero".into()).unwrap();
        assert!(open(root.path()).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn what_cubecl_should_not_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        contents(root.path());
        check(root.path()).unwrap();
        let path = root.path().join("x");
        let refusal = || check(root.path()).map_err(|(at, e)| (at == path, e.kind()));
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(refusal(), Err((true, io::ErrorKind::InvalidInput)));
        std::fs::remove_file(&path).unwrap();
        std::fs::File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(refusal(), Err((true, io::ErrorKind::FileTooLarge)));
        std::fs::remove_file(&path).unwrap();
        (0..MAX_ENTRIES).for_each(|i| std::fs::write(root.path().join(i.to_string()), "").unwrap());
        assert!(refusal().is_err());
    }
}
