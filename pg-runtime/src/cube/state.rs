//! State on a device.

use cubecl::prelude::*;
use pg_ir::slot::Slot;

use super::device::{Device, Memory};
use super::error::CubeExecError;
use crate::state::{Place, State, StateError};

/// The banks of a [`State`], in device memory. The host's copy is what names things, and what
/// [`Self::download`] refreshes.
#[derive(Debug)]
pub struct DeviceState<R: Runtime> {
    device: Device<R>,
    host: State,
    banks: Vec<Memory>,
}

impl<R: Runtime> DeviceState<R> {
    /// Moves a state to a device.
    ///
    /// # Errors
    /// If a bank does not fit.
    pub fn upload(device: &Device<R>, host: State) -> Result<Self, CubeExecError> {
        let banks = (host.memory()).map(|bank| device.allocate_with(bytemuck::cast_slice(bank)));
        let banks = banks.collect::<Result<_, _>>()?;
        Ok(DeviceState { device: device.clone(), host, banks })
    }

    /// Brings the host's copy up to date and gives it.
    ///
    /// # Errors
    /// If the device failed.
    pub fn download(&mut self) -> Result<&State, CubeExecError> {
        for (bank, memory) in self.banks.iter().zip(self.host.memory_mut()) {
            let bytes = self.device.read(bank, 4 * memory.len())?;
            bytemuck::cast_slice_mut(memory).copy_from_slice(&bytes);
        }
        Ok(&self.host)
    }

    /// Moves the state back to the host.
    ///
    /// # Errors
    /// If the device failed.
    pub fn into_host(mut self) -> Result<State, CubeExecError> {
        self.download()?;
        Ok(self.host)
    }

    pub(super) fn id(&self) -> u64 {
        self.host.id()
    }

    pub(super) fn locate(&self, slot: &Slot) -> Result<Place, StateError> {
        self.host.locate(slot)
    }

    pub(super) fn bank(&self, place: Place) -> &Memory {
        &self.banks[place.bank]
    }
}
