//! The units of a Hopper multiprocessor, and how long an instruction of a warp keeps each busy.
//!
//! Rates are those of the CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions", for compute
//! capability 9.0, in results of a multiprocessor and cycle. No instruction is ever faster; latencies are not here.

use std::fmt;

use super::sass::Instruction;

/// A unit, as profilers name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pipe {
    /// Four schedulers, each of which issues an instruction a cycle.
    Issue,
    /// Matrix products.
    Tensor,
    /// Both halves of the float32 units, of which one multiplies integers, too.
    Fma,
    /// The half that multiplies integers.
    FmaHeavy,
    /// Logic, comparisons, shifts, sums of integers, and conversions that pack.
    Alu,
    /// Transcendental functions and other conversions.
    Xu,
    /// Loads and stores of every kind, and shuffles: 128 bytes a cycle.
    Lsu,
}

impl Pipe {
    /// Every one.
    pub const ALL: [Pipe; 7] =
        [Pipe::Issue, Pipe::Tensor, Pipe::Fma, Pipe::FmaHeavy, Pipe::Alu, Pipe::Xu, Pipe::Lsu];
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pipe::Issue => "issue",
            Pipe::Tensor => "tensor",
            Pipe::Fma => "fma",
            Pipe::FmaHeavy => "fmaheavy",
            Pipe::Alu => "alu",
            Pipe::Xu => "xu",
            Pipe::Lsu => "lsu",
        })
    }
}

/// FLOPs of dense bfloat16 products of a multiprocessor and cycle: 989.4 TFLOP/s of 132 at 1.83 GHz.
pub(super) const TENSOR_FLOPS: f64 = 4096.0;

/// What `mma.sync` reaches of that on Hopper; only `wgmma` reaches all. Luo et al., "Benchmarking and Dissecting the
/// Nvidia Hopper GPU Architecture via Microbenchmarking" (2024), dense products of 16 × 8 × 16.
const MMA_SYNC: f64 = 0.62;

const WARP: f64 = 32.0;

/// Cycles of a multiprocessor, by unit.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Cycles {
    /// By position in [`Pipe::ALL`].
    by_pipe: [f64; Pipe::ALL.len()],
}

impl Cycles {
    /// Those of one unit.
    pub fn of(&self, pipe: Pipe) -> f64 {
        self.by_pipe[pipe as usize]
    }

    /// The unit that is busy longest, and its cycles.
    pub fn longest(&self) -> (Pipe, f64) {
        let pipes = Pipe::ALL.into_iter().map(|pipe| (pipe, self.of(pipe)));
        // The first of equals: what a launch waits for most directly.
        pipes.reduce(|a, b| if b.1 > a.1 { b } else { a }).expect("there are pipes")
    }

    /// Adds so many warps' issues of an instruction.
    pub(super) fn add(&mut self, i: &Instruction, issued: f64, executed: f64) {
        self.by_pipe[Pipe::Issue as usize] += issued / 4.0;
        for (pipe, cycles) in busy(&i.name) {
            self.by_pipe[pipe as usize] += cycles * executed;
        }
    }

    pub(super) fn times(mut self, n: f64) -> Cycles {
        self.by_pipe.iter_mut().for_each(|c| *c *= n);
        self
    }
}

/// FLOPs of an instruction of a warp.
pub(super) fn flops(name: &str) -> f64 {
    let mut parts = name.split('.');
    let mnemonic = parts.next().unwrap_or_default();
    match mnemonic {
        "HMMA" | "HGMMA" => products(name),
        "FFMA" => 2.0 * WARP,
        "FADD" | "FMUL" => WARP,
        _ => 0.0,
    }
}

/// FLOPs of a product of a warp; of a warpgroup's, a quarter.
fn products(name: &str) -> f64 {
    let shape = name.split('.').nth(1).unwrap_or_default();
    match shape {
        "16816" => 2.0 * 16.0 * 8.0 * 16.0,
        "1688" => 2.0 * 16.0 * 8.0 * 8.0,
        _ => shape.split('x').filter_map(|n| n.parse::<f64>().ok()).product::<f64>() * 2.0 / 4.0,
    }
}

