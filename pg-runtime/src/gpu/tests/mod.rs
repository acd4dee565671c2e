//! Every kernel family on a Vulkan device against loops in float64, at small and odd sizes.
//!
//! Where no Vulkan device is found the tests say so and pass, unless PG_REQUIRE_DEVICE=1.

#![cfg(feature = "vulkan")]

mod attention;
mod executor;
mod matmul;
mod region;
mod requests;
mod scatter;

use std::sync::Arc;

use pg_codegen::plan::{Buffer, BufferId, Kernel, KernelId, Launch, Place, Plan};
use pg_codegen::report::provenance::Provenance;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use super::{CubeExecutor, Device, Vulkan, vulkan};
use crate::executor::{Executor, Inputs};
use crate::state::{Segment, State};

/// The first Vulkan device, or nothing if the test cannot run here.
fn device() -> Option<Device<Vulkan>> {
    match vulkan::device(0) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("PG_REQUIRE_DEVICE").is_some_and(|v| v == "1") => {
            panic!("PG_REQUIRE_DEVICE=1, but {error}")
        }
        Err(error) => {
            eprintln!("NOT RUN: {error}");
            None
        }
    }
}

/// An argument of a kernel under test.
#[derive(Clone)]
enum Arg {
    Floats(Vec<f32>),
    Ints(Vec<i32>),
    Bools(Vec<bool>),
    /// Written; given back.
    Out(usize),
    /// Read and written, in state, beginning so many elements into its bank; given back.
    InOut(Vec<f32>, usize),
}

impl Arg {
    /// What it holds before a launch.
    fn f64(&self) -> Vec<f64> {
        match self {
            Arg::Floats(v) | Arg::InOut(v, _) => v.iter().map(|&x| f64::from(x)).collect(),
            Arg::Ints(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Arg::Bools(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Arg::Out(len) => vec![0.0; *len],
        }
    }
}

/// A plan of one launch.
fn plan_of(kernel: &Kernel, args: &[Arg]) -> (Plan, Vec<(String, Segment)>) {
    let mut aliases = Vec::new();
    let buffer = |(i, arg): (usize, &Arg)| {
        let (dtype, len, place) = match arg {
            Arg::Floats(v) => (DType::F32, v.len(), Place::Constant(v.iter().map(|x| x.to_bits()).collect())),
            Arg::Ints(v) => (DType::I32, v.len(), Place::Constant(v.iter().map(|&x| x as u32).collect())),
            Arg::Bools(v) => {
                (DType::Bool, v.len(), Place::Constant(v.iter().map(|&x| u32::from(x)).collect()))
            }
            Arg::Out(len) => (DType::F32, *len, Place::External(Slot::new(Space::Result, format!("out{i}")))),
            Arg::InOut(v, offset) => {
                let segment = Segment { bank: format!("bank{i}"), offset: *offset, len: v.len() };
                aliases.push((format!("param{i}"), segment));
                (DType::F32, v.len(), Place::External(Slot::new(Space::Param, format!("param{i}"))))
            }
        };
        Buffer { dtype, len, place, label: format!("arg{i}"), why: "the test says so" }
    };
    let buffers: Vec<Buffer> = args.iter().enumerate().map(buffer).collect();
    let ids = (0..args.len() as u32).map(BufferId).collect();
    let launch = Launch {
        kernel: KernelId(0),
        args: ids,
        provenance: Provenance::task("test"),
        flops: 0.0,
        bytes: 0.0,
    };
    let plan = Plan {
        program: "test".into(),
        buffers,
        kernels: vec![kernel.clone()],
        launches: vec![launch],
        ..Plan::default()
    };
    (plan, aliases)
}

/// Runs a kernel twice, demands the same bits, and gives back what it wrote.
fn run(device: &Device<Vulkan>, kernel: &Kernel, args: &[Arg]) -> Vec<Vec<f32>> {
    let (plan, aliases) = plan_of(kernel, args);
    let mut executor = CubeExecutor::new(Arc::new(plan), device).unwrap();
    let mut once = || {
        let mut state = State::new(aliases.clone());
        for (i, arg) in args.iter().enumerate() {
            if let Arg::InOut(v, offset) = arg {
                state.allocate(Space::Param, &format!("bank{i}"), offset + v.len() + 3).unwrap();
                state.get_mut(&Slot::new(Space::Param, format!("param{i}"))).unwrap().copy_from_slice(v);
            }
        }
        executor.run(&mut state, Inputs::default(), None).unwrap();
        assert_eq!(executor.host_launches(), 0);
        let mut written = Vec::new();
        for (i, arg) in args.iter().enumerate() {
            match arg {
                Arg::Out(_) => written.push(executor.result(&format!("out{i}")).unwrap().to_vec()),
                Arg::InOut(..) => {
                    written.push(state.get(&Slot::new(Space::Param, format!("param{i}"))).unwrap().to_vec());
                }
                _ => {}
            }
        }
        written
    };
    let (first, second) = (once(), once());
    let bits = |v: &[Vec<f32>]| v.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&first), bits(&second), "two runs differ");
    first
}

/// Numbers in −1 .. 1 that differ with the seed.
fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Demands that values agree within `tolerance` of the largest wanted one.
fn close(what: &str, have: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(have.len(), want.len(), "{what}: lengths");
    let scale = want.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (&h, &w)) in have.iter().zip(want).enumerate() {
        let ok = (f64::from(h) - w).abs() <= tolerance * scale;
        assert!(ok, "{what}: element {i} is {h}, wanted {w} within {:e}", tolerance * scale);
    }
}
