//! What a device can run, and the check of a launch against it.
//!
//! CubeCL panics on its server thread for a launch beyond a device's limits, and every later call fails.
//! So each launch is checked here first, and what does not fit is an error that says why.

use std::fmt;

use crate::machine::tuning::Tuning;

/// Limits of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Its name, for messages.
    pub name: String,
    /// Greatest number of cubes along an axis of the grid.
    pub grid_axis: u32,
    /// Greatest number of units of a cube.
    pub units: u32,
    /// Bytes of shared memory of a cube.
    pub shared_bytes: usize,
    /// Greatest number of buffers of a kernel.
    pub bindings: usize,
    /// Bytes of the largest buffer that can be bound.
    pub binding_bytes: u64,
    /// Bytes of the largest allocation.
    pub allocation_bytes: u64,
    /// Buffers are bound at multiples of so many bytes.
    pub binding_align: u64,
    /// Whether buffers can hold bfloat16.
    pub bf16: bool,
    /// Whether warps multiply bfloat16 matrices (`mma`), with asynchronous copies to feed them.
    pub matrix_units: bool,
    /// Units of a plane, if its units exchange values directly; otherwise they meet in shared memory.
    pub plane: Option<u32>,
    /// Multiprocessors: how many cubes keep a device busy.
    pub multiprocessors: u32,
    /// Tile sizes, vector widths and split factors.
    pub tuning: Tuning,
}

impl Target {
    /// What every device of the portable variant can run: the least that Vulkan, Metal and WebGPU
    /// drivers offer in practice.
    pub fn portable() -> Target {
        Target {
            name: "portable".into(),
            grid_axis: 65_535,
            units: 1024,
            shared_bytes: 32 * 1024,
            bindings: 31,
            binding_bytes: 128 << 20,
            allocation_bytes: 1 << 30,
            binding_align: 256,
            bf16: false,
            matrix_units: false,
            plane: None,
            multiprocessors: 132,
            tuning: Tuning::of("vulkan-cpu"),
        }
    }

    /// The limits and the language of kernels for a machine; `None` if kernels are not generated for it.
    pub fn of(machine: &crate::machine::Target) -> Option<(Target, Language)> {
        let (target, language) = match machine.name {
            "vulkan-cpu" => (Target::portable(), Language::Wgsl),
            "h100" | "h200" => (Target::hopper(), Language::Cuda),
            _ => return None,
        };
        Some((Target { name: machine.name.into(), tuning: Tuning::of(machine.name), ..target }, language))
    }

    /// Any CUDA device from compute capability 7.0 on.
    pub fn cuda() -> Target {
        Target {
            name: "cuda".into(),
            shared_bytes: 48 * 1024,
            // A buffer takes two words of a kernel's 4 KiB of parameters, and two more of its metadata.
            bindings: 128,
            binding_bytes: 1 << 40,
            allocation_bytes: 1 << 40,
            binding_align: 16,
            bf16: true,
            tuning: Tuning::of("h100"),
            ..Target::portable()
        }
    }

    /// H100 and H200 SXM: matrix units, 132 multiprocessors, 227 KiB of shared memory for a cube (CUDA C++
    /// Programming Guide, compute capability 9.0).
    pub fn hopper() -> Target {
        Target {
            name: "hopper".into(),
            shared_bytes: 227 * 1024,
            matrix_units: true,
            plane: Some(32),
            multiprocessors: 132,
            ..Target::cuda()
        }
    }
}

/// What a driver says of a CUDA device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CudaProperties {
    /// Its name.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// Most threads of a block.
    pub units: u32,
    /// Bytes of shared memory that a block gets if it asks for them.
    pub shared_bytes: usize,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl CudaProperties {
    /// The section of the tuning table that is the device's.
    pub fn section(&self) -> &'static str {
        if self.name.contains("H200") { "h200" } else { "h100" }
    }

    /// What kernels are generated for on the device: Hopper's own on Hopper, the portable ones elsewhere. On an
    /// H100 SXM these are the kernels that were compiled ahead of time for [`Target::hopper`].
    pub fn target(&self) -> Target {
        let target = match self.capability {
            // Hopper's matrix kernels are compiled for `sm_90a`, which no other device runs.
            (9, 0) => Target { shared_bytes: self.shared_bytes, ..Target::hopper() },
            _ => {
                Target { shared_bytes: self.shared_bytes.min(Target::cuda().shared_bytes), ..Target::cuda() }
            }
        };
        Target {
            name: self.name.clone(),
            units: self.units,
            multiprocessors: self.multiprocessors,
            allocation_bytes: self.memory_bytes,
            tuning: Tuning::of(self.section()),
            ..target
        }
    }
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

