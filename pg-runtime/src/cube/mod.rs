//! Executors on GPUs: a plan's kernels generated through CubeCL, on any CubeCL runtime.
//!
//! A [`Device`] is probed before CubeCL sees it, and each launch is checked against the device's limits
//! before it is made, because CubeCL answers both kinds of trouble by panicking. State lives on the
//! device ([`DeviceState`]); an executor touches the host only for a call's inputs and results.

mod device;
mod error;
mod executor;
mod memory;
mod state;

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod tests;
#[cfg(feature = "vulkan")]
mod vulkan;

pub use self::device::Device;
pub use self::error::CubeExecError;
pub use self::executor::CubeExecutor;
pub use self::state::DeviceState;

#[cfg(feature = "cuda")]
pub use self::cuda::{cuda, cuda_devices};
#[cfg(feature = "vulkan")]
pub use self::vulkan::{vulkan, vulkan_devices};

/// The runtime of Vulkan devices.
#[cfg(feature = "vulkan")]
pub type Vulkan = cubecl_wgpu::WgpuRuntime;

/// The runtime of CUDA devices.
#[cfg(feature = "cuda")]
pub type Cuda = cubecl_cuda::CudaRuntime;
