//! Regions: every instruction reads earlier registers of the types that its function takes, rows where it works on
//! rows, and every index map has one stride an axis.
//!
//! These are the rules that executors compile regions by. A register has a row of elements or one; which of the two
//! decides what is stored, so it is derived here as `region` defines it, not taken from an executor.

use pg_ir::op::Binary;
use pg_ir::ty::DType;

use super::access::regions;
use super::{Check, Finding, Subject};
use crate::region::{Affine, IndexMap, Instr, Reg, Region};

/// Type of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Float,
    Int,
    Bool,
    /// Of a store: there is none.
    Nothing,
}

impl Kind {
    fn of(dtype: DType) -> Kind {
        match dtype {
            DType::F32 | DType::BF16 => Kind::Float,
            DType::I32 => Kind::Int,
            DType::Bool => Kind::Bool,
        }
    }
}

/// A register: its type, and whether it has an element a lane or one a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    pub(super) kind: Kind,
    pub(super) wide: bool,
}

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let mut first: Vec<Option<usize>> = vec![None; s.plan.kernels.len()];
    for (i, launch, _) in s.launches() {
        first[launch.kernel.0 as usize].get_or_insert(i);
    }
    for (kernel, launch) in s.plan.kernels.iter().zip(first) {
        for part in regions(kernel) {
            if let Err(message) = registers(part.region) {
                return Err(Finding { launch, ..Finding::new(Check::Kernels, message) });
            }
        }
    }
    Ok(())
}

