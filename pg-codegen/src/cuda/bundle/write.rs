//! Writing a bundle: a folder that appears whole or not at all. Nothing that is not a bundle is replaced.

use std::fs;
use std::path::{Path, PathBuf};

use super::manifest::{Entry, Manifest};
use super::{Bundle, BundleError, CACHE, MANIFEST, Recipe, cache};
use crate::cuda::Builds;

/// A folder that goes with this value, unless it was renamed.
struct Unfinished(PathBuf);

impl Unfinished {
    /// Creates a folder in the one that `folder` lies in: renaming works within a file system only.
    fn beside(folder: &Path, what: &str) -> Result<Unfinished, BundleError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let path = folder.with_file_name(format!(".{name}.{what}-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| BundleError::File(folder.into(), e))?;
        Ok(Unfinished(path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It may have become the bundle.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Bundle {
    /// What stands where a bundle of this content is to be written: that bundle, or nothing and the place can be
    /// written to.
    ///
    /// # Errors
    /// If something else is there: another bundle without `replace`, or what is no bundle. If the place cannot
    /// be written to.
    pub fn existing(folder: &Path, content: &str, replace: bool) -> Result<Option<Bundle>, BundleError> {
        let occupied = |what: &str| Err(BundleError::Occupied { folder: folder.into(), what: what.into() });
        match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
            Ok(true) => return Unfinished::beside(folder, "unfinished").map(|_| None),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Unfinished::beside(folder, "unfinished").map(|_| None);
            }
            Err(e) => return Err(BundleError::File(folder.into(), e)),
            Ok(false) => {}
        }
        if !folder.join(MANIFEST).is_file() {
            return occupied("is a folder with something else in it than a bundle; name another");
        }
        match Bundle::open(folder) {
            Ok(bundle) if bundle.manifest().content == content => Ok(Some(bundle)),
            _ if replace => Unfinished::beside(folder, "unfinished").map(|_| None),
            Ok(_) => occupied("holds a bundle of other kernels; --force replaces it"),
            Err(e) => occupied(&format!("holds a bundle that cannot be used ({e}); --force replaces it")),
        }
    }

    /// Writes a bundle of kernels that were built, in place of a bundle that may be there.
    ///
    /// # Errors
    /// If the folder cannot be written.
    ///
    /// # Panics
    /// If one of the recipe's kernels was not built.
    pub fn write(
        folder: &Path,
        recipe: &Recipe,
        builds: &Builds,
        compiler: (i32, i32),
    ) -> Result<Bundle, BundleError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |e| BundleError::File(path, e)
        };
        let fresh = Unfinished::beside(folder, "unfinished")?;
        let cached = fresh.0.join(CACHE);
        fs::create_dir_all(&cached).map_err(failed(folder))?;
        let mut cache = cache::open(&cached).ok_or_else(|| BundleError::Damaged {
            folder: folder.into(),
            what: "CubeCL's cache cannot be written there".into(),
        })?;
        let mut entries = Vec::new();
        for kernel in recipe.distinct() {
            let built = builds.get(&kernel.hash()).expect("every kernel of the recipe was built");
            let what =
                |_| BundleError::Damaged { folder: folder.into(), what: "two kernels of one key".into() };
            cache.insert(kernel.cache_key(), cache::Cached::of(built)).map_err(what)?;
            entries.push(Entry::of(kernel, built));
        }
        let manifest = Manifest::new(recipe, compiler, entries);
        let path = fresh.0.join(MANIFEST);
        let text = serde_json::to_string_pretty(&manifest).map_err(|e| failed(&path)(e.into()))?;
        fs::write(&path, text).map_err(failed(&path))?;
        // CubeCL writes without saying whether it could: read everything back before it counts.
        Bundle::open(&fresh.0)?;
        let old = Unfinished::beside(folder, "old")?;
        if folder.exists() {
            fs::rename(folder, old.0.join(CACHE)).map_err(failed(folder))?;
        }
        fs::rename(&fresh.0, folder).map_err(failed(folder))?;
        Ok(Bundle { folder: folder.into(), manifest })
    }
}
