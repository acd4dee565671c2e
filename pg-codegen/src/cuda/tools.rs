//! Where CUDA's compiler, headers and disassembler are. A tool that is missing is one message with the
//! remedy; nothing is downloaded from here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::nvrtc::Nvrtc;

/// The folder that `scripts/cuda-tools` fills, from the workspace's root.
const FETCHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/cuda-tools");

/// Environment variable that names another folder of that layout, or a CUDA toolkit.
const VARIABLE: &str = "PG_CUDA_TOOLS";

/// CUDA's compiler as a library, its headers, and the disassembler.
#[derive(Clone, Debug)]
pub struct Tools {
    pub(super) nvrtc: Arc<Nvrtc>,
    pub(super) include: PathBuf,
    pub(super) nvdisasm: PathBuf,
}

/// Why a kernel could not be compiled or examined.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolsError {
    /// A tool is not there.
    #[error(
        "{what} was not found under {}; run scripts/cuda-tools, or set {VARIABLE} to a CUDA 13 toolkit",
        .folder.display()
    )]
    Missing {
        /// What was looked for.
        what: String,
        /// Where.
        folder: PathBuf,
    },
    /// The compiler's library was found and cannot be used.
    #[error("{} cannot be loaded: {why}; run scripts/cuda-tools again", .file.display())]
    Unusable {
        /// Its file.
        file: PathBuf,
        /// What the loader said.
        why: String,
    },
    /// The compiler refused a source.
    #[error("CUDA's compiler refused a kernel:\n{}", .log.trim_end())]
    Rejected {
        /// Its log.
        log: String,
    },
    /// A tool ran and did not do its work.
    #[error("{tool} failed: {}", .why.trim_end())]
    Failed {
        /// Which.
        tool: &'static str,
        /// What it said.
        why: String,
    },
}

/// One of the tools: where it is, or what is missing.
pub type Part = (&'static str, Result<PathBuf, ToolsError>);

const HEADERS: [&str; 4] = ["cuda_runtime.h", "cuda_bf16.h", "crt/mma.h", "cccl/cuda/barrier"];

impl Tools {
    /// Finds the tools in the folder that `PG_CUDA_TOOLS` names, otherwise where `scripts/cuda-tools` puts
    /// them.
    ///
    /// # Errors
    /// If one is missing or the compiler's library does not load.
    pub fn find() -> Result<Tools, ToolsError> {
        Tools::at(&folder())
    }

    /// Where each tool is that [`Self::find`] looks for: compiler, headers, disassembler.
    pub fn survey() -> [Part; 3] {
        let [compiler, headers, disassembler] = parts(&folder());
        let loads = |library: PathBuf| Nvrtc::open(&library).map(|_| library);
        [
            ("CUDA's compiler", compiler.and_then(loads)),
            ("CUDA's headers", headers),
            ("the disassembler", disassembler),
        ]
    }

    /// Finds the tools in a folder: a CUDA toolkit, or one that holds wheels.
    ///
    /// # Errors
    /// As [`Tools::find`].
    pub fn at(folder: &Path) -> Result<Tools, ToolsError> {
        let [compiler, headers, disassembler] = parts(folder);
        let (compiler, include, nvdisasm) = (compiler?, headers?, disassembler?);
        Ok(Tools { nvrtc: Arc::new(Nvrtc::open(&compiler)?), include, nvdisasm })
    }
}

fn folder() -> PathBuf {
    std::env::var_os(VARIABLE).map_or_else(|| FETCHED.into(), PathBuf::from)
}

/// Compiler, headers and disassembler in a folder.
fn parts(folder: &Path) -> [Result<PathBuf, ToolsError>; 3] {
    let wheels = folder.join("nvidia/cu13");
    let root = if wheels.is_dir() { wheels } else { folder.to_path_buf() };
    let missing = |what: &str| ToolsError::Missing { what: what.into(), folder: folder.into() };
    let first = |names: &[&str]| names.iter().map(|n| root.join(n)).find(|p| p.exists());
    let library = first(&["lib/libnvrtc.so.13", "lib64/libnvrtc.so.13"]);
    let include = root.join("include");
    let headers = match HEADERS.iter().find(|h| !include.join(h).exists()) {
        Some(header) => Err(missing(&format!("the header {header}"))),
        None => Ok(include),
    };
    [
        library.ok_or_else(|| missing("CUDA's compiler (libnvrtc.so.13)")),
        headers,
        first(&["bin/nvdisasm"]).ok_or_else(|| missing("the disassembler (nvdisasm)")),
    ]
}
