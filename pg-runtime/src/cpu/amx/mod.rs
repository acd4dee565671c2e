//! Matrix products on AMX, the tile units of recent Intel processors, which multiply bfloat16.
//!
//! A float32 number is the sum of three bfloat16 ones, its leading, middle and last eight bits. Of the nine
//! products of two such sums the six largest are computed and summed in float32; the others are below
//! float32's own rounding (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For
//! Higher-Precision Computations, 2019, arXiv 1904.06376). So this is float32 arithmetic at more than the
//! vector units' rate, not a mode of lower precision. It differs from it in two ways: subnormal numbers count
//! as zero, and an infinite operand gives NaN. bfloat16 operands are one part, and one product.
//!
//! Operands are first [packed](pack) into tiles, split; then tasks of [`ROWS`] rows run the
//! [kernel](kernel). What a task computes, and in which order it sums, follows from the shape alone.

pub(crate) mod attention;
mod kernel;
mod pack;
mod product;

use std::sync::OnceLock;

use pg_ir::ty::DType;

use super::matmul::Matrix;
use super::parallel::parallel;
use super::workspace::{Workspace, WorkspaceSize};
use product::{Lent, Product};

/// Rows and columns of a block of the kernel: two tiles each way.
const BLOCK: usize = 32;
/// Elements of k in a tile.
const STEP: usize = 32;
/// Bytes of a tile.
const TILE_BYTES: usize = 1024;
/// Rows of a task: its packed left operand and a panel of the right one stay in the second-level cache.
const ROWS: usize = 128;
/// Elements of k that are packed together.
const DEPTH: usize = 256;
/// The right operand is packed in pieces of at most so many rows and columns.
const PIECE: usize = 2048;
/// Fewer rows are cut into columns as well, until there are so many tasks.
const TASKS: usize = 4;
/// Batches from this size on are a product a task: nothing is shared, and no thread waits for another.
pub(crate) const BATCH: usize = 8;
/// Below this a product has too little to do for each element that is packed.
const LEAST: usize = 32;

/// bfloat16 parts that a number of this type is the sum of.
fn parts(dtype: DType) -> usize {
    if dtype == DType::BF16 { 1 } else { 3 }
}

/// Bytes of one step of a panel: two tiles for each part of its elements.
const fn step_bytes(parts: usize) -> usize {
    parts * 2 * TILE_BYTES
}

/// Words of memory of a task's packed left operand.
const fn left_words(parts: usize) -> usize {
    DEPTH / STEP * (ROWS / BLOCK) * step_bytes(parts) / 4
}

/// Words of memory of a packed right operand.
const fn right_words(parts: usize, cols: usize, depth: usize) -> usize {
    depth.div_ceil(STEP) * cols.div_ceil(BLOCK) * step_bytes(parts) / 4
}

/// Proof that this machine has the units and that the system lets this process use them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Amx(());

impl Amx {
    /// Asks the machine, once.
    pub(crate) fn detect() -> Option<Amx> {
        static FOUND: OnceLock<Option<Amx>> = OnceLock::new();
        *FOUND.get_or_init(|| (kernel::exists() && kernel::request_permission()).then_some(Amx(())))
    }

    /// Whether a product of this shape gains from it and is one that it can do: float32, or of bfloat16 operands.
    pub(crate) fn suits([m, n, k]: [usize; 3], [a, b, c]: [DType; 3], c_strides: [usize; 2]) -> bool {
        let types = (a, b, c) == (DType::F32, DType::F32, DType::F32) || (a, b) == (DType::BF16, DType::BF16);
        types && m.min(n).min(k) >= LEAST && c_strides.contains(&1)
    }
}

/// Elements of k that are packed at once: a bfloat16 result is rounded once, so all of them.
fn piece(k: usize, c: DType) -> usize {
    if c == DType::BF16 { k } else { k.min(PIECE) }
}

/// Words of scratch memory of a product: for its left operand and its sums, and for its right operand.
fn words([m, n, k]: [usize; 3], [a, _, c]: [DType; 3]) -> [usize; 2] {
    // Either operand may turn out to be the right one.
    let cols = m.max(n).min(PIECE).next_multiple_of(BLOCK);
    let sums = if c == DType::BF16 { ROWS * cols } else { 0 };
    [left_words(parts(a)) + sums, right_words(parts(a), cols, piece(k, c))]
}

/// Scratch of a batch of products of this shape.
pub(crate) fn workspace(batch: usize, shape: [usize; 3], dtypes: [DType; 3]) -> WorkspaceSize {
    let [left, right] = words(shape, dtypes);
    if batch >= BATCH {
        WorkspaceSize { thread: left + right, shared: 0 }
    } else {
        WorkspaceSize { thread: left, shared: right }
    }
}

/// c [m, n] = a [m, k] · b [k, n] for each matrix of a batch, plus the old c if `accumulate`, on all threads. If c
/// is `symmetric`, one triangle is computed.
///
/// # Safety
/// All elements of the matrices must be valid, and no other thread may write a or b or touch c. They must
/// [suit](Amx::suits), and `workspace` have room for them.
pub(crate) unsafe fn products(
    _: Amx,
    shape: [usize; 3],
    (batch, matrices): (usize, impl Fn(usize) -> [Matrix; 3] + Sync),
    accumulate: bool,
    symmetric: bool,
    memory: &mut Workspace,
) {
    let product = |i| Product::new(shape, matrices(i), accumulate, symmetric);
    let (threads, shared) = memory.split();
    if batch >= BATCH {
        let work = 2 * shape.iter().product::<usize>();
        parallel(batch, work, |i| {
            let product = product(i);
            threads.with(|memory| {
                let (right, left) = memory.split_at_mut(product.right_words());
                let (right, left) = (Lent::new(right), Lent::new(left));
                // One task at a time, and so on this thread.
                let each = |tasks: usize, _: usize, task: &(dyn Fn(usize) + Sync)| (0..tasks).for_each(task);
                // SAFETY: by the caller's promise; the memory is this thread's.
                unsafe { product.run(right, each, |task| task(left)) };
            });
        });
    } else {
        for i in 0..batch {
            let right = Lent::new(shared.view_mut());
            let lend = |task: &dyn Fn(Lent)| threads.with(|left| task(Lent::new(left)));
            // SAFETY: by the caller's promise; each task has its thread's memory.
            unsafe { product(i).run(right, |tasks, work, task| parallel(tasks, work, task), lend) };
        }
    }
}

#[cfg(test)]
mod tests;
