//! The seam between a session and the devices that its programs run on.
//!
//! A [`Backend`] makes an [`Executor`] of each plan; executors share a [`State`], whose banks move to where
//! they are used. Nothing above this file may ask which device it is, and nothing below it may ask what a
//! program is for.

use std::fmt;
use std::sync::Arc;

use pg_codegen::machine::{self, Machine};
use pg_codegen::plan::Plan;
use thiserror::Error;

pub use crate::cpu::Timed;
use crate::cpu::{self, CpuError, CpuExecutor, SharedMemory};
#[cfg(feature = "cube")]
use crate::gpu::CubeExecError;
use crate::state::State;

/// What a call supplies besides state. What the program does not read is ignored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// Token ids, by name.
    pub data: &'a [(&'a str, &'a [i32])],
    /// Run-time scalars, by name.
    pub scalars: &'a [(&'a str, f32)],
}

/// Is told of each launch. Timing makes a device wait after each, so a run is slower for it.
pub type Observe<'a> = dyn FnMut(Timed<'_>) + Send + 'a;

/// Why a program cannot be prepared or run.
#[derive(Clone, PartialEq, Debug, Error)]
#[non_exhaustive]
pub enum ExecError {
    /// On the CPU.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// On a GPU.
    #[cfg(feature = "cube")]
    #[error(transparent)]
    Cube(#[from] CubeExecError),
}

/// A device that programs run on.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Makes a plan ready to run: kernels, checks of every launch, memory.
    ///
    /// # Errors
    /// If the plan does not fit the device.
    fn prepare(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError>;

    /// The device, as plans are compiled and kernels generated for it.
    fn machine(&self) -> &Machine {
        static CPU: Machine = machine::CPU;
        &CPU
    }

    /// How a device for which no kernels are generated runs each launch of a plan, as far as it chooses by sizes: kinds of
    /// kernels and how work is cut, without the sizes.
    fn ways(&self, plan: &Plan) -> Vec<String> {
        vec![String::new(); plan.launches.len()]
    }
}

/// One program on one device.
pub trait Executor: fmt::Debug + Send {
    /// The plan that it runs.
    fn plan(&self) -> &Arc<Plan>;

    /// Runs the program once. When it returns, the results are at hand.
    ///
    /// # Errors
    /// If an input or state is missing or does not fit, or the device failed. State that the launches wrote
    /// so far stays written.
    fn run(
        &mut self,
        state: &mut State,
        inputs: Inputs<'_>,
        observe: Option<&mut Observe<'_>>,
    ) -> Result<(), ExecError>;

    /// What the last run gave back under a name: `loss`, `nll`, `logits`, …
    fn result(&self, name: &str) -> Option<&[f32]>;

    /// Bytes of results, constants and what else is the executor's own.
    fn bytes(&self) -> usize;

    /// Launches of the plan that the device does not run itself, but leaves to the host.
    fn host_launches(&self) -> usize;
}

/// The CPU. Its executors run one at a time and share memory for temporaries.
#[derive(Debug, Default)]
pub(crate) struct Cpu(SharedMemory);

impl Backend for Cpu {
    fn prepare(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        Ok(Box::new(CpuExecutor::sharing(plan, &self.0)?))
    }

    fn ways(&self, plan: &Plan) -> Vec<String> {
        cpu::ways(plan)
    }
}

impl Executor for CpuExecutor {
    fn plan(&self) -> &Arc<Plan> {
        self.plan()
    }

    fn run(
        &mut self,
        state: &mut State,
        inputs: Inputs<'_>,
        observe: Option<&mut Observe<'_>>,
    ) -> Result<(), ExecError> {
        let Inputs { data, scalars } = inputs;
        Ok(match observe {
            None => self.run(state, data, scalars),
            Some(observe) => self.run_timed(state, data, scalars, observe),
        }?)
    }

    fn result(&self, name: &str) -> Option<&[f32]> {
        self.result(name)
    }

    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn host_launches(&self) -> usize {
        0
    }
}