/// Whether every argument that a region names is there, which other checks rely on.
pub(super) fn check_arguments(region: &Region) -> Result<(), String> {
    for (i, instr) in region.body.iter().enumerate() {
        match instr {
            Instr::Load { arg, .. }
            | Instr::Gather { arg, .. }
            | Instr::Store { arg, .. }
            | Instr::Accumulate { arg, .. }
                if *arg as usize >= region.args.len() =>
            {
                return Err(format!("has no argument a{arg}, which instruction {i} names"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The registers of a region, or what is wrong with it.
pub(super) fn registers(region: &Region) -> Result<Vec<Register>, String> {
    if region.reduced > region.rows.len() {
        return Err("its region reduces more axes than it has".into());
    }
    let sizes = region.rows.iter().chain([&region.lanes]);
    let len = sizes.into_iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    if len.is_none_or(|len| len == 0 || len > isize::MAX as usize) {
        return Err(format!("its region's domain is {:?} × {}", region.rows, region.lanes));
    }
    let mut registers: Vec<Register> = Vec::with_capacity(region.body.len());
    for (i, instr) in region.body.iter().enumerate() {
        let faulty = |e| format!("instruction {i}, {}: {e}", shown(instr));
        registers.push(register(region, &registers, instr).map_err(faulty)?);
    }
    let accumulates = region.body.iter().any(|i| matches!(i, Instr::Accumulate { .. }));
    if accumulates != (region.reduced > 0) {
        return Err(format!("its region reduces {} axes", region.reduced));
    }
    Ok(registers)
}

/// An instruction for people; without its index map if that has no strides at all.
fn shown(instr: &Instr) -> String {
    match instr {
        Instr::Load { map: IndexMap { at, .. }, .. }
        | Instr::Gather { map: IndexMap { at, .. }, .. }
        | Instr::Index(at)
        | Instr::Store { at, .. }
        | Instr::Accumulate { at, .. }
            if at.strides.is_empty() =>
        {
            "of an index map".into()
        }
        instr => instr.to_string(),
    }
}

fn check_affine(region: &Region, at: &Affine) -> Result<(), String> {
    let (want, have) = (region.rows.len() + 1, at.strides.len());
    if want == have { Ok(()) } else { Err(format!("{have} strides for {want} axes")) }
}

fn check_map(region: &Region, map: &IndexMap) -> Result<(), String> {
    check_affine(region, &map.at)?;
    for guard in &map.guards {
        check_affine(region, &guard.expr)?;
        if guard.size <= 0 {
            return Err(format!("a guard that is never within {}", guard.size));
        }
    }
    Ok(())
}

fn register(region: &Region, before: &[Register], instr: &Instr) -> Result<Register, String> {
    let reg = |r: Reg| match before.get(r as usize) {
        None => Err(format!("r{r} comes later")),
        Some(Register { kind: Kind::Nothing, .. }) => Err(format!("r{r} is a store")),
        Some(register) => Ok(*register),
    };
    let float = |r: Reg| match reg(r)? {
        found if found.kind == Kind::Float => Ok(found),
        found => Err(format!("r{r} is no float but {:?}", found.kind)),
    };
    // Of one lane, a row is one element.
    let row = |r: Reg| match reg(r)? {
        found if found.wide || region.lanes == 1 => Ok(found),
        _ => Err(format!("r{r} has one element a row, a row is needed")),
    };
    let spread = |at: &Affine| at.strides.last() != Some(&0);
    let spread_map = |map: &IndexMap| spread(&map.at) || map.guards.iter().any(|g| spread(&g.expr));
    let arg_kind = |arg: u32| Kind::of(region.args[arg as usize]);
    Ok(match instr {
        Instr::Load { arg, map } => {
            check_map(region, map)?;
            Register { kind: arg_kind(*arg), wide: spread_map(map) }
        }
        Instr::Gather { arg, row, map, .. } => {
            check_map(region, map)?;
            let row = reg(*row)?;
            if row.kind != Kind::Int {
                return Err(format!("the row is no integer but {:?}", row.kind));
            }
            Register { kind: arg_kind(*arg), wide: row.wide || spread_map(map) }
        }
        Instr::Const(_) => Register { kind: Kind::Float, wide: false },
        Instr::ConstInt(_) => Register { kind: Kind::Int, wide: false },
        Instr::Index(at) => {
            check_affine(region, at)?;
            Register { kind: Kind::Int, wide: spread(at) }
        }
        Instr::Unary(_, a) => float(*a)?,
        Instr::Binary(f, a, b) => binary(*f, reg(*a)?, reg(*b)?)?,
        Instr::Select(c, a, b) => {
            let (c, a, b) = (reg(*c)?, reg(*a)?, reg(*b)?);
            if c.kind != Kind::Bool || a.kind != b.kind {
                return Err(format!("it selects {:?} or {:?} by {:?}", a.kind, b.kind, c.kind));
            }
            Register { kind: a.kind, wide: c.wide || a.wide || b.wide }
        }
        Instr::Cast(to, a) => Register { kind: Kind::of(*to), ..reg(*a)? },
        Instr::RowReduce(_, a) => {
            float(*a)?;
            row(*a)?;
            Register { kind: Kind::Float, wide: false }
        }
        Instr::Lanes(perm, a) => {
            if perm.len() != region.lanes || perm.iter().any(|&p| p as usize >= region.lanes) {
                return Err(format!("the permutation of {} does not fit {} lanes", perm.len(), region.lanes));
            }
            row(*a)?
        }
        Instr::FakeQuant(_, a) => {
            float(*a)?;
            row(*a)?
        }
        Instr::Store { arg, value, at } => {
            check_affine(region, at)?;
            written(region, at, reg(*value)?, *value)?;
            if reg(*value)?.kind != arg_kind(*arg) {
                let (kind, dtype) = (reg(*value)?.kind, region.args[*arg as usize]);
                return Err(format!("r{value} is {kind:?}, the argument {dtype}"));
            }
            Register { kind: Kind::Nothing, wide: false }
        }
        Instr::Accumulate { arg, value, at, .. } => {
            check_affine(region, at)?;
            written(region, at, float(*value)?, *value)?;
            if region.args[*arg as usize] != DType::F32 {
                return Err(format!("it accumulates {}", region.args[*arg as usize]));
            }
            let rank = region.rows.len();
            if at.strides[rank - region.reduced..rank].iter().any(|s| *s != 0) {
                return Err("the place of the result moves along a reduced axis".into());
            }
            Register { kind: Kind::Nothing, wide: false }
        }
    })
}

/// Whether what is written is a row exactly where the index map walks lanes.
fn written(region: &Region, at: &Affine, value: Register, reg: Reg) -> Result<(), String> {
    let walks = at.strides.last() != Some(&0);
    if region.lanes > 1 && value.wide != walks {
        let (is, wants) = if walks { ("one element a row", "a row") } else { ("a row", "one element a row") };
        return Err(format!("r{reg} is {is}, {wants} is written"));
    }
    Ok(())
}

fn binary(f: Binary, a: Register, b: Register) -> Result<Register, String> {
    let takes = match f {
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Max | Binary::Gt => a.kind != Kind::Bool,
        Binary::Div => a.kind == Kind::Float,
        Binary::Rem => a.kind == Kind::Int,
        Binary::Xor => a.kind != Kind::Float,
        Binary::Eq => true,
    };
    if a.kind != b.kind || !takes {
        return Err(format!("it does not take {:?} and {:?}", a.kind, b.kind));
    }
    let kind = if matches!(f, Binary::Gt | Binary::Eq) { Kind::Bool } else { a.kind };
    Ok(Register { kind, wide: a.wide || b.wide })
}
