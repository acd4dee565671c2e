//! The epilogue of a product on tensor cores: a region runs on the accumulators, and stores. It is given every result
//! of the tile once.
//!
//! Two ways lead from accumulators to the region ([`Exit`]):
//!
//! | | through shared memory | from registers |
//! |---|---|---|
//! | for | results rounded to bfloat16, if columns are a multiple of 8 | all others |
//! | step 1 | warps round their fragments, `stmatrix` | lanes in twos trade columns ([`four`]), if columns are a multiple of 4 |
//! | barrier | `sync_cube`: the result tile is whole | none |
//! | step 2 | a thread takes 8 neighbouring columns at a time | a lane takes its 4, or 1 |
//! | memory | whole lines, of all that the region reads and stores | chunks of 16 bytes, or elements |
//! | whole rows | neighbouring threads hold a row of a region that wants it | never |
//!
//! The result tile is 128 × 128 bfloat16 beside the mainloop's stages, so that no barrier is wanted before step 1. It
//! is swizzled in vectors of 16 bytes ([`swizzle`]): neither step has bank conflicts.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::frontend::branch::{RangeExpand, for_expand};
use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use half::bf16;

use super::mainloop::{FRAGMENTS, Product, TILE, TileCoordExpand, matrix_of, warp_column, warp_row};
use crate::kernels::kernel::ArgSpec;
use crate::kernels::math;
use crate::kernels::region::{TileChunk, TileRegion, TileRow, and};
use crate::kernels::tensor_core::fragments::{four, left_of, sums_of};
use crate::kernels::tensor_core::tile::{CHUNK, THREADS};

type Accumulators = SequenceExpand<Array<Vector<f32, Const<2>>>>;
/// The result tile.
pub(crate) type Rounded = SharedMemory<Vector<bf16, Const<8>>>;

/// Vectors of 16 bytes in a row of the tile.
const ROW: usize = TILE / CHUNK;
/// Values that a thread may have in registers at once.
const VALUES: usize = 128;

/// How results reach the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Rounded to bfloat16, through shared memory, in vectors of 8, of which a thread has so many at once.
    Shared { chunks: usize },
    /// From registers, in chunks of 1 or 4, rounded first where their type is bfloat16.
    Registers { vector: usize, rounded: bool },
}

impl Exit {
    /// The way through shared memory for a region: as many chunks as registers hold, up to 4, which keep memory busy,
    /// and as few threads as hold one of the rows that it wants whole.
    pub(crate) fn shared(region: &TileRegion) -> Exit {
        let rows = if region.wants_rows() { region.columns() } else { TILE };
        let live = region.live_rows();
        let at_once = |chunks: usize| chunks * CHUNK * rows / TILE;
        let holds_rows = |chunks: usize| ROW / chunks * CHUNK <= rows;
        let fits = |chunks: &usize| at_once(*chunks) * live <= VALUES && holds_rows(*chunks);
        let fewest = (1..).find(|&chunks| holds_rows(chunks)).unwrap_or(1);
        Exit::Shared { chunks: [4, 2].into_iter().find(fits).unwrap_or(fewest) }
    }

    /// Threads that hold a row of the tile.
    pub(crate) fn sharers(self) -> usize {
        match self {
            Exit::Shared { chunks } => ROW / chunks,
            Exit::Registers { .. } => 1,
        }
    }

    /// Elements of a chunk.
    pub(crate) fn vector(self) -> usize {
        match self {
            Exit::Shared { .. } => CHUNK,
            Exit::Registers { vector, .. } => vector,
        }
    }

    /// Bytes of shared memory.
    pub(crate) fn shared_bytes(self) -> usize {
        if matches!(self, Exit::Shared { .. }) { 2 * TILE * TILE } else { 0 }
    }
}

/// A region on the results of a product, and what it needs to be emitted.
pub(crate) struct Epilogue<'a> {
    pub(crate) exit: Exit,
    pub(crate) region: &'a TileRegion,
    /// From the region's argument 0 on.
    pub(crate) buffers: &'a [ManagedVariable],
    pub(crate) args: &'a [ArgSpec],
    pub(crate) product: Product,
}

/// Where a vector of a row lies: permuted, so that eight rows at one column fall on different banks.
#[cube]
fn swizzle(row: u32, vector: u32) -> u32 {
    row * comptime!(ROW as u32) + (vector ^ (row % 8))
}

/// Memory for the result tile.
#[cube]
pub(crate) fn shared_tile() -> Rounded {
    SharedMemory::<Vector<bf16, Const<8>>>::new_aligned(comptime!(TILE * ROW), 128usize)
}

