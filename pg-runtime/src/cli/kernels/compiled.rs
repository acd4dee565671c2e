//! What kernels became: compiled where CUDA's tools are, and said not to have been looked at where they are not.

use std::collections::HashMap;

use anyhow::Context;
use pg_codegen::cuda::{Builds, Built, IssueBound, Occupancy, Predicted, Resources, Tools, Walked};
use pg_codegen::kernels::{Entry, Generated};
use pg_codegen::machine::Machine;
use rayon::prelude::*;

use super::super::machine::build_all;
use super::super::ui::Ui;

/// Kernels' binaries, or why there are none.
pub(super) enum Compiled {
    /// By the hash of their contents, with their instructions.
    Yes { builds: Builds, walked: HashMap<[u64; 4], Walked>, compiler: (i32, i32) },
    /// The reason, as the end of a sentence.
    No(String),
}

/// What a kernel uses of a multiprocessor.
pub(super) struct Uses {
    pub(super) resources: Resources,
    pub(super) occupancy: Occupancy,
}

/// Disassembles and walks the compiled kernels, each once.
fn walked(
    entries: &[&Entry],
    builds: &Builds,
    machine: &Machine,
) -> anyhow::Result<HashMap<[u64; 4], Walked>> {
    let distinct: HashMap<[u64; 4], &Entry> = entries.iter().map(|e| (e.kernel.hash(), *e)).collect();
    let one = |(hash, entry): (&[u64; 4], &&Entry)| -> anyhow::Result<_> {
        let walked = builds[hash].compiled.walked(entry, machine);
        Ok((*hash, walked.with_context(|| format!("kernel {}", entry.kernel.name()))?))
    };
    distinct.par_iter().map(one).collect()
}

impl Compiled {
    /// Compiles kernels for a machine with Hopper's instructions, if CUDA's tools are here.
    pub(super) fn of(machine: &Machine, entries: &[&Entry], ui: &Ui) -> anyhow::Result<Compiled> {
        if !machine.has_tensor_cores() {
            return Ok(Compiled::No("its driver compiles the kernels".into()));
        }
        match Tools::find() {
            Err(missing) => Ok(Compiled::No(missing.to_string())),
            Ok(tools) => {
                let kernels: Vec<_> = entries.iter().map(|e| e.kernel.clone()).collect();
                let builds = build_all(&tools, &kernels, ui)?;
                let walked = walked(entries, &builds, machine)?;
                Ok(Compiled::Yes { builds, walked, compiler: tools.version() })
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

    /// A kernel's instructions.
    pub(super) fn walked(&self, kernel: &Generated) -> Option<&Walked> {
        let Compiled::Yes { walked, .. } = self else { return None };
        walked.get(&kernel.hash())
    }

    /// How long a kernel's instructions take.
    pub(super) fn bound(&self, kernel: &Generated) -> Option<&IssueBound> {
        self.walked(kernel).map(|w| &w.bound)
    }

    /// What a kernel's launches are predicted to take.
    pub(super) fn predicted(&self, entry: &Entry) -> Predicted {
        Predicted::new(entry, self.bound(&entry.kernel))
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
                "Times are those of peak rates, which no kernel reaches; none is measured. Instructions, registers, \
                 spills, stack and occupancy were not looked at: {why}."
            ),
            (_, compiler) => format!(
                "Times are predicted, none is measured: the longer of what a kernel's instructions keep a unit of the \
                 multiprocessors busy and of the roofline; the bound says which. Instructions, registers, spills, stack \
                 (bytes a thread) and blocks that a multiprocessor holds are of the binary that {} makes.",
                compiler.unwrap_or_default()
            ),
        }
    }
}
