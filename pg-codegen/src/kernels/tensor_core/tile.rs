//! Tiles of bfloat16 matrices in shared memory: asynchronous copies into them, and fragments out of them.
//!
//! A tile lies as its matrix does: its rows run along whichever axis is contiguous in memory, in chunks of
//! 16 bytes. Chunks of a row are permuted by the row's number, so that the eight rows that an `ldmatrix`
//! reads at one column, and those that a warp writes, fall on different banks.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::barrier::copy_async_checked;
use cubecl::prelude::*;
use half::bf16;

use crate::kernels::contraction::mainloop::TILE;
use crate::kernels::stage::ArgInfo;
use crate::machine::Machine;
use crate::plan::{Matmul, MatrixView};

/// Elements of a 16-byte chunk.
pub(crate) const CHUNK: usize = 8;
/// Threads of a thread block.
pub(crate) const THREADS: usize = 128;

/// How one operand is walked. "Free" is the axis that is not summed over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Operand {
    pub(crate) offset: usize,
    pub(crate) batch: usize,
    pub(crate) free: usize,
    pub(crate) free_stride: usize,
    pub(crate) depth: usize,
    pub(crate) depth_stride: usize,
    /// Extent of a tile along the free axis.
    pub(crate) tile: usize,
    /// Extent of a tile along the summed axis.
    pub(crate) deep: usize,
    /// Whether rows of the tile run along the summed axis.
    pub(crate) along_depth: bool,
    /// Whether every chunk lies at a multiple of 16 bytes and wholly inside or outside the matrix.
    pub(crate) aligned: bool,
}

impl Operand {
    /// One past the last element that is read.
    pub(crate) fn reach(&self, batches: usize) -> usize {
        let last = (batches - 1) * self.batch + (self.free - 1) * self.free_stride;
        self.offset + last + (self.depth - 1) * self.depth_stride + 1
    }

    /// Chunks of a tile.
    pub(crate) fn chunks(&self) -> usize {
        self.tile * self.deep / CHUNK
    }

    /// Elements of an access.
    pub(crate) fn vector(&self) -> usize {
        if self.aligned { CHUNK } else { 1 }
    }

    /// Accesses of a chunk.
    fn chunk_vectors(&self) -> u32 {
        (CHUNK / self.vector()) as u32
    }

    /// Elements of a tile in shared memory, all stages, in accesses.
    pub(crate) fn shared_vectors(&self, stages: usize) -> usize {
        stages * self.chunks() * CHUNK / self.vector()
    }

    /// Chunks of a row of the tile.
    pub(crate) fn row_chunks(&self) -> usize {
        if self.along_depth { self.deep / CHUNK } else { self.tile / CHUNK }
    }
}

/// How a product's operands are walked.
pub(crate) fn operands(m: &Matmul, [a, b]: [&ArgInfo; 2], machine: &Machine) -> [Operand; 2] {
    let deep = machine.tuning.mma_depth;
    [
        operand((m.k, deep), (&m.a, a), (m.m, m.a.row), m.a.col),
        operand((m.k, deep), (&m.b, b), (m.n, m.b.col), m.b.row),
    ]
}

fn operand(
    (depth, deep): (usize, usize),
    (view, info): (&MatrixView, &ArgInfo),
    (free, free_stride): (usize, usize),
    depth_stride: usize,
) -> Operand {
    let offset = view.offset + info.shift;
    let fits = |len: usize, contiguous: usize, other: usize| {
        contiguous == 1 && [len, other, offset, view.batch].iter().all(|n| n.is_multiple_of(CHUNK))
    };
    let along_depth = fits(depth, depth_stride, free_stride);
    let aligned = along_depth || fits(free, free_stride, depth_stride);
    let along_depth = along_depth || (!aligned && depth_stride <= free_stride);
    Operand {
        offset,
        batch: view.batch,
        free,
        free_stride,
        depth,
        depth_stride,
        tile: TILE,
        deep,
        along_depth,
        aligned,
    }
}

/// Where a chunk of a row lies in its tile. Rows of four chunks share a line of 128 bytes in twos; longer
/// ones fill lines.
#[cube]
pub(crate) fn place(row: u32, chunk: u32, #[comptime] x: Operand) -> u32 {
    if comptime!(x.row_chunks() == 4) {
        row * comptime!(x.row_chunks() as u32) + (chunk ^ ((row / 2) % 4))
    } else {
        row * comptime!(x.row_chunks() as u32) + (chunk ^ (row % 8))
    }
}

