//! The mainloop of a product on tensor cores: a thread block's tile of results, in its warps' accumulators. What
//! becomes of them is not known here.
//!
//! The map of the whole kernel is in [`super::tensor_core`]. Here, with S stages:
//!
//! - [`load_stage`] starts the copies of a slice of k, of both operands, into one stage. Threads issue them for all
//!   warps, 16 bytes each; each thread arrives at the stage's mbarrier `full` when its own copies have.
//! - [`multiply`] keeps S − 1 slices on their way. An iteration waits for the slice that it reads (`full`, whose
//!   parity changes each time round the ring), then for the other warps (`sync_cube`), because the stage that is
//!   filled next is the one that they read last.
//! - [`accumulate`] reads the stage: operands through `ldmatrix`, 16 of k at a time, sums in registers.
//!
//! A slice that is not aligned comes element by element, stored by the thread itself before it arrives.

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;
use half::bf16;

use crate::kernels::tensor_core::fragments::zeros;
use crate::kernels::tensor_core::tile::{Operand, THREADS, fragment_a, fragments_b, load};
use crate::plan::Side;

/// Results of a thread block along each axis.
pub(crate) const TILE: usize = 128;
/// Warps along the rows of a tile; as many are along its columns.
const WARP_ROWS: usize = 2;
/// Fragments of a warp's results: 16 rows each, and 8 columns each.
pub(crate) const FRAGMENTS: [usize; 2] = [TILE / WARP_ROWS / 16, TILE / (THREADS / 32 / WARP_ROWS) / 8];

/// What is multiplied, and by which thread blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Product {
    pub(crate) a: Operand,
    pub(crate) b: Operand,
    /// Batch, splits, tiles of rows, tiles of columns: of all products of the launch.
    pub(crate) tiles: [usize; 4],
    /// Slices of k of a thread block, a multiple of the stages. A slice is as deep as the operands' tiles.
    pub(crate) steps: usize,
    /// Slices in shared memory.
    pub(crate) stages: usize,
}

/// The products of a launch, which share an operand: their tiles lie side by side in one grid.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Products {
    pub(crate) shared: Side,
    pub(crate) each: Vec<Product>,
    /// Further segments of k, of a product that is alone: their operands, which lie in shared memory as the first do.
    pub(crate) further: Vec<[Operand; 2]>,
}

impl Products {
    /// Batch, splits, tiles of rows, tiles of columns.
    pub(crate) fn tiles(&self) -> [usize; 4] {
        self.each[0].tiles
    }

    /// Tiles before a product's own, along the axis of the operands that are not shared.
    fn first(&self, product: usize) -> usize {
        let own = |p: &Product| if self.shared == Side::Left { p.b.free } else { p.a.free };
        self.each[..product].iter().map(|p| own(p).div_ceil(TILE)).sum()
    }

    /// An operand: one for all products that share it, or one for each of them, or one for each segment of k.
    fn operands(&self, side: Side) -> Vec<Operand> {
        let of = |[a, b]: [Operand; 2]| if side == Side::Left { a } else { b };
        let all = self.each.iter().map(|p| of([p.a, p.b]));
        let all = all.take(if side == self.shared { 1 } else { usize::MAX });
        all.chain(self.further.iter().map(|&pair| of(pair))).collect()
    }

    /// The first slice of a segment of k, of all segments' slices.
    fn first_slice(&self, segment: usize) -> usize {
        let slices = |x: &Operand| x.depth.div_ceil(x.deep);
        self.operands(self.shared)[..segment].iter().map(slices).sum()
    }
}

/// Where a thread block's tile lies.
#[derive(CubeType, Clone)]
pub(crate) struct TileCoord {
    /// Of the products.
    pub(crate) product: u32,
    pub(crate) batch: u32,
    /// Of the parts of k.
    pub(crate) part: u32,
    /// First row and column.
    pub(crate) row: u32,
    pub(crate) column: u32,
}

/// Where the thread block's tile lies. Columns vary fastest: neighbours share rows of the left operand.
#[cube]
pub(crate) fn tile_coord(block_index: u32, #[comptime] all: Products) -> TileCoord {
    let tiles = comptime!(all.tiles());
    let column_tile = block_index % comptime!(tiles[3] as u32);
    let rest = block_index / comptime!(tiles[3] as u32);
    let row_tile = rest % comptime!(tiles[2] as u32);
    let rest = rest / comptime!(tiles[2] as u32);
    let part = rest % comptime!(tiles[1] as u32);
    let batch = rest / comptime!(tiles[1] as u32);
    let side_by_columns = comptime!(all.shared == Side::Left);
    let along = if comptime!(side_by_columns) { column_tile } else { row_tile };
    let mut product = 0u32;
    let mut first = 0u32;
    #[unroll]
    for i in 1..comptime!(all.each.len()) {
        let start = comptime!(all.first(i) as u32);
        let reached = along >= start;
        product = select(reached, comptime!(i as u32).runtime(), product);
        first = select(reached, start.runtime(), first);
    }
    let mut row = row_tile * comptime!(TILE as u32);
    let mut column = column_tile * comptime!(TILE as u32);
    if comptime!(all.each.len() > 1 && side_by_columns) {
        column -= first * comptime!(TILE as u32);
    } else if comptime!(all.each.len() > 1) {
        row -= first * comptime!(TILE as u32);
    }
    TileCoord { product, batch, part, row, column }
}

