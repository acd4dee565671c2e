//! What a bundle says of itself: versions, what it was built for, and its kernels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ARCHITECTURE, Recipe};
use crate::cuda::Built;
use crate::kernels::{CUBECL, Generated};

/// Hash of this build's kernel generator.
const GENERATOR: &str = env!("PG_GENERATOR");

/// What a bundle holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of pg that generated the kernels.
    pub pg: String,
    /// Hash of its kernel generator's sources.
    pub generator: String,
    /// Version of CubeCL.
    pub cubecl: String,
    /// The architecture.
    pub architecture: String,
    /// Version of CUDA's compiler.
    pub compiler: (i32, i32),
    /// Hash of all of the above and of the kernels' keys.
    pub content: String,
    /// For people, and to say what differs: model, precision, target, tuning, programs.
    pub built_for: BTreeMap<String, String>,
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
    /// Bytes that a thread spills.
    pub spill_bytes: u32,
    /// Bytes of a thread's stack.
    pub stack_bytes: u32,
    /// Bytes of shared memory that a launch asks for.
    pub shared_bytes: usize,
}

impl Manifest {
    pub(super) fn new(recipe: &Recipe, compiler: (i32, i32), kernels: Vec<Entry>) -> Manifest {
        Manifest {
            pg: env!("CARGO_PKG_VERSION").into(),
            generator: GENERATOR.into(),
            cubecl: CUBECL.into(),
            architecture: ARCHITECTURE.into(),
            compiler,
            content: recipe.content(compiler),
            built_for: recipe.built_for.clone(),
            kernels,
        }
    }

    /// The first version that is not this build's, in words.
    pub(super) fn differs(&self) -> Option<String> {
        let versions = [
            ("pg", self.pg.as_str(), env!("CARGO_PKG_VERSION")),
            ("CubeCL", &self.cubecl, CUBECL),
            ("the architecture", &self.architecture, ARCHITECTURE),
            ("the kernel generator", &self.generator, GENERATOR),
        ];
        let (what, theirs, ours) = versions.into_iter().find(|(_, theirs, ours)| theirs != ours)?;
        Some(format!("{what} is {theirs} there and {ours} here"))
    }
}

impl Recipe {
    /// Hash of what a bundle of it holds: equal ones are interchangeable.
    pub fn content(&self, compiler: (i32, i32)) -> String {
        let keys: Vec<String> = self.distinct().into_iter().map(|k| key(k)).collect();
        let versions =
            [env!("CARGO_PKG_VERSION"), GENERATOR, CUBECL, ARCHITECTURE, &format!("{compiler:?}")].join(" ");
        blake3::hash(format!("{versions}\n{}", keys.join("\n")).as_bytes()).to_hex().to_string()
    }
}

impl Entry {
    pub(super) fn of(kernel: &Generated, built: &Built) -> Entry {
        let uses = built.compiled.resources;
        Entry {
            name: kernel.name().into(),
            key: key(kernel),
            bytes: built.compiled.cubin.len(),
            digest: digest(&built.compiled.cubin),
            registers: uses.registers,
            spill_bytes: uses.spill_bytes,
            stack_bytes: uses.stack_bytes,
            shared_bytes: built.emitted.shared_bytes,
        }
    }
}

pub(super) fn key(kernel: &Generated) -> String {
    format!("{:032x}", kernel.cache_key())
}

pub(super) fn digest(binary: &[u8]) -> String {
    blake3::hash(binary).to_hex().to_string()
}
