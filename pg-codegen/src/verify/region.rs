//! Regions: each obeys [the rules of regions](crate::region::verify), by which executors compile them.

use super::access::regions;
use super::{Check, Finding, Subject};
use crate::region::{Region, verify};

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let mut first: Vec<Option<usize>> = vec![None; s.plan.kernels.len()];
    for (i, launch, _) in s.launches() {
        first[launch.kernel.0 as usize].get_or_insert(i);
    }
    for (kernel, launch) in s.plan.kernels.iter().zip(first) {
        for part in regions(kernel) {
            if let Err(why) = verify::verify(part.region) {
                return Err(Finding { launch, ..Finding::new(Check::Kernels, why.to_string()) });
            }
        }
    }
    Ok(())
}

/// Whether every argument that a region names is there, which other checks rely on.
pub(super) fn check_arguments(region: &Region) -> Result<(), String> {
    for (i, instr) in region.body.iter().enumerate() {
        if let Some(arg) = instr.arg().filter(|&arg| arg as usize >= region.args.len()) {
            return Err(format!("has no argument a{arg}, which instruction {i} names"));
        }
    }
    Ok(())
}
