//! Launches that read what they write: element by element, each read where it is then written, before it is written.
//!
//! Executors run rows in any order and cut long rows, so nothing else is safe. That every other launch that reads the
//! old value came before is [`super::contents`]' business; that what is written is no second argument, `product`'s.

use super::access::regions;
use super::{Check, Finding, Subject};
use crate::region::{Affine, ArgId, Instr, Region};

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let mut seen = vec![false; s.plan.kernels.len()];
    for (i, launch, _) in s.launches() {
        if std::mem::replace(&mut seen[launch.kernel.0 as usize], true) {
            continue;
        }
        for part in regions(s.kernel(launch)) {
            check_region(part.region).map_err(|e| Finding::at(Check::InPlace, i, e))?;
        }
    }
    Ok(())
}

fn check_region(region: &Region) -> Result<(), String> {
    for (i, instr) in region.body.iter().enumerate() {
        match instr {
            Instr::Store { arg, at, .. } => check_store(region, *arg, i, at)?,
            Instr::Accumulate { arg, .. } if reads(region, *arg).next().is_some() => {
                return Err(format!("reads a{arg}, into which it accumulates"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Instructions that read an argument.
fn reads(region: &Region, arg: ArgId) -> impl Iterator<Item = (usize, &Instr)> {
    region.body.iter().enumerate().filter(move |(_, instr)| match instr {
        Instr::Load { arg: a, .. } | Instr::Gather { arg: a, .. } => *a == arg,
        _ => false,
    })
}

fn check_store(region: &Region, arg: ArgId, stored_at: usize, to: &Affine) -> Result<(), String> {
    for (i, instr) in reads(region, arg) {
        let Instr::Load { map, .. } = instr else {
            return Err(format!("gathers rows of a{arg}, which it writes"));
        };
        if map.at != *to || !map.guards.is_empty() {
            return Err(format!("reads a{arg} at {map} and writes it at {to}"));
        }
        if i > stored_at {
            return Err(format!("reads a{arg} in instruction {i}, after it was written in {stored_at}"));
        }
        // One element for a row of many columns: executors that cut long rows read it in every part, and one of
        // them writes it.
        if region.columns > 1 && !to.varies_along_columns() {
            return Err(format!("reads one element of a{arg} for a whole row, and writes it"));
        }
    }
    Ok(())
}
