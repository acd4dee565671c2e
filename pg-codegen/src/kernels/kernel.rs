//! A generated kernel: a value that CubeCL can compile.
//!
//! Two kernels with equal descriptions are one: CubeCL's caches are keyed by a hash of the description's
//! text, of the generator's version and of CubeCL's, so that keys mean the same in every build, and another
//! source never hides behind an old key.

use std::sync::Arc;

use cubecl::ir::{ElemType, FloatKind, IntKind, ManagedVariable, UIntKind};
use cubecl::prelude::*;
use pg_ir::ty::DType;

use super::error::CubeError;
use super::limits::Needs;
use super::tensor_core;
use crate::machine::Machine;

/// Version of CubeCL that kernels are generated with; part of every kernel's hash.
pub const CUBECL: &str = "0.10.0";

/// Version of the generator; part of every kernel's hash. It stands for all that a source depends on beside the
/// kernel's description: constants and code of this crate. A test holds it to the sources that it makes.
pub const GENERATOR: u32 = 5;

/// A buffer of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArgSpec {
    /// Element type.
    pub dtype: DType,
    /// Elements of one access: a power of two up to 8, more than 1 where all accesses are aligned.
    pub width: usize,
    /// Whether it is written, or shares memory with something that is.
    pub writable: bool,
}

/// What a kernel computes, in full: everything that its source depends on but its buffers. Its `Debug` text is hashed, so
/// it has to show every field.
pub(crate) trait Body: std::fmt::Debug + Send + Sync {
    /// The first part of its name.
    fn family(&self) -> &'static str;

    /// What it computes, for people.
    fn describe(&self) -> String;

    /// Emits it. Buffers are in the order of `args`.
    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], args: &[ArgSpec]);
}

/// A kernel, ready for any CubeCL back end.
#[derive(Clone, Debug)]
pub struct Generated {
    name: String,
    body: Arc<dyn Body>,
    args: Vec<ArgSpec>,
    threads: u32,
    shared_bytes: usize,
    hash: [u64; 4],
}

impl PartialEq for Generated {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Generated {
    /// Makes a kernel and checks it against the machine.
    pub(crate) fn new(
        body: impl Body + 'static,
        args: Vec<ArgSpec>,
        (threads, shared_bytes): (u32, usize),
        machine: &Machine,
    ) -> Result<Generated, CubeError> {
        let text = format!(
            "pg {} generator {GENERATOR} cubecl {CUBECL} {threads} {shared_bytes} {args:?} {body:?}",
            env!("CARGO_PKG_VERSION")
        );
        let digest = blake3::hash(text.as_bytes());
        let word = |i: usize| {
            let bytes = digest.as_bytes()[8 * i..][..8].iter();
            bytes.rev().fold(0u64, |w, &b| w << 8 | u64::from(b))
        };
        let hash = [word(0), word(1), word(2), word(3)];
        // Short enough to read, long enough to tell kernels of a model apart.
        let name = format!("{}_{:08x}", body.family(), hash[0] >> 32);
        let bf16 = args.iter().any(|a| a.dtype == DType::BF16);
        machine.check(&name, Needs { threads, shared_bytes, bindings: args.len(), bf16 })?;
        Ok(Generated { name, body: Arc::new(body), args, threads, shared_bytes, hash })
    }

    /// Its entry point: the family, and the start of the content hash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hash of its contents, the same in every build.
    pub fn hash(&self) -> [u64; 4] {
        self.hash
    }

    /// The key under which CubeCL's CUDA server keeps it compiled.
    pub fn cache_key(&self) -> u128 {
        self.id().stable_hash()
    }

    /// Its buffers, in order.
    pub fn args(&self) -> &[ArgSpec] {
        &self.args
    }

    /// Threads of a thread block.
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// Bytes of shared memory of a thread block.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// What it computes, as text.
    pub fn describe(&self) -> String {
        self.body.describe()
    }
}

impl KernelMetadata for Generated {
    fn name(&self) -> &'static str {
        self.body.family()
    }

    fn id(&self) -> KernelId {
        // Never the program itself: KernelId's own hashing differs from build to build.
        let mut id = KernelId::new::<Self>().info(self.hash).cube_dim(CubeDim::new_1d(self.threads));
        id.mode(ExecutionMode::Unchecked);
        id
    }

    fn address_type(&self) -> StorageType {
        AddressType::U32.unsigned_type()
    }
}

impl CubeKernel for Generated {
    fn define(&self) -> KernelDefinition {
        let mut builder = KernelBuilder::default();
        builder.runtime_properties(tensor_core::target_properties());
        AddressType::U32.register(&mut builder.scope);
        let mut buffers: Vec<ManagedVariable> = Vec::new();
        for arg in &self.args {
            let ty = Type::new(StorageType::Scalar(element(arg.dtype))).with_vector_size(arg.width);
            let buffer = if arg.writable { builder.output_array(ty) } else { builder.input_array(ty) };
            buffers.push(buffer);
        }
        self.body.define(&mut builder.scope, &buffers, &self.args);
        let settings = KernelSettings::default().cube_dim(CubeDim::new_1d(self.threads));
        builder.build(settings.kernel_name(&self.name))
    }
}

/// A shared kernel, for launching without copying its description.
#[derive(Clone, Debug)]
pub struct Launchable(pub Arc<Generated>);

impl KernelMetadata for Launchable {
    fn name(&self) -> &'static str {
        KernelMetadata::name(self.0.as_ref())
    }

    fn id(&self) -> KernelId {
        self.0.id()
    }

    fn address_type(&self) -> StorageType {
        KernelMetadata::address_type(self.0.as_ref())
    }
}

impl CubeKernel for Launchable {
    fn define(&self) -> KernelDefinition {
        self.0.define()
    }
}

/// Whether a thread block has work: those beyond the last have none, where the grid is not `exact`.
#[cube]
pub(crate) fn has_work(block_index: u32, #[comptime] thread_blocks: usize, #[comptime] exact: bool) -> bool {
    if comptime!(exact) { true.into() } else { block_index < comptime!(thread_blocks as u32) }
}

/// How elements of a type lie in a buffer. Booleans take a word: no portable device stores bytes.
fn element(dtype: DType) -> ElemType {
    match dtype {
        DType::F32 => ElemType::Float(FloatKind::F32),
        DType::BF16 => ElemType::Float(FloatKind::BF16),
        DType::I32 => ElemType::Int(IntKind::I32),
        DType::Bool => ElemType::UInt(UIntKind::U32),
    }
}