/// Brings the tile at (`first`, `depth`) of a matrix into shared memory from chunk `into` on; zeros outside the
/// matrix and from `end` on. What is not aligned comes element by element, at once.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a tile's place in both memories")]
pub(crate) fn load<N: Size>(
    from: &Array<Vector<bf16, N>>,
    to: &mut SharedMemory<Vector<bf16, N>>,
    base: u32,
    first: u32,
    depth: u32,
    end: u32,
    into: u32,
    #[comptime] x: Operand,
) {
    let row_chunks = comptime!(x.row_chunks() as u32);
    #[unroll]
    for iteration in 0..comptime!(x.chunks() / THREADS) {
        let chunk = UNIT_POS + comptime!((iteration * THREADS) as u32);
        let row = chunk / row_chunks;
        let column = chunk % row_chunks * comptime!(CHUNK as u32);
        let at = into + place(row, chunk % row_chunks, x);
        let f = if comptime!(x.along_depth) { first + row } else { first + column };
        let d = if comptime!(x.along_depth) { depth + column } else { depth + row };
        let origin = base + f * comptime!(x.free_stride as u32) + d * comptime!(x.depth_stride as u32);
        if comptime!(x.aligned) {
            let inside = f < comptime!(x.free as u32) && d < end;
            // A copy of no bytes fills with zeros; its source must be an address all the same.
            let source = select(inside, origin / comptime!(CHUNK as u32), 0u32);
            let count = select(inside, 1u32, 0u32);
            copy_async_checked(
                &from.slice(source as usize, (source + count) as usize),
                &mut to.slice_mut(at as usize, (at + 1) as usize),
                comptime!(CHUNK as u32),
            );
        } else {
            #[unroll]
            for i in 0..comptime!(CHUNK as u32) {
                let fi = if comptime!(x.along_depth) { f } else { f + i };
                let di = if comptime!(x.along_depth) { d + i } else { d };
                let step = comptime!((if x.along_depth { x.depth_stride } else { x.free_stride }) as u32);
                let mut value = Vector::<bf16, N>::from_int(0);
                if fi < comptime!(x.free as u32) && di < end {
                    value = from[(origin + i * step) as usize];
                }
                to[(at * comptime!(CHUNK as u32) + i) as usize] = value;
            }
        }
    }
}

/// The 16 × 16 fragment of the left operand at row `free` of the tile that begins at chunk `tile`.
#[cube]
pub(crate) fn fragment_a<N: Size, R: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    from: &SharedMemory<Vector<bf16, N>>,
    free: u32,
    tile: u32,
    #[comptime] step: usize,
    #[comptime] x: Operand,
) -> Array<Vector<bf16, R>> {
    let lane = UNIT_POS % 32;
    let mut row = free + lane % 16;
    let mut chunk = comptime!((step * 2) as u32) + lane / 16;
    if comptime!(!x.along_depth) {
        row = comptime!((step * 16) as u32) + lane % 8 + lane / 16 * 8;
        chunk = free / comptime!(CHUNK as u32) + (lane / 8) % 2;
    }
    let at = (tile + place(row, chunk, x)) * comptime!(x.chunk_vectors());
    let slice = from.slice(at as usize, (at + comptime!(x.chunk_vectors())) as usize);
    def.load_matrix::<Vector<bf16, N>, R>(&slice, MatrixIdent::A, 4usize, comptime!(!x.along_depth))
}

/// Two 16 × 8 fragments of the right operand, side by side at column `free` of the tile that begins at
/// chunk `tile`.
#[cube]
pub(crate) fn fragments_b<N: Size, R: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    from: &SharedMemory<Vector<bf16, N>>,
    free: u32,
    tile: u32,
    #[comptime] step: usize,
    #[comptime] x: Operand,
) -> Array<Vector<bf16, R>> {
    let lane = UNIT_POS % 32;
    let mut row = free + lane % 8 + lane / 16 * 8;
    let mut chunk = comptime!((step * 2) as u32) + (lane / 8) % 2;
    if comptime!(!x.along_depth) {
        row = comptime!((step * 16) as u32) + lane % 16;
        chunk = free / comptime!(CHUNK as u32) + lane / 16;
    }
    let at = (tile + place(row, chunk, x)) * comptime!(x.chunk_vectors());
    let slice = from.slice(at as usize, (at + comptime!(x.chunk_vectors())) as usize);
    def.load_matrix::<Vector<bf16, N>, R>(&slice, MatrixIdent::B, 4usize, comptime!(!x.along_depth))
}
