//! Targets as plain values: what a machine computes and moves in a second, and what a kernel may ask of it.
//!
//! There is one fused graph for all targets. What may differ by target is storage precision and schedule,
//! and what every report predicts from it. The figures are peaks: no launch runs faster, most run slower.
//! Nothing here asks a device: the limits of the one at hand are the executor's business.

pub mod roofline;
pub mod tuning;

use pg_ir::lang::nearest;
use pg_ir::ty::DType;

use crate::region::{Instr, Region, pieces_from};

/// A machine to compile for.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is, and where its figures come from.
    pub summary: &'static str,
    /// Element type in which activations and operands of contractions are stored.
    pub storage: DType,
    /// What its executor runs on a matmul's result where it is computed, if anything.
    pub epilogues: Option<Epilogues>,
    /// Whether its executor runs products that share an operand as one kernel.
    pub side_by_side: bool,
    /// Bytes that the backward pass may move to compute something again, for each byte of memory that this
    /// saves: 1 where memory is as scarce as bandwidth, 0 where it is plentiful.
    pub recompute_traffic: usize,
    /// Processors: cores, or streaming multiprocessors.
    pub processors: usize,
    /// FLOP/s of contractions with operands of the storage type and float32 sums, dense.
    pub matrix_flops: f64,
    /// FLOP/s of float32 arithmetic outside of matrix units.
    pub vector_flops: f64,
    /// Bytes/s between processors and main memory.
    pub bandwidth: f64,
    /// Bytes of the cache that all processors share.
    pub cache_bytes: usize,
    /// Bytes of fast memory that one kernel instance may claim: shared memory of a block, or a core's L2.
    pub shared_bytes: usize,
    /// Seconds that a launch costs beside its work.
    pub launch_seconds: f64,
    /// Buffers that one kernel may bind.
    pub bindings: usize,
    /// Bytes of the largest buffer that can be bound.
    pub binding_bytes: u64,
}

/// Regions that a target runs on a matmul's result where it is computed: element-wise ones of any width, and
/// those whose lanes meet within short rows, such as a head's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epilogues {
    /// Lanes of rows whose lanes may meet: whole rows of the result, or equal parts of them.
    pub rows: &'static [usize],
    /// Element type of results that have such rows.
    pub of: DType,
    /// Neighbouring lanes that a permutation must keep together.
    pub chunk: usize,
}

impl Epilogues {
    /// Whether a region runs on results of this type in rows of `columns`: its rows do not meet, and are whole rows
    /// whose lanes do not meet either and give an element each, or rows or parts of them that are at hand whole.
    pub(crate) fn take(&self, region: &Region, columns: usize, of: DType) -> bool {
        let combines = |i: &Instr| matches!(i, Instr::FakeQuant(..) | Instr::Accumulate { .. });
        let tears = |i: &Instr| matches!(i, Instr::Lanes(perm, _) if pieces_from(perm, self.chunk).is_none());
        let is_whole = region.lanes == columns && !region.lanes_meet() && !region.stores_once_a_row();
        let is_there = of == self.of
            && self.rows.contains(&region.lanes)
            && columns.is_multiple_of(region.lanes)
            && !region.body.iter().any(tears);
        columns > 1 && region.reduced == 0 && !region.body.iter().any(combines) && (is_whole || is_there)
    }
}

/// Buffers that a kernel may bind on every target, so that one fused graph serves all.
pub const FEWEST_BINDINGS: usize = 31;

/// The project's reference CPU: two cores of a shared Xeon with AVX-512 and AMX (machine `ci` of MEASURED.md).
/// Measured, as `pg profile` measures its roof: 590 GFLOP/s in float32 products on the matrix units, copies at
/// 33 GB/s. Assumed: 60 GFLOP/s for element-wise chains, 5 µs to fork and join.
pub const CPU: Target = Target {
    name: "cpu",
    summary: "two cores with AVX-512 and AMX, float32; matrix rate and bandwidth as measured on the machine `ci`",
    storage: DType::F32,
    epilogues: None,
    side_by_side: false,
    recompute_traffic: 1,
    processors: 2,
    matrix_flops: 590e9,
    vector_flops: 60e9,
    bandwidth: 33e9,
    cache_bytes: 32 << 20,
    shared_bytes: 1 << 20,
    launch_seconds: 5e-6,
    bindings: usize::MAX,
    binding_bytes: u64::MAX,
};

/// Vulkan's software device on the same two cores (Mesa `llvmpipe`), which proves generated kernels and is not
/// meant to be fast. Its limits are what the driver reports; its rates are assumed to be a tenth of the cores'.
pub const VULKAN_CPU: Target = Target {
    name: "vulkan-cpu",
    summary: "Mesa llvmpipe on two cores, float32; limits as its driver reports, rates assumed",
    storage: DType::F32,
    epilogues: None,
    side_by_side: false,
    recompute_traffic: 1,
    processors: 2,
    matrix_flops: 24e9,
    vector_flops: 24e9,
    bandwidth: 10e9,
    cache_bytes: 32 << 20,
    shared_bytes: 32 << 10,
    launch_seconds: 100e-6,
    bindings: FEWEST_BINDINGS,
    binding_bytes: 128 << 20,
};

/// What a tile of 128 columns in 16-byte chunks of bfloat16 can do.
pub(crate) const TILES: Epilogues = Epilogues { rows: &[32, 64, 128], of: DType::BF16, chunk: 8 };

/// NVIDIA H100 SXM5 80 GB, from its data sheet: 989.4 TFLOP/s dense bf16, 67 TFLOP/s float32, 3.35 TB/s,
/// 132 SMs, 50 MB of L2, 227 KiB of shared memory a block. Assumed: 3 µs a launch, without CUDA graphs.
pub const H100: Target = Target {
    name: "h100",
    summary: "NVIDIA H100 SXM5, bf16 storage; peaks of the data sheet",
    storage: DType::BF16,
    epilogues: Some(TILES),
    side_by_side: true,
    recompute_traffic: 0,
    processors: 132,
    matrix_flops: 989.4e12,
    vector_flops: 67e12,
    bandwidth: 3.35e12,
    cache_bytes: 50 << 20,
    shared_bytes: 227 << 10,
    launch_seconds: 3e-6,
    bindings: FEWEST_BINDINGS,
    binding_bytes: 1 << 40,
};

/// NVIDIA H200 SXM 141 GB: an H100 with 4.8 TB/s.
pub const H200: Target = Target {
    name: "h200",
    summary: "NVIDIA H200 SXM, bf16 storage; peaks of the data sheet",
    bandwidth: 4.8e12,
    ..H100
};

/// All targets.
pub const ALL: [Target; 4] = [CPU, VULKAN_CPU, H100, H200];

/// The target of that name.
///
/// # Errors
/// A message with the known names, and the nearest one, if there is none.
pub fn named(name: &str) -> Result<Target, String> {
    if let Some(target) = ALL.into_iter().find(|t| t.name == name) {
        return Ok(target);
    }
    let known = ALL.map(|t| t.name);
    let hint = nearest(name, known).map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
    Err(format!("there is no target `{name}`{hint}; the targets are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_binds_what_fusion_relies_on() {
        assert_eq!(ALL.iter().map(|t| t.bindings).min(), Some(FEWEST_BINDINGS));
    }

    #[test]
    fn an_unknown_target_names_the_nearest() {
        assert_eq!(named("h200").unwrap().bandwidth, 4.8e12);
        let message = named("H10").unwrap_err();
        assert!(message.contains("did you mean `h100`") && message.contains("vulkan-cpu"), "{message}");
    }
}
