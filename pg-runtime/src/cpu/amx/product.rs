//! One product: its operands packed, its tasks.

use pg_ir::ty::DType;

use super::super::matmul::Matrix;
use super::pack::{self, Format, Source};
use super::{BLOCK, DEPTH, PIECE, ROWS, STEP, TASKS, kernel, left_words, piece, step_bytes, words};

/// Panels of the right operand that are packed together, so that its rows are read in long stretches.
const GROUP: usize = 8;

/// Scratch memory that a task has for itself, or that tasks share.
#[derive(Clone, Copy)]
pub(super) struct Lent(pub(super) *mut u8);
// SAFETY: an address. Tasks that share it write their own panels while operands are packed, and only read
// afterwards.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    pub(super) fn new(memory: &mut [f32]) -> Lent {
        Lent(memory.as_mut_ptr().cast())
    }
}

/// One product, columns of whose result are neighbours.
#[derive(Clone, Copy)]
pub(super) struct Product {
    shape: [usize; 3],
    matrices: [Matrix; 3],
    accumulate: bool,
    /// Only blocks on and above the diagonal are computed, and mirrored.
    symmetric: bool,
}

impl Product {
    /// As it is, or transposed.
    pub(super) fn new(
        [m, n, k]: [usize; 3],
        [a, b, c]: [Matrix; 3],
        accumulate: bool,
        symmetric: bool,
    ) -> Product {
        if c.col == 1 {
            Product { shape: [m, n, k], matrices: [a, b, c], accumulate, symmetric }
        } else {
            Product { shape: [n, m, k], matrices: [b.t(), a.t(), c.t()], accumulate, symmetric }
        }
    }

    /// Words of memory for the right operand.
    pub(super) fn right_words(&self) -> usize {
        words(self.shape, self.matrices.map(|m| m.dtype))[1]
    }

    /// Runs its tasks: `each` does so many of about so much work, and `lend` gives memory to one of them.
    ///
    /// # Safety
    /// As for [`super::products`].
    pub(super) unsafe fn run(
        self,
        packed: Lent,
        each: impl Fn(usize, usize, &(dyn Fn(usize) + Sync)),
        lend: impl Fn(&dyn Fn(Lent)) + Sync,
    ) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self.matrices[0].dtype {
                DType::BF16 => self.run_in_parts::<1>(packed, each, lend),
                _ => self.run_in_parts::<3>(packed, each, lend),
            }
        }
    }

    /// # Safety
    /// As for [`Self::run`]; `PARTS` must be that of the operands' type.
    unsafe fn run_in_parts<const PARTS: usize>(
        self,
        packed: Lent,
        each: impl Fn(usize, usize, &(dyn Fn(usize) + Sync)),
        lend: impl Fn(&dyn Fn(Lent)) + Sync,
    ) {
        let ([m, n, k], [a, b, c]) = (self.shape, self.matrices);
        let deep = piece(k, c.dtype);
        for n0 in (0..n).step_by(PIECE) {
            let cols = PIECE.min(n - n0);
            for k0 in (0..k).step_by(deep) {
                let depth = deep.min(k - k0);
                let right = Right::<PARTS> { cols, packed_depth: depth, depth, packed };
                let b = b.at(k0, n0);
                // SAFETY: the piece lies in b; there is room for it.
                each(right.groups(), 16 * GROUP * BLOCK * DEPTH, &|task| unsafe { right.pack(b, task) });
                let (a, c) = (a.at(0, k0), c.at(0, n0));
                let row_tasks = m.div_ceil(ROWS);
                let width = cols.div_ceil(TASKS.div_ceil(row_tasks)).next_multiple_of(ROWS);
                let col_tasks = cols.div_ceil(width);
                let accumulate = self.accumulate || k0 > 0;
                each(row_tasks * col_tasks, ROWS * width * depth, &|task| {
                    let (row, col) = (task / col_tasks, task % col_tasks * width);
                    // From both ends in turn: in a triangle one end has more to do than the other.
                    let row = if row % 2 == 0 { row / 2 } else { row_tasks - 1 - row / 2 } * ROWS;
                    let rows = ROWS.min(m - row);
                    // Widths are multiples of `ROWS`, so a task is on one side of the diagonal or begins at it.
                    let first = if self.symmetric { col.max(row.saturating_sub(n0)) } else { col };
                    let span = [first, (col + width).min(cols)];
                    if span[0] < span[1] {
                        lend(&|left| {
                            // SAFETY: the rows lie in a and c by the caller's promise, each task has its own of c,
                            // and the right operand is packed.
                            unsafe {
                                right.multiply(a.at(row, 0), c.at(row, 0), rows, span, accumulate, left)
                            };
                        });
                    }
                });
                if self.symmetric && k0 + deep >= k {
                    let rows = cols.div_ceil(ROWS);
                    each(rows, ROWS * m, &|task| {
                        let to = n0 + task * ROWS;
                        // SAFETY: inside c; each task writes its own rows left of the diagonal, nobody what is right.
                        unsafe { pack::mirror(self.matrices[2], to, ROWS.min(n - to)) };
                    });
                }
            }
        }
    }
}

