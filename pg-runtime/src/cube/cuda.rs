//! CUDA devices.

use std::path::Path;

use cubecl::Runtime as _;
use cubecl_cuda::{CudaDevice, CudaRuntime};
use pg_codegen::cube::Target;

use super::device::Device;
use super::error::CubeExecError;

fn missing(what: &str, remedy: &str) -> CubeExecError {
    CubeExecError::NoDevice { what: what.into(), remedy: remedy.into() }
}

/// Names of the CUDA devices, by number; none where there is no driver.
pub fn cuda_devices() -> Vec<String> {
    if !driver_present() {
        return Vec::new();
    }
    let count = cudarc::driver::result::device::get_count().unwrap_or(0);
    (0..count).map(|i| name(i).unwrap_or_else(|| format!("CUDA device {i}"))).collect()
}

/// Opens the CUDA device of a number.
///
/// # Errors
/// If there is no driver, no such device, or no compiler for kernels.
pub fn cuda(number: usize) -> Result<Device<CudaRuntime>, CubeExecError> {
    if !driver_present() {
        let remedy = "install NVIDIA's driver, or use --device vulkan or cpu";
        return Err(missing("no CUDA driver (libcuda) was found", remedy));
    }
    let devices = cuda_devices();
    let Some(name) = devices.get(number) else {
        let what = format!("there is no CUDA device {number}; the driver lists {}", devices.len());
        return Err(missing(&what, "see `pg devices`"));
    };
    // SAFETY: only tries to open the library.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        let remedy =
            "install the CUDA toolkit, or the package nvidia-cuda-nvrtc with its folder on LD_LIBRARY_PATH";
        return Err(missing("CUDA's compiler (libnvrtc) was not found", remedy));
    }
    let headers = cubecl_cuda::install::cuda_path().map(|p| p.join("include"));
    if !headers.as_deref().is_some_and(Path::is_dir) {
        let remedy = "set CUDA_PATH to a CUDA toolkit; its folder `include` is read";
        return Err(missing("CUDA's headers were not found", remedy));
    }
    let client = CudaRuntime::client(&CudaDevice { index: number });
    let hardware = &client.properties().hardware;
    let target = Target {
        name: name.clone(),
        units: hardware.max_units_per_cube,
        // Beyond 48 KiB a kernel must ask for it; the portable variant does not.
        shared_bytes: hardware.max_shared_memory_size.min(48 * 1024),
        ..Target::cuda()
    };
    Ok(Device::new(client, target))
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
