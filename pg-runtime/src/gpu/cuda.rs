//! CUDA devices.

use std::path::Path;
use std::sync::Arc;

use cubecl::Runtime as _;
use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cubecl_cuda::{CudaDevice, CudaRuntime};
use pg_codegen::machine::CudaProperties;

use super::device::Device;
use crate::device::{DeviceError, Opened};

/// Names of the CUDA devices, by number; none where there is no driver.
pub(crate) fn find() -> Vec<String> {
    if !driver_present() {
        return Vec::new();
    }
    let count = cudarc::driver::result::device::get_count().unwrap_or(0);
    (0..count).map(describe).collect()
}

fn describe(number: i32) -> String {
    let Ok(CudaProperties { name, capability: (major, minor), .. }) = properties(number as usize) else {
        return format!("CUDA device {number}");
    };
    format!("{name}, compute capability {major}.{minor}")
}

/// Whether the CUDA device of a number can be used: driver, device, compiler, headers.
pub(crate) fn check(number: usize) -> Result<(), DeviceError> {
    check_device(number)?;
    check_compiler()
}

fn check_device(number: usize) -> Result<(), DeviceError> {
    if !driver_present() {
        let remedy = "install NVIDIA's driver, or use --device vulkan or cpu";
        return Err(DeviceError::new("no CUDA driver (libcuda) was found", remedy));
    }
    let devices = find().len();
    if number >= devices {
        let what = format!("there is no CUDA device {number}: the driver lists {devices}");
        return Err(DeviceError::new(what, "see `pg devices`"));
    }
    Ok(())
}

/// Whether kernels can be compiled here while a program runs.
fn check_compiler() -> Result<(), DeviceError> {
    // SAFETY: only tries to open the library.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        let remedy =
            "install the CUDA toolkit, or the package nvidia-cuda-nvrtc with its folder on LD_LIBRARY_PATH";
        return Err(DeviceError::new("CUDA's compiler (libnvrtc) was not found", remedy));
    }
    let headers = cubecl_cuda::install::cuda_path().map(|p| p.join("include"));
    if !headers.as_deref().is_some_and(Path::is_dir) {
        let remedy = "set CUDA_PATH to a CUDA toolkit; its folder `include` is read";
        return Err(DeviceError::new("CUDA's headers were not found", remedy));
    }
    Ok(())
}

/// Opens the CUDA device of a number.
pub(crate) fn open(number: usize, tuning: &str) -> Opened {
    check_compiler()?;
    open_device(number, tuning)
}

/// Opens the CUDA device of a number, whose kernels are in a cache of CubeCL's already. The process has opened no
/// other before.
pub(crate) fn open_cached(number: usize, tuning: &str, cache: &Path) -> Opened {
    check_device(number)?;
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = Some(CacheConfig::File(cache.into()));
    // CubeCL panics if its configuration is in use.
    std::panic::catch_unwind(|| CubeClRuntimeConfig::set(config)).map_err(|_| {
        DeviceError::new("a CUDA device is open already", "name the bundle before the first device is opened")
    })?;
    open_device(number, tuning)
}

fn open_device(number: usize, tuning: &str) -> Opened {
    check_device(number)?;
    let properties = properties(number)?;
    let client = CudaRuntime::client(&CudaDevice { index: number });
    let device =
        Device::new(number, client, properties.machine()).tuned(tuning, &properties.machine_name())?;
    Ok((device.name().to_string(), Arc::new(device)))
}

/// What the driver says of a device.
fn properties(number: usize) -> Result<CudaProperties, DeviceError> {
    use cudarc::driver::result::device;
    use cudarc::driver::sys::CUdevice_attribute::*;
    let failed = |e: cudarc::driver::DriverError| {
        DeviceError::new(format!("CUDA device {number} does not answer: {e}"), "see `nvidia-smi`")
    };
    let at = device::get(number as i32).map_err(failed)?;
    // SAFETY: the device's handle is the driver's own, of a moment ago.
    let attribute = |which| unsafe { device::get_attribute(at, which) }.map(|n| n as u32).map_err(failed);
    Ok(CudaProperties {
        name: device::get_name(at).map_err(failed)?,
        capability: (
            attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        block_threads: attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        // CubeCL asks for what a kernel needs of it at each launch (`compute/context.rs`, `execute_task`).
        shared_bytes: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        processors: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: as above.
        memory_bytes: unsafe { device::total_mem(at) }.map_err(failed)? as u64,
    })
}

fn driver_present() -> bool {
    // SAFETY: only tries to open the library.
    let found = unsafe { cudarc::driver::sys::is_culib_present() };
    found && cudarc::driver::result::init().is_ok()
}