/// Why a kernel cannot be made or launched.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CubeError {
    /// A launch exceeds a limit of the target.
    Limit {
        /// The kernel.
        kernel: String,
        /// Name of the target.
        target: String,
        /// What there is too much of.
        what: &'static str,
        /// How much the kernel needs.
        need: u64,
        /// How much the target has.
        have: u64,
    },
    /// The kernel needs something that the target or the generator does not have.
    Unsupported {
        /// The kernel.
        kernel: String,
        /// What.
        what: String,
    },
    /// The description of the kernel contradicts itself: a bug in the lowering.
    Malformed {
        /// The kernel.
        kernel: String,
        /// How.
        what: String,
    },
    /// CubeCL's compiler refused the kernel.
    Compile {
        /// The kernel.
        kernel: String,
        /// What it said.
        why: String,
    },
}

impl fmt::Display for CubeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CubeError::Limit { kernel, target, what, need, have } => {
                write!(f, "kernel `{kernel}` needs {need} {what}, {target} has {have}")
            }
            CubeError::Unsupported { kernel, what } => write!(f, "kernel `{kernel}`: {what}"),
            CubeError::Malformed { kernel, what } => {
                write!(f, "kernel `{kernel}` is malformed: {what} (a bug in the lowering)")
            }
            CubeError::Compile { kernel, why } => write!(f, "kernel `{kernel}` does not compile: {why}"),
        }
    }
}

impl std::error::Error for CubeError {}

/// What a kernel asks of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Units of a cube.
    pub units: u32,
    /// Bytes of shared memory.
    pub shared_bytes: usize,
    /// Buffers.
    pub bindings: usize,
    /// Whether a buffer holds bfloat16.
    pub bf16: bool,
}

impl Target {
    /// How activations and operands are stored where nobody says: as the matrix units take them.
    pub fn storage(&self) -> pg_ir::ty::DType {
        self.machine().storage
    }

    /// The machine to compile plans for: Hopper's fused graph wherever there are matrix units.
    pub fn machine(&self) -> crate::machine::Target {
        if self.matrix_units { crate::machine::H100 } else { crate::machine::VULKAN_CPU }
    }

    /// Checks a kernel's needs.
    ///
    /// # Errors
    /// The first limit that it exceeds.
    pub fn check(&self, kernel: &str, needs: Needs) -> Result<(), CubeError> {
        let limits = [
            ("units in a cube", u64::from(needs.units), u64::from(self.units)),
            ("bytes of shared memory", needs.shared_bytes as u64, self.shared_bytes as u64),
            ("buffers", needs.bindings as u64, self.bindings as u64),
        ];
        for (what, need, have) in limits {
            self.limit(kernel, what, need, have)?;
        }
        if needs.bf16 && !self.bf16 {
            let what = format!("{} has no bfloat16 buffers; use --precision f32", self.name);
            return Err(CubeError::Unsupported { kernel: kernel.into(), what });
        }
        Ok(())
    }

    /// Checks that a buffer of so many bytes can be bound.
    ///
    /// # Errors
    /// If it is too large.
    pub fn check_binding(&self, kernel: &str, bytes: u64) -> Result<(), CubeError> {
        self.limit(kernel, "bytes in one buffer", bytes, self.binding_bytes)
    }

