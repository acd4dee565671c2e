//! Operands as tiles: each float32 split into its three bfloat16 parts, and laid out as the tile
//! multiplication reads them.
//!
//! A panel is 32 lanes (rows of the left operand, columns of the right one) by some steps of 32 elements of k. A
//! tile is 16 lanes by one step: of the left operand, a row a lane; of the right one, a row a pair of
//! elements of k. What an operand lacks to a whole step or panel is zero.

use std::arch::x86_64::*;

use super::super::matmul::Matrix;
use super::{BLOCK, PARTS, STEP, STEP_BYTES};

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

/// Bytes of a tile. A panel's step has two tiles side by side for each part.
const TILE_BYTES: usize = 1024;

/// Packs all lanes, panel after panel, in the order in which the source lies in memory.
///
/// # Safety
/// The source's elements must be valid, `out` must have room for all steps of all panels, and the machine must
/// have what [`super::kernel::exists`] asks for.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack(source: Source, format: Format, out: *mut u8) {
    // SAFETY: by the caller's promise; the copy is as valid as what it copies.
    unsafe {
        if source.k == 1 {
            source.by_lane(out);
        } else if source.lane == 1 {
            source.by_pair(out);
        } else {
            return source.through_copies(format, out);
        }
        if (source.k == 1) != (format == Format::Left) {
            for tile in 0..source.tiles() * PARTS {
                transpose(out.wrapping_add(tile * TILE_BYTES).cast());
            }
        }
    }
}

impl Source {
    /// Tiles of one part, zero lanes and elements of k included.
    fn tiles(&self) -> usize {
        self.lanes.div_ceil(BLOCK) * (BLOCK / LANES) * self.ks.div_ceil(STEP)
    }

    /// Where the first part of a tile begins.
    fn tile(&self, lanes: usize, step: usize) -> usize {
        let panel = self.ks.div_ceil(STEP) * STEP_BYTES;
        lanes / 2 * panel + step * STEP_BYTES + lanes % 2 * TILE_BYTES
    }

    /// Packs an operand none of whose strides is 1, a tile's lanes at a time.
    ///
    /// # Safety
    /// As for [`pack`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn through_copies(self, format: Format, out: *mut u8) {
        let mut copy = [0.0f32; BLOCK * STEP];
        for lane in (0..self.lanes).step_by(BLOCK) {
            for k in (0..self.ks).step_by(STEP) {
                let (lanes, ks) = (BLOCK.min(self.lanes - lane), STEP.min(self.ks - k));
                for l in 0..lanes {
                    for p in 0..ks {
                        let at = (lane + l) * self.lane + (k + p) * self.k;
                        // SAFETY: by the caller's promise.
                        copy[l * STEP + p] = unsafe { *self.ptr.wrapping_add(at) };
                    }
                }
                let part = Source { ptr: copy.as_ptr(), lane: STEP, k: 1, lanes, ks };
                // SAFETY: room for one step of one panel, at its place.
                unsafe { pack(part, format, out.wrapping_add(self.tile(lane / LANES, k / STEP))) };
            }
        }
    }

    /// A row a lane, where elements of k are neighbours.
    ///
    /// # Safety
    /// As for [`pack`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn by_lane(self, out: *mut u8) {
        for lane in 0..self.lanes.next_multiple_of(BLOCK) {
            for (step, k) in (0..self.ks).step_by(STEP).enumerate() {
                let ks = if lane < self.lanes { STEP.min(self.ks - k) } else { 0 };
                let at = self.ptr.wrapping_add(lane * self.lane + k);
                let to = out.wrapping_add(self.tile(lane / LANES, step) + lane % LANES * 64);
                // SAFETY: masked to the elements that there are.
                let (mut x, mut y) = unsafe {
                    let (first, second) = (mask(ks), mask(ks.saturating_sub(16)));
                    (_mm512_maskz_loadu_ps(first, at), _mm512_maskz_loadu_ps(second, at.wrapping_add(16)))
                };
                for part in 0..PARTS {
                    // SAFETY: two types of the same 64 bytes; a row of the caller's tile.
                    let packed = unsafe {
                        let packed: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(y, x));
                        _mm512_store_si512(to.wrapping_add(part * 2 * TILE_BYTES).cast(), packed);
                        packed
                    };
                    x = _mm512_sub_ps(x, widened(_mm512_castsi512_si256(packed)));
                    y = _mm512_sub_ps(y, widened(_mm512_extracti64x4_epi64::<1>(packed)));
                }
            }
        }
    }

    /// A row a pair of elements of k, where lanes are neighbours.
    ///
    /// # Safety
    /// As for [`pack`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn by_pair(self, out: *mut u8) {
        for k in (0..self.ks.next_multiple_of(STEP)).step_by(2) {
            for lane in (0..self.lanes.next_multiple_of(BLOCK)).step_by(LANES) {
                let lanes = mask(self.lanes.saturating_sub(lane));
                let at = self.ptr.wrapping_add(lane + k * self.k);
                let first = if k < self.ks { lanes } else { 0 };
                let second = if k + 1 < self.ks { lanes } else { 0 };
                let to = out.wrapping_add(self.tile(lane / LANES, k / STEP) + k % STEP / 2 * 64);
                // SAFETY: masked to the elements that there are.
                let (mut x, mut y) = unsafe {
                    (_mm512_maskz_loadu_ps(first, at), _mm512_maskz_loadu_ps(second, at.wrapping_add(self.k)))
                };
                for part in 0..PARTS {
                    let (low, high) = (narrowed(x), _mm512_slli_epi32::<16>(narrowed(y)));
                    // SAFETY: a row of the caller's tile.
                    unsafe {
                        let to = to.wrapping_add(part * 2 * TILE_BYTES);
                        _mm512_store_si512(to.cast(), _mm512_or_si512(low, high));
                    }
                    x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)));
                    y = _mm512_sub_ps(y, _mm512_castsi512_ps(high));
                }
            }
        }
    }
}

