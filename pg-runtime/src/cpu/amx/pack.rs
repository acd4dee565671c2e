//! Operands as tiles: each element split into its bfloat16 parts, and laid out as the tile multiplication reads
//! them. And results where they need more than the tiles' store.
//!
//! A panel is 32 lanes (rows of the left operand, columns of the right one) by some steps of 32 elements of k. A
//! tile is 16 lanes by one step: of the left operand, a row a lane; of the right one, a row a pair of
//! elements of k. What an operand lacks to a whole step or panel is zero.

use std::arch::x86_64::*;

use super::super::math;
use super::super::matmul::Matrix;
use super::{BLOCK, STEP, TILE_BYTES, step_bytes};
use pg_ir::ty::DType;

/// Lanes of a tile, and its rows.
const LANES: usize = 16;
/// Bytes of a cache line, and of a row of a tile.
const LINE: usize = 64;

/// Where an operand's elements lie: strides in elements, and how many there are. float32 is split into as many
/// parts as asked for; bfloat16 is one.
#[derive(Clone, Copy)]
pub(super) struct Source<const PARTS: usize> {
    pub(super) ptr: *const u8,
    pub(super) dtype: DType,
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

/// Packs all lanes, panel after panel, in the order in which the source lies in memory.
///
/// # Safety
/// The source's elements must be valid, `out` must have room for all steps of all panels, and the machine must
/// have what [`super::kernel::exists`] asks for.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack<const PARTS: usize>(source: Source<PARTS>, format: Format, out: *mut u8) {
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

impl<const PARTS: usize> Source<PARTS> {
    /// Tiles of one part, zero lanes and elements of k included.
    fn tiles(&self) -> usize {
        self.lanes.div_ceil(BLOCK) * (BLOCK / LANES) * self.ks.div_ceil(STEP)
    }

    /// Where the first part of a tile begins.
    fn tile(&self, lanes: usize, step: usize) -> usize {
        let panel = self.ks.div_ceil(STEP) * step_bytes(PARTS);
        lanes / 2 * panel + step * step_bytes(PARTS) + lanes % 2 * TILE_BYTES
    }

    fn at(&self, lane: usize, k: usize) -> *const u8 {
        self.ptr.wrapping_add((lane * self.lane + k * self.k) * self.dtype.size())
    }

    /// Packs an operand none of whose strides is 1, a panel's step at a time.
    ///
    /// # Safety
    /// As for [`pack`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn through_copies(self, format: Format, out: *mut u8) {
        let mut copy = [0u32; BLOCK * STEP];
        let copied: *mut u8 = copy.as_mut_ptr().cast();
        for lane in (0..self.lanes).step_by(BLOCK) {
            for k in (0..self.ks).step_by(STEP) {
                let (lanes, ks) = (BLOCK.min(self.lanes - lane), STEP.min(self.ks - k));
                let part = Source { ptr: copied, lane: STEP, k: 1, lanes, ks, ..self };
                // SAFETY: inside by the caller's promise; the copy holds a whole panel's step, and `out` has room
                // for it at its place.
                unsafe {
                    for (l, p) in (0..lanes).flat_map(|l| (0..ks).map(move |p| (l, p))) {
                        let to = copied.wrapping_add((l * STEP + p) * self.dtype.size());
                        std::ptr::copy_nonoverlapping(self.at(lane + l, k + p), to, self.dtype.size());
                    }
                    pack(part, format, out.wrapping_add(self.tile(lane / LANES, k / STEP)));
                }
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
                let at = self.at(lane, k);
                let to = out.wrapping_add(self.tile(lane / LANES, step) + lane % LANES * LINE);
                // SAFETY: masked to the elements that there are; a row of the caller's tile.
                unsafe {
                    if self.dtype == DType::BF16 {
                        let all = ((1u64 << ks) - 1) as u32;
                        _mm512_store_si512(to.cast(), _mm512_maskz_loadu_epi16(all, at.cast()));
                        continue;
                    }
                    let at: *const f32 = at.cast();
                    let mut x = _mm512_maskz_loadu_ps(mask(ks), at);
                    let mut y = _mm512_maskz_loadu_ps(mask(ks.saturating_sub(16)), at.wrapping_add(16));
                    for part in 0..PARTS {
                        let packed: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(y, x));
                        _mm512_store_si512(to.wrapping_add(part * 2 * TILE_BYTES).cast(), packed);
                        x = _mm512_sub_ps(x, widened(_mm512_castsi512_si256(packed)));
                        y = _mm512_sub_ps(y, widened(_mm512_extracti64x4_epi64::<1>(packed)));
                    }
                }
            }
        }
    }

    /// A row a pair of elements of k, where lanes are neighbours.
    ///
    /// # Safety
    /// As for [`pack`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx512vl")]
    unsafe fn by_pair(self, out: *mut u8) {
        for k in (0..self.ks.next_multiple_of(STEP)).step_by(2) {
            for lane in (0..self.lanes.next_multiple_of(BLOCK)).step_by(LANES) {
                let lanes = mask(self.lanes.saturating_sub(lane));
                let masks = [0, 1].map(|i| if k + i < self.ks { lanes } else { 0 });
                let at = [0, 1].map(|i| self.at(lane, k + i));
                let to = out.wrapping_add(self.tile(lane / LANES, k / STEP) + k % STEP / 2 * LINE);
                // SAFETY: masked to the elements that there are; a row of the caller's tile.
                unsafe {
                    if self.dtype == DType::BF16 {
                        let low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(masks[0], at[0].cast()));
                        let high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(masks[1], at[1].cast()));
                        _mm512_store_si512(to.cast(), _mm512_or_si512(low, _mm512_slli_epi32::<16>(high)));
                        continue;
                    }
                    let mut x = _mm512_maskz_loadu_ps(masks[0], at[0].cast());
                    let mut y = _mm512_maskz_loadu_ps(masks[1], at[1].cast());
                    for part in 0..PARTS {
                        let (low, high) = (narrowed(x), _mm512_slli_epi32::<16>(narrowed(y)));
                        let to = to.wrapping_add(part * 2 * TILE_BYTES);
                        _mm512_store_si512(to.cast(), _mm512_or_si512(low, high));
                        x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)));
                        y = _mm512_sub_ps(y, _mm512_castsi512_ps(high));
                    }
                }
            }
        }
    }

    /// Asks for it in `shares` shares. Nothing of it need be valid.
    pub(super) fn ahead(self, shares: usize) -> Ahead {
        let (stride, width, rows) =
            if self.k == 1 { (self.lane, self.ks, self.lanes) } else { (self.k, self.lanes, self.ks) };
        let (stride, width) = (stride * self.dtype.size(), width * self.dtype.size());
        let share = (width.div_ceil(LINE) * rows).div_ceil(shares);
        Ahead { row: self.ptr, stride, width, column: 0, share }
    }
}

