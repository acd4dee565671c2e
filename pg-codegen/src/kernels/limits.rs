//! What a launch asks of a machine, held to the machine's limits.
//!
//! CubeCL panics on its server thread for a launch beyond a device's limits, and every later call fails.
//! So each launch is checked here first, and what does not fit is an error that says why.

use super::error::CubeError;
use crate::machine::Machine;

/// What a kernel asks of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Threads of a thread block.
    pub threads: u32,
    /// Bytes of shared memory.
    pub shared_bytes: usize,
    /// Buffers.
    pub bindings: usize,
    /// Whether a buffer holds bfloat16.
    pub bf16: bool,
}

impl Machine {
    /// Checks a kernel's needs.
    ///
    /// # Errors
    /// The first limit that it exceeds.
    pub fn check(&self, kernel: &str, needs: Needs) -> Result<(), CubeError> {
        let limits = [
            ("threads in a block", u64::from(needs.threads), u64::from(self.limits.block_threads)),
            ("bytes of shared memory", needs.shared_bytes as u64, self.limits.shared_bytes as u64),
            ("buffers", needs.bindings as u64, self.limits.bindings as u64),
        ];
        for (what, need, have) in limits {
            self.limit(kernel, what, need, have)?;
        }
        if needs.bf16 && !self.has_bf16() {
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
        self.limit(kernel, "bytes in one buffer", bytes, self.limits.binding_bytes)
    }

    /// The grid of so many thread blocks, in two dimensions if one axis would be too long, and whether it has no more
    /// of them: kernels skip what is beyond.
    ///
    /// # Errors
    /// If there are more thread blocks than two axes hold.
    pub fn grid(&self, kernel: &str, thread_blocks: u64) -> Result<([u32; 3], bool), CubeError> {
        let axis = u64::from(self.limits.grid_axis);
        self.limit(kernel, "thread blocks", thread_blocks, axis * axis)?;
        if thread_blocks <= axis {
            return Ok(([thread_blocks.max(1) as u32, 1, 1], thread_blocks > 0));
        }
        let y = thread_blocks.div_ceil(axis);
        // Even rows: at most y − 1 thread blocks are idle.
        let x = thread_blocks.div_ceil(y);
        Ok(([x as u32, y as u32, 1], x * y == thread_blocks))
    }

    fn limit(&self, kernel: &str, what: &'static str, need: u64, have: u64) -> Result<(), CubeError> {
        if need <= have {
            return Ok(());
        }
        Err(CubeError::Limit { kernel: kernel.into(), machine: self.name.to_string(), what, need, have })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{CUDA, VULKAN_CPU};

    #[test]
    fn grids_fold_evenly_and_hold_every_block() {
        let machine = VULKAN_CPU;
        for thread_blocks in [0, 1, 65_535, 65_536, 65_537, 1_000_003, 65_535 * 65_535] {
            let ([x, y, z], exact) = machine.grid("k", thread_blocks).unwrap();
            let total = u64::from(x) * u64::from(y);
            assert_eq!(exact, total == thread_blocks, "{thread_blocks}");
            assert!(x <= 65_535 && y <= 65_535 && z == 1);
            assert!(
                total >= thread_blocks && total < thread_blocks.max(1) + u64::from(y),
                "{thread_blocks}: {x} × {y}"
            );
        }
        let error = machine.grid("k", u64::MAX).unwrap_err();
        assert!(error.to_string().contains("thread blocks, vulkan-cpu has"), "{error}");
    }

    #[test]
    fn a_kernel_over_a_limit_is_one_clear_error() {
        let needs = Needs { threads: 256, shared_bytes: 40_000, bindings: 3, bf16: false };
        let error = VULKAN_CPU.check("attention", needs).unwrap_err();
        assert_eq!(
            error.to_string(),
            "kernel `attention` needs 40000 bytes of shared memory, vulkan-cpu has 32768"
        );
        assert_eq!(CUDA.check("attention", needs), Ok(()));
    }
}
