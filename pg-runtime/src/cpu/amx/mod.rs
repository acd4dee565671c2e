//! Float32 matrix products on the matrix units of recent Intel processors (AMX), which multiply bfloat16.
//!
//! A float32 number is the sum of three bfloat16 ones, its leading, middle and last eight bits. Of the nine
//! products of two such sums the six largest are computed and summed in float32; the others are below
//! float32's own rounding (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For
//! Higher-Precision Computations, 2019, arXiv 1904.06376). So this is float32 arithmetic at more than the
//! vector units' rate, not a mode of lower precision. It differs from it in two ways: subnormal numbers count
//! as zero, and an infinite operand gives NaN.
//!
//! Operands are first [packed](pack) into tiles, split; then tasks of [`ROWS`] rows run the
//! [kernel](kernel). What a task computes, and in which order it sums, follows from the shape alone.

mod kernel;
mod pack;

use std::sync::OnceLock;

use super::matmul::Matrix;
use super::parallel::parallel;
use super::workspace::{Workspace, WorkspaceSize};
use pack::{Format, Source};

/// Rows and columns of a block of the kernel: two tiles each way.
const BLOCK: usize = 32;
/// Elements of k in a tile.
const STEP: usize = 32;
/// Parts of a float32 number.
const PARTS: usize = 3;
/// Bytes of one step of a panel: two tiles for each part.
const STEP_BYTES: usize = PARTS * 2 * 1024;
/// Rows of a task: its packed left operand and a panel of the right one stay in the second-level cache.
const ROWS: usize = 128;
/// Bytes of the next panel of the right operand that each step asks for in advance: all of it by the last of
/// a task's rows.
const AHEAD: usize = STEP_BYTES / (ROWS / BLOCK);
/// Elements of k that are packed together.
const DEPTH: usize = 256;
/// The right operand is packed in pieces of at most so many rows and columns.
const PIECE: usize = 2048;
/// Fewer rows are cut into columns as well, until there are so many tasks.
const TASKS: usize = 4;
/// Panels of the right operand that are packed together, so that its rows are read in long stretches.
const GROUP: usize = 8;
/// Below this a product has too little to do for each element that is packed.
const LEAST: usize = 32;

/// Proof that this machine has the units and that the system lets this process use them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// Asks the machine, once.
    pub(crate) fn detect() -> Option<Amx> {
        static FOUND: OnceLock<Option<Amx>> = OnceLock::new();
        *FOUND.get_or_init(|| (kernel::exists() && kernel::request_permission()).then_some(Amx(())))
    }

    /// Whether a product of this shape gains from it.
    pub(crate) fn suits([m, n, k]: [usize; 3], c: Matrix) -> bool {
        m.min(n).min(k) >= LEAST && (c.col == 1 || c.row == 1)
    }
}

/// Scratch of products of this shape.
pub(crate) fn workspace([m, n, k]: [usize; 3]) -> WorkspaceSize {
    // Either operand may turn out to be the right one.
    let right = k.min(PIECE).next_multiple_of(STEP) / STEP * m.max(n).min(PIECE).div_ceil(BLOCK) * STEP_BYTES;
    let left = DEPTH / STEP * (ROWS / BLOCK) * STEP_BYTES;
    WorkspaceSize { thread: left / 4, shared: right / 4 }
}

/// c [m, n] = a [m, k] · b [k, n], plus the old c if `accumulate`, on all threads. With `upper` what is left of
/// the diagonal's blocks of [`ROWS`] is not computed.
///
/// # Safety
/// All elements of the three matrices must be valid, and no other thread may write a or b or touch c. c must
/// [suit](Amx::suits), and `workspace` have room for this shape.
pub(crate) unsafe fn product(
    _: Amx,
    [m, n, k]: [usize; 3],
    [a, b, c]: [Matrix; 3],
    accumulate: bool,
    upper: bool,
    memory: &mut Workspace,
) {
    if c.col != 1 {
        debug_assert!(!upper, "a symmetric result has neighbouring columns");
        // SAFETY: the same elements; cᵀ = bᵀ · aᵀ, and cᵀ has neighbouring columns.
        return unsafe { product(Amx(()), [n, m, k], [b.t(), a.t(), c.t()], accumulate, upper, memory) };
    }
    let (threads, shared) = memory.split();
    for n0 in (0..n).step_by(PIECE) {
        let cols = PIECE.min(n - n0);
        for k0 in (0..k).step_by(PIECE) {
            let depth = PIECE.min(k - k0);
            let right = Right { cols, depth, packed: Packed(shared.as_mut_ptr().cast()) };
            // SAFETY: the piece lies in b; the workspace has room for it.
            unsafe { right.pack(b.at(k0, n0)) };
            let (a, c) = (a.at(0, k0), c.at(0, n0));
            let row_tasks = m.div_ceil(ROWS);
            let width = cols.div_ceil(TASKS.div_ceil(row_tasks)).next_multiple_of(ROWS);
            let col_tasks = cols.div_ceil(width);
            parallel(row_tasks * col_tasks, ROWS * width * depth, |task| {
                let (row, col) = (task / col_tasks * ROWS, task % col_tasks * width);
                let rows = ROWS.min(m - row);
                // Widths are multiples of `ROWS`, so a task is on one side of the diagonal or has it at its corner.
                let first = if upper { col.max(row.saturating_sub(n0)) } else { col };
                let span = [first, (col + width).min(cols)];
                if span[0] >= span[1] {
                    return;
                }
                threads.with(|left| {
                    // SAFETY: the rows lie in a and c by the caller's promise, each task has its own of c, and
                    // the right operand is packed.
                    unsafe {
                        right.multiply(a.at(row, 0), c.at(row, 0), rows, span, accumulate || k0 > 0, left)
                    };
                });
            });
        }
    }
}

