//! Kernels compiled ahead of time: those that programs will ask for, and a bundle of them in use.
//!
//! CubeCL adds to its cache what it has to compile. A run therefore reads a copy of the bundle: the bundle stays
//! as it was built, and what the copy gained is what was compiled.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pg_codegen::cuda::{Bundle, BundleError, Recipe};
use pg_codegen::kernels::{Generated, extents, generate};
use pg_codegen::machine::Machine;
use tempfile::TempDir;

use super::error::CubeExecError;
use crate::executor::ExecError;
use crate::profile::Roof;
use crate::report::BundleReport;
use crate::run::Request;
use crate::session::{Key, Session, SessionError};

/// Every kernel of what a run will ask for, and of what a profile measures the roof with.
///
/// # Errors
/// As [`recipe`].
pub fn run_recipe(requests: &[Request]) -> Result<Recipe, SessionError> {
    let programs: Vec<_> = requests.iter().map(|r| (&r.session, &r.programs[..])).collect();
    let mut recipe = recipe(&programs)?;
    if let Some(device) = requests.first().map(|r| r.session.device()) {
        for plan in Roof::plans() {
            let made = generate(&plan, &extents(&plan, |_| None), device.machine());
            let made = made.map_err(|e| ExecError::from(CubeExecError::launch(&plan, e)))?;
            recipe.kernels.extend(made.launches.into_iter().map(|g| g.stage.kernel));
        }
    }
    Ok(recipe)
}

/// Every kernel that programs will ask for on their sessions' device, and what for.
///
/// # Errors
/// If a program does not compile or does not fit the device.
pub fn recipe(requests: &[(&Session, &[Key])]) -> Result<Recipe, SessionError> {
    let mut kernels: Vec<Arc<Generated>> = Vec::new();
    let mut programs: Vec<String> = Vec::new();
    for (session, keys) in requests {
        for &key in *keys {
            let (plan, made) = session.generate(key)?;
            kernels.extend(made.launches.into_iter().map(|g| g.stage.kernel));
            let shape = key.shape().map_or(String::new(), |(batch, seq)| format!(" {batch} × {seq}"));
            programs.push(format!("{}{shape}", plan.program));
        }
    }
    let mut built_for = BTreeMap::new();
    if let Some((session, _)) = requests.first() {
        built_for.insert("model".into(), session.model.name.clone());
        built_for.insert("precision".into(), format!("{}", session.storage()));
        built_for.extend(described(session.device().machine()));
    }
    built_for.insert("programs".into(), programs.join(", "));
    Ok(Recipe { kernels, built_for })
}

/// What kernels depend on of a machine, in words.
fn described(machine: &Machine) -> [(String, String); 2] {
    let cores = if machine.has_tensor_cores() { "with" } else { "without" };
    let (processors, shared_bytes) = (machine.processors, machine.limits.shared_bytes);
    let target = format!(
        "{processors} processors {cores} tensor cores, {shared_bytes} bytes of shared memory a block"
    );
    let tuning = machine.tuning.to_string().trim().replace('\n', ", ");
    [("target".into(), target), ("tuning".into(), tuning)]
}

/// A bundle that this process's CUDA server reads.
#[derive(Debug)]
pub struct LoadedBundle {
    bundle: Bundle,
    cache: TempDir,
}

impl LoadedBundle {
    /// Opens and checks a bundle.
    ///
    /// # Errors
    /// If it is missing, damaged or of another build, or cannot be copied.
    pub fn load(folder: &Path) -> Result<LoadedBundle, BundleError> {
        let bundle = Bundle::open(folder)?;
        let failed = |e| BundleError::File(std::env::temp_dir(), e);
        let cache = TempDir::with_prefix("pg-bundle-").map_err(failed)?;
        copy(&bundle.cache_root(), cache.path()).map_err(failed)?;
        Ok(LoadedBundle { bundle, cache })
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The root for `compilation.cache` of CubeCL's configuration.
    pub fn cache_root(&self) -> &Path {
        self.cache.path()
    }

    /// What it did for a run so far.
    pub fn report(&self) -> BundleReport {
        let kernels = self.bundle.manifest().kernels.len();
        let compiled = Bundle::cached(self.cache_root()).map(|now| now.saturating_sub(kernels));
        BundleReport { folder: self.bundle.folder().into(), kernels, compiled }
    }
}

/// Copies a folder's contents.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
