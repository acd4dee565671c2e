//! The tile instructions: a 32 × 32 block of a product from packed panels.
//!
//! They stand in assembly because the compiler's intrinsics for them are not stable. Eight tile registers: four
//! hold the block, two a half of the left and two a half of the right panel.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;

use super::product::Block;
use super::{BLOCK, ROWS, step_bytes};

/// Bytes of the next panel of the right operand that each step asks for in advance: all of it by the last of a
/// task's rows.
pub(super) const fn ahead(parts: usize) -> usize {
    step_bytes(parts) / (ROWS / BLOCK)
}

/// Whether the processor has tiles and multiplies bfloat16 on them.
pub(super) fn exists() -> bool {
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let wanted = AMX_BF16 | AMX_TILE;
    let vectors = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
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

/// Loads a tile from so many bytes behind the step of a panel.
macro_rules! load {
    ($tile:literal, $panel:literal, $offset:literal) => {
        concat!("tileloadd tmm", $tile, ", [{", $panel, "} + {row} + ", $offset, "]")
    };
}

/// Asks for a line of the next panel in advance.
macro_rules! ask {
    ($offset:literal) => {
        concat!("prefetcht1 [{ahead} + ", $offset, "]")
    };
}

/// Adds the product of two tiles to a third, and [asks](ask) for a line meanwhile.
macro_rules! dot {
    ($sum:literal, $left:literal, $right:literal, $ahead:literal) => {
        concat!("tdpbf16ps tmm", $sum, ", tmm", $left, ", tmm", $right, "\n", ask!($ahead))
    };
}

/// A block of a result through the tiles: the given instructions for each step of the panels, between the tiles'
/// load or zeroing and their store. tmm0 to tmm3 are the block, row by row.
macro_rules! through_tiles {
    (($parts:literal, $steps:ident, $panels:ident, $c:ident, $accumulate:ident), $($line:expr,)+) => {
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
            $($line,)+
            "add {ahead}, {ahead_step}",
            "add {a}, {step}",
            "add {b}, {step}",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c0} + {stride}], tmm0",
            "tilestored [{c0} + {stride} + 64], tmm1",
            "tilestored [{c1} + {stride}], tmm2",
            "tilestored [{c1} + {stride} + 64], tmm3",
            a = inout(reg) $panels[0] => _,
            b = inout(reg) $panels[1] => _,
            ahead = inout(reg) $panels[2] => _,
            steps = inout(reg) $steps => _,
            c0 = in(reg) $c.ptr,
            c1 = in(reg) $c.ptr.wrapping_add(BLOCK / 2 * $c.stride),
            stride = in(reg) 4 * $c.stride,
            row = in(reg) 64usize,
            fresh = in(reg) u32::from(!$accumulate),
            step = const step_bytes($parts),
            ahead_step = const ahead($parts),
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack)
        )
    };
}

impl Tiles {
    /// c = Σ over `steps` of the tiles of a left and a right panel, plus the old c if `accumulate`. Memory at the
    /// third pointer, [`ahead`] bytes a step, is asked for in advance; it need not be valid.
    ///
    /// # Safety
    /// The panels must hold `steps` steps of `PARTS` parts, and the block must be valid and this thread's own.
    #[inline]
    pub(super) unsafe fn block<const PARTS: usize>(
        &self,
        steps: usize,
        panels: [*const u8; 3],
        c: Block,
        accumulate: bool,
    ) {
        let mut memory = [0.0f32; BLOCK * BLOCK];
        let is_whole = c.size == [BLOCK; 2];
        let whole =
            if is_whole { c } else { Block { ptr: memory.as_mut_ptr(), stride: BLOCK, size: c.size } };
        // SAFETY: `whole` is a whole block; of c only what the caller has promised is touched.
        unsafe {
            if !is_whole && accumulate {
                copy(c, whole);
            }
            match PARTS {
                1 => one_part(steps, panels, whole, accumulate),
                _ => three_parts(steps, panels, whole, accumulate),
            }
            if !is_whole {
                copy(whole, c);
            }
        }
    }
}

/// Copies the valid corner of a block.
///
/// # Safety
/// Both must be valid, and `to` the caller's own.
unsafe fn copy(from: Block, to: Block) {
    let [rows, cols] = from.size;
    for row in 0..rows {
        let (from, to) = (from.ptr.wrapping_add(row * from.stride), to.ptr.wrapping_add(row * to.stride));
        // SAFETY: by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, cols) };
    }
}

/// A whole block of bfloat16 operands.
///
/// # Safety
/// As for [`Tiles::block`].
#[inline]
unsafe fn one_part(steps: usize, panels: [*const u8; 3], c: Block, accumulate: bool) {
    // SAFETY: reads `steps` steps of both panels and touches the block; the tiles are configured and ours.
    unsafe {
        through_tiles!(
            (1, steps, panels, c, accumulate),
            load!(4, "a", 0),
            load!(6, "b", 0),
            dot!(0, 4, 6, 0),
            load!(7, "b", 1024),
            dot!(1, 4, 7, 64),
            load!(5, "a", 1024),
            dot!(2, 5, 6, 128),
            dot!(3, 5, 7, 192),
            ask!(256),
            ask!(320),
            ask!(384),
            ask!(448),
        );
    }
}

/// A whole block of float32 operands. The tiles of a step are the leading parts of both halves, the middle and the
/// last ones; the products come in the order in which fewest tiles are loaded twice.
///
/// # Safety
/// As for [`Tiles::block`].
#[inline]
unsafe fn three_parts(steps: usize, panels: [*const u8; 3], c: Block, accumulate: bool) {
    // SAFETY: as above.
    unsafe {
        through_tiles!(
            (3, steps, panels, c, accumulate),
            // leading × leading
            load!(4, "a", 0),
            load!(6, "b", 0),
            dot!(0, 4, 6, 0),
            load!(7, "b", 1024),
            dot!(1, 4, 7, 64),
            load!(5, "a", 1024),
            dot!(2, 5, 6, 128),
            dot!(3, 5, 7, 192),
            // leading × middle
            load!(6, "b", 2048),
            dot!(0, 4, 6, 256),
            load!(7, "b", 3072),
            dot!(1, 4, 7, 320),
            dot!(2, 5, 6, 384),
            dot!(3, 5, 7, 448),
            // leading × last
            load!(6, "b", 4096),
            dot!(0, 4, 6, 512),
            load!(7, "b", 5120),
            dot!(1, 4, 7, 576),
            dot!(2, 5, 6, 640),
            dot!(3, 5, 7, 704),
            // middle × middle
            load!(4, "a", 2048),
            load!(6, "b", 2048),
            dot!(0, 4, 6, 768),
            load!(7, "b", 3072),
            dot!(1, 4, 7, 832),
            load!(5, "a", 3072),
            dot!(2, 5, 6, 896),
            dot!(3, 5, 7, 960),
            // middle × leading
            load!(6, "b", 0),
            dot!(0, 4, 6, 1024),
            load!(7, "b", 1024),
            dot!(1, 4, 7, 1088),
            dot!(2, 5, 6, 1152),
            dot!(3, 5, 7, 1216),
            // last × leading
            load!(4, "a", 4096),
            dot!(0, 4, 6, 1280),
            dot!(1, 4, 7, 1344),
            load!(5, "a", 5120),
            dot!(2, 5, 6, 1408),
            dot!(3, 5, 7, 1472),
        );
    }
}
