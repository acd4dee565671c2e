//! Machines as plain values: what each computes and moves in a second, what a kernel may ask of it, which kernels are
//! generated for it, and how they are tuned.
//!
//! There is one fused graph for all machines. What may differ is storage precision and schedule, and what every report
//! predicts. Rates are peaks: no launch runs faster, most run slower. Nothing here asks a device: what a driver
//! reports of the one at hand overrides the limits here.

mod catalog;
pub mod roofline;
pub mod tuning;

use std::borrow::Cow;

use pg_ir::lang::nearest;
use pg_ir::ty::DType;

#[cfg(feature = "cube")]
pub(crate) use self::catalog::TILES;
pub use self::catalog::*;
use self::tuning::Tuning;
use crate::region::{Instr, Region, chunks_from};

/// A machine to compile for.
#[derive(Clone, PartialEq, Debug)]
pub struct Machine {
    /// Name on the command line, or a driver's name for the device.
    pub name: Cow<'static, str>,
    /// What it is, and where its figures come from.
    pub summary: &'static str,
    /// Element type in which activations and operands of contractions are stored.
    pub storage: DType,
    /// The regions that its kernels run as epilogues of contractions, if any.
    pub epilogues: Option<Epilogues>,
    /// Whether contractions that share an operand run as one kernel.
    pub fuse_horizontally: bool,
    /// Whether contractions whose results are added run as one kernel, over segments of k.
    pub concatenate_k: bool,
    /// Bytes that the backward pass may move to compute something again, for each byte of memory that this
    /// saves: 1 where memory is as scarce as bandwidth, 0 where it is plentiful.
    pub remat_traffic: usize,
    /// Cores, or streaming multiprocessors: how many thread blocks keep it busy.
    pub processors: u32,
    /// What it computes and moves in a second, at best.
    pub rates: Rates,
    /// What a launch may ask of it.
    pub limits: Limits,
    /// What kernels are generated for; `None` where an executor runs plans as they are.
    pub isa: Option<Isa>,
    /// The CUDA devices that it describes.
    pub cuda: Option<CudaDevice>,
    /// Tile sizes, vector widths and split factors of its kernels.
    pub tuning: Tuning,
}

/// Peak rates.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// FLOP/s of contractions with operands of the storage type and float32 sums, dense.
    pub matrix_flops: f64,
    /// FLOP/s of float32 arithmetic without tensor cores.
    pub vector_flops: f64,
    /// Bytes/s between processors and main memory.
    pub bandwidth: f64,
    /// Seconds that a launch costs beside its work.
    pub launch_seconds: f64,
}

/// Limits of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Greatest number of thread blocks along an axis of the grid.
    pub grid_axis: u32,
    /// Greatest number of threads of a block.
    pub block_threads: u32,
    /// Bytes of fast memory that one kernel instance may claim: shared memory of a block, or a core's L2.
    pub shared_bytes: usize,
    /// Greatest number of buffers of a kernel.
    pub bindings: usize,
    /// Bytes of the largest buffer that can be bound.
    pub binding_bytes: u64,
    /// Bytes of the largest allocation.
    pub allocation_bytes: u64,
    /// Buffers are bound at multiples of so many bytes.
    pub binding_align: u64,
}

/// What kernels are written in and may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isa {
    /// The language of their sources.
    pub language: Language,
    /// Whether buffers can hold bfloat16.
    pub bf16: bool,
    /// Whether warps multiply bfloat16 matrices (`mma`), with asynchronous copies to feed them.
    pub tensor_cores: bool,
    /// Threads of a warp, if they exchange values directly; otherwise they meet in shared memory.
    pub warp: Option<u32>,
}

/// What a kernel's source is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    /// CUDA C++.
    Cuda,
    /// WGSL.
    Wgsl,
}

impl Language {
    /// Of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Language::Cuda => "cu",
            Language::Wgsl => "wgsl",
        }
    }
}

/// Which CUDA devices a machine describes: of this compute capability, with this in their names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CudaDevice {
    /// Compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// Part of the name, or nothing.
    pub name: &'static str,
}

/// Regions that a machine's kernels run as epilogues, on a contraction's result where it is computed: element-wise ones of any width, and
/// those whose columns meet within short rows, such as a head's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Epilogues {
    /// Columns of rows whose columns may meet: whole rows of the result, or equal parts of them.
    pub rows: &'static [usize],
    /// Element type of results that have such rows.
    pub of: DType,
    /// Neighbouring columns that a permutation must keep together.
    pub chunk: usize,
}

impl Epilogues {
    /// Whether a region runs on results of this type in rows of `columns`: its rows do not meet, and are whole rows
    /// whose columns do not meet either and give an element each, or rows or parts of them that are at hand whole.
    pub(crate) fn take(&self, region: &Region, columns: usize, of: DType) -> bool {
        let combines = |i: &Instr| matches!(i, Instr::FakeQuant(..) | Instr::Accumulate { .. });
        let tears =
            |i: &Instr| matches!(i, Instr::Permute(perm, _) if chunks_from(perm, self.chunk).is_none());
        let is_whole = region.columns == columns && !region.columns_meet() && !region.stores_once_a_row();
        let is_there = of == self.of
            && self.rows.contains(&region.columns)
            && columns.is_multiple_of(region.columns)
            && !region.body.iter().any(tears);
        columns > 1 && region.reduced == 0 && !region.body.iter().any(combines) && (is_whole || is_there)
    }
}