/// A right operand or a piece of it, packed: for each [`DEPTH`] of k, panels of [`BLOCK`] columns.
#[derive(Clone, Copy)]
pub(super) struct Right<const PARTS: usize> {
    pub(super) cols: usize,
    /// Elements of k that were packed.
    pub(super) packed_depth: usize,
    /// Elements of k that count, from the first on.
    pub(super) depth: usize,
    pub(super) packed: Lent,
}

impl<const PARTS: usize> Right<PARTS> {
    fn panels(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// Where the panel for these columns and elements of k begins.
    fn panel(&self, k: usize, panel: usize) -> *mut u8 {
        let steps = |k: usize| k.div_ceil(STEP);
        let before = self.panels() * steps(k) + panel * steps(DEPTH.min(self.packed_depth - k));
        let packed = self.packed;
        packed.0.wrapping_add(before * step_bytes(PARTS))
    }

    /// Tasks of packing it.
    pub(super) fn groups(&self) -> usize {
        self.panels().div_ceil(GROUP) * self.packed_depth.div_ceil(DEPTH)
    }

    /// Packs one group of panels.
    ///
    /// # Safety
    /// All of b's piece must be valid, the memory large enough, and the group this task's own.
    pub(super) unsafe fn pack(&self, b: Matrix, task: usize) {
        let depths = self.packed_depth.div_ceil(DEPTH);
        let (k, panel) = (task % depths * DEPTH, task / depths * GROUP);
        let col = panel * BLOCK;
        let (lanes, ks) = ((GROUP * BLOCK).min(self.cols - col), DEPTH.min(self.packed_depth - k));
        let from = b.at(k, col);
        let source = Source::<PARTS> { ptr: from.ptr, dtype: b.dtype, lane: b.col, k: b.row, lanes, ks };
        // SAFETY: inside by the caller's promise.
        unsafe { pack::pack(source, Format::Right, self.panel(k, panel)) };
    }

    /// Computes `rows` rows and the columns of `span` of c.
    ///
    /// # Safety
    /// The rows of a and c must be valid, and this task's own in c.
    pub(super) unsafe fn multiply(
        &self,
        a: Matrix,
        c: Matrix,
        rows: usize,
        [first, last]: [usize; 2],
        accumulate: bool,
        Lent(left): Lent,
    ) {
        // A bfloat16 result is summed in memory of its own and rounded once.
        let sums = left.wrapping_add(4 * left_words(PARTS));
        let row = (last - first).next_multiple_of(BLOCK);
        let narrow = c.at(0, first);
        let sums = Matrix { ptr: sums, dtype: DType::F32, row, col: 1 };
        let c = if c.dtype == DType::BF16 { sums } else { narrow };
        if c.dtype != narrow.dtype && accumulate {
            // SAFETY: by the caller's promise; the sums have room for the rows.
            unsafe { pack::widen(narrow, c, rows, last - first) };
        }
        let blocks = (last - first).div_ceil(BLOCK) * rows.div_ceil(BLOCK);
        let step = step_bytes(PARTS);
        kernel::with_tiles(|tiles| {
            for k in (0..self.depth).step_by(DEPTH) {
                let ks = DEPTH.min(self.depth - k);
                let steps = ks.div_ceil(STEP);
                let panel = |row: usize| left.wrapping_add(row / BLOCK * steps * step);
                let source = |a: Matrix, ks| Source::<PARTS> {
                    ptr: a.ptr,
                    dtype: a.dtype,
                    lane: a.row,
                    k: a.col,
                    lanes: rows,
                    ks,
                };
                // SAFETY: inside by the caller's promise; the scratch holds `ROWS` rows.
                unsafe { pack::pack(source(a.at(0, k), ks), Format::Left, left) };
                // What is packed next: the same rows' next elements, or the first ones of the rows below.
                let next = if k + ks < self.depth { a.at(0, k + ks) } else { a.at(rows, 0) };
                let mut next = source(next, DEPTH.min(self.depth)).ahead(blocks);
                for col in (first..last).step_by(BLOCK) {
                    let b = self.panel(k, col / BLOCK);
                    for row in (0..rows).step_by(BLOCK) {
                        let size = [BLOCK.min(rows - row), BLOCK.min(last - col)];
                        let below = if row + BLOCK < rows { [row + BLOCK, col] } else { [0, col + BLOCK] };
                        pack::ask_to_write(c.at(below[0], below[1] - first));
                        next.ask();
                        let to = c.at(row, col - first);
                        let ahead = b.wrapping_add(steps * step + row / BLOCK * steps * kernel::ahead(PARTS));
                        let (to, sum) =
                            (Block { ptr: to.ptr.cast(), stride: to.row, size }, accumulate || k > 0);
                        // SAFETY: both panels are packed with this many steps, and the block lies in c.
                        unsafe { tiles.block::<PARTS>(steps, [panel(row), b, ahead], to, sum) };
                    }
                }
            }
        });
        if c.dtype != narrow.dtype {
            // SAFETY: as above.
            unsafe { pack::narrow(c, narrow, rows, last - first) };
        }
    }
}

/// A block of a result: rows × cols of at most [`BLOCK`] each way, rows `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) ptr: *mut f32,
    pub(super) stride: usize,
    pub(super) size: [usize; 2],
}
