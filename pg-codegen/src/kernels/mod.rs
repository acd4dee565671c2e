//! Kernels of a plan as CubeCL kernels.
//!
//! [`lower`] turns one launch of a plan into one or a few generated launches. A [`Generated`] kernel is a value: it runs
//! on any CubeCL runtime, and [`emit_cuda`] gives its CUDA C++ without any device. Portable kernels use float32, shared
//! memory and barriers only; warp operations, bfloat16 and tensor cores are used where [`Machine::isa`] has them. There
//! are no float atomics: the order of every sum follows from shapes and the machine's tuning, so results are the same
//! from run to run.

#![allow(
    clippy::if_same_then_else,
    clippy::useless_conversion,
    reason = "in `#[cube]` functions a constant condition chooses code, and both forms of a value need one type"
)]

mod attention;
mod contraction;
mod error;
mod generate;
mod inventory;
mod kernel;
mod limits;
mod listing;
mod math;
mod region;
mod scatter;
mod source;
mod stage;
mod tensor_core;
#[cfg(test)]
mod tests;

use crate::machine::Machine;
use crate::plan::Kernel;
use crate::region::{Affine, IndexMap, Instr, Region};
use pg_ir::ty::DType;

pub use self::error::CubeError;
pub use self::generate::{
    Extent, Generation, Generations, Generator, LaunchError, element_bytes, extents, generate,
};
pub use self::inventory::{Entry, inventory};
pub use self::kernel::{ArgSpec, CUBECL, GENERATOR, Generated, Launchable};
pub use self::limits::Needs;
pub use self::listing::{formatted, listing};
#[cfg(feature = "wgsl")]
pub use self::source::emit_wgsl;
pub use self::source::{CudaCompiler, Emitted, cuda_options, emit_cuda, emit_cuda_launch, emit_in};
pub use self::stage::{ArgInfo, Launches, Stage, StageArg};

/// The generated launches of one launch of a plan, whose arguments are as `args` says.
///
/// # Errors
/// If the kernel is malformed, needs what the target does not have, or exceeds one of its limits.
pub fn lower(kernel: &Kernel, args: &[ArgInfo], machine: &Machine) -> Result<Launches, CubeError> {
    check(kernel, args)?;
    let mut out = Launches::default();
    match kernel {
        Kernel::Region(r) => region::lower(r, args, machine, false, &mut out)?,
        Kernel::Contraction(c) => contraction::lower(c, args, machine, &mut out)?,
        Kernel::Attention(shape) if attention::tensor_core::fits(shape, args, machine) => {
            attention::tensor_core::lower(shape, args, machine, &mut out)?;
        }
        Kernel::AttentionGrad(shape) if attention::tensor_core_grad::fits(shape, args, machine) => {
            attention::tensor_core_grad::lower(shape, args, machine, &mut out)?;
        }
        Kernel::Attention(_) | Kernel::AttentionGrad(_) if has_bf16(args) => {
            through_float32(kernel, args, machine, &mut out)?;
        }
        Kernel::Attention(shape) => attention::portable::lower(shape, args, machine, &mut out)?,
        Kernel::AttentionGrad(shape) => attention::portable_grad::lower(shape, args, machine, &mut out)?,
        Kernel::ScatterAdd { rows, width, count } => {
            scatter::lower((*rows, *width, *count), args, machine, &mut out)?;
        }
        Kernel::Copy { len } => region::lower(&copy(*len, args), args, machine, false, &mut out)?,
    }
    Ok(out)
}

/// Holds a launch to what its kernel takes: as many arguments, long enough, and no index beyond 32 bits.
fn check(kernel: &Kernel, args: &[ArgInfo]) -> Result<(), CubeError> {
    let malformed = |what: String| CubeError::Malformed { kernel: kernel.family().into(), what };
    kernel.check().map_err(malformed)?;
    let params = kernel.params();
    if params.len() != args.len() {
        return Err(malformed(format!("takes {} arguments, not {}", params.len(), args.len())));
    }
    for (i, (param, arg)) in params.iter().zip(args).enumerate() {
        let Some(want) = param.len else { continue };
        if want == 0 || arg.len < want || want.saturating_add(arg.shift) > i32::MAX as usize {
            return Err(malformed(format!("takes {want} elements for argument {i}, not {}", arg.len)));
        }
    }
    Ok(())
}

fn has_bf16(args: &[ArgInfo]) -> bool {
    args.iter().any(|a| a.dtype == DType::BF16)
}

/// A portable kernel on bfloat16 arguments, which it does not take: copies in float32 before and after it. So runs
/// what kernels for tensor cores do not take, such as attention of other widths than theirs.
fn through_float32(
    kernel: &Kernel,
    args: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let float = |info: &ArgInfo| match info.dtype {
        DType::BF16 => ArgInfo::whole(DType::F32, info.len),
        _ => *info,
    };
    let infos: Vec<ArgInfo> = args.iter().map(float).collect();
    let params = kernel.params();
    let mut names: Vec<StageArg> = (0..args.len()).map(StageArg::Arg).collect();
    let converted: Vec<usize> = (0..args.len()).filter(|&i| args[i].dtype == DType::BF16).collect();
    for &i in &converted {
        names[i] = StageArg::Workspace(out.workspace(4 * args[i].len));
        if !params[i].is_written {
            let made = lower(&Kernel::Copy { len: args[i].len }, &[args[i], infos[i]], machine)?;
            out.append(made, &[StageArg::Arg(i), names[i]]);
        }
    }
    out.merge(lower(kernel, &infos, machine)?, &names);
    for &i in converted.iter().filter(|&&i| params[i].is_written) {
        let made = lower(&Kernel::Copy { len: args[i].len }, &[infos[i], args[i]], machine)?;
        out.append(made, &[names[i], StageArg::Arg(i)]);
    }
    Ok(())
}

fn copy(len: usize, args: &[ArgInfo]) -> Region {
    let at = Affine { offset: 0, strides: [1].into_iter().collect() };
    let load = Instr::Load { arg: 0, map: IndexMap { at: at.clone(), guards: Vec::new() } };
    let body = vec![load, Instr::Store { arg: 1, value: 0, at }];
    Region { rows: Vec::new(), reduced: 0, columns: len, body, args: args.iter().map(|a| a.dtype).collect() }
}
