//! Operands as tiles: each float32 split into its three bfloat16 parts, and laid out as the tile
//! multiplication reads them.
//!
//! A panel is 32 lanes (rows of the left operand, columns of the right one) by some steps of 32 elements of k. A
//! tile is 16 lanes by one step: of the left operand, a row a lane; of the right one, a row a pair of
//! elements of k. What an operand lacks to a whole step or panel is zero.

use std::arch::x86_64::*;

use super::{BLOCK, STEP, STEP_BYTES};

/// Lanes of a tile, and its rows.
const LANES: usize = 16;

/// Where an operand's elements lie: strides in elements, and how many there are.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) ptr: *const f32,
    pub(super) lane: usize,
    pub(super) k: usize,
    pub(super) lanes: usize,
    pub(super) ks: usize,
}

/// Which operand of a product a panel is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Left,
    Right,
}

/// The three parts of sixteen rows of a tile.
type Rows = [[__m512i; LANES]; 3];

/// Packs one panel.
///
/// # Safety
/// The source's elements must be valid, `out` must have room for all its steps, and the machine must have
/// what [`super::kernel::exists`] asks for.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn panel(source: Source, format: Format, out: *mut u8) {
    for (step, k) in (0..source.ks).step_by(STEP).enumerate() {
        for half in 0..BLOCK / LANES {
            let lane = half * LANES;
            let tile = Source {
                ptr: source.ptr.wrapping_add(lane * source.lane + k * source.k),
                lanes: source.lanes.saturating_sub(lane).min(LANES),
                ks: STEP.min(source.ks - k),
                ..source
            };
            let to = out.wrapping_add(step * STEP_BYTES + half * 1024);
            // SAFETY: by the caller's promise.
            unsafe {
                let rows = tile.rows(format);
                for (part, rows) in rows.iter().enumerate() {
                    for (i, row) in rows.iter().enumerate() {
                        _mm512_store_si512(to.wrapping_add(part * 2048 + i * 64).cast(), *row);
                    }
                }
            }
        }
    }
}

impl Source {
    /// The rows of a tile.
    ///
    /// # Safety
    /// As for [`panel`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn rows(self, format: Format) -> Rows {
        // SAFETY: by the caller's promise; the copy is as valid as what it copies.
        unsafe {
            match (self.k == 1, self.lane == 1, format) {
                (true, _, Format::Left) => self.by_lane(),
                (true, _, Format::Right) => self.by_lane().map(|rows| transposed(rows)),
                (_, true, Format::Right) => self.by_pair(),
                (_, true, Format::Left) => self.by_pair().map(|rows| transposed(rows)),
                _ => {
                    let mut copy = [0.0f32; LANES * STEP];
                    for lane in 0..self.lanes {
                        for k in 0..self.ks {
                            copy[lane * STEP + k] = *self.ptr.wrapping_add(lane * self.lane + k * self.k);
                        }
                    }
                    Source { ptr: copy.as_ptr(), lane: STEP, k: 1, ..self }.rows(format)
                }
            }
        }
    }

    /// A row a lane, where elements of k are neighbours.
    ///
    /// # Safety
    /// As for [`panel`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn by_lane(self) -> Rows {
        let mut rows: Rows = [[_mm512_setzero_si512(); LANES]; 3];
        let (first, second) = (mask(self.ks), mask(self.ks.saturating_sub(16)));
        for lane in 0..self.lanes {
            let at = self.ptr.wrapping_add(lane * self.lane);
            // SAFETY: masked to the elements that there are.
            let (mut x, mut y) = unsafe {
                (_mm512_maskz_loadu_ps(first, at), _mm512_maskz_loadu_ps(second, at.wrapping_add(16)))
            };
            for (part, rows) in rows.iter_mut().enumerate() {
                // SAFETY: two types of the same 64 bytes.
                let packed: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(y, x)) };
                rows[lane] = packed;
                if part < 2 {
                    x = _mm512_sub_ps(x, widened(_mm512_castsi512_si256(packed)));
                    y = _mm512_sub_ps(y, widened(_mm512_extracti64x4_epi64::<1>(packed)));
                }
            }
        }
        rows
    }

    /// A row a pair of elements of k, where lanes are neighbours.
    ///
    /// # Safety
    /// As for [`panel`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn by_pair(self) -> Rows {
        let mut rows: Rows = [[_mm512_setzero_si512(); LANES]; 3];
        let lanes = mask(self.lanes);
        for pair in 0..self.ks.div_ceil(2) {
            let at = self.ptr.wrapping_add(2 * pair * self.k);
            let second = if 2 * pair + 1 < self.ks { lanes } else { 0 };
            // SAFETY: masked to the elements that there are.
            let (mut x, mut y) = unsafe {
                (_mm512_maskz_loadu_ps(lanes, at), _mm512_maskz_loadu_ps(second, at.wrapping_add(self.k)))
            };
            for (part, rows) in rows.iter_mut().enumerate() {
                let (low, high) = (narrowed(x), narrowed(y));
                rows[pair] = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                if part < 2 {
                    x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)));
                    y = _mm512_sub_ps(y, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high)));
                }
            }
        }
        rows
    }
}

/// The first `n` of sixteen.
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as u16
}

/// bfloat16 to float32.
#[target_feature(enable = "avx512f")]
#[inline]
fn widened(x: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
}

/// float32 to the nearest bfloat16, in the low half of each 32 bits.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn narrowed(x: __m512) -> __m512i {
    // SAFETY: two types of the same 32 bytes.
    _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) })
}

/// 16 × 16 words of 32 bits, transposed: of lanes by pairs, pairs by lanes and back.
#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut r = rows;
    let mut t = rows;
    for i in (0..LANES).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for i in (0..LANES).step_by(4) {
        for j in 0..2 {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    }
    // Now quarter q of r[4i + j] is column 4q + j of rows 4i … 4i + 3.
    for j in 0..4 {
        let low = |a, b| _mm512_shuffle_i32x4::<0x88>(a, b);
        let high = |a, b| _mm512_shuffle_i32x4::<0xdd>(a, b);
        let (a, b) = (low(r[j], r[4 + j]), high(r[j], r[4 + j]));
        let (c, d) = (low(r[8 + j], r[12 + j]), high(r[8 + j], r[12 + j]));
        t[j] = low(a, c);
        t[8 + j] = high(a, c);
        t[4 + j] = low(b, d);
        t[12 + j] = high(b, d);
    }
    t
}
