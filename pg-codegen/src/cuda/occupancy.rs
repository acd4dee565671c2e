//! How many thread blocks of a kernel a Hopper multiprocessor holds at once, and what keeps it from holding more. It is
//! arithmetic on a compiled kernel's resources, and says nothing of how fast the kernel is.
//!
//! The formula is that of CUDA's `cuda_occupancy.h` for compute capability 9.0; a test compares it with the
//! header itself. The limits are those of the CUDA C++ Programming Guide, "Technical Specifications per Compute
//! Capability".

use std::fmt;

use serde::Serialize;

use super::compile::Resources;

const WARP: u32 = 32;
const WARPS: u32 = 64;
const MOST_BLOCKS: u32 = 32;
const REGISTERS: u32 = 64 * 1024;
/// Each quarter of a multiprocessor has registers of its own.
const QUARTERS: u32 = 4;
/// Registers are given to a warp in threads of so many.
const REGISTER_UNIT: u32 = 256;
const MOST_REGISTERS: u32 = 255;
const SHARED_BYTES: u32 = 228 * 1024;
/// What the driver keeps of each thread block's shared memory.
const RESERVED_BYTES: u32 = 1024;
const SHARED_UNIT: u32 = 128;

/// Thread blocks of a kernel that a multiprocessor holds at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Occupancy {
    /// As many as every limit allows.
    pub blocks: u32,
    /// Warps of these thread blocks; a multiprocessor has room for 64.
    pub warps: u32,
    /// Thread blocks that the registers suffice for.
    pub by_registers: u32,
    /// Thread blocks that the shared memory suffices for.
    pub by_shared_memory: u32,
    /// Thread blocks that there are threads for; never more than 32.
    pub by_threads: u32,
    /// What there is too little of for one more.
    pub limited_by: Limit,
}

/// What limits occupancy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Registers.
    Registers,
    /// Shared memory.
    SharedMemory,
    /// Threads, or thread blocks.
    Threads,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Limit::Registers => "registers",
            Limit::SharedMemory => "shared memory",
            Limit::Threads => "threads",
        })
    }
}

impl Resources {
    /// Occupancy of thread blocks of so many threads, with so many bytes of shared memory asked for at launch.
    pub fn occupancy(&self, threads: u32, shared_bytes: usize) -> Occupancy {
        let warps = threads.div_ceil(WARP).max(1);
        let by_registers = self.blocks_by_registers(warps);
        let own = u64::from(self.shared_bytes) + shared_bytes as u64 + u64::from(RESERVED_BYTES);
        let by_shared_memory = (u64::from(SHARED_BYTES) / own.next_multiple_of(SHARED_UNIT.into())) as u32;
        let by_threads = (WARPS / warps).min(MOST_BLOCKS);
        // The most fundamental limit first, where several are equal.
        let limits = [
            (by_threads, Limit::Threads),
            (by_registers, Limit::Registers),
            (by_shared_memory, Limit::SharedMemory),
        ];
        let (blocks, limited_by) =
            limits.into_iter().min_by_key(|&(blocks, _)| blocks).expect("three limits");
        Occupancy { blocks, warps: blocks * warps, by_registers, by_shared_memory, by_threads, limited_by }
    }

    fn blocks_by_registers(&self, warps: u32) -> u32 {
        let of_warp = (self.registers * WARP).next_multiple_of(REGISTER_UNIT);
        // A launch is checked as if its warps were spread evenly over the quarters.
        let checked = of_warp * warps.next_multiple_of(QUARTERS);
        match of_warp {
            0 => MOST_BLOCKS,
            _ if checked > REGISTERS || self.registers > MOST_REGISTERS => 0,
            _ => QUARTERS * (REGISTERS / QUARTERS / of_warp) / warps,
        }
    }
}