/// Memory of tiles that tasks share.
#[derive(Clone, Copy)]
struct Packed(*mut u8);
// SAFETY: while it is packed each task writes its own panels; afterwards it is only read.
unsafe impl Send for Packed {}
// SAFETY: as above.
unsafe impl Sync for Packed {}

/// A piece of the right operand, packed: for each [`DEPTH`] of k, panels of [`BLOCK`] columns.
#[derive(Clone, Copy)]
struct Right {
    cols: usize,
    depth: usize,
    packed: Packed,
}

impl Right {
    fn panels(&self) -> usize {
        self.cols.div_ceil(BLOCK)
    }

    /// Where the panel for these columns and elements of k begins.
    fn panel(&self, k: usize, panel: usize) -> *mut u8 {
        let steps = |k: usize| k.div_ceil(STEP);
        let before = self.panels() * steps(k) + panel * steps(DEPTH.min(self.depth - k));
        let packed = self.packed;
        packed.0.wrapping_add(before * STEP_BYTES)
    }

    /// # Safety
    /// All of b's piece must be valid, and the memory large enough.
    unsafe fn pack(&self, b: Matrix) {
        let (depths, groups) = (self.depth.div_ceil(DEPTH), self.panels().div_ceil(GROUP));
        parallel(groups * depths, 16 * GROUP * BLOCK * DEPTH, |task| {
            let (k, panel) = (task % depths * DEPTH, task / depths * GROUP);
            let col = panel * BLOCK;
            let (lanes, ks) = ((GROUP * BLOCK).min(self.cols - col), DEPTH.min(self.depth - k));
            let source = Source { ptr: b.at(k, col).ptr, lane: b.col, k: b.row, lanes, ks };
            // SAFETY: inside by the caller's promise; this task's own panels.
            unsafe { pack::pack(source, Format::Right, self.panel(k, panel)) };
        });
    }

