//! Kernels of a plan as CubeCL kernels: the portable variant.
//!
//! [`lower`] iterations one launch of a plan into one or a few generated launches. A [`Generated`] kernel is a
//! value: it runs on any CubeCL runtime, and [`emit_cuda`] gives its CUDA C++ without any device. The
//! portable variant keeps to what every GPU has: float32, vectors of four, shared memory and barriers;
//! no warp operations, no tensor cores, no float atomics. Every sum has an order that follows from
//! shapes alone, so results are the same from run to run.

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
pub use self::generate::{Extent, Generation, Generations, LaunchError, element_bytes, extents, generate};
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
        Kernel::Copy { len } => region::lower(&copy(*len, args)?, args, machine, false, &mut out)?,
    }
    Ok(out)
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
    let mut names: Vec<StageArg> = (0..args.len()).map(StageArg::Arg).collect();
    let converted: Vec<usize> = (0..args.len()).filter(|&i| args[i].dtype == DType::BF16).collect();
    for &i in &converted {
        names[i] = StageArg::Workspace(out.workspace(4 * args[i].len));
        if !kernel.writes(i) {
            let made = lower(&Kernel::Copy { len: args[i].len }, &[args[i], infos[i]], machine)?;
            out.append(made, &[StageArg::Arg(i), names[i]]);
        }
    }
    out.merge(lower(kernel, &infos, machine)?, &names);
    for &i in converted.iter().filter(|&&i| kernel.writes(i)) {
        let made = lower(&Kernel::Copy { len: args[i].len }, &[infos[i], args[i]], machine)?;
        out.append(made, &[names[i], StageArg::Arg(i)]);
    }
    Ok(())
}

fn copy(len: usize, args: &[ArgInfo]) -> Result<Region, CubeError> {
    let [from, to] = args else {
        return Err(CubeError::Malformed { kernel: "copy".into(), what: "it takes two arguments".into() });
    };
    let at = Affine { offset: 0, strides: [1].into_iter().collect() };
    let load = Instr::Load { arg: 0, map: IndexMap { at: at.clone(), guards: Vec::new() } };
    let body = vec![load, Instr::Store { arg: 1, value: 0, at }];
    Ok(Region { rows: Vec::new(), reduced: 0, columns: len, body, args: vec![from.dtype, to.dtype] })
}
