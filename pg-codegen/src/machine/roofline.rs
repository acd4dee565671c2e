//! The roofline model: how long a launch takes at least, and what bounds it.
//!
//! The larger of arithmetic at the machine's rate and bytes at its bandwidth, plus what a launch costs. It is
//! a prediction from peaks, never a measurement, and reports must say so.

use std::fmt;

use pg_ir::ty::DType;

use crate::machine::Machine;
use crate::plan::{Launch, Plan};

/// What a launch waits for longest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Main memory.
    Memory,
    /// Being launched.
    Launch,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
            Bound::Launch => "launch",
        })
    }
}

/// Predicted times of a launch, in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Prediction {
    /// Of its arithmetic alone.
    pub compute: f64,
    /// Of its bytes alone.
    pub memory: f64,
    /// Of launching it.
    pub launch: f64,
}

impl Prediction {
    /// Seconds that the launch takes.
    pub fn seconds(&self) -> f64 {
        self.compute.max(self.memory) + self.launch
    }

    /// What takes the most of them.
    pub fn bound(&self) -> Bound {
        if self.launch > self.compute.max(self.memory) {
            Bound::Launch
        } else if self.compute > self.memory {
            Bound::Compute
        } else {
            Bound::Memory
        }
    }
}

/// Predicts a launch of a plan.
pub fn predict(plan: &Plan, launch: &Launch, machine: &Machine) -> Prediction {
    let multiplies = plan.kernels[launch.kernel.0 as usize].multiplies_matrices();
    // Tensor cores take operands of the storage type; wider ones run on the vector units.
    let width = launch.args.iter().take(2).map(|a| plan.buffers[a.0 as usize].dtype);
    let fits = machine.storage == DType::F32 || width.into_iter().all(|dtype| dtype == machine.storage);
    let rate = if multiplies && fits { machine.rates.matrix_flops } else { machine.rates.vector_flops };
    Prediction {
        compute: launch.flops / rate,
        memory: launch.bytes / machine.rates.bandwidth,
        launch: machine.rates.launch_seconds,
    }
}

/// Seconds of a whole plan: its launches one after the other.
pub fn seconds(plan: &Plan, machine: &Machine) -> f64 {
    plan.launches.iter().map(|l| predict(plan, l, machine).seconds()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{CPU, H100};

    #[test]
    fn the_longest_part_is_the_bound() {
        let at = |compute, memory| Prediction { compute, memory, launch: 1.0 };
        assert_eq!(
            [at(3.0, 2.0), at(2.0, 3.0), at(0.5, 0.2)].map(|p| p.bound()),
            [Bound::Compute, Bound::Memory, Bound::Launch]
        );
        assert_eq!(at(3.0, 2.0).seconds(), 4.0);
    }

    #[test]
    fn tensor_cores_take_only_the_storage_type() {
        use crate::plan::{Buffer, BufferId, Kernel, KernelId, Matmul, MatrixView, Place};
        let view = MatrixView { offset: 0, batch: 0, row: 64, col: 1 };
        let matmul = Matmul {
            batch: 1,
            m: 64,
            n: 64,
            k: 64,
            a: view,
            b: view,
            c: view,
            accumulate: false,
            symmetric: false,
        };
        let buffer = |dtype| Buffer {
            dtype,
            len: 64 * 64,
            place: Place::Temp { offset: 0 },
            label: String::new(),
            why: "",
        };
        let plan = |dtype| Plan {
            buffers: vec![buffer(dtype), buffer(dtype), buffer(DType::F32)],
            kernels: vec![Kernel::from(matmul.clone())],
            launches: vec![Launch {
                kernel: KernelId(0),
                args: [0, 1, 2].map(BufferId).to_vec(),
                provenance: Default::default(),
                flops: 524_288.0,
                bytes: 0.0,
            }],
            ..Plan::default()
        };
        let compute = |dtype, target| {
            let plan = plan(dtype);
            predict(&plan, &plan.launches[0], &target).compute
        };
        assert_eq!(compute(DType::BF16, H100), 524_288.0 / 989.4e12);
        assert_eq!(compute(DType::F32, H100), 524_288.0 / 67e12);
        assert_eq!(compute(DType::F32, CPU), 524_288.0 / CPU.rates.matrix_flops);
    }
}
