//! A device that was probed, and what CubeCL's client does on it.
//!
//! CubeCL's client panics if its server thread is gone. Every call of it is made in [`guarded`], so that a lost
//! device is an error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::server::{Handle, KernelArguments, MetadataBindingInfo};
use cubecl::{Compiler, CubeTask};
use pg_codegen::kernels::{Generated, Launchable};
use pg_codegen::machine::Machine;
use pg_codegen::plan::Plan;

use super::error::CubeExecError;
use super::executor::CubeExecutor;
use crate::device::DeviceError;
use crate::executor::{Backend, ExecError, Executor};
use crate::state::Remote;

/// Every allocation is a multiple of so many bytes, so that a vector access at its end stays inside.
const PAD: usize = 256;

/// A probed device.
#[derive(Clone)]
pub struct Device<R: Runtime> {
    number: usize,
    client: ComputeClient<R>,
    machine: Machine,
    task: fn(Arc<Generated>) -> Task<R>,
}

/// What CubeCL is given to compile and launch.
type Task<R> = Box<dyn CubeTask<<R as Runtime>::Compiler>>;

impl<R: Runtime> std::fmt::Debug for Device<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("machine", &self.machine).finish_non_exhaustive()
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

#[cfg_attr(
    not(any(feature = "vulkan", feature = "cuda")),
    allow(dead_code, reason = "without a runtime no device is opened, and kernels are only shown")
)]
impl<R: Runtime> Device<R> {
    pub(super) fn new(number: usize, client: ComputeClient<R>, machine: Machine) -> Self
    where
        <R::Compiler as Compiler>::Representation: Send,
        <R::Compiler as Compiler>::CompilationOptions: Sync,
    {
        Device { number, client, machine, task: |kernel| Box::new(Launchable(kernel)) }
    }

    /// The same device with a tuning file's text on top of its choices; `name` is what the file calls it.
    pub(super) fn tuned(mut self, text: &str, name: &str) -> Result<Self, DeviceError> {
        let remedy = "docs/TUNING.md shows the form and says what each choice is";
        let tuning = self.machine.tuning.with(text, name);
        self.machine.tuning =
            tuning.map_err(|what| DeviceError::new(format!("the tuning file is wrong in {what}"), remedy))?;
        Ok(self)
    }

    /// What kernels are generated for.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.machine.name
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
    pub(super) fn upload(&self, bytes: &[u8]) -> Result<Memory, CubeExecError> {
        let capacity = capacity_of(bytes.len());
        let handle = self.guarded(|client| client.create_from_slice(&padded(bytes, capacity)))?;
        Ok(Memory::new(handle, capacity))
    }

    fn keep(
        &self,
        bytes: usize,
        make: impl FnOnce(&ComputeClient<R>, usize) -> Handle + Send,
    ) -> Result<Memory, CubeExecError> {
        let capacity = capacity_of(bytes);
        let inner = self.client.clone();
        let kept =
            self.guarded(|client| client.memory_persistent_allocation((), move |()| make(&inner, capacity)))?;
        kept.map(|handle| Memory::new(handle, capacity)).map_err(|e| self.failed(&e))
    }

    /// Reads the first `bytes` bytes.
    pub(super) fn read(&self, memory: &Memory, bytes: usize) -> Result<Vec<u8>, CubeExecError> {
        let data = self.guarded(|client| client.read_one(memory.handle.clone()))?;
        let data = data.map_err(|e| self.failed(&e))?;
        data.get(..bytes).map(<[u8]>::to_vec).ok_or_else(|| self.failed("a read came back short"))
    }

    /// Waits until everything that was launched has ended.
    pub(super) fn wait(&self) -> Result<(), CubeExecError> {
        self.guarded(|client| block_on(client.sync()))?.map_err(|e| self.failed(&e))
    }

    /// Launches a kernel whose needs and grid were checked against [`Self::machine`].
    pub(super) fn launch(
        &self,
        kernel: &Arc<Generated>,
        buffers: Vec<Handle>,
        grid: [u32; 3],
    ) -> Result<(), CubeExecError> {
        let mut args = KernelArguments::new();
        // Shapes are constants of the kernel, but CUDA kernels take two words a buffer all the same.
        args.info = MetadataBindingInfo::new(vec![0; buffers.len()], buffers.len());
        args.buffers = buffers.into_iter().map(Handle::binding).collect();
        let task = (self.task)(kernel.clone());
        let [x, y, z] = grid;
        // SAFETY: the generator bounds every access by the lengths of the arguments that it was given.
        self.guarded(|client| unsafe {
            client.launch_unchecked(task, CubeCount::Static(x, y, z), args);
        })
    }

    /// Calls CubeCL's client, and makes its panic an error.
    fn guarded<T>(&self, call: impl FnOnce(&ComputeClient<R>) -> T) -> Result<T, CubeExecError> {
        // The client is used no more after an error: it cannot be seen half changed.
        catch_unwind(AssertUnwindSafe(|| call(&self.client))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            self.failed(text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("its server thread ended"))
        })
    }

    pub(super) fn failed(&self, why: &(impl std::fmt::Debug + ?Sized)) -> CubeExecError {
        CubeExecError::Device { device: self.machine.name.to_string(), why: format!("{why:?}") }
    }
}

impl<R: Runtime> Backend for Device<R> {
    fn prepare(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        Ok(Box::new(CubeExecutor::new(plan, self)?))
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// A bank of a state in device memory.
#[derive(Debug)]
pub(super) struct Resident<R: Runtime> {
    device: Device<R>,
    pub(super) memory: Memory,
}

impl<R: Runtime> Resident<R> {
    pub(super) fn upload(device: &Device<R>, bank: &[u8]) -> Result<Self, CubeExecError> {
        let memory = device.allocate_with(bank)?;
        Ok(Resident { device: device.clone(), memory })
    }

    pub(super) fn is_on(&self, device: &Device<R>) -> bool {
        self.device.number == device.number
    }
}

impl<R: Runtime> Remote for Resident<R> {
    fn download(&self, to: &mut [u8]) -> Result<(), String> {
        to.copy_from_slice(&self.device.read(&self.memory, to.len()).map_err(|e| e.to_string())?);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
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