    /// Computes `rows` rows and the columns of `span` of c.
    ///
    /// # Safety
    /// The rows of a and c must be valid, and this task's own in c.
    unsafe fn multiply(
        &self,
        a: Matrix,
        c: Matrix,
        rows: usize,
        [first, last]: [usize; 2],
        accumulate: bool,
        left: &mut [f32],
    ) {
        let left: *mut u8 = left.as_mut_ptr().cast();
        let blocks = (last - first).div_ceil(BLOCK) * rows.div_ceil(BLOCK);
        kernel::with_tiles(|tiles| {
            for k in (0..self.depth).step_by(DEPTH) {
                let ks = DEPTH.min(self.depth - k);
                let steps = ks.div_ceil(STEP);
                let panel = |row: usize| left.wrapping_add(row / BLOCK * steps * STEP_BYTES);
                let source = |a: Matrix, ks| Source { ptr: a.ptr, lane: a.row, k: a.col, lanes: rows, ks };
                // SAFETY: inside by the caller's promise; the scratch holds `ROWS` rows.
                unsafe { pack::pack(source(a.at(0, k), ks), Format::Left, left) };
                // What is packed next: the same rows' next elements, or the first ones of the rows below.
                let next = if k + ks < self.depth { a.at(0, k + ks) } else { a.at(rows, 0) };
                let mut next = source(next, DEPTH.min(self.depth)).ahead(blocks);
                for col in (first..last).step_by(BLOCK) {
                    for row in (0..rows).step_by(BLOCK) {
                        let size = [BLOCK.min(rows - row), BLOCK.min(last - col)];
                        let below =
                            if row + BLOCK < rows { c.at(row + BLOCK, col) } else { c.at(0, col + BLOCK) };
                        pack::ask_to_write(below);
                        next.ask();
                        let to = c.at(row, col);
                        let ahead = self.panel(k, col / BLOCK + 1).wrapping_add(row / BLOCK * steps * AHEAD);
                        let b = self.panel(k, col / BLOCK);
                        let sum = accumulate || k > 0;
                        // SAFETY: both panels are packed with this many steps, and the block lies in c.
                        unsafe { tiles.block(steps, [panel(row), b, ahead], to.ptr, to.row, size, sum) };
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A product by hand in float64, and the largest sum of magnitudes.
    fn reference(
        [m, n, k]: [usize; 3],
        a: &dyn Fn(usize, usize) -> f32,
        b: &dyn Fn(usize, usize) -> f32,
    ) -> Vec<[f64; 2]> {
        let dot = |i: usize, j: usize| {
            (0..k).fold([0.0, 0.0], |[sum, size], p| {
                let x = f64::from(a(i, p)) * f64::from(b(p, j));
                [sum + x, size + x.abs()]
            })
        };
        (0..m * n).map(|at| dot(at / n, at % n)).collect()
    }

    #[test]
    fn products_are_as_exact_as_float32_for_every_layout_and_odd_sizes() {
        let Some(amx) = Amx::detect() else {
            eprintln!("skipped: this machine has no AMX, so its products are the gemm crate's");
            return;
        };
        for shape in
            [[32, 32, 32], [33, 47, 65], [130, 37, 300], [257, 33, 513], [64, 129, 2100], [40, 2100, 33]]
        {
            let [m, n, k] = shape;
            let number = |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 / 500_000.0 - 1.0;
            let a: Vec<f32> = (0..m * k).map(|i| number(i + 1) * 1.37f32.powi((i % 7) as i32)).collect();
            let b: Vec<f32> = (0..k * n).map(|i| number(i + 77_777) * 0.71f32.powi((i % 5) as i32)).collect();
            let want = reference(shape, &|i, p| a[i * k + p], &|p, j| b[p * n + j]);
            let transposed = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
                (0..rows * cols).map(|at| x[at % rows * cols + at / rows]).collect()
            };
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            for layout in 0..8 {
                let am = if layout & 1 == 0 { Matrix::of(&a, k) } else { Matrix::of(&at, m).t() };
                let bm = if layout & 2 == 0 { Matrix::of(&b, n) } else { Matrix::of(&bt, k).t() };
                let mut c = vec![0.5f32; m * n];
                let cm =
                    if layout & 4 == 0 { Matrix::of_mut(&mut c, n) } else { Matrix::of_mut(&mut c, m).t() };
                let mut memory = Workspace::default();
                memory.reserve(workspace(shape));
                memory.allocate(rayon::current_num_threads());
                let accumulate = layout % 3 == 0;
                // SAFETY: the matrices are whole vectors of their shapes.
                rayon::join(
                    || unsafe { product(amx, shape, [am, bm, cm], accumulate, false, &mut memory) },
                    || (),
                );
                for (i, [sum, size]) in want.iter().enumerate() {
                    let (row, col) = (i / n, i % n);
                    let got = f64::from(if layout & 4 == 0 { c[i] } else { c[col * m + row] });
                    let want = sum + if accumulate { 0.5 } else { 0.0 };
                    // Of a float32 sum in any order: a few roundings of the sum of magnitudes.
                    assert!(
                        (got - want).abs() <= 4e-7 * (size + 0.5),
                        "{shape:?} layout {layout} [{row}, {col}]: {got} {want}"
                    );
                }
            }
        }
    }

    #[test]
    #[ignore = "a measurement"]
    fn throughput() {
        let amx = Amx::detect().expect("AMX");
        for (shape, count) in [
            ([512, 512, 512], 1),
            ([512, 512, 512], 24),
            ([2048, 512, 512], 1),
            ([2048, 512, 512], 12),
            ([512, 512, 2048], 1),
            ([512, 512, 2048], 12),
            ([2048, 1536, 512], 1),
            ([2048, 1536, 512], 6),
        ] {
            let [m, n, k] = shape;
            for layout in [0, 1, 2] {
                let a: Vec<Vec<f32>> = (0..count).map(|_| vec![1.0; m * k]).collect();
                let b: Vec<Vec<f32>> = (0..count).map(|_| vec![1.0; n * k]).collect();
                let mut c: Vec<Vec<f32>> = (0..count).map(|_| vec![1.0; m * n]).collect();
                let mut memory = Workspace::default();
                memory.reserve(workspace(shape));
                memory.allocate(rayon::current_num_threads());
                let mut best = f64::INFINITY;
                for _ in 0..5 {
                    let t = std::time::Instant::now();
                    for i in 0..count {
                        let am = if layout == 1 { Matrix::of(&a[i], m).t() } else { Matrix::of(&a[i], k) };
                        let bm = if layout == 2 { Matrix::of(&b[i], k).t() } else { Matrix::of(&b[i], n) };
                        let cm = Matrix::of_mut(&mut c[i], n);
                        rayon::join(
                            || unsafe { product(amx, shape, [am, bm, cm], false, false, &mut memory) },
                            || (),
                        );
                    }
                    best = best.min(t.elapsed().as_secs_f64() / count as f64);
                }
                println!(
                    "{shape:?} x{count} layout {layout}: {:.3} ms {:.0} GFLOP/s",
                    best * 1e3,
                    2e-9 * (m * n * k) as f64 / best
                );
            }
        }
    }
}
