//! The verifier of regions: every instruction reads earlier registers of the types that its function takes, rows where
//! it works on rows; every argument that it names is there; every index map has one stride an axis.
//!
//! Whatever compiles or interprets a region may rely on these rules and on no others. Whether index maps stay
//! inside buffers, and whether writes meet, depends on the launch: the plan's verifier and executors check it.

use pg_ir::op::Binary;
use pg_ir::ty::DType;

use super::types::{Kind, RegType, reg_type};
use super::{Affine, IndexMap, Instr, Reg, Region};

/// What is wrong with a region.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{message}", .instr.map_or(String::new(), |i| format!("instruction {i}, ")))]
pub struct Malformed {
    /// The instruction, by position; `None` if it is the domain.
    pub instr: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// Holds a region to its rules, and gives the types of its registers.
///
/// # Errors
/// The first rule that is broken.
pub fn verify(region: &Region) -> Result<Vec<RegType>, Malformed> {
    let domain = |message: String| Malformed { instr: None, message };
    if region.reduced > region.rows.len() {
        return Err(domain("its region reduces more axes than it has".into()));
    }
    let len = region.sizes().iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    if len.is_none_or(|len| len == 0 || len > isize::MAX as usize) {
        return Err(domain(format!("its region's domain is {:?} × {}", region.rows, region.columns)));
    }
    let mut types: Vec<RegType> = Vec::with_capacity(region.body.len());
    for (i, instr) in region.body.iter().enumerate() {
        check(region, &types, instr).map_err(|why| {
            let message = format!("{}: {why}", shown(instr));
            Malformed { instr: Some(i), message }
        })?;
        types.push(reg_type(region, &types, instr));
    }
    let accumulates = region.body.iter().any(|i| matches!(i, Instr::Accumulate { .. }));
    if accumulates != (region.reduced > 0) {
        return Err(domain(format!("its region reduces {} axes", region.reduced)));
    }
    Ok(types)
}

/// An instruction for people; without its index map if that has no strides at all.
fn shown(instr: &Instr) -> String {
    if instr.affines().any(|a| a.strides.is_empty()) {
        return "of an index map".into();
    }
    instr.to_string()
}

fn check(region: &Region, before: &[RegType], instr: &Instr) -> Result<(), String> {
    if let Some(arg) = instr.arg().filter(|&arg| arg as usize >= region.args.len()) {
        return Err(format!("there is no argument a{arg}"));
    }
    for r in instr.operands() {
        match region.body[..before.len()].get(r as usize) {
            None => return Err(format!("r{r} comes later")),
            Some(operand) if operand.is_store() => return Err(format!("r{r} is a store")),
            Some(_) => {}
        }
    }
    let axes = region.rows.len() + 1;
    if let Some(a) = instr.affines().find(|a| a.strides.len() != axes) {
        return Err(format!("{} strides for {axes} axes", a.strides.len()));
    }
    let reg = |r: Reg| before[r as usize];
    let float = |r: Reg| match reg(r).kind {
        Kind::Float => Ok(()),
        kind => Err(format!("r{r} is no float but {kind:?}")),
    };
    // Of one column, a row is one element.
    let row = |r: Reg| match reg(r).wide || region.columns == 1 {
        true => Ok(()),
        false => Err(format!("r{r} has one element a row, a row is needed")),
    };
    match instr {
        Instr::Load { map, .. } => check_guards(map),
        Instr::Gather { row, map, .. } => {
            if reg(*row).kind != Kind::Int {
                return Err(format!("the row is no integer but {:?}", reg(*row).kind));
            }
            check_guards(map)
        }
        Instr::Const(_) | Instr::ConstInt(_) | Instr::Index(_) | Instr::Cast(..) => Ok(()),
        Instr::Unary(_, a) => float(*a),
        Instr::Binary(f, a, b) => check_binary(*f, reg(*a).kind, reg(*b).kind),
        Instr::Select(c, a, b) => {
            let [c, a, b] = [c, a, b].map(|r| reg(*r).kind);
            if c == Kind::Bool && a == b {
                Ok(())
            } else {
                Err(format!("it selects {a:?} or {b:?} by {c:?}"))
            }
        }
        Instr::RowReduce(_, a) | Instr::FakeQuant(_, a) => float(*a).and_then(|()| row(*a)),
        Instr::Permute(perm, a) => {
            if perm.len() != region.columns || perm.iter().any(|&p| p as usize >= region.columns) {
                return Err(format!(
                    "the permutation of {} does not fit {} columns",
                    perm.len(),
                    region.columns
                ));
            }
            row(*a)
        }
        Instr::Store { arg, value, at } => {
            let dtype = region.args[*arg as usize];
            if reg(*value).kind != Kind::of(dtype) {
                return Err(format!("r{value} is {:?}, the argument {dtype}", reg(*value).kind));
            }
            check_written(region, at, *value, reg(*value))
        }
        Instr::Accumulate { arg, value, at, .. } => {
            float(*value)?;
            check_written(region, at, *value, reg(*value))?;
            if region.args[*arg as usize] != DType::F32 {
                return Err(format!("it accumulates {}", region.args[*arg as usize]));
            }
            let rank = region.rows.len();
            if at.strides[rank - region.reduced..rank].iter().any(|s| *s != 0) {
                return Err("the place of the result moves along a reduced axis".into());
            }
            Ok(())
        }
    }
}

fn check_guards(map: &IndexMap) -> Result<(), String> {
    match map.guards.iter().find(|g| g.size <= 0) {
        Some(guard) => Err(format!("a guard that is never within {}", guard.size)),
        None => Ok(()),
    }
}

/// What is written is a row exactly where the index map walks columns.
fn check_written(region: &Region, at: &Affine, reg: Reg, value: RegType) -> Result<(), String> {
    let walks = at.varies_along_columns();
    if region.columns > 1 && value.wide != walks {
        let (is, wants) = if walks { ("one element a row", "a row") } else { ("a row", "one element a row") };
        return Err(format!("r{reg} is {is}, {wants} is written"));
    }
    Ok(())
}

/// The rules of the ops of the same names.
fn check_binary(f: Binary, a: Kind, b: Kind) -> Result<(), String> {
    let takes = match f {
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Max | Binary::Gt | Binary::Eq => a != Kind::Bool,
        Binary::Div => a == Kind::Float,
        Binary::Rem | Binary::Xor => a == Kind::Int,
    };
    if a == b && takes { Ok(()) } else { Err(format!("it does not take {a:?} and {b:?}")) }
}