/// The units that an instruction of a warp keeps busy, in cycles of the whole multiprocessor.
fn busy(name: &str) -> Vec<(Pipe, f64)> {
    let mnemonic = name.split('.').next().unwrap_or_default();
    let has = |modifier: &str| name.split('.').skip(1).any(|m| m == modifier);
    let at = |pipe, results: f64| vec![(pipe, WARP / results)];
    match mnemonic {
        "HMMA" => vec![(Pipe::Tensor, products(name) / TENSOR_FLOPS / MMA_SYNC)],
        "HGMMA" => vec![(Pipe::Tensor, products(name) / TENSOR_FLOPS)],
        "FFMA" | "FMUL" | "FADD" => at(Pipe::Fma, 128.0),
        "HFMA2" | "HADD2" | "HMUL2" => at(Pipe::Fma, 128.0),
        "IMAD" => vec![(Pipe::Fma, WARP / 128.0), (Pipe::FmaHeavy, WARP / 64.0)],
        "DFMA" | "DADD" | "DMUL" => at(Pipe::Fma, 64.0),
        "IADD3" | "VIADD" | "VIADDMNMX" | "VIMNMX" | "IMNMX" | "IABS" | "LEA" | "LOP3" | "SHF" | "PRMT"
        | "SEL" | "ISETP" | "FSETP" | "FSEL" | "FMNMX" | "PLOP3" | "MOV" | "P2R" | "R2P" | "VOTE"
        | "F2FP" | "I2FP" | "BMSK" | "SGXT" | "HSETP2" | "HMNMX2" => at(Pipe::Alu, 64.0),
        "MUFU" | "F2F" | "F2I" | "I2F" | "POPC" | "FLO" | "BREV" | "FRND" => at(Pipe::Xu, 16.0),
        "SHFL" => at(Pipe::Lsu, 32.0),
        "LDSM" | "STSM" => {
            let matrices = name.chars().last().and_then(|c| c.to_digit(10)).unwrap_or(1);
            vec![(Pipe::Lsu, f64::from(matrices))]
        }
        "LDG" | "STG" | "LDS" | "STS" | "LDL" | "STL" | "LDGSTS" | "LD" | "ST" | "ATOMG" | "ATOMS"
        | "RED" => {
            let wide = if has("128") { 4.0 } else { 1.0 + f64::from(u8::from(has("64"))) };
            vec![(Pipe::Lsu, wide)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_keep_units_busy() {
        let of = |name: &str| {
            let mut all = Cycles::default();
            all.add(&Instruction { address: 0, name: name.into(), text: name.into() }, 1.0, 1.0);
            all.longest()
        };
        assert_eq!(of("FFMA"), (Pipe::Issue, 0.25));
        assert_eq!(of("IMAD.WIDE.U32"), (Pipe::FmaHeavy, 0.5));
        assert_eq!(of("MUFU.EX2"), (Pipe::Xu, 2.0));
        assert_eq!(of("LDSM.16.MT88.4"), (Pipe::Lsu, 4.0));
        assert_eq!(of("LDGSTS.E.BYPASS.128"), (Pipe::Lsu, 4.0));
        assert_eq!(of("BAR.SYNC.DEFER_BLOCKING"), (Pipe::Issue, 0.25));
        assert_eq!(of("HGMMA.64x256x16.F32.BF16"), (Pipe::Tensor, 32.0));
        assert_eq!((flops("HMMA.16816.F32.BF16"), flops("HGMMA.64x256x16.F32.BF16")), (4096.0, 131_072.0));
        let (pipe, cycles) = of("HMMA.16816.F32.BF16");
        assert_eq!(pipe, Pipe::Tensor);
        assert!((cycles - 1.0 / 0.62).abs() < 1e-12);
    }
}