/// A source that will be packed soon, asked for a share at a time while something else is computed.
pub(super) struct Ahead {
    row: *const f32,
    stride: usize,
    width: usize,
    column: usize,
    share: usize,
}

/// Elements of a cache line.
const LINE: usize = 16;

impl Source {
    /// Asks for it in `shares` shares. Nothing of it need be valid.
    pub(super) fn ahead(self, shares: usize) -> Ahead {
        let (stride, width, rows) =
            if self.k == 1 { (self.lane, self.ks, self.lanes) } else { (self.k, self.lanes, self.ks) };
        let lines = width.div_ceil(LINE) * rows;
        Ahead { row: self.ptr, stride, width, column: 0, share: lines.div_ceil(shares) }
    }
}

impl Ahead {
    /// Asks for the next share.
    #[inline]
    pub(super) fn ask(&mut self) {
        for _ in 0..self.share {
            // SAFETY: a hint, which any address may be given to.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.row.wrapping_add(self.column).cast()) };
            self.column += LINE;
            if self.column >= self.width {
                self.column = 0;
                self.row = self.row.wrapping_add(self.stride);
            }
        }
    }
}

/// Asks for a block that will be written. Nothing of it need be valid.
#[inline]
pub(super) fn ask_to_write(c: Matrix) {
    for row in 0..BLOCK {
        let at = c.at(row, 0).ptr;
        // SAFETY: a hint, which any address may be given to.
        unsafe {
            _mm_prefetch::<_MM_HINT_ET0>(at.cast());
            _mm_prefetch::<_MM_HINT_ET0>(at.wrapping_add(LINE).cast());
        }
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

/// Transposes 16 × 16 words of 32 bits: of lanes by pairs, pairs by lanes and back.
///
/// # Safety
/// `tile` must point to 1,024 aligned bytes.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transpose(tile: *mut __m512i) {
    // SAFETY: by the caller's promise.
    let rows: [__m512i; LANES] = std::array::from_fn(|i| unsafe { *tile.wrapping_add(i) });
    let (mut r, mut t) = (rows, rows);
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
    const EVEN: i32 = 0x88;
    const ODD: i32 = 0xdd;
    for j in 0..4 {
        let (a, b) =
            (_mm512_shuffle_i32x4::<EVEN>(r[j], r[4 + j]), _mm512_shuffle_i32x4::<ODD>(r[j], r[4 + j]));
        let (c, d) = (
            _mm512_shuffle_i32x4::<EVEN>(r[8 + j], r[12 + j]),
            _mm512_shuffle_i32x4::<ODD>(r[8 + j], r[12 + j]),
        );
        t[j] = _mm512_shuffle_i32x4::<EVEN>(a, c);
        t[8 + j] = _mm512_shuffle_i32x4::<ODD>(a, c);
        t[4 + j] = _mm512_shuffle_i32x4::<EVEN>(b, d);
        t[12 + j] = _mm512_shuffle_i32x4::<ODD>(b, d);
    }
    for (i, row) in t.into_iter().enumerate() {
        // SAFETY: by the caller's promise.
        unsafe { *tile.wrapping_add(i) = row };
    }
}