/// Rounds the accumulators and stores them to the result tile, which is whole when this returns.
#[cube]
fn store_tile<R: Size, C: Size>(acc: &Sequence<Array<Vector<f32, C>>>, tile: &mut Rounded) {
    let def = MmaDefinition::<bf16, bf16, f32>::new(16usize, 8usize, 16usize);
    let lane = UNIT_POS % 32;
    // Lanes 8·i to 8·i + 7 say where the rows of matrix i go: the upper half of the left fragment, the lower, and
    // those of the right one.
    let first_row = warp_row() + lane % 16;
    let first_vector = warp_column() / comptime!(CHUNK as u32) + lane / 16;
    #[unroll]
    for i in 0..comptime!(FRAGMENTS[0]) {
        #[unroll]
        for pair in 0..comptime!(FRAGMENTS[1] / 2) {
            let registers = left_of::<R, C>(acc, comptime!(i * FRAGMENTS[1] + 2 * pair));
            let row = first_row + comptime!((i * 16) as u32);
            let at = swizzle(row, first_vector + comptime!((pair * 2) as u32)) as usize;
            def.store_matrix::<Vector<bf16, Const<8>>, R>(
                &mut tile.slice_mut(at, at + 1),
                &registers,
                MatrixIdent::A,
                4usize,
                false,
            );
        }
    }
    sync_cube();
}

/// The row of the tile that this thread takes in an iteration.
#[cube]
fn shared_row(iteration: u32, #[comptime] sharers: usize) -> u32 {
    UNIT_POS / comptime!(sharers as u32) + iteration * comptime!((THREADS / sharers) as u32)
}

/// The number within the row of a chunk of this thread.
#[cube]
fn shared_vector(#[comptime] chunk: usize, #[comptime] sharers: usize) -> u32 {
    UNIT_POS % comptime!(sharers as u32) + comptime!((chunk * sharers) as u32)
}

#[cube]
fn load_vector(tile: &Rounded, row: u32, vector: u32) -> Vector<f32, Const<8>> {
    Vector::cast_from(tile[swizzle(row, vector) as usize])
}

/// The row, within the tile, of half a fragment of this thread.
#[cube]
fn held_row(#[comptime] fragment: usize, #[comptime] half: usize) -> u32 {
    warp_row() + comptime!((fragment * 16 + half * 8) as u32) + UNIT_POS % 32 / 4
}

/// The column, within the tile, of this thread's four of a pair of fragments, as [`four`] makes them.
#[cube]
fn column_of_four(#[comptime] pair: usize) -> u32 {
    let lane = UNIT_POS % 32;
    warp_column() + comptime!((pair * 16) as u32) + lane % 2 * 8 + lane % 4 / 2 * 4
}

/// The column, within the tile, of an element that this thread has of a fragment.
#[cube]
fn column_of_one(#[comptime] fragment: usize, #[comptime] element: usize) -> u32 {
    warp_column() + comptime!((fragment * 8 + element) as u32) + UNIT_POS % 4 * 2
}

#[cube]
fn four_of<C: Size>(
    acc: &Sequence<Array<Vector<f32, C>>>,
    #[comptime] at: usize,
    #[comptime] half: usize,
) -> Vector<f32, Const<4>> {
    four::<Const<4>, C>(sums_of::<C>(acc, at, half), sums_of::<C>(acc, comptime!(at + 1), half))
}

#[cube]
fn one_of<C: Size>(
    acc: &Sequence<Array<Vector<f32, C>>>,
    #[comptime] at: usize,
    #[comptime] half: usize,
    #[comptime] element: usize,
) -> f32 {
    sums_of::<C>(acc, at, half)[element]
}

#[cube]
fn plus(a: u32, b: u32) -> u32 {
    a + b
}

#[cube]
fn chunk_number(first: u32, column: u32, #[comptime] vector: u32) -> u32 {
    (first + column) / vector
}

#[cube]
fn below(x: u32, #[comptime] bound: u32) -> bool {
    x < bound
}

