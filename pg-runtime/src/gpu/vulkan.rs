//! Vulkan devices, through wgpu.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use cubecl::Runtime as _;
use cubecl::future::block_on;
use cubecl_wgpu::{RuntimeOptions, WgpuDevice, WgpuRuntime, WgpuSetup};
use pg_codegen::machine::{Limits, Machine, VULKAN_CPU};

use super::device::Device;
use crate::device::{DeviceError, Opened};

const REMEDY: &str = "install a Vulkan driver (on Debian, mesa-vulkan-drivers has one that runs on the CPU) or \
                      use --device cpu";

type Open = HashMap<usize, (WgpuDevice, Machine)>;

/// Names of the Vulkan devices, by number.
pub(crate) fn find() -> Vec<String> {
    adapters(&instance()).iter().map(describe).collect()
}

/// Whether the Vulkan device of a number can be used.
pub(crate) fn check(number: usize) -> Result<(), DeviceError> {
    machine_of(&adapter(&instance(), number)?).map(|_| ())
}

/// Opens the Vulkan device of a number.
pub(crate) fn open(number: usize, tuning: &str) -> Opened {
    let device = device(number)?.tuned(tuning, "vulkan-cpu")?;
    Ok((device.name().to_string(), Arc::new(device)))
}

/// Opens the Vulkan device of a number; each is opened once in a process.
pub(super) fn device(number: usize) -> Result<Device<WgpuRuntime>, DeviceError> {
    static OPEN: OnceLock<Mutex<Open>> = OnceLock::new();
    let mut open = OPEN.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner());
    if let Some((device, machine)) = open.get(&number) {
        return Ok(Device::new(number, WgpuRuntime::client(device), machine.clone()));
    }
    let instance = instance();
    let adapter = adapter(&instance, number)?;
    let machine = machine_of(&adapter)?;
    let descriptor = wgpu::DeviceDescriptor {
        label: None,
        required_features: adapter.features() & wgpu::Features::all_webgpu_mask(),
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    };
    let (device, queue) = block_on(adapter.request_device(&descriptor))
        .map_err(|e| DeviceError::new(format!("{} could not be opened: {e}", machine.name), REMEDY))?;
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup { instance, adapter, device, queue, backend };
    let device = cubecl_wgpu::init_device(setup, RuntimeOptions::default());
    let client = WgpuRuntime::client(&device);
    open.insert(number, (device, machine.clone()));
    Ok(Device::new(number, client, machine))
}

fn adapter(instance: &wgpu::Instance, number: usize) -> Result<wgpu::Adapter, DeviceError> {
    let mut all = adapters(instance);
    if number < all.len() {
        return Ok(all.swap_remove(number));
    }
    let what = match all.len() {
        0 => "no Vulkan device was found".to_owned(),
        n => format!("there is no Vulkan device {number}: the last is vulkan:{}", n - 1),
    };
    let remedy = if all.is_empty() { REMEDY } else { "see `pg devices`" };
    Err(DeviceError::new(what, remedy))
}

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

fn adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN))
}

fn describe(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    format!("{} ({:?}, {})", info.name, info.device_type, info.driver)
}

/// What an adapter offers, checked to be at least what kernels are generated for.
fn machine_of(adapter: &wgpu::Adapter) -> Result<Machine, DeviceError> {
    let limits = adapter.limits();
    let limits = Limits {
        grid_axis: limits.max_compute_workgroups_per_dimension.min(65_535),
        block_threads: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
        shared_bytes: limits.max_compute_workgroup_storage_size as usize,
        // CubeCL binds one more buffer of its own, and wgpu another.
        bindings: (limits.max_storage_buffers_per_shader_stage as usize).saturating_sub(2),
        binding_bytes: limits.max_storage_buffer_binding_size,
        allocation_bytes: limits.max_buffer_size,
        binding_align: u64::from(limits.min_storage_buffer_offset_alignment).max(16),
    };
    let machine = Machine { name: describe(adapter).into(), limits, ..VULKAN_CPU };
    if limits.block_threads < 256 || limits.shared_bytes < 16 * 1024 {
        let what = format!(
            "{} runs {} threads a workgroup with {} bytes of shared memory; kernels need 256 and 16384",
            machine.name, limits.block_threads, limits.shared_bytes
        );
        return Err(DeviceError::new(what, REMEDY));
    }
    Ok(machine)
}
