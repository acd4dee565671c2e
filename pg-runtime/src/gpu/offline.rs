//! A machine that is not here: the kernels that an executor would request of it, without the device.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use pg_codegen::kernels::{Generations, LaunchError, extents, generate};
use pg_codegen::machine::Machine;
use pg_codegen::plan::Plan;
use pg_ir::lang::layout::Layout;
use pg_ir::slot::{Slot, Space};

use super::error::CubeExecError;
use crate::executor::{Backend, ExecError, Executor};

/// Generates every launch of a program of a model with this layout, as an executor on `machine` does.
///
/// # Errors
/// The first launch that does not fit the machine.
pub fn offline(plan: &Plan, layout: &Layout, machine: &Machine) -> Result<Generations, LaunchError> {
    let numbers: RefCell<HashMap<(Space, String), u64>> = RefCell::default();
    let bank = |slot: &Slot| {
        // A bank is its own name, and so is a cached weight; a parameter is a stretch of one.
        let is_whole = slot.space == Space::CachedWeight || layout.banks.iter().any(|b| b.name == slot.name);
        let (bank, element) = match layout.resolve(&slot.name).filter(|_| !is_whole) {
            Some((bank, offset, _)) => (bank.to_string(), offset),
            None => (slot.name.clone(), 0),
        };
        let mut numbers = numbers.borrow_mut();
        let next = numbers.len() as u64;
        Some((*numbers.entry((slot.space, bank)).or_insert(next), element))
    };
    generate(plan, &extents(plan, bank), machine)
}

/// How each launch of a plan runs on `machine`: its kernels with their thread blocks, shared memory and widths of access, which
/// say how it is tiled and split, without its sizes.
///
/// # Errors
/// The first launch that does not fit the machine.
pub fn ways(plan: &Plan, layout: &Layout, machine: &Machine) -> Result<Vec<String>, LaunchError> {
    let mut ways = vec![String::new(); plan.launches.len()];
    for made in offline(plan, layout, machine)?.launches {
        let kernel = &made.stage.kernel;
        let family = kernel.name().rsplit_once('_').map_or(kernel.name(), |(family, _)| family);
        let widths: Vec<usize> = kernel.args().iter().map(|a| a.width).collect();
        let (threads, shared) = (kernel.threads(), kernel.shared_bytes());
        ways[made.launch] += &format!("{family} {threads} {shared} {widths:?};");
    }
    Ok(ways)
}

/// A machine that programs are compiled for, and on which none can run.
#[derive(Debug)]
pub(crate) struct Absent(pub(crate) Machine);

impl Backend for Absent {
    fn prepare(&self, _: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        let why = "it is not here: programs are compiled for it and none can run".into();
        Err(CubeExecError::Device { device: self.0.name.to_string(), why }.into())
    }

    fn machine(&self) -> &Machine {
        &self.0
    }
}
