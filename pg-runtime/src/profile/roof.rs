//! What a device can do at all: the rate of a plain matrix product and of a plain copy, through the same
//! executor as everything else.

use std::sync::Arc;

use pg_codegen::plan::{Buffer, BufferId, Kernel, KernelId, Launch, Matmul, MatrixView, Place, Plan};
use pg_codegen::report::provenance::Provenance;
use pg_ir::ty::DType;
use serde::Serialize;

use crate::device::Device;
use crate::executor::{ExecError, Inputs, Timed};
use crate::state::State;

/// The best of several runs.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Roof {
    /// Of a float32 product of 2048 × 512 and 512 × 1536, the MLP's.
    pub gemm_gflop_s: f64,
    /// Of a copy, bytes read and written both counted. Its arrays are too large for any cache.
    pub copy_gb_s: f64,
}

const RUNS: usize = 7;
/// 2²⁵ elements: 128 MiB in, 128 MiB out.
const COPIED: usize = 1 << 25;
const M: usize = 2048;
const N: usize = 1536;
const K: usize = 512;

impl Roof {
    /// Measures both, on a CPU in well under a second.
    pub fn measure(device: &Device) -> Result<Roof, ExecError> {
        let [product, copy] = Roof::plans();
        Ok(Roof {
            gemm_gflop_s: 2.0 * (M * N * K) as f64 / fastest(device, product)? * 1e-9,
            copy_gb_s: 8.0 * COPIED as f64 / fastest(device, copy)? * 1e-9,
        })
    }

    /// The product's plan and the copy's.
    pub fn plans() -> [Plan; 2] {
        let view = |row| MatrixView { offset: 0, batch: 0, row, col: 1 };
        let (a, b, c) = (view(K), view(N), view(N));
        let product =
            Kernel::from(Matmul { batch: 1, m: M, n: N, k: K, a, b, c, accumulate: false, symmetric: false });
        [plan(product, &[M * K, K * N, M * N]), plan(Kernel::Copy { len: COPIED }, &[COPIED; 2])]
    }
}

/// A launch of a kernel on float32 temporaries of these lengths.
fn plan(kernel: Kernel, lens: &[usize]) -> Plan {
    let mut plan = Plan { program: "roof".into(), kernels: vec![kernel], ..Plan::default() };
    for &len in lens {
        let place = Place::Temp { offset: plan.arena_bytes };
        plan.buffers.push(Buffer {
            dtype: DType::F32,
            len,
            place,
            label: "roof".into(),
            why: "its speed is measured",
        });
        plan.arena_bytes += (4 * len).next_multiple_of(64);
    }
    let args = (0..lens.len() as u32).map(BufferId).collect();
    let provenance = Provenance::task("measures the roof");
    plan.launches.push(Launch { kernel: KernelId(0), args, provenance, flops: 0.0, bytes: 0.0 });
    plan
}

/// Seconds of the fastest run of a plan of one launch.
fn fastest(device: &Device, plan: Plan) -> Result<f64, ExecError> {
    let mut executor = device.prepare(Arc::new(plan))?;
    let mut state = State::new([]);
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let mut observe = |timed: Timed<'_>| best = best.min(timed.duration.as_secs_f64());
        executor.run(&mut state, Inputs::default(), Some(&mut observe))?;
    }
    Ok(best)
}
