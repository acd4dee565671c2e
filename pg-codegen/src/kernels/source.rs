//! Kernels as source text, without a device.

use cubecl::prelude::*;
use cubecl::{CompilationError, Compiler, CubeTask};
use cubecl_common::backtrace::BackTrace;
use cubecl_cpp::cuda::mma::CudaWmmaCompiler;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};

use super::error::CubeError;
use super::kernel::{Generated, Launchable};
use crate::machine::Language;

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

/// A kernel's CUDA C++, and what a driver must know to launch it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emitted {
    /// The source, exactly as CubeCL's CUDA server would compile it.
    pub source: String,
    /// Name of its entry point.
    pub entry_point: String,
    /// Bytes of shared memory that a launch asks for. CubeCL lays arrays out in an order of its own, which
    /// may differ from one emission to the next; [`Generated::shared_bytes`] is never less.
    pub shared_bytes: usize,
}

/// The CUDA C++ of a kernel.
///
/// # Errors
/// If CubeCL's compiler refuses the kernel.
pub fn emit_cuda(kernel: &Generated) -> Result<String, CubeError> {
    Ok(emit_cuda_launch(kernel)?.source)
}

/// The CUDA C++ of a kernel, with what a launch needs.
///
/// # Errors
/// If CubeCL's compiler refuses the kernel.
pub fn emit_cuda_launch(kernel: &Generated) -> Result<Emitted, CubeError> {
    emit::<CudaCompiler>(kernel, &cuda_options(), |repr| repr.shared_memory_size())
}

/// The WGSL of a kernel.
///
/// # Errors
/// If CubeCL's compiler refuses the kernel.
#[cfg(feature = "wgsl")]
pub fn emit_wgsl(kernel: &Generated) -> Result<String, CubeError> {
    Ok(emit::<cubecl_wgpu::WgslCompiler>(kernel, &Default::default(), |_| kernel.shared_bytes())?.source)
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

/// The same source with vector types and variables declared in a fixed order. CubeCL declares them in another
/// order every time, and sources are compared.
fn with_sorted_declarations(source: &str) -> String {
    let is_vector = |line: &str| line.starts_with("struct __align__");
    // A vector type is one item of several lines, anything else a line.
    let mut items: Vec<String> = Vec::new();
    let mut inside = false;
    for line in source.lines() {
        match items.last_mut().filter(|_| inside) {
            Some(item) => *item += &format!("\n{line}"),
            None => items.push(line.into()),
        }
        inside = (inside || is_vector(line)) && line != "};";
    }
    let variable = |line: &str| {
        let (_, name) = line.trim().strip_suffix(';')?.split_once(' ')?;
        name.strip_prefix("l_mut_")?.parse::<u32>().ok()
    };
    let kind = |item: &str| (is_vector(item), variable(item).is_some());
    items.chunk_by_mut(|a, b| kind(a) == kind(b)).for_each(|run| {
        if kind(&run[0]) != (false, false) {
            run.sort_by_cached_key(|item| (variable(item), item.clone()));
        }
    });
    items.join("\n") + "\n"
}

fn emit<C: Compiler + Default>(
    kernel: &Generated,
    options: &C::CompilationOptions,
    shared_bytes: impl Fn(&C::Representation) -> usize + Send + Sync,
) -> Result<Emitted, CubeError>
where
    C::CompilationOptions: Sync,
{
    let failed = |why: String| CubeError::Compile { kernel: kernel.name().into(), why };
    let compile = || {
        let task: KernelTask<C, Generated> = KernelTask::new(kernel.clone());
        let address = KernelMetadata::address_type(kernel);
        let compiled = task.compile(&mut C::default(), options, ExecutionMode::Unchecked, address);
        let compiled = compiled.map_err(|e: CompilationError| failed(e.to_string()))?;
        let shared_bytes = compiled.repr.as_ref().map_or(0, &shared_bytes);
        let source = with_sorted_declarations(&compiled.source);
        Ok(Emitted { source, entry_point: compiled.entrypoint_name, shared_bytes })
    };
    on_large_stack(compile).unwrap_or_else(|why| Err(failed(why)))
}

/// Launched as a task of its own, a kernel is expanded and compiled on a stack that suffices, and what panics
/// there is an error: CubeCL's server would end.
impl<C: Compiler> CubeTask<C> for Launchable
where
    C::Representation: Send,
    C::CompilationOptions: Sync,
{
    fn compile(
        &self,
        compiler: &mut C,
        options: &C::CompilationOptions,
        mode: ExecutionMode,
        address: StorageType,
    ) -> Result<CompiledKernel<C>, CompilationError> {
        let task: KernelTask<C, Launchable> = KernelTask::new(self.clone());
        let compiled = on_large_stack(|| task.compile(compiler, options, mode, address));
        compiled.unwrap_or_else(|reason| {
            Err(CompilationError::Generic { reason, backtrace: BackTrace::capture() })
        })
    }
}

/// Does something on a thread of its own: expanding an unrolled kernel takes more stack than threads have by
/// default.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| format!("no thread could be started: {e}"))?;
        thread.join().map_err(|_| "CubeCL's compiler panicked".into())
    })
}
