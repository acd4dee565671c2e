//! The tile instructions: a 32 × 32 block of a product from packed panels.
//!
//! They stand in assembly because the compiler's intrinsics for them are not stable. Eight tile registers: four
//! hold the block, two a half of the left and two a half of the right panel.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;

use super::{AHEAD, BLOCK, STEP_BYTES};

/// Whether the processor has tiles and multiplies bfloat16 on them.
pub(super) fn exists() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let wanted = AMX_BF16 | AMX_TILE;
    let vectors = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16");
    vectors && __cpuid_count(7, 0).edx & wanted == wanted
}

/// Asks Linux for the tiles' state, which it saves for a process only after it was asked
/// (`ARCH_REQ_XCOMP_PERM` of `arch_prctl`). Threads that exist already have it then, too.
pub(super) fn request_permission() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
        const XFEATURE_XTILEDATA: u64 = 18;
        const SYS_ARCH_PRCTL: u64 = 158;
        let result: i64;
        // SAFETY: the call changes nothing but what the system saves of this process's registers; the `syscall`
        // instruction overwrites rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") SYS_ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack)
            );
        }
        result == 0
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// What `ldtilecfg` reads: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// This thread's tiles, configured.
pub(super) struct Tiles(PhantomData<*mut ()>);

/// Runs `f` with the tiles of this thread. [`super::Amx`] must have been detected.
pub(super) fn with_tiles(f: impl FnOnce(&Tiles)) {
    // Before `f` and after it, also if it panics: live tiles slow down every switch between threads.
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            // SAFETY: tiles hold nothing that is still needed.
            unsafe { asm!("tilerelease", options(nomem, nostack)) };
        }
    }
    // SAFETY: a valid configuration of a unit that exists.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(readonly, nostack)) };
    let _release = Release;
    f(&Tiles(PhantomData));
}

impl Tiles {
    /// The rows × cols corner of c = Σ over `steps` of the tiles of a left and a right panel, plus the old c if
    /// `accumulate`. Rows of c are `stride` elements apart. Memory at the third pointer, [`AHEAD`] bytes a step,
    /// is asked for in advance; it need not be valid.
    ///
    /// # Safety
    /// The panels must hold `steps` steps, and the block must be valid and this thread's own.
    #[allow(clippy::too_many_arguments, reason = "the operands of one instruction sequence")]
    #[inline]
    pub(super) unsafe fn block(
        &self,
        steps: usize,
        [left, right, ahead]: [*const u8; 3],
        c: *mut f32,
        stride: usize,
        [rows, cols]: [usize; 2],
        accumulate: bool,
    ) {
        if rows == BLOCK && cols == BLOCK {
            // SAFETY: by the caller's promise.
            return unsafe { self.whole(steps, [left, right, ahead], c, stride, accumulate) };
        }
        let mut corner = [0.0f32; BLOCK * BLOCK];
        // SAFETY: `corner` is a whole block; of c only what the caller has promised is touched.
        unsafe {
            if accumulate {
                for row in 0..rows {
                    std::ptr::copy_nonoverlapping(
                        c.add(row * stride),
                        corner.as_mut_ptr().add(row * BLOCK),
                        cols,
                    );
                }
            }
            self.whole(steps, [left, right, ahead], corner.as_mut_ptr(), BLOCK, accumulate);
            for row in 0..rows {
                std::ptr::copy_nonoverlapping(corner.as_ptr().add(row * BLOCK), c.add(row * stride), cols);
            }
        }
    }

    /// A whole block.
    ///
    /// # Safety
    /// As for [`Self::block`].
    #[inline]
    unsafe fn whole(
        &self,
        steps: usize,
        [left, right, ahead]: [*const u8; 3],
        c: *mut f32,
        stride: usize,
        accumulate: bool,
    ) {
        // The tiles of a step: leading parts of both halves, middle parts, last parts. Products of parts in the
        // order in which fewest tiles are loaded twice.
        // SAFETY: reads `steps` steps of both panels and touches the block; the tiles are configured and ours.
        unsafe {
            asm!(
                "test {fresh:e}, {fresh:e}",
                "jnz 3f",
                "tileloadd tmm0, [{c0} + {stride}]",
                "tileloadd tmm1, [{c0} + {stride} + 64]",
                "tileloadd tmm2, [{c1} + {stride}]",
                "tileloadd tmm3, [{c1} + {stride} + 64]",
                "jmp 2f",
                "3:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                // leading × leading
                "tileloadd tmm4, [{a} + {row}]",
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 0]",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 64]",
                "tileloadd tmm5, [{a} + {row} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 128]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 192]",
                // leading × middle
                "tileloadd tmm6, [{b} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 256]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 320]",
                "tileloadd tmm7, [{b} + {row} + 3072]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 384]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 448]",
                // leading × last
                "tileloadd tmm6, [{b} + {row} + 4096]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 512]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 576]",
                "tileloadd tmm7, [{b} + {row} + 5120]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 640]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 704]",
                // middle × middle
                "tileloadd tmm4, [{a} + {row} + 2048]",
                "tileloadd tmm6, [{b} + {row} + 2048]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 768]",
                "tileloadd tmm5, [{a} + {row} + 3072]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 832]",
                "tileloadd tmm7, [{b} + {row} + 3072]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 896]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 960]",
                // middle × leading
                "tileloadd tmm6, [{b} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 1088]",
                "tileloadd tmm7, [{b} + {row} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 1152]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 1216]",
                // last × leading
                "tileloadd tmm4, [{a} + {row} + 4096]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht1 [{ahead} + 1280]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "prefetcht1 [{ahead} + 1344]",
                "tileloadd tmm5, [{a} + {row} + 5120]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "prefetcht1 [{ahead} + 1408]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "prefetcht1 [{ahead} + 1472]",
                "add {ahead}, {ahead_step}",
                "add {a}, {step}",
                "add {b}, {step}",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{c0} + {stride}], tmm0",
                "tilestored [{c0} + {stride} + 64], tmm1",
                "tilestored [{c1} + {stride}], tmm2",
                "tilestored [{c1} + {stride} + 64], tmm3",
                a = inout(reg) left => _,
                b = inout(reg) right => _,
                steps = inout(reg) steps => _,
                ahead = inout(reg) ahead => _,
                c0 = in(reg) c,
                c1 = in(reg) c.wrapping_add(BLOCK / 2 * stride),
                stride = in(reg) 4 * stride,
                row = in(reg) 64usize,
                fresh = in(reg) u32::from(!accumulate),
                step = const STEP_BYTES,
                ahead_step = const AHEAD,
                out("tmm0") _,
                out("tmm1") _,
                out("tmm2") _,
                out("tmm3") _,
                out("tmm4") _,
                out("tmm5") _,
                out("tmm6") _,
                out("tmm7") _,
                options(nostack)
            );
        }
    }
}
