//! Kernels as source text, without a device.

use cubecl::prelude::*;
use cubecl::{CompilationError, Compiler, CubeTask};
use cubecl_cpp::cuda::mma::CudaWmmaCompiler;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};

use super::kernel::Generated;
use super::target::{CubeError, Language};

/// The compiler of CubeCL's CUDA server.
pub type CudaCompiler = CppCompiler<cubecl_cpp::cuda::CudaDialect<CudaWmmaCompiler>>;

/// The options of CubeCL's CUDA server on a Hopper device (`cubecl-cuda/src/runtime.rs`). Others give
/// kernels with another ABI: with `grid_constants`, metadata is passed by value.
pub fn cuda_options() -> CompilationOptions {
    CompilationOptions {
        warp_size: 32,
        supports_features: CppSupportedFeatures {
            fast_math: true,
            grid_constants: true,
            fast_tanh: true,
            clusters: true,
            elect_sync: true,
        },
    }
}

/// The CUDA C++ of a kernel, exactly as CubeCL's CUDA server would compile it.
///
/// # Errors
/// If CubeCL's compiler refuses the kernel.
pub fn emit_cuda(kernel: &Generated) -> Result<String, CubeError> {
    emit::<CudaCompiler>(kernel, &cuda_options())
}

/// The WGSL of a kernel.
///
/// # Errors
/// If CubeCL's compiler refuses the kernel.
#[cfg(feature = "wgsl")]
pub fn emit_wgsl(kernel: &Generated) -> Result<String, CubeError> {
    emit::<cubecl_wgpu::WgslCompiler>(kernel, &Default::default())
}

/// The source of a kernel in a language.
///
/// # Errors
/// If CubeCL's compiler refuses the kernel, or this build cannot write the language.
pub fn emit_in(kernel: &Generated, language: Language) -> Result<String, CubeError> {
    match language {
        Language::Cuda => emit_cuda(kernel),
        #[cfg(feature = "wgsl")]
        Language::Wgsl => emit_wgsl(kernel),
        #[cfg(not(feature = "wgsl"))]
        Language::Wgsl => Err(CubeError::Compile {
            kernel: kernel.name().into(),
            why: "this build writes no WGSL: it needs the feature `vulkan`".into(),
        }),
    }
}

fn emit<C: Compiler + Default>(
    kernel: &Generated,
    options: &C::CompilationOptions,
) -> Result<String, CubeError> {
    let task: KernelTask<C, Generated> = KernelTask::new(kernel.clone());
    let address = KernelMetadata::address_type(kernel);
    let compiled = task.compile(&mut C::default(), options, ExecutionMode::Unchecked, address);
    let failed =
        |e: CompilationError| CubeError::Compile { kernel: kernel.name().into(), why: e.to_string() };
    Ok(compiled.map_err(failed)?.source)
}
