//! Contractions: the portable kernel, which every device runs, and the one for tensor cores, a mainloop over k with
//! an epilogue on its accumulators.
//!
//! Members that run on tensor cores and whose operands lie alike are one kernel, the others are launches of their
//! own. An epilogue that a kernel cannot run is a launch after it, with the result in a workspace between them.

mod epilogue;
pub(crate) mod mainloop;
pub(crate) mod portable;
pub(crate) mod tensor_core;

use pg_ir::ty::DType;

use super::error::CubeError;
use super::generate::element_bytes;
use super::stage::{ArgInfo, Launches, StageArg};
use super::{has_bf16, region, through_float32};
use crate::machine::Machine;
use crate::plan::{Contraction, Kernel, Matmul, Member, result_regions};
use crate::region::Region;

/// Adds the launches of a contraction.
///
/// # Errors
/// If it is malformed or does not fit the machine.
pub(crate) fn lower(
    contraction: &Contraction,
    args: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let Contraction { shared, members } = contraction;
    if let Some(member) = contraction.single() {
        return single(member, args, machine, out);
    }
    let own = |i: usize| -> Vec<ArgInfo> { contraction.args(i).iter().map(|&at| args[at]).collect() };
    let mut together: Vec<(Option<tensor_core::Layouts>, Vec<usize>)> = Vec::new();
    for (i, member) in members.iter().enumerate() {
        let layouts = tensor_core::layouts(member, &own(i), machine);
        match together.iter_mut().find(|(l, _)| l.is_some() && *l == layouts) {
            Some((_, members)) => members.push(i),
            None => together.push((layouts, vec![i])),
        }
    }
    let size = |i: &usize| {
        let m = &members[*i].matmul;
        (m.batch * m.m * m.n * m.k) as f64
    };
    let whole: f64 = (0..members.len()).map(|i| size(&i)).sum();
    for (_, some) in together {
        let mut made = Launches::default();
        let names = match some[..] {
            [one] => {
                single(&members[one], &own(one), machine, &mut made)?;
                contraction.args(one)
            }
            _ => {
                let rest = some.iter().flat_map(|&i| contraction.args(i).into_iter().filter(|&at| at > 0));
                let names: Vec<usize> = [0].into_iter().chain(rest).collect();
                let infos: Vec<ArgInfo> = names.iter().map(|&at| args[at]).collect();
                let members = some.iter().map(|&i| members[i].clone()).collect();
                let some = Contraction { shared: *shared, members };
                tensor_core::lower(&some, &infos, machine, &mut made)?;
                names
            }
        };
        let part = some.iter().map(size).sum::<f64>() / whole;
        made.stages.iter_mut().for_each(|stage| stage.share *= part);
        let names: Vec<StageArg> = names.into_iter().map(StageArg::Arg).collect();
        out.merge(made, &names);
    }
    Ok(())
}

/// Adds the launches of a single product.
fn single(member: &Member, args: &[ArgInfo], machine: &Machine, out: &mut Launches) -> Result<(), CubeError> {
    let whole = || Contraction { shared: None, members: vec![member.clone()] };
    if tensor_core::fits(member, args, machine) {
        return tensor_core::lower(&whole(), args, machine, out);
    }
    if !member.segments.is_empty() {
        return segment_by_segment(member, args, machine, out);
    }
    let m = &member.matmul;
    match &member.epilogue {
        Some(region) => product_then_region(m, region, args, machine, out),
        // A column is a row of the transpose.
        None if m.n == 1 && m.m > 1 && has_bf16(args) => {
            let turned = Member::from(m.transposed());
            let mut made = Launches::default();
            single(&turned, &[args[1], args[0], args[2]], machine, &mut made)?;
            out.merge(made, &[1, 0, 2].map(StageArg::Arg));
            Ok(())
        }
        None if has_bf16(args) => through_float32(&Kernel::Contraction(whole()), args, machine, out),
        None => portable::lower(m, args, machine, out),
    }
}

/// A product for each segment of k, the first into a workspace in float32, the others added to it; then what takes the
/// result.
fn segment_by_segment(
    member: &Member,
    args: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let m = &member.matmul;
    let sum = ArgInfo::whole(DType::F32, m.batch * m.m * m.n);
    let result = StageArg::Workspace(out.workspace(4 * sum.len));
    for (i, product) in member.products().enumerate() {
        let product = Member::from(Matmul { accumulate: i > 0, ..product.densely() });
        let mut made = Launches::default();
        single(&product, &[args[2 * i], args[2 * i + 1], sum], machine, &mut made)?;
        out.merge(made, &[StageArg::Arg(2 * i), StageArg::Arg(2 * i + 1), result]);
    }
    let rest = member.operand_count();
    let region = match &member.epilogue {
        Some(region) => region.clone(),
        None => result_regions::result(m, args[rest].dtype),
    };
    region_on(&result_regions::on_sum_of_parts(&region, 1), (sum, result), (args, rest), machine, out)
}

/// A product and the region on its result as two launches, with the result in a workspace between them.
fn product_then_region(
    m: &Matmul,
    region: &Region,
    args: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let dtype = region.args.first().copied().unwrap_or(DType::F32);
    let len = m.batch * m.m * m.n;
    let between = ArgInfo::whole(dtype, len);
    let mut made = Launches::default();
    let product = Member::from(m.densely());
    single(&product, &[args[0], args[1], between], machine, &mut made)?;
    let result = StageArg::Workspace(out.workspace(element_bytes(dtype) * len));
    out.merge(made, &[StageArg::Arg(0), StageArg::Arg(1), result]);
    region_on(region, (between, result), (args, 2), machine, out)
}

/// Adds the launches of a region whose argument 0 is a result in a workspace, and the others those of the product
/// behind its operands.
fn region_on(
    region: &Region,
    (info, result): (ArgInfo, StageArg),
    (args, operands): (&[ArgInfo], usize),
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let infos: Vec<ArgInfo> = [info].into_iter().chain(args[operands..].iter().copied()).collect();
    let rest = (operands..args.len()).map(StageArg::Arg);
    let names: Vec<StageArg> = [result].into_iter().chain(rest).collect();
    region::append(region, &infos, &names, machine, out)
}