/// Starts the copies of the thread block's slice of both operands into a stage: the slice at `depth` of k, which is
/// its number times its depth where k has segments. This thread arrives at the stage's barrier when its own copies
/// have.
#[cube]
#[allow(clippy::too_many_arguments, reason = "two tiles' places in both memories")]
fn load_stage<A: Size, B: Size>(
    a: &Sequence<Array<Vector<bf16, A>>>,
    b: &Sequence<Array<Vector<bf16, B>>>,
    tile_a: &mut SharedMemory<Vector<bf16, A>>,
    tile_b: &mut SharedMemory<Vector<bf16, B>>,
    full: &Sequence<Shared<Barrier>>,
    at: &TileCoord,
    depth: u32,
    end: u32,
    #[comptime] stage: usize,
    #[comptime] all: Products,
) {
    let operands_a = comptime!(all.operands(Side::Left));
    let operands_b = comptime!(all.operands(Side::Right));
    if comptime!(all.further.is_empty()) {
        load_operand::<A>(a, tile_a, at.batch, at.product, at.row, depth, end, stage, operands_a);
        load_operand::<B>(b, tile_b, at.batch, at.product, at.column, depth, end, stage, operands_b);
    } else {
        let deep = comptime!(all.each[0].a.deep as u32);
        let slice = depth / deep;
        let mut segment = 0u32;
        let mut first = 0u32;
        let mut end = comptime!(operands_a[0].depth as u32).runtime();
        #[unroll]
        for i in 1..comptime!(1 + all.further.len()) {
            let begin = comptime!(all.first_slice(i) as u32);
            let reached = slice >= begin;
            segment = select(reached, comptime!(i as u32).runtime(), segment);
            first = select(reached, begin.runtime(), first);
            end = select(reached, comptime!(all.further[i - 1][0].depth as u32).runtime(), end);
        }
        let depth = (slice - first) * deep;
        load_operand::<A>(a, tile_a, at.batch, segment, at.row, depth, end, stage, operands_a);
        load_operand::<B>(b, tile_b, at.batch, segment, at.column, depth, end, stage, operands_b);
    }
    full.index(stage).commit_copy_async();
    full.index(stage).arrive();
}

/// Starts the copies of a slice of an operand: of those that products do not share, or of segments of k, the one with
/// number `which`.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a tile's place in both memories")]
fn load_operand<N: Size>(
    from: &Sequence<Array<Vector<bf16, N>>>,
    to: &mut SharedMemory<Vector<bf16, N>>,
    batch: u32,
    which: u32,
    first: u32,
    depth: u32,
    end: u32,
    #[comptime] stage: usize,
    #[comptime] operands: Vec<Operand>,
) {
    #[unroll]
    for i in 0..comptime!(operands.len()) {
        let x = comptime!(operands[i]);
        let base = batch * comptime!(x.batch as u32) + comptime!(x.offset as u32);
        let into = comptime!((stage * x.chunks()) as u32);
        if comptime!(operands.len() == 1) {
            load::<N>(from.index(i), to, base, first, depth, end, into, x);
        } else if which == comptime!(i as u32) {
            load::<N>(from.index(i), to, base, first, depth, end, into, x);
        }
    }
}

/// The number of the thread block's matrix, of all parts of all batches.
#[cube]
pub(crate) fn matrix_of(at: &TileCoord, #[comptime] p: Product) -> u32 {
    at.part * comptime!(p.tiles[0] as u32) + at.batch
}

/// The first row of this warp's results within the tile.
#[cube]
pub(crate) fn warp_row() -> u32 {
    UNIT_POS / 32 % comptime!(WARP_ROWS as u32) * comptime!((TILE / WARP_ROWS) as u32)
}

/// The first column of this warp's results within the tile.
#[cube]
pub(crate) fn warp_column() -> u32 {
    UNIT_POS / 32 / comptime!(WARP_ROWS as u32) * comptime!((FRAGMENTS[1] * 8) as u32)
}