/// Buffers that a kernel may bind on every machine, so that one fused graph serves all.
pub const FEWEST_BINDINGS: usize = 31;

/// What a driver says of a CUDA device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CudaProperties {
    /// Its name.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// Most threads of a block.
    pub block_threads: u32,
    /// Bytes of shared memory that a block gets if it asks for them.
    pub shared_bytes: usize,
    /// Streaming multiprocessors.
    pub processors: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl CudaProperties {
    /// The machine of this catalogue that describes the device best.
    fn known(&self) -> Machine {
        let fits = |m: &Machine| {
            m.cuda
                .filter(|c| c.capability == self.capability && self.name.contains(c.name))
                .map(|c| c.name.len())
        };
        ALL.iter().filter(|m| fits(m).is_some()).max_by_key(|m| fits(m)).unwrap_or(&CUDA).clone()
    }

    /// The name of that machine: what a tuning file calls the device.
    pub fn machine_name(&self) -> Cow<'static, str> {
        self.known().name
    }

    /// The device as a machine, with the limits that its driver reports. On an H100 SXM its kernels are those that are
    /// compiled ahead of time for [`H100`].
    pub fn machine(&self) -> Machine {
        let known = self.known();
        // Portable kernels are generated for what every device has.
        let is_hopper = known.has_tensor_cores();
        let most = if is_hopper { self.shared_bytes } else { known.limits.shared_bytes };
        let limits = Limits {
            block_threads: self.block_threads,
            shared_bytes: self.shared_bytes.min(most),
            allocation_bytes: self.memory_bytes,
            ..known.limits
        };
        Machine { name: self.name.clone().into(), processors: self.processors, limits, ..known }
    }
}

impl Machine {
    /// Whether buffers can hold bfloat16.
    pub fn has_bf16(&self) -> bool {
        self.isa.is_some_and(|isa| isa.bf16)
    }

    /// Whether kernels for tensor cores are generated.
    pub fn has_tensor_cores(&self) -> bool {
        self.isa.is_some_and(|isa| isa.tensor_cores)
    }

    /// Threads of a warp that exchange values directly.
    pub fn warp(&self) -> Option<u32> {
        self.isa.and_then(|isa| isa.warp)
    }
}

/// The machine of that name.
///
/// # Errors
/// A message with the known names, and the nearest one, if there is none.
pub fn named(name: &str) -> Result<Machine, String> {
    if let Some(machine) = ALL.iter().find(|m| m.name == name) {
        return Ok(machine.clone());
    }
    let known: Vec<&str> = ALL.iter().map(|m| &*m.name).collect();
    let hint =
        nearest(name, known.iter().copied()).map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
    Err(format!("there is no target `{name}`{hint}; the targets are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_binds_what_fusion_relies_on() {
        assert_eq!(ALL.iter().map(|m| m.limits.bindings).min(), Some(FEWEST_BINDINGS));
    }

    #[test]
    fn an_unknown_machine_names_the_nearest() {
        assert_eq!(named("h200").unwrap().rates.bandwidth, 4.8e12);
        let message = named("H10").unwrap_err();
        assert!(message.contains("did you mean `h100`") && message.contains("vulkan-cpu"), "{message}");
    }

    #[test]
    fn a_cuda_device_is_the_machine_that_describes_it() {
        let device = |name: &str, capability, shared_kib: usize, processors| CudaProperties {
            name: name.into(),
            capability,
            block_threads: 1024,
            shared_bytes: shared_kib * 1024,
            processors,
            memory_bytes: 80 << 30,
        };
        let table = [
            // Device; tensor cores, KiB of shared memory, storage of training, name in a tuning file.
            (device("NVIDIA H100 80GB HBM3", (9, 0), 227, 132), true, 227, DType::BF16, "h100"),
            (device("NVIDIA H100 PCIe", (9, 0), 227, 114), true, 227, DType::BF16, "h100"),
            (device("NVIDIA H200", (9, 0), 227, 132), true, 227, DType::BF16, "h200"),
            (device("NVIDIA A100-SXM4-80GB", (8, 0), 163, 108), false, 48, DType::F32, "a100"),
            (device("NVIDIA GeForce RTX 4090", (8, 9), 99, 128), false, 48, DType::F32, "cuda"),
            (device("NVIDIA B200", (10, 0), 227, 148), false, 48, DType::F32, "cuda"),
        ];
        for (device, tensor_cores, shared_kib, storage, known) in table {
            let machine = device.machine();
            let found = (machine.has_tensor_cores(), machine.limits.shared_bytes / 1024, machine.storage);
            assert_eq!(found, (tensor_cores, shared_kib, storage), "{}", device.name);
            assert_eq!((machine.processors, device.machine_name()), (device.processors, known.into()));
            assert_eq!(machine.rates, named(known).unwrap().rates);
        }
        // What is compiled ahead of time for an H100 is what one asks for.
        let machine = device("NVIDIA H100 80GB HBM3", (9, 0), 227, 132).machine();
        let limits = Limits { allocation_bytes: H100.limits.allocation_bytes, ..machine.limits };
        assert_eq!(Machine { name: H100.name, limits, ..machine }, H100);
    }
}
