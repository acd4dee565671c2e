//! What becomes of a product's sums: a region runs on them where they are, and whole pieces of rows leave.
//!
//! Results that are rounded to bfloat16 go through shared memory, from where a thread takes eight neighbours at a
//! time, so that everything that the region reads and writes is whole lines; neighbouring threads hold whole rows of a
//! region that wants them. Others leave from registers, in fours where rows allow. It must give every result of the
//! tile to the region once.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::frontend::branch::{RangeExpand, for_expand};
use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use half::bf16;

use super::mainloop::{FRAGMENTS, PlaceExpand, Product, TILE, matrix_of, warp_column, warp_row};
use crate::kernels::kernel::ArgSpec;
use crate::kernels::math;
use crate::kernels::region::{TilePiece, TileRegion, TileRow, and};
use crate::kernels::tensor_core::fragments::{four, left_of, sums_of};
use crate::kernels::tensor_core::tile::{CHUNK, UNITS};

type Sums = SequenceExpand<Array<Vector<f32, Const<2>>>>;
/// Results in shared memory.
pub(crate) type Rounded = SharedMemory<Vector<bf16, Const<8>>>;

/// Chunks of a row of the tile.
const ROW: usize = TILE / CHUNK;
/// Values that a thread may have in hand at once.
const VALUES: usize = 128;

/// How results leave a thread block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Rounded to bfloat16, through shared memory, in chunks, of which a thread has so many in hand at once.
    Shared { pieces: usize },
    /// From registers, in pieces of 1 or 4, rounded first where their type is bfloat16.
    Registers { vector: usize, rounded: bool },
}

impl Exit {
    /// The way out through shared memory for a region: as many pieces as registers hold, up to 4, which keep memory
    /// busy, and as few threads as hold one of the rows that it wants whole.
    pub(crate) fn shared(region: &TileRegion) -> Exit {
        let rows = if region.wants_rows() { region.columns() } else { TILE };
        let live = region.live_rows();
        let at_once = |pieces: usize| pieces * CHUNK * rows / TILE;
        let holds_rows = |pieces: usize| ROW / pieces * CHUNK <= rows;
        let fits = |pieces: &usize| at_once(*pieces) * live <= VALUES && holds_rows(*pieces);
        let fewest = (1..).find(|&pieces| holds_rows(pieces)).unwrap_or(1);
        Exit::Shared { pieces: [4, 2].into_iter().find(fits).unwrap_or(fewest) }
    }

    /// Threads that hold a row of the tile.
    pub(crate) fn sharers(self) -> usize {
        match self {
            Exit::Shared { pieces } => ROW / pieces,
            Exit::Registers { .. } => 1,
        }
    }

    /// Elements of a piece.
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

/// A region that takes the results, and what it needs to be emitted.
pub(crate) struct Sink<'a> {
    pub(crate) exit: Exit,
    pub(crate) region: &'a TileRegion,
    /// From the region's argument 0 on.
    pub(crate) buffers: &'a [ManagedVariable],
    pub(crate) args: &'a [ArgSpec],
    pub(crate) product: Product,
}

/// Where a chunk of a row lies: permuted, so that eight rows at one column fall on different banks.
#[cube]
fn place(row: u32, chunk: u32) -> u32 {
    row * comptime!(ROW as u32) + (chunk ^ (row % 8))
}

/// Memory for a thread block's results.
#[cube]
pub(crate) fn shared_tile() -> Rounded {
    SharedMemory::<Vector<bf16, Const<8>>>::new_aligned(comptime!(TILE * ROW), 128usize)
}

