//! Matrix products in float32: tiles of both operands in shared memory, a square of results per thread.
//!
//! Each result is summed over k from first to last by one thread, so its bits do not depend on the grid.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use pg_ir::ty::DType;

use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated, has_work};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;
use crate::plan::Matmul;

/// Threads along each side of a tile of results.
const SIDE: usize = 16;

/// How one operand is read. "Free" is the axis that is not summed over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Operand {
    offset: usize,
    batch: usize,
    free: usize,
    free_stride: usize,
    depth: usize,
    depth_stride: usize,
    /// Elements of a tile along the free axis.
    tile: usize,
    /// Elements of a load, and whether they lie along the summed axis.
    vector: usize,
    along_depth: bool,
}

/// The description of a matmul kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MatmulKernel {
    a: Operand,
    b: Operand,
    c: crate::plan::MatrixView,
    tiles: [usize; 3],
    /// Terms of the sums in shared memory at once.
    deep: usize,
    accumulate: bool,
    exact: bool,
}

/// Adds the launch of a matmul.
pub(crate) fn lower(
    m: &Matmul,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let malformed = |what: &str| CubeError::Malformed { kernel: "matmul".into(), what: what.into() };
    let [a_info, b_info, c_info] = infos else {
        return Err(malformed("it takes three arguments"));
    };
    if infos.iter().any(|i| i.dtype != DType::F32) {
        let what = "the portable variant multiplies float32 only".into();
        return Err(CubeError::Unsupported { kernel: "matmul".into(), what });
    }
    if m.batch * m.m * m.n * m.k == 0 {
        return Err(malformed("an axis is empty"));
    }
    let tile = |n: usize| n.next_power_of_two().clamp(SIDE, machine.tuning.matmul_tile);
    let a = Operand::new(m, m.a.offset + a_info.shift, m.a.batch, (m.m, m.a.row), m.a.col, tile(m.m));
    let b = Operand::new(m, m.b.offset + b_info.shift, m.b.batch, (m.n, m.b.col), m.b.row, tile(m.n));
    for (view, info) in [(a.reach(m.batch), a_info), (b.reach(m.batch), b_info)] {
        if view > info.len + info.shift || view > i32::MAX as usize {
            return Err(malformed("an operand reaches beyond its buffer"));
        }
    }
    let mut c = m.c;
    c.offset += c_info.shift;
    let tiles = [m.batch, m.m.div_ceil(a.tile), m.n.div_ceil(b.tile)];
    let thread_blocks: usize = tiles.iter().product();
    let (grid, exact) = machine.grid("matmul", thread_blocks as u64)?;
    let deep = machine.tuning.matmul_depth;
    let body = MatmulKernel { a, b, c, tiles, deep, accumulate: m.accumulate, exact };
    let shared = 4 * deep * (a.tile + 1 + b.tile + 1);
    let spec = |width: usize, info: &ArgInfo, written: bool| ArgSpec {
        dtype: DType::F32,
        width,
        writable: written || info.aliased,
    };
    let args = vec![spec(a.vector, a_info, false), spec(b.vector, b_info, false), spec(1, c_info, true)];
    let kernel = Generated::new(body, args, ((SIDE * SIDE) as u32, shared), machine)?;
    out.push(kernel, (0..3).map(StageArg::Arg).collect(), grid, 1.0);
    Ok(())
}

impl Operand {
    fn new(
        m: &Matmul,
        offset: usize,
        batch: usize,
        (free, free_stride): (usize, usize),
        depth_stride: usize,
        tile: usize,
    ) -> Operand {
        // Loads are vectors along whichever axis is contiguous, if every row of them is aligned.
        let fits = |len: usize, contiguous: usize, other: usize| {
            contiguous == 1 && [len, other, offset, batch].iter().all(|n| n.is_multiple_of(4))
        };
        let along_depth = fits(m.k, depth_stride, free_stride);
        let vector = if along_depth || fits(free, free_stride, depth_stride) { 4 } else { 1 };
        let along_depth = along_depth || (vector == 1 && depth_stride <= free_stride);
        Operand { offset, batch, free, free_stride, depth: m.k, depth_stride, tile, vector, along_depth }
    }

    /// One past the last element that is read.
    fn reach(&self, batches: usize) -> usize {
        let last = (batches - 1) * self.batch + (self.free - 1) * self.free_stride;
        self.offset + last + (self.depth - 1) * self.depth_stride + 1
    }
}

/// Loads a tile [depth, free] of an operand into shared memory; zeros outside the operand.
#[cube]
fn load_tile<N: Size>(
    from: &Array<Vector<f32, N>>,
    to: &mut SharedMemory<f32>,
    batch: u32,
    first: u32,
    depth: u32,
    #[comptime] deep: usize,
    #[comptime] x: Operand,
) {
    let base = batch * comptime!(x.batch as u32) + comptime!(x.offset as u32);
    let loads = comptime!((x.tile * deep / x.vector) as u32);
    let across = comptime!((if x.along_depth { deep } else { x.tile } / x.vector) as u32);
    let iterations = comptime!(loads.div_ceil((SIDE * SIDE) as u32));
    #[unroll]
    for iteration in 0..iterations {
        let load = UNIT_POS + iteration * comptime!((SIDE * SIDE) as u32);
        if comptime!(loads % (SIDE * SIDE) as u32 == 0) || load < loads {
            let inner = (load % across) * comptime!(x.vector as u32);
            let outer = load / across;
            let d = if comptime!(x.along_depth) { inner } else { outer };
            let f = if comptime!(x.along_depth) { outer } else { inner };
            let mut value = Vector::<f32, N>::new(0.0f32);
            if first + f < comptime!(x.free as u32) && depth + d < comptime!(x.depth as u32) {
                let at = base
                    + (first + f) * comptime!(x.free_stride as u32)
                    + (depth + d) * comptime!(x.depth_stride as u32);
                value = from[(at / comptime!(x.vector as u32)) as usize];
            }
            let stride = comptime!((x.tile + 1) as u32);
            let step = if comptime!(x.along_depth) { stride } else { 1u32.into() };
            let start = d * stride + f;
            #[unroll]
            for i in 0..comptime!(x.vector) {
                to[(start + step * comptime!(i as u32)) as usize] = value[i];
            }
        }
    }
}

