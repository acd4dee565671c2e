//! Executors on GPUs: a plan's kernels generated through CubeCL, on any CubeCL runtime.
//!
//! A [`Device`] is probed before CubeCL sees it, and each launch is checked against the device's limits
//! before it is made, because CubeCL answers both kinds of trouble by panicking. State moves to the device
//! with the first run that needs it; an executor touches the host only for a call's inputs and results.

mod bundle;
mod device;
mod error;
mod executor;
mod memory;
mod offline;

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(test)]
mod tests;
#[cfg(feature = "vulkan")]
pub(crate) mod vulkan;

pub use self::bundle::{LoadedBundle, recipe, run_recipe};
pub use self::device::Device;
pub use self::error::CubeExecError;
pub use self::executor::CubeExecutor;
pub(crate) use self::offline::Absent;
pub use self::offline::{offline, ways};

/// The runtime of Vulkan devices.
#[cfg(feature = "vulkan")]
pub type Vulkan = cubecl_wgpu::WgpuRuntime;

/// The runtime of CUDA devices.
#[cfg(feature = "cuda")]
pub type Cuda = cubecl_cuda::CudaRuntime;