    /// The grid of a one-dimensional launch, folded so that no axis is too long. The product may exceed
    /// `cubes`: kernels skip what is beyond.
    ///
    /// # Errors
    /// If there are more cubes than two axes hold.
    pub fn fold(&self, kernel: &str, cubes: u64) -> Result<[u32; 3], CubeError> {
        let axis = u64::from(self.grid_axis);
        self.limit(kernel, "cubes", cubes, axis * axis)?;
        if cubes <= axis {
            return Ok([cubes.max(1) as u32, 1, 1]);
        }
        let y = cubes.div_ceil(axis);
        // Even rows: at most y − 1 cubes are idle.
        Ok([cubes.div_ceil(y) as u32, y as u32, 1])
    }

    fn limit(&self, kernel: &str, what: &'static str, need: u64, have: u64) -> Result<(), CubeError> {
        if need <= have {
            return Ok(());
        }
        Err(CubeError::Limit { kernel: kernel.into(), target: self.name.clone(), what, need, have })
    }
}

#[cfg(test)]
mod tests {
    use pg_ir::ty::DType;

    use super::*;

    #[test]
    fn grids_fold_evenly_and_hold_every_cube() {
        let target = Target::portable();
        for cubes in [0, 1, 65_535, 65_536, 65_537, 1_000_003, 65_535 * 65_535] {
            let [x, y, z] = target.fold("k", cubes).unwrap();
            let total = u64::from(x) * u64::from(y);
            assert!(x <= 65_535 && y <= 65_535 && z == 1);
            assert!(total >= cubes && total < cubes.max(1) + u64::from(y), "{cubes}: {x} × {y}");
        }
        let error = target.fold("k", u64::MAX).unwrap_err();
        assert!(error.to_string().contains("cubes, portable has"), "{error}");
    }

    #[test]
    fn a_cuda_device_gets_hoppers_kernels_if_it_is_one() {
        let device = |name: &str, capability, shared_kib: usize, multiprocessors| CudaProperties {
            name: name.into(),
            capability,
            units: 1024,
            shared_bytes: shared_kib * 1024,
            multiprocessors,
            memory_bytes: 80 << 30,
        };
        let table = [
            // Device; matrix units, KiB of shared memory, storage of training, section of the tuning table.
            (device("NVIDIA H100 80GB HBM3", (9, 0), 227, 132), true, 227, DType::BF16, "h100"),
            (device("NVIDIA H100 PCIe", (9, 0), 227, 114), true, 227, DType::BF16, "h100"),
            (device("NVIDIA H200", (9, 0), 227, 132), true, 227, DType::BF16, "h200"),
            (device("NVIDIA A100-SXM4-80GB", (8, 0), 163, 108), false, 48, DType::F32, "h100"),
            (device("NVIDIA GeForce RTX 4090", (8, 9), 99, 128), false, 48, DType::F32, "h100"),
            (device("NVIDIA B200", (10, 0), 227, 148), false, 48, DType::F32, "h100"),
        ];
        for (device, matrix_units, shared_kib, storage, section) in table {
            let target = device.target();
            let found = (target.matrix_units, target.shared_bytes / 1024, target.storage(), device.section());
            assert_eq!(found, (matrix_units, shared_kib, storage, section), "{}", device.name);
            assert_eq!(target.multiprocessors, device.multiprocessors);
            assert_eq!(target.tuning, Tuning::of(section));
        }
        // What is compiled ahead of time for an H100 is what one asks for.
        let target = device("NVIDIA H100 80GB HBM3", (9, 0), 227, 132).target();
        let (ahead, _) = Target::of(&crate::machine::H100).unwrap();
        assert_eq!(
            Target { name: ahead.name.clone(), allocation_bytes: ahead.allocation_bytes, ..target },
            ahead
        );
    }

    #[test]
    fn a_kernel_over_a_limit_is_one_clear_error() {
        let needs = Needs { units: 256, shared_bytes: 40_000, bindings: 3, bf16: false };
        let error = Target::portable().check("attention", needs).unwrap_err();
        assert_eq!(
            error.to_string(),
            "kernel `attention` needs 40000 bytes of shared memory, portable has 32768"
        );
        assert_eq!(Target::cuda().check("attention", needs), Ok(()));
    }
}