/// Puts the thread block's results, rounded, into shared memory.
#[cube]
fn share<R: Size, C: Size>(sums: &Sequence<Array<Vector<f32, C>>>, tile: &mut Rounded) {
    let def = MmaDefinition::<bf16, bf16, f32>::new(16usize, 8usize, 16usize);
    let lane = UNIT_POS % 32;
    // Lanes 8·i and on say where the rows of matrix i go: the upper half of the left fragment, the lower, and
    // those of the right one.
    let first_row = warp_row() + lane % 16;
    let first_chunk = warp_column() / comptime!(CHUNK as u32) + lane / 16;
    #[unroll]
    for i in 0..comptime!(FRAGMENTS[0]) {
        #[unroll]
        for pair in 0..comptime!(FRAGMENTS[1] / 2) {
            let registers = left_of::<R, C>(sums, comptime!(i * FRAGMENTS[1] + 2 * pair));
            let row = first_row + comptime!((i * 16) as u32);
            let at = place(row, first_chunk + comptime!((pair * 2) as u32)) as usize;
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

/// The row, within the tile, of a iteration of this thread.
#[cube]
fn shared_row(iteration: u32, #[comptime] sharers: usize) -> u32 {
    UNIT_POS / comptime!(sharers as u32) + iteration * comptime!((UNITS / sharers) as u32)
}

/// The chunk, within the row, of a piece of this thread.
#[cube]
fn shared_chunk(#[comptime] piece: usize, #[comptime] sharers: usize) -> u32 {
    UNIT_POS % comptime!(sharers as u32) + comptime!((piece * sharers) as u32)
}

#[cube]
fn chunk(tile: &Rounded, row: u32, chunk: u32) -> Vector<f32, Const<8>> {
    Vector::cast_from(tile[place(row, chunk) as usize])
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
    sums: &Sequence<Array<Vector<f32, C>>>,
    #[comptime] at: usize,
    #[comptime] half: usize,
) -> Vector<f32, Const<4>> {
    four::<Const<4>, C>(sums_of::<C>(sums, at, half), sums_of::<C>(sums, comptime!(at + 1), half))
}

#[cube]
fn one_of<C: Size>(
    sums: &Sequence<Array<Vector<f32, C>>>,
    #[comptime] at: usize,
    #[comptime] half: usize,
    #[comptime] element: usize,
) -> f32 {
    sums_of::<C>(sums, at, half)[element]
}

#[cube]
fn plus(a: u32, b: u32) -> u32 {
    a + b
}

#[cube]
fn piece_number(first: u32, column: u32, #[comptime] vector: u32) -> u32 {
    (first + column) / vector
}

#[cube]
fn below(x: u32, #[comptime] bound: u32) -> bool {
    x < bound
}

impl Sink<'_> {
    /// Emits the way out of a thread block's results, through shared memory if it is given some.
    pub(crate) fn emit(
        &self,
        scope: &mut Scope,
        sums: &Sums,
        at: &PlaceExpand,
        tile: Option<&NativeExpand<Rounded>>,
    ) {
        self.region.register(scope);
        match (self.exit, tile) {
            (Exit::Shared { pieces }, Some(tile)) => self.leave_shared(scope, sums, at, tile, pieces),
            (Exit::Registers { vector, rounded }, _) => {
                self.leave_registers(scope, sums, at, vector, rounded);
            }
            (Exit::Shared { .. }, None) => unreachable!("results leave through memory"),
        }
    }

    fn leave_shared(
        &self,
        scope: &mut Scope,
        sums: &Sums,
        at: &PlaceExpand,
        tile: &NativeExpand<Rounded>,
        pieces: usize,
    ) {
        // Threads that share a row, and what each holds of a row that is wanted whole.
        let sharers = ROW / pieces;
        let lanes = if self.region.wants_rows() { self.region.columns() } else { TILE };
        let held = lanes / (sharers * CHUNK);
        share::expand::<Const<2>, Const<2>>(scope, sums.clone(), tile.clone());
        let iterations = (TILE * sharers / UNITS) as u32;
        let range = RangeExpand::new(0u32.into(), iterations.into(), false);
        for_expand(scope, range, false, |scope, iteration: NativeExpand<u32>| {
            let row = shared_row::expand(scope, iteration, sharers);
            for first in (0..pieces).step_by(held) {
                let pieces = (first..first + held).map(|piece| {
                    let number = shared_chunk::expand(scope, piece, sharers);
                    let value = chunk::expand(scope, tile.clone(), row.clone(), number.clone());
                    if self.region.wants_rows() {
                        let index = shared_chunk::expand(scope, piece - first, sharers);
                        return TilePiece { index, ok: None, value: value.into() };
                    }
                    let first = piece_number::expand(scope, at.column.clone(), 0u32.into(), CHUNK as u32);
                    let index = plus::expand(scope, first, number);
                    self.piece(scope, index, value.into())
                });
                let pieces = pieces.collect();
                self.row(scope, at, row.clone(), first / held, pieces);
            }
        });
    }

    fn leave_registers(
        &self,
        scope: &mut Scope,
        sums: &Sums,
        at: &PlaceExpand,
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
                        let place = fragment * FRAGMENTS[1] + column;
                        let x = one_of::expand::<Const<2>>(scope, sums.clone(), place, half, element);
                        (column_of_one::expand(scope, column, element), x.into())
                    })
                    .collect(),
                _ => (0..FRAGMENTS[1] / 2)
                    .map(|pair| {
                        let place = fragment * FRAGMENTS[1] + 2 * pair;
                        let x = four_of::expand::<Const<2>>(scope, sums.clone(), place, half);
                        (column_of_four::expand(scope, pair), x.into())
                    })
                    .collect(),
            };
            let pieces = held.into_iter().map(|(column, x)| {
                let index = piece_number::expand(scope, at.column.clone(), column, vector as u32);
                let value = match (rounded, vector) {
                    (false, _) => x,
                    (true, 1) => math::round_bf16::expand::<Const<1>>(scope, x.into()).into(),
                    (true, _) => math::round_bf16::expand::<Const<4>>(scope, x.into()).into(),
                };
                self.piece(scope, index, value)
            });
            let pieces = pieces.collect();
            self.row(scope, at, row, 0, pieces);
        }
    }

    fn piece(&self, scope: &mut Scope, index: NativeExpand<u32>, value: ManagedVariable) -> TilePiece {
        let columns = self.product.b.free;
        let count = (columns / self.exit.vector()) as u32;
        let ok = (!columns.is_multiple_of(TILE)).then(|| below::expand(scope, index.clone(), count));
        TilePiece { index, ok, value }
    }

    /// Runs the region on pieces of a row of the tile, or of the `part`th row of the region in it.
    fn row(
        &self,
        scope: &mut Scope,
        at: &PlaceExpand,
        row: NativeExpand<u32>,
        part: usize,
        pieces: Vec<TilePiece>,
    ) {
        let row = plus::expand(scope, at.row.clone(), row);
        let (rows, parts) = (self.product.a.free, self.region.parts());
        let mut ok = (!rows.is_multiple_of(TILE)).then(|| below::expand(scope, row.clone(), rows as u32));
        let matrix = matrix_of::expand(scope, at.clone(), self.product);
        let mut number: NativeExpand<u32> = 0u32.into();
        if self.region.wants_rows() {
            let lanes = self.region.columns() as u32;
            number = piece_number::expand(scope, at.column.clone(), (part as u32 * lanes).into(), lanes);
            if !self.product.b.free.is_multiple_of(TILE) {
                let is_part = below::expand(scope, number.clone(), parts as u32);
                ok = and(scope, ok, Some(is_part));
            }
        }
        let at = TileRow { matrix, row, part: number, ok };
        self.region.emit(scope, (self.buffers, self.args), at, pieces);
    }
}
