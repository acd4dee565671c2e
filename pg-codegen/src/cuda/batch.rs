//! Many kernels compiled at once: equal ones once, on every processor. The result does not depend on the order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::compile::Compiled;
use super::tools::{Tools, ToolsError};
use crate::kernels::{CubeError, Emitted, Generated, emit_cuda_launch};

/// A kernel's source, and what it became.
#[derive(Clone, Debug)]
pub struct Built {
    /// The source, and what a launch needs.
    pub emitted: Emitted,
    /// The binary, and what it uses.
    pub compiled: Compiled,
}

/// Why a kernel could not be built.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It has no source.
    #[error("{0}")]
    Emit(CubeError),
    /// CUDA's compiler refused the source, or could not run.
    #[error("kernel `{kernel}`: {error}")]
    Compile {
        /// The kernel.
        kernel: String,
        /// What the compiler said.
        error: ToolsError,
    },
}

/// Kernels by the hash of their contents.
pub type Builds = HashMap<[u64; 4], Built>;

impl Tools {
    /// Emits and compiles one kernel.
    ///
    /// # Errors
    /// If CubeCL's or CUDA's compiler refuses it.
    pub fn build(&self, kernel: &Generated) -> Result<Built, BuildError> {
        let emitted = emit_cuda_launch(kernel).map_err(BuildError::Emit)?;
        let compiled = self
            .compile(&emitted.source)
            .map_err(|error| BuildError::Compile { kernel: kernel.name().into(), error })?;
        Ok(Built { emitted, compiled })
    }

    /// Builds kernels, equal ones once. `done` is told after each how many are.
    ///
    /// # Errors
    /// That of one kernel that cannot be built; the others are given up.
    pub fn build_all(
        &self,
        kernels: &[Arc<Generated>],
        done: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Builds, BuildError> {
        let kernels = distinct(kernels);
        let next = AtomicUsize::new(0);
        let progress = Mutex::new((done, Ok(Builds::new())));
        let work = || {
            while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                let built = self.build(kernel);
                let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                let (done, all) = &mut *progress;
                let Ok(builds) = all else { return };
                match built {
                    Ok(built) => {
                        builds.insert(kernel.hash(), built);
                        done(builds.len());
                    }
                    Err(error) => *all = Err(error),
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        progress.into_inner().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Each kernel once, in order of names.
pub fn distinct(kernels: &[Arc<Generated>]) -> Vec<&Arc<Generated>> {
    let mut all: Vec<_> = kernels.iter().collect();
    all.sort_by_key(|k| (k.name(), k.hash()));
    all.dedup_by_key(|k| k.hash());
    all
}
