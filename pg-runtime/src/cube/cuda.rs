//! CUDA devices.

use std::path::Path;
use std::sync::Arc;

use cubecl::Runtime as _;
use cubecl_cuda::{CudaDevice, CudaRuntime};
use pg_codegen::cube::CudaProperties;

use super::device::Device;
use crate::device::DeviceError;
use crate::executor::Backend;

/// Names of the CUDA devices, by number; none where there is no driver.
pub(crate) fn find() -> Vec<String> {
    if !driver_present() {
        return Vec::new();
    }
    let count = cudarc::driver::result::device::get_count().unwrap_or(0);
    (0..count).map(|i| name(i).unwrap_or_else(|| format!("CUDA device {i}"))).collect()
}

/// Whether the CUDA device of a number can be used: driver, device, compiler, headers.
pub(crate) fn check(number: usize) -> Result<(), DeviceError> {
    if !driver_present() {
        let remedy = "install NVIDIA's driver, or use --device vulkan or cpu";
        return Err(DeviceError::new("no CUDA driver (libcuda) was found", remedy));
    }
    let devices = find().len();
    if number >= devices {
        let what = format!("there is no CUDA device {number}: the driver lists {devices}");
        return Err(DeviceError::new(what, "see `pg devices`"));
    }
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
pub(crate) fn open(number: usize, tuning: &str) -> Result<(String, Arc<dyn Backend>), DeviceError> {
    check(number)?;
    let properties = properties(number)?;
    let client = CudaRuntime::client(&CudaDevice { index: number });
    let device = Device::new(number, client, properties.target()).tuned(tuning, properties.section())?;
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
        units: attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        // CubeCL asks for what a kernel needs of it at each launch (`compute/context.rs`, `execute_task`).
        shared_bytes: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        multiprocessors: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: as above.
        memory_bytes: unsafe { device::total_mem(at) }.map_err(failed)? as u64,
    })
}

fn driver_present() -> bool {
    // SAFETY: only tries to open the library.
    let found = unsafe { cudarc::driver::sys::is_culib_present() };
    found && cudarc::driver::result::init().is_ok()
}

fn name(number: i32) -> Option<String> {
    let device = cudarc::driver::result::device::get(number).ok()?;
    cudarc::driver::result::device::get_name(device).ok()
}
