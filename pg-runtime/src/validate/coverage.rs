//! Which launches of the real programs the validated ones stand for.
//!
//! A launch is covered if the validated program has one of the same family that computes the same ops of the same lines,
//! with the same structure, which the device runs by the same kind of kernels. What differs by more than sizes must be
//! listed, never rounded down to "much the same".

use std::collections::HashSet;

use pg_codegen::plan::{Kernel, Launch, Plan};
use pg_ir::lang::layout::Layout;
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::executor::ExecError;

/// A launch of a real program that no validated launch is like.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Uncovered {
    /// The program.
    pub program: String,
    /// Position of the launch in it.
    pub launch: usize,
    /// Its kernel family and shape.
    pub kernel: String,
    /// What it computes.
    pub computes: String,
}

/// All that may not differ between a launch and one that stands for it.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    /// Ops, scopes and lines.
    computes: String,
    family: &'static str,
    structure: u64,
    way: String,
}

fn kinds(plan: &Plan, layout: &Layout, device: &Device) -> Result<Vec<Kind>, ExecError> {
    let ways = device.ways(plan, layout)?;
    let structures: Vec<u64> = plan.kernels.iter().map(Kernel::structure).collect();
    let kind = |(launch, way): (&Launch, String)| {
        let (kernel, structure) = (launch.kernel.0 as usize, structures[launch.kernel.0 as usize]);
        Kind { computes: launch.note(), family: plan.kernels[kernel].family(), structure, way }
    };
    Ok(plan.launches.iter().zip(ways).map(kind).collect())
}

/// Launches of a real plan that none of the validated plan stands for. The layouts are those of their models.
pub(super) fn uncovered(
    (real, real_layout): (&Plan, &Layout),
    (validated, layout): (&Plan, &Layout),
    device: &Device,
) -> Result<Vec<Uncovered>, ExecError> {
    let known: HashSet<Kind> = kinds(validated, layout, device)?.into_iter().collect();
    let all = kinds(real, real_layout, device)?.into_iter().enumerate();
    let missing = all.filter(|(_, kind)| !known.contains(kind));
    Ok(missing
        .map(|(launch, kind)| {
            let kernel = &real.kernels[real.launches[launch].kernel.0 as usize];
            let program = real.program.clone();
            Uncovered {
                program,
                launch,
                kernel: format!("{} {}", kind.family, kernel.shape()),
                computes: kind.computes,
            }
        })
        .collect())
}
