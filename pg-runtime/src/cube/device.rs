//! A device that was probed, and what CubeCL's client does on it.

use std::sync::Arc;

use cubecl::prelude::*;
use cubecl::server::{Handle, KernelArguments, MetadataBindingInfo};
use pg_codegen::cube::{Generated, Launchable, Target};

use super::error::CubeExecError;

/// Every allocation is a multiple of so many bytes, so that a vector access at its end stays inside.
const PAD: usize = 256;

/// A probed device.
#[derive(Clone)]
pub struct Device<R: Runtime> {
    client: ComputeClient<R>,
    target: Target,
}

impl<R: Runtime> std::fmt::Debug for Device<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A stretch of device memory.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) handle: Handle,
    /// Which allocation it lies in.
    pub(super) allocation: u64,
    /// Bytes of the whole allocation.
    pub(super) capacity: usize,
}

impl<R: Runtime> Device<R> {
    pub(super) fn new(client: ComputeClient<R>, target: Target) -> Self {
        Device { client, target }
    }

    /// Its limits.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// Memory that stays until it is dropped, with unspecified contents.
    pub(super) fn allocate(&self, bytes: usize) -> Result<Memory, CubeExecError> {
        self.keep(bytes, |client, capacity| client.empty(capacity))
    }

    /// Memory that stays until it is dropped, holding `bytes` and then zeros.
    pub(super) fn allocate_with(&self, bytes: &[u8]) -> Result<Memory, CubeExecError> {
        self.keep(bytes.len(), |client, capacity| client.create_from_slice(&padded(bytes, capacity)))
    }

    /// Memory from the pool, for a call's inputs.
    pub(super) fn upload(&self, bytes: &[u8]) -> Memory {
        let capacity = capacity_of(bytes.len());
        Memory::new(self.client.create_from_slice(&padded(bytes, capacity)), capacity)
    }

    fn keep(
        &self,
        bytes: usize,
        make: impl FnOnce(&ComputeClient<R>, usize) -> Handle + Send,
    ) -> Result<Memory, CubeExecError> {
        let capacity = capacity_of(bytes);
        let client = self.client.clone();
        let kept = self.client.memory_persistent_allocation((), move |()| make(&client, capacity));
        kept.map(|handle| Memory::new(handle, capacity)).map_err(|e| self.failed(&e))
    }

    /// Reads the first `bytes` bytes.
    pub(super) fn read(&self, memory: &Memory, bytes: usize) -> Result<Vec<u8>, CubeExecError> {
        let data = self.client.read_one(memory.handle.clone()).map_err(|e| self.failed(&e))?;
        data.get(..bytes).map(<[u8]>::to_vec).ok_or_else(|| self.failed(&"a read came back short"))
    }

    /// Launches a kernel whose needs and grid were checked against [`Self::target`].
    pub(super) fn launch(&self, kernel: &Arc<Generated>, buffers: &[Handle], grid: [u32; 3]) {
        let mut args = KernelArguments::new();
        args.buffers = buffers.iter().map(|h| h.clone().binding()).collect();
        // Shapes are constants of the kernel, but CUDA kernels take two words a buffer all the same.
        args.info = MetadataBindingInfo::new(vec![0; buffers.len()], buffers.len());
        let task = KernelTask::<R::Compiler, Launchable>::new(Launchable(kernel.clone()));
        let [x, y, z] = grid;
        // SAFETY: the generator bounds every access by the lengths of the arguments that it was given.
        unsafe { self.client.launch_unchecked(Box::new(task), CubeCount::Static(x, y, z), args) }
    }

    pub(super) fn failed(&self, why: &(impl std::fmt::Debug + ?Sized)) -> CubeExecError {
        CubeExecError::Device { device: self.target.name.clone(), why: format!("{why:?}") }
    }
}

impl Memory {
    fn new(handle: Handle, capacity: usize) -> Memory {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Memory { handle, allocation: NEXT.fetch_add(1, Ordering::Relaxed), capacity }
    }
}

fn capacity_of(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(PAD)
}

fn padded(bytes: &[u8], capacity: usize) -> Vec<u8> {
    let mut all = bytes.to_vec();
    all.resize(capacity, 0);
    all
}