/// One tile of c.
#[cube]
fn multiply<A: Size, B: Size>(
    a: &Array<Vector<f32, A>>,
    b: &Array<Vector<f32, B>>,
    c: &mut Array<f32>,
    block_index: u32,
    #[comptime] p: MatmulKernel,
) {
    let rows = comptime!(p.a.tile / SIDE);
    let cols = comptime!(p.b.tile / SIDE);
    let mut tile_a = SharedMemory::<f32>::new(comptime!(p.deep * (p.a.tile + 1)));
    let mut tile_b = SharedMemory::<f32>::new(comptime!(p.deep * (p.b.tile + 1)));
    let n_tile = block_index % comptime!(p.tiles[2] as u32);
    let rest = block_index / comptime!(p.tiles[2] as u32);
    let m_tile = rest % comptime!(p.tiles[1] as u32);
    let batch = rest / comptime!(p.tiles[1] as u32);
    let first_row = m_tile * comptime!(p.a.tile as u32);
    let first_col = n_tile * comptime!(p.b.tile as u32);
    // Thread (y, x) computes rows y, y + 16, … and columns x, x + 16, … of the tile.
    let x = UNIT_POS % comptime!(SIDE as u32);
    let y = UNIT_POS / comptime!(SIDE as u32);
    let mut acc = Array::<f32>::new(comptime!(rows * cols));
    #[unroll]
    for i in 0..comptime!(rows * cols) {
        acc[i] = 0.0f32;
    }
    for step in 0..comptime!(p.a.depth.div_ceil(p.deep) as u32) {
        let depth = step * comptime!(p.deep as u32);
        load_tile::<A>(a, &mut tile_a, batch, first_row, depth, comptime!(p.deep), comptime!(p.a));
        load_tile::<B>(b, &mut tile_b, batch, first_col, depth, comptime!(p.deep), comptime!(p.b));
        sync_cube();
        for k in 0..comptime!(p.deep as u32) {
            let at_a = k * comptime!((p.a.tile + 1) as u32) + y;
            let at_b = k * comptime!((p.b.tile + 1) as u32) + x;
            let mut col = Array::<f32>::new(cols);
            #[unroll]
            for j in 0..cols {
                col[j] = tile_b[(at_b + comptime!((j * SIDE) as u32)) as usize];
            }
            #[unroll]
            for i in 0..rows {
                let row = tile_a[(at_a + comptime!((i * SIDE) as u32)) as usize];
                #[unroll]
                for j in 0..cols {
                    acc[comptime!(i * cols + j)] += row * col[j];
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..rows {
        let row = first_row + y + comptime!((i * SIDE) as u32);
        #[unroll]
        for j in 0..cols {
            let col = first_col + x + comptime!((j * SIDE) as u32);
            if row < comptime!(p.a.free as u32) && col < comptime!(p.b.free as u32) {
                let at = batch * comptime!(p.c.batch as u32)
                    + row * comptime!(p.c.row as u32)
                    + col * comptime!(p.c.col as u32)
                    + comptime!(p.c.offset as u32);
                let sum = acc[comptime!(i * cols + j)];
                if comptime!(p.accumulate) {
                    c[at as usize] = c[at as usize] + sum;
                } else {
                    c[at as usize] = sum;
                }
            }
        }
    }
}

#[cube]
fn kernel<A: Size, B: Size>(
    a: &Array<Vector<f32, A>>,
    b: &Array<Vector<f32, B>>,
    c: &mut Array<f32>,
    #[comptime] p: MatmulKernel,
) {
    let block_index = CUBE_POS as u32;
    if has_work(block_index, comptime!(p.tiles.iter().product::<usize>()), comptime!(p.exact)) {
        multiply::<A, B>(a, b, c, block_index, p);
    }
}

define_size!(WidthA);
define_size!(WidthB);

impl Body for MatmulKernel {
    fn family(&self) -> &'static str {
        "matmul"
    }

    fn describe(&self) -> String {
        let [batch, ..] = self.tiles;
        let operand = |x: &Operand, i: char| {
            let along = if x.along_depth { "k" } else { "its rows" };
            format!(
                "{} + {}·{i} + {}·k, loaded by {} along {along}",
                x.offset, x.free_stride, x.depth_stride, x.vector
            )
        };
        format!(
            "c[i, j] {}= Σ_k a[i, k] · b[k, j] for {batch} × {} × {} results, k from 0 to {} in order\n\
             a at {}\nb at {}\nc at {} + {}·i + {}·j\n\
             a thread block owns {} × {} results and takes {} of k at a time through shared memory",
            if self.accumulate { "+" } else { "" },
            self.a.free,
            self.b.free,
            self.a.depth,
            operand(&self.a, 'i'),
            operand(&self.b, 'j'),
            self.c.offset,
            self.c.row,
            self.c.col,
            self.a.tile,
            self.b.tile,
            self.deep,
        )
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        scope.register_size::<WidthA>(self.a.vector);
        scope.register_size::<WidthB>(self.b.vector);
        let [a, b, c] = [0, 1, 2].map(|i| buffers[i].clone());
        kernel::expand::<WidthA, WidthB>(scope, a.into(), b.into(), c.into(), self.clone());
    }
}
