//! Kernels as source text, without a device.

use cubecl::prelude::*;
use cubecl::{CompilationError, Compiler, CubeTask};
use cubecl_cpp::cuda::mma::CudaWmmaCompiler;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};

use super::kernel::Generated;
use super::target::CubeError;

/// Bytes of stack for CubeCL's expansion and compiler.
const STACK: usize = 64 << 20;

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

fn emit<C: Compiler + Default>(
    kernel: &Generated,
    options: &C::CompilationOptions,
) -> Result<String, CubeError>
where
    C::CompilationOptions: Sync,
{
    let failed = |why: String| CubeError::Compile { kernel: kernel.name().into(), why };
    let compile = || {
        let task: KernelTask<C, Generated> = KernelTask::new(kernel.clone());
        let address = KernelMetadata::address_type(kernel);
        let compiled = task.compile(&mut C::default(), options, ExecutionMode::Unchecked, address);
        Ok(compiled.map_err(|e: CompilationError| failed(e.to_string()))?.source)
    };
    // Expanding an unrolled kernel takes more stack than threads have by default.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, compile);
        let thread = thread.map_err(|e| failed(format!("no thread could be started: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("CubeCL's compiler panicked".into())))
    })
}