/// Adds the products of a stage to this warp's accumulators. Each fragment of the left operand is read once, and each
/// of the right one is used for all of them while it is in registers.
#[cube]
fn accumulate<A: Size, B: Size, R: Size, C: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    tile_a: &SharedMemory<Vector<bf16, A>>,
    tile_b: &SharedMemory<Vector<bf16, B>>,
    warp_row: u32,
    warp_column: u32,
    acc: &mut Sequence<Array<Vector<f32, C>>>,
    #[comptime] stage: usize,
    #[comptime] p: Product,
) {
    let stage_a = comptime!((stage * p.a.chunks()) as u32);
    let stage_b = comptime!((stage * p.b.chunks()) as u32);
    #[unroll]
    for step in 0..comptime!(p.a.deep / 16) {
        let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
        #[unroll]
        for i in 0..comptime!(FRAGMENTS[0]) {
            let row = warp_row + comptime!((i * 16) as u32);
            left.push(fragment_a::<A, R>(def, tile_a, row, stage_a, step, comptime!(p.a)));
        }
        #[unroll]
        for pair in 0..comptime!(FRAGMENTS[1] / 2) {
            let column = warp_column + comptime!((pair * 16) as u32);
            let both = fragments_b::<B, R>(def, tile_b, column, stage_b, step, comptime!(p.b));
            #[unroll]
            for j in 0..2usize {
                let mut right = Array::<Vector<bf16, R>>::new(2usize);
                right[0] = both[comptime!(2 * j)];
                right[1] = both[comptime!(2 * j + 1)];
                #[unroll]
                for i in 0..comptime!(FRAGMENTS[0]) {
                    let at = comptime!(i * FRAGMENTS[1] + 2 * pair + j);
                    def.execute_inplace(left.index(i), &right, acc.index_mut(at));
                }
            }
        }
    }
}

/// This warp's accumulators, summed over the slices of its thread block. An operand's buffer is one for all products
/// that share it, or one for each: only what is loaded depends on the product, so that the loop is the same for all.
#[cube]
pub(crate) fn multiply<A: Size, B: Size, R: Size, C: Size>(
    a: &Sequence<Array<Vector<bf16, A>>>,
    b: &Sequence<Array<Vector<bf16, B>>>,
    at: TileCoord,
    #[comptime] all: Products,
) -> Sequence<Array<Vector<f32, C>>> {
    let p = comptime!(all.each[0]);
    let def = MmaDefinition::<bf16, bf16, f32>::new(16usize, 8usize, 16usize);
    let mut tile_a =
        SharedMemory::<Vector<bf16, A>>::new_aligned(comptime!(p.a.shared_vectors(p.stages)), 128usize);
    let mut tile_b =
        SharedMemory::<Vector<bf16, B>>::new_aligned(comptime!(p.b.shared_vectors(p.stages)), 128usize);
    let mut full = Sequence::<Shared<Barrier>>::new();
    #[unroll]
    for _stage in 0..comptime!(p.stages) {
        full.push(Barrier::shared(CUBE_DIM, UNIT_POS == 0));
    }
    let start = at.part * comptime!((p.steps * p.a.deep) as u32);
    let end = u32::min(start + comptime!((p.steps * p.a.deep) as u32), comptime!(p.a.depth as u32));
    let warp_row = warp_row();
    let warp_column = warp_column();
    let mut acc = zeros::<C>(comptime!(FRAGMENTS[0] * FRAGMENTS[1]));
    #[unroll]
    for stage in 0..comptime!(p.stages - 1) {
        let depth = start + comptime!((stage * p.a.deep) as u32);
        let products = comptime!(all.clone());
        load_stage::<A, B>(a, b, &mut tile_a, &mut tile_b, &full, &at, depth, end, stage, products);
    }
    for iteration in 0..comptime!((p.steps / p.stages) as u32) {
        #[unroll]
        for stage in 0..comptime!(p.stages) {
            let step = iteration * comptime!(p.stages as u32) + comptime!(stage as u32);
            full.index(stage).wait_parity(iteration % 2);
            // Every warp is done with the stage that is overwritten next.
            sync_cube();
            let next = step + comptime!((p.stages - 1) as u32);
            if next < comptime!(p.steps as u32) {
                let into = comptime!((stage + p.stages - 1) % p.stages);
                let depth = start + next * comptime!(p.a.deep as u32);
                let products = comptime!(all.clone());
                load_stage::<A, B>(a, b, &mut tile_a, &mut tile_b, &full, &at, depth, end, into, products);
            }
            accumulate::<A, B, R, C>(&def, &tile_a, &tile_b, warp_row, warp_column, &mut acc, stage, p);
        }
    }
    acc
}