impl Epilogue<'_> {
    /// Emits the region on a thread block's results. `tile` is the result tile, if any region of the kernel has one.
    pub(crate) fn emit(
        &self,
        scope: &mut Scope,
        acc: &Accumulators,
        at: &TileCoordExpand,
        tile: Option<&NativeExpand<Rounded>>,
    ) {
        self.region.register(scope);
        match (self.exit, tile) {
            (Exit::Shared { chunks }, Some(tile)) => self.store_through_shared(scope, acc, at, tile, chunks),
            (Exit::Registers { vector, rounded }, _) => {
                self.store_from_registers(scope, acc, at, vector, rounded);
            }
            (Exit::Shared { .. }, None) => unreachable!("there is no result tile"),
        }
    }

    fn store_through_shared(
        &self,
        scope: &mut Scope,
        acc: &Accumulators,
        at: &TileCoordExpand,
        tile: &NativeExpand<Rounded>,
        chunks: usize,
    ) {
        // Threads that share a row, and what each holds of a row that is wanted whole.
        let sharers = ROW / chunks;
        let columns = if self.region.wants_rows() { self.region.columns() } else { TILE };
        let held = columns / (sharers * CHUNK);
        store_tile::expand::<Const<2>, Const<2>>(scope, acc.clone(), tile.clone());
        let iterations = (TILE * sharers / THREADS) as u32;
        let range = RangeExpand::new(0u32.into(), iterations.into(), false);
        for_expand(scope, range, false, |scope, iteration: NativeExpand<u32>| {
            let row = shared_row::expand(scope, iteration, sharers);
            for first in (0..chunks).step_by(held) {
                let chunks = (first..first + held).map(|chunk| {
                    let number = shared_vector::expand(scope, chunk, sharers);
                    let value = load_vector::expand(scope, tile.clone(), row.clone(), number.clone());
                    if self.region.wants_rows() {
                        let index = shared_vector::expand(scope, chunk - first, sharers);
                        return TileChunk { index, ok: None, value: value.into() };
                    }
                    let first = chunk_number::expand(scope, at.column.clone(), 0u32.into(), CHUNK as u32);
                    let index = plus::expand(scope, first, number);
                    self.chunk(scope, index, value.into())
                });
                let chunks = chunks.collect();
                self.row(scope, at, row.clone(), first / held, chunks);
            }
        });
    }

    fn store_from_registers(
        &self,
        scope: &mut Scope,
        acc: &Accumulators,
        at: &TileCoordExpand,
        vector: usize,
        rounded: bool,
    ) {
        let places = (0..FRAGMENTS[0]).flat_map(|fragment| [(fragment, 0), (fragment, 1)]);
        for (fragment, half) in places {
            let row = held_row::expand(scope, fragment, half);
            let held: Vec<(NativeExpand<u32>, ManagedVariable)> = match vector {
                1 => (0..2 * FRAGMENTS[1])
                    .map(|i| {
                        let (column, element) = (i / 2, i % 2);
                        let at = fragment * FRAGMENTS[1] + column;
                        let x = one_of::expand::<Const<2>>(scope, acc.clone(), at, half, element);
                        (column_of_one::expand(scope, column, element), x.into())
                    })
                    .collect(),
                _ => (0..FRAGMENTS[1] / 2)
                    .map(|pair| {
                        let at = fragment * FRAGMENTS[1] + 2 * pair;
                        let x = four_of::expand::<Const<2>>(scope, acc.clone(), at, half);
                        (column_of_four::expand(scope, pair), x.into())
                    })
                    .collect(),
            };
            let chunks = held.into_iter().map(|(column, x)| {
                let index = chunk_number::expand(scope, at.column.clone(), column, vector as u32);
                let value = match (rounded, vector) {
                    (false, _) => x,
                    (true, 1) => math::round_bf16::expand::<Const<1>>(scope, x.into()).into(),
                    (true, _) => math::round_bf16::expand::<Const<4>>(scope, x.into()).into(),
                };
                self.chunk(scope, index, value)
            });
            let chunks = chunks.collect();
            self.row(scope, at, row, 0, chunks);
        }
    }

    fn chunk(&self, scope: &mut Scope, index: NativeExpand<u32>, value: ManagedVariable) -> TileChunk {
        let columns = self.product.b.free;
        let count = (columns / self.exit.vector()) as u32;
        let ok = (!columns.is_multiple_of(TILE)).then(|| below::expand(scope, index.clone(), count));
        TileChunk { index, ok, value }
    }

    /// Runs the region on chunks of a row of the tile, or of the `part`th row of the region in it.
    fn row(
        &self,
        scope: &mut Scope,
        at: &TileCoordExpand,
        row: NativeExpand<u32>,
        part: usize,
        chunks: Vec<TileChunk>,
    ) {
        let row = plus::expand(scope, at.row.clone(), row);
        let (rows, parts) = (self.product.a.free, self.region.parts());
        let mut ok = (!rows.is_multiple_of(TILE)).then(|| below::expand(scope, row.clone(), rows as u32));
        let matrix = matrix_of::expand(scope, at.clone(), self.product);
        let mut number: NativeExpand<u32> = 0u32.into();
        if self.region.wants_rows() {
            let columns = self.region.columns() as u32;
            number = chunk_number::expand(scope, at.column.clone(), (part as u32 * columns).into(), columns);
            if !self.product.b.free.is_multiple_of(TILE) {
                let is_part = below::expand(scope, number.clone(), parts as u32);
                ok = and(scope, ok, Some(is_part));
            }
        }
        let at = TileRow { matrix, row, part: number, ok };
        self.region.emit(scope, (self.buffers, self.args), at, chunks);
    }
}
