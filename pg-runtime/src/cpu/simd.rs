//! Run-time choice of the instruction set for loops that the compiler vectorises.
//!
//! A kernel is a struct whose [`Kernel::call`] is `#[inline(always)]`, as is everything that its loops
//! call: it is then compiled once for each instruction set, inside a function that enables it. Float
//! contraction is never asked for, so every instruction set gives the same bits.

/// A loop to compile for several instruction sets.
pub(crate) trait Kernel {
    /// What the loop gives back.
    type Output;
    /// Runs the loop. Implementations must be `#[inline(always)]`, or they gain nothing.
    fn call(self) -> Self::Output;
}

/// The best instruction set of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(dead_code, reason = "which are constructed depends on the target architecture")]
pub(crate) enum Isa {
    /// What the binary was compiled for.
    Base,
    /// AVX2.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    /// Asks the machine. The answer is cached by the standard library.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Isa::Avx2;
            }
        }
        Isa::Base
    }

    /// Runs a kernel compiled for this instruction set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            // SAFETY: `detect` is the only place that makes these values, after asking the machine.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { run_avx2(kernel) },
            _ => kernel.call(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.call()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.call()
}
