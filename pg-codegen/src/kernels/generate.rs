//! The generated launches of a whole plan.
//!
//! How a kernel is made depends on where its arguments lie: how they are aligned, and whether they share
//! memory with something that it writes. So an executor says where buffers are ([`Extent`]), and what is
//! printed or compiled without a device must say the same to get the same kernels.

use std::collections::HashMap;

use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use super::error::CubeError;
use super::lower;
use super::stage::{ArgInfo, Launches, Stage};
use crate::machine::Machine;
use crate::plan::{Place, Plan};

/// Where a buffer lies in a device's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Which allocation.
    pub allocation: u64,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// Bytes of an element on a device: booleans take a word.
pub fn element_bytes(dtype: DType) -> usize {
    if dtype == DType::Bool { 4 } else { dtype.size() }
}

impl Extent {
    /// Bytes between the aligned address where the buffer is bound and its start.
    pub fn shift(&self, align: u64) -> usize {
        self.start % align as usize
    }

    /// Bytes that are bound.
    pub fn bound_bytes(&self, align: u64) -> usize {
        self.end - self.start + self.shift(align)
    }

    fn overlaps(&self, other: &Extent) -> bool {
        self.allocation == other.allocation && self.start < other.end && other.start < self.end
    }
}

/// Where the buffers of a plan lie: temporaries in the arena as planned, state where `bank` says (a bank's
/// number and the element at which the slot begins in it), everything else by itself.
pub fn extents(plan: &Plan, bank: impl Fn(&Slot) -> Option<(u64, usize)>) -> Vec<Extent> {
    const ARENA: u64 = 0;
    // Numbers of allocations: buffers and slots from 1 on, banks beyond all of them.
    let banks = plan.buffers.len() as u64 + 1;
    let of = |(i, buffer): (usize, &crate::plan::Buffer)| {
        let first_of_slot = |slot: &Slot| {
            let same = |b: &crate::plan::Buffer| matches!(&b.place, Place::External(s) if s == slot);
            plan.buffers.iter().position(same).unwrap_or(i)
        };
        let (allocation, start) = match &buffer.place {
            // The plan counts a byte for a boolean: those lie elsewhere.
            Place::Temp { offset } if buffer.dtype != DType::Bool => (ARENA, *offset),
            Place::Temp { .. } | Place::Constant(_) => (1 + i as u64, 0),
            Place::External(slot) => match bank(slot).filter(|_| slot.space.is_state()) {
                Some((bank, element)) => (banks + bank, element_bytes(buffer.dtype) * element),
                None => (1 + first_of_slot(slot) as u64, 0),
            },
        };
        Extent { allocation, start, end: start + buffer.len * element_bytes(buffer.dtype) }
    };
    plan.buffers.iter().enumerate().map(of).collect()
}

/// A generated launch of a plan.
#[derive(Clone, PartialEq, Debug)]
pub struct Generation {
    /// The plan's launch that it is, or is a part of.
    pub launch: usize,
    /// The launch.
    pub stage: Stage,
}

/// All generated launches of a plan, in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Generations {
    /// The launches.
    pub launches: Vec<Generation>,
    /// Bytes of each workspace. Launches of the plan share them: their contents matter within one only.
    pub workspaces: Vec<usize>,
}

/// Why a launch of a plan cannot be generated.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("launch {launch}: {error}")]
pub struct LaunchError {
    /// Position of the launch.
    pub launch: usize,
    /// What is wrong.
    pub error: CubeError,
}

/// Generates every launch of a plan whose buffers lie at `extents`.
///
/// # Errors
/// The first launch that is malformed or does not fit the target.
pub fn generate(plan: &Plan, extents: &[Extent], machine: &Machine) -> Result<Generations, LaunchError> {
    Generator::default().generate(plan, extents, machine)
}

/// Generates the launches of one plan on one machine, for buffers that lie here or there: what was generated before is
/// found again.
#[derive(Default, Debug)]
pub struct Generator {
    /// By position of the kernel, and what it must know of its arguments.
    known: HashMap<(u32, Vec<ArgInfo>), Launches>,
}

impl Generator {
    /// [`generate`], of what is not known yet.
    ///
    /// # Errors
    /// The first launch that is malformed or does not fit the target.
    pub fn generate(
        &mut self,
        plan: &Plan,
        extents: &[Extent],
        machine: &Machine,
    ) -> Result<Generations, LaunchError> {
        let mut all = Generations::default();
        for (launch, l) in plan.launches.iter().enumerate() {
            let failed = |error| LaunchError { launch, error };
            let infos = infos(plan, launch, extents, machine).map_err(failed)?;
            let key = (l.kernel.0, infos);
            let launches = match self.known.get(&key) {
                Some(launches) => launches.clone(),
                None => {
                    let lowered = lower(&plan.kernels[key.0 as usize], &key.1, machine).map_err(failed)?;
                    self.known.entry(key).or_insert(lowered).clone()
                }
            };
            for (i, &bytes) in launches.workspaces.iter().enumerate() {
                match all.workspaces.get_mut(i) {
                    Some(known) => *known = bytes.max(*known),
                    None => all.workspaces.push(bytes),
                }
            }
            all.launches.extend(launches.stages.into_iter().map(|stage| Generation { launch, stage }));
        }
        Ok(all)
    }
}

/// What the generator must know of a launch's arguments.
fn infos(
    plan: &Plan,
    launch: usize,
    extents: &[Extent],
    machine: &Machine,
) -> Result<Vec<ArgInfo>, CubeError> {
    let l = &plan.launches[launch];
    let malformed = |what: &str| CubeError::Malformed { kernel: format!("#{launch}"), what: what.into() };
    let kernel =
        plan.kernels.get(l.kernel.0 as usize).ok_or_else(|| malformed("it runs no kernel of the plan"))?;
    let params = kernel.params();
    let writes = |i: usize| params.get(i).is_some_and(|param| param.is_written);
    let mut infos = Vec::new();
    for (i, id) in l.args.iter().enumerate() {
        let at = id.0 as usize;
        let (Some(buffer), Some(extent)) = (plan.buffers.get(at), extents.get(at)) else {
            return Err(malformed("an argument is no buffer of the plan"));
        };
        if let Place::External(Slot { space: Space::Data | Space::Scalar, name }) = &buffer.place
            && writes(i)
        {
            return Err(malformed(&format!("it writes the input `{name}`")));
        }
        let size = element_bytes(buffer.dtype);
        let shift = extent.shift(machine.limits.binding_align);
        if shift % size != 0 {
            return Err(malformed("an argument does not begin at an element"));
        }
        machine.check_binding(kernel.family(), extent.bound_bytes(machine.limits.binding_align) as u64)?;
        let shares = |(j, other): (usize, &crate::plan::BufferId)| {
            let other = extents.get(other.0 as usize);
            j != i && writes(j) && other.is_some_and(|other| other.overlaps(extent))
        };
        let aliased = l.args.iter().enumerate().any(shares);
        infos.push(ArgInfo { dtype: buffer.dtype, len: buffer.len, shift: shift / size, aliased });
    }
    Ok(infos)
}
