//! Kernels against naive float64 loops, on odd sizes, and for one, two and three threads.

mod attention;
mod executor;
mod random;
mod regions;
mod simple;

use std::sync::atomic::{AtomicBool, Ordering};

use pg_codegen::plan::Kernel;
use pg_ir::ty::DType;

use super::error::Problem;
use super::kernel::Compiled;
use super::machine::Machine;
use super::math::{from_bf16, to_bf16};
use super::raw::Arg;

/// Contents of an argument.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Data {
    F32(Vec<f32>),
    I32(Vec<i32>),
    BF16(Vec<u16>),
    Bool(Vec<u8>),
}

impl Data {
    pub(super) fn zeros(dtype: DType, len: usize) -> Self {
        match dtype {
            DType::F32 => Data::F32(vec![0.0; len]),
            DType::I32 => Data::I32(vec![0; len]),
            DType::BF16 => Data::BF16(vec![0; len]),
            DType::Bool => Data::Bool(vec![0; len]),
        }
    }

    /// Elements that a type can hold.
    pub(super) fn of(dtype: DType, x: &[f64]) -> Self {
        match dtype {
            DType::F32 => Data::F32(x.iter().map(|&x| x as f32).collect()),
            DType::I32 => Data::I32(x.iter().map(|&x| x as i32).collect()),
            DType::BF16 => Data::BF16(x.iter().map(|&x| to_bf16(x as f32)).collect()),
            DType::Bool => Data::Bool(x.iter().map(|&x| u8::from(x != 0.0)).collect()),
        }
    }

    pub(super) fn f32(&self) -> &[f32] {
        match self {
            Data::F32(x) => x,
            other => panic!("not float32: {other:?}"),
        }
    }

    pub(super) fn f64(&self) -> Vec<f64> {
        match self {
            Data::F32(x) => x.iter().map(|&x| f64::from(x)).collect(),
            Data::I32(x) => x.iter().map(|&x| f64::from(x)).collect(),
            Data::BF16(x) => x.iter().map(|&x| f64::from(from_bf16(x))).collect(),
            Data::Bool(x) => x.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    fn arg(&mut self) -> Arg {
        match self {
            Data::F32(x) => Arg::new(x.as_mut_ptr().cast(), x.len(), DType::F32),
            Data::I32(x) => Arg::new(x.as_mut_ptr().cast(), x.len(), DType::I32),
            Data::BF16(x) => Arg::new(x.as_mut_ptr().cast(), x.len(), DType::BF16),
            Data::Bool(x) => Arg::new(x.as_mut_ptr(), x.len(), DType::Bool),
        }
    }
}

/// Runs a kernel with some number of threads. `Ok(false)`: an id was outside its table.
pub(super) fn launch(kernel: &Kernel, args: &mut [Data], threads: usize) -> Result<bool, Problem> {
    let compiled = Compiled::new(kernel)?;
    let args: Vec<Arg> = args.iter_mut().map(Data::arg).collect();
    compiled.check(&args)?;
    let mut machine = Machine::default();
    let kinds: Vec<_> = args.iter().map(|a| (a.dtype(), a.len())).collect();
    compiled.reserve(&kinds, &mut machine);
    machine.allocate(threads).unwrap();
    let outside = AtomicBool::new(false);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
    pool.install(|| compiled.run(&args, &mut machine, &outside));
    Ok(!outside.load(Ordering::Relaxed))
}

/// Runs a kernel with 1, 2 and 3 threads, asserts that the bits are the same, and gives the arguments.
pub(super) fn launch_all(kernel: &Kernel, args: &[Data]) -> Vec<Data> {
    let results = [1, 2, 3].map(|threads| {
        let mut args = args.to_vec();
        assert_eq!(launch(kernel, &mut args, threads), Ok(true), "{kernel:?}");
        args
    });
    // Bits, not values: NaN would differ from itself and zeros of both signs would not.
    let bits = |args: &[Data]| args.iter().map(|d| format!("{d:?}")).collect::<Vec<_>>();
    assert_eq!(bits(&results[0]), bits(&results[1]), "1 and 2 threads differ");
    assert_eq!(bits(&results[0]), bits(&results[2]), "1 and 3 threads differ");
    let [one, ..] = results;
    one
}

/// Asserts that values agree to `tolerance` times the greater of 1 and the magnitude.
#[track_caller]
pub(super) fn assert_close(have: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(have.len(), want.len());
    for (i, (&h, &w)) in have.iter().zip(want).enumerate() {
        let h = f64::from(h);
        let same = (h - w).abs() <= tolerance * w.abs().max(1.0) || h == w || (h.is_nan() && w.is_nan());
        assert!(same, "element {i}: {h} against {w}");
    }
}

/// A small generator of pseudo-random numbers (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In −1 … 1.
    pub(super) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(super) fn floats(&mut self, n: usize) -> Data {
        Data::F32((0..n).map(|_| self.float()).collect())
    }
}