/// A source that will be packed soon, asked for a share at a time while something else is computed.
pub(super) struct Ahead {
    row: *const u8,
    stride: usize,
    width: usize,
    column: usize,
    share: usize,
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

/// Rows of a bfloat16 matrix as float32; columns of both are neighbours.
///
/// # Safety
/// rows × cols elements of both must be valid, and those of `to` the caller's own.
pub(super) unsafe fn widen(from: Matrix, to: Matrix, rows: usize, cols: usize) {
    for (row, col) in (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))) {
        // SAFETY: by the caller's promise.
        unsafe { *to.at(row, col).ptr.cast::<f32>() = math::from_bf16(*from.at(row, col).ptr.cast()) };
    }
}

/// Rows of a float32 matrix rounded to bfloat16; columns of both are neighbours.
///
/// # Safety
/// As for [`widen`].
pub(super) unsafe fn narrow(from: Matrix, to: Matrix, rows: usize, cols: usize) {
    for row in 0..rows {
        // SAFETY: by the caller's promise.
        let (from, to) = unsafe {
            (
                std::slice::from_raw_parts(from.at(row, 0).ptr.cast::<f32>(), cols),
                std::slice::from_raw_parts_mut(to.at(row, 0).ptr.cast::<u16>(), cols),
            )
        };
        to.iter_mut().zip(from).for_each(|(t, f)| *t = math::to_bf16(*f));
    }
}

/// Copies what is above the diagonal of a row-major matrix below it, for rows `from .. from + rows`.
///
/// # Safety
/// The matrix must be valid that far, its rows the caller's own left of the diagonal, and what is above the
/// diagonal be written by nobody.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn mirror(c: Matrix, from: usize, rows: usize) {
    let last = from + rows;
    let wide = c.dtype == DType::F32;
    for row in (from..last).step_by(LANES) {
        for col in (0..=row).step_by(LANES) {
            // SAFETY: by the caller's promise; a whole tile left of the diagonal has its mirror image above it.
            unsafe {
                if wide && col < row && row + LANES <= last {
                    let mut tile: [__m512i; LANES] =
                        std::array::from_fn(|i| _mm512_loadu_si512(c.at(col + i, row).ptr.cast()));
                    transpose(tile.as_mut_ptr());
                    for (i, line) in tile.into_iter().enumerate() {
                        _mm512_storeu_si512(c.at(row + i, col).ptr.cast(), line);
                    }
                    continue;
                }
                for r in row..last.min(row + LANES) {
                    for s in col..r.min(col + LANES) {
                        let (above, below) = (c.at(s, r).ptr, c.at(r, s).ptr);
                        std::ptr::copy_nonoverlapping(above, below, c.dtype.size());
                    }
                }
            }
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
        let even = |a: usize, b: usize| _mm512_shuffle_i32x4::<EVEN>(r[a + j], r[b + j]);
        let odd = |a: usize, b: usize| _mm512_shuffle_i32x4::<ODD>(r[a + j], r[b + j]);
        let (a, b, c, d) = (even(0, 4), odd(0, 4), even(8, 12), odd(8, 12));
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
