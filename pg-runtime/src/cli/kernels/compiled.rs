//! What kernels became: compiled where CUDA's tools are, and said not to have been looked at where they are not.

use std::sync::Arc;

use pg_codegen::cuda::{Builds, Built, Occupancy, Resources, Tools};
use pg_codegen::kernels::Generated;
use pg_codegen::machine::Machine;

use super::super::machine::build_all;
use super::super::ui::Ui;

/// Kernels' binaries, or why there are none.
pub(super) enum Compiled {
    /// By the hash of their contents.
    Yes { builds: Builds, compiler: (i32, i32) },
    /// The reason, as the end of a sentence.
    No(String),
}

/// What a kernel uses of a multiprocessor.
pub(super) struct Uses {
    pub(super) resources: Resources,
    pub(super) occupancy: Occupancy,
}

impl Compiled {
    /// Compiles kernels for a machine with Hopper's instructions, if CUDA's tools are here.
    pub(super) fn of(machine: &Machine, kernels: &[Arc<Generated>], ui: &Ui) -> anyhow::Result<Compiled> {
        if !machine.has_tensor_cores() {
            return Ok(Compiled::No("its driver compiles the kernels".into()));
        }
        match Tools::find() {
            Err(missing) => Ok(Compiled::No(missing.to_string())),
            Ok(tools) => {
                Ok(Compiled::Yes { builds: build_all(&tools, kernels, ui)?, compiler: tools.version() })
            }
        }
    }

    /// A kernel's binary.
    pub(super) fn built(&self, kernel: &Generated) -> Option<&Built> {
        let Compiled::Yes { builds, .. } = self else { return None };
        builds.get(&kernel.hash())
    }

    /// What a kernel uses.
    pub(super) fn uses(&self, kernel: &Generated) -> Option<Uses> {
        let resources = self.built(kernel)?.compiled.resources;
        let occupancy = resources.occupancy(kernel.threads(), kernel.shared_bytes());
        Some(Uses { resources, occupancy })
    }

    /// The compiler, in words.
    pub(super) fn compiler(&self) -> Option<String> {
        let Compiled::Yes { compiler: (major, minor), .. } = self else { return None };
        Some(format!("CUDA {major}.{minor} for sm_90a"))
    }

    /// Where the figures of a table are from.
    pub(super) fn legend(&self) -> String {
        match (self, self.compiler()) {
            (Compiled::No(why), _) => format!(
                "Times are predicted from peaks, none is measured. Registers, spills, stack and occupancy were not \
                 looked at: {why}."
            ),
            (_, compiler) => format!(
                "Times are predicted from peaks, none is measured. Registers, spills, stack (bytes a thread) and blocks \
                 that a multiprocessor holds are of the binary that {} makes.",
                compiler.unwrap_or_default()
            ),
        }
    }
}
