//! The machines that pg knows, each with the source of its figures. Adding one is adding a value here, and naming it in
//! [`ALL`]; docs/ADDING.md has the walk.

use std::borrow::Cow;

use pg_ir::ty::DType;

use super::tuning::Tuning;
use super::{CudaDevice, Epilogues, FEWEST_BINDINGS, Isa, Language, Limits, Machine, Rates};

/// Every machine.
pub const ALL: &[Machine] = &[CPU, VULKAN_CPU, CUDA, A100, H100, H200];

/// The project's reference CPU: two cores of a shared Xeon with AVX-512 and AMX (machine `ci` of MEASURED.md).
/// Measured, as `pg profile` measures its roof: 590 GFLOP/s in float32 products on AMX tiles, copies at
/// 33 GB/s. Assumed: 60 GFLOP/s for element-wise chains, 5 µs to fork and join.
pub const CPU: Machine = Machine {
    name: Cow::Borrowed("cpu"),
    summary: "two cores with AVX-512 and AMX, float32; matrix rate and bandwidth as measured on the machine `ci`",
    storage: DType::F32,
    epilogues: None,
    fuse_horizontally: false,
    concatenate_k: false,
    remat_traffic: 1,
    processors: 2,
    rates: Rates { matrix_flops: 590e9, vector_flops: 60e9, bandwidth: 33e9, launch_seconds: 5e-6 },
    limits: Limits {
        grid_axis: u32::MAX,
        block_threads: 1,
        shared_bytes: 1 << 20,
        bindings: usize::MAX,
        binding_bytes: u64::MAX,
        allocation_bytes: u64::MAX,
        binding_align: 64,
    },
    isa: None,
    cuda: None,
    tuning: Tuning::DEFAULT,
};

/// What every device of the portable kernels can run: the least that Vulkan, Metal and WebGPU drivers offer in practice.
const PORTABLE: Limits = Limits {
    grid_axis: 65_535,
    block_threads: 1024,
    shared_bytes: 32 << 10,
    bindings: FEWEST_BINDINGS,
    binding_bytes: 128 << 20,
    allocation_bytes: 1 << 30,
    binding_align: 256,
};

/// Vulkan's software device on the same two cores (Mesa `llvmpipe`), which proves generated kernels and is not
/// meant to be fast. Its limits are what the driver reports; its rates are assumed, not measured.
pub const VULKAN_CPU: Machine = Machine {
    name: Cow::Borrowed("vulkan-cpu"),
    summary: "Mesa llvmpipe on two cores, float32; limits as its driver reports, rates assumed",
    rates: Rates { matrix_flops: 24e9, vector_flops: 24e9, bandwidth: 10e9, launch_seconds: 100e-6 },
    limits: PORTABLE,
    isa: Some(Isa { language: Language::Wgsl, bf16: false, tensor_cores: false, warp: None }),
    ..CPU
};

/// Any CUDA device from compute capability 7.0 on, with the portable kernels in float32. Its rates are assumed to be an
/// A100's; a driver reports its limits.
pub const CUDA: Machine = Machine {
    name: Cow::Borrowed("cuda"),
    summary: "any CUDA device, portable kernels in float32; rates assumed to be an A100's",
    cuda: None,
    ..A100
};

/// What every CUDA device has.
const CUDA_LIMITS: Limits = Limits {
    shared_bytes: 48 << 10,
    // A buffer takes two words of a kernel's 4 KiB of parameters, and two more of its metadata.
    bindings: 128,
    binding_bytes: 1 << 40,
    allocation_bytes: 1 << 40,
    binding_align: 16,
    ..PORTABLE
};

/// NVIDIA A100 SXM4 80 GB, from its data sheet: 19.5 TFLOP/s float32, 2.04 TB/s, 108 SMs. It runs the portable
/// kernels: those for tensor cores are compiled for Hopper. Assumed: 3 µs a launch, without CUDA graphs.
pub const A100: Machine = Machine {
    name: Cow::Borrowed("a100"),
    summary: "NVIDIA A100 SXM4, portable kernels in float32; peaks of the data sheet",
    storage: DType::F32,
    epilogues: None,
    fuse_horizontally: false,
    concatenate_k: false,
    remat_traffic: 1,
    processors: 108,
    rates: Rates { matrix_flops: 19.5e12, vector_flops: 19.5e12, bandwidth: 2.04e12, launch_seconds: 3e-6 },
    limits: CUDA_LIMITS,
    isa: Some(Isa { language: Language::Cuda, bf16: true, tensor_cores: false, warp: None }),
    cuda: Some(CudaDevice { capability: (8, 0), name: "A100" }),
    tuning: Tuning { region_spread: 1024, ..Tuning::DEFAULT },
};

/// What a tile of 128 columns in 16-byte vectors of bfloat16 can do.
pub(crate) const TILES: Epilogues = Epilogues { rows: &[32, 64, 128], of: DType::BF16, chunk: 8 };

/// NVIDIA H100 SXM5 80 GB, from its data sheet: 989.4 TFLOP/s dense bf16, 67 TFLOP/s float32, 3.35 TB/s,
/// 132 SMs, and 227 KiB of shared memory a thread block (CUDA C++ Programming Guide, compute capability 9.0). Assumed:
/// 3 µs a launch, without CUDA graphs.
pub const H100: Machine = Machine {
    name: Cow::Borrowed("h100"),
    summary: "NVIDIA H100 SXM5, bf16 storage; peaks of the data sheet",
    storage: DType::BF16,
    epilogues: Some(TILES),
    fuse_horizontally: true,
    concatenate_k: true,
    remat_traffic: 0,
    processors: 132,
    rates: Rates { matrix_flops: 989.4e12, vector_flops: 67e12, bandwidth: 3.35e12, launch_seconds: 3e-6 },
    limits: Limits { shared_bytes: 227 << 10, ..CUDA_LIMITS },
    isa: Some(Isa { language: Language::Cuda, bf16: true, tensor_cores: true, warp: Some(32) }),
    cuda: Some(CudaDevice { capability: (9, 0), name: "" }),
    tuning: A100.tuning,
};

/// NVIDIA H200 SXM 141 GB: an H100 with 4.8 TB/s.
pub const H200: Machine = Machine {
    name: Cow::Borrowed("h200"),
    summary: "NVIDIA H200 SXM, bf16 storage; peaks of the data sheet",
    rates: Rates { bandwidth: 4.8e12, ..H100.rates },
    cuda: Some(CudaDevice { capability: (9, 0), name: "H200" }),
    ..H100
};
