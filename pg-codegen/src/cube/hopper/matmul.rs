//! Matrix products on matrix units: 128 × 128 results a cube, summed in slices of 32 that arrive
//! asynchronously, three under way while one is multiplied.
//!
//! Each result is summed over k in an order that follows from shapes alone. Where a product has too few
//! tiles for a device, k is split among cubes, whose partial results a second kernel sums in order.

use cubecl::cmma::MmaDefinition;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::barrier::Barrier;
use cubecl::prelude::*;
use half::bf16;
use pg_ir::op::Binary;
use pg_ir::ty::DType;

use super::fragments::four;
use super::tile::{CHUNK, Operand, UNITS, fragment_a, fragments_b, load};
use crate::cube::kernel::{ArgSpec, Body, Generated};
use crate::cube::stage::{ArgInfo, Launches, StageArg};
use crate::cube::target::{CubeError, Target};
use crate::plan::{Matmul, MatrixView};
use crate::region::{Affine, IndexMap, Instr, Region};

/// Results of a cube along each axis.
const TILE: usize = 128;
/// Extent of a slice of k.
const DEPTH: usize = 32;
/// Slices in shared memory.
const STAGES: usize = 4;
/// Warps along the rows of a tile; as many are along its columns.
const WARP_ROWS: usize = 2;
/// Fragments of a warp's results: 16 rows each, and 8 columns each.
const FRAGMENTS: [usize; 2] = [TILE / WARP_ROWS / 16, TILE / (UNITS / 32 / WARP_ROWS) / 8];

/// The description of a matmul kernel for matrix units.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct MmaMatmul {
    a: Operand,
    b: Operand,
    /// Where results go: c, or [split, batch, row, column] of a workspace.
    c: MatrixView,
    /// Elements between the parts of a split in the workspace.
    split_stride: usize,
    /// Elements of a store.
    vector: usize,
    /// Batch, splits, tiles of rows, tiles of columns.
    tiles: [usize; 4],
    /// Slices of k of a cube, a multiple of the stages.
    steps: usize,
    accumulate: bool,
    bf16_out: bool,
    exact: bool,
}

/// Whether a target can run a matmul of these arguments here.
pub(crate) fn fits(infos: &[ArgInfo], target: &Target) -> bool {
    let operands = infos.len() == 3 && infos[..2].iter().all(|i| i.dtype == DType::BF16);
    target.matrix_units && operands && matches!(infos[2].dtype, DType::F32 | DType::BF16)
}

/// Adds the launches of a matmul: one, or two if k is split.
pub(crate) fn lower(
    m: &Matmul,
    infos: &[ArgInfo],
    target: &Target,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let malformed = |what: &str| CubeError::Malformed { kernel: "mma".into(), what: what.into() };
    let [a_info, b_info, c_info] = infos else { return Err(malformed("it takes three arguments")) };
    if m.batch * m.m * m.n * m.k == 0 {
        return Err(malformed("an axis is empty"));
    }
    let a = operand(m, (&m.a, a_info), (m.m, m.a.row), m.a.col);
    let b = operand(m, (&m.b, b_info), (m.n, m.b.col), m.b.row);
    for (x, info) in [(&a, a_info), (&b, b_info)] {
        if x.reach(m.batch) > info.len + info.shift || x.reach(m.batch) > i32::MAX as usize {
            return Err(malformed("an operand reaches beyond its buffer"));
        }
    }
    let (rows, columns) = (m.m.div_ceil(TILE), m.n.div_ceil(TILE));
    let (splits, steps) = split(m.batch * rows * columns, m.k, target);
    let tiles = [m.batch, splits, rows, columns];
    let mut c = m.c;
    c.offset += c_info.shift;
    let mut kernel = MmaMatmul {
        a,
        b,
        c,
        split_stride: 0,
        vector: 1,
        tiles,
        steps,
        accumulate: m.accumulate,
        bf16_out: c_info.dtype == DType::BF16,
        exact: true,
    };
    let mut last = StageArg::Arg(2);
    if splits > 1 {
        let len = m.batch * m.m * m.n;
        if splits * len > i32::MAX as usize {
            return Err(malformed("its parts are more than 2^31 elements"));
        }
        last = StageArg::Workspace(out.workspace(4 * splits * len));
        kernel.c = MatrixView { offset: 0, batch: m.m * m.n, row: m.n, col: 1 };
        kernel.split_stride = len;
        kernel.bf16_out = false;
        kernel.accumulate = false;
    }
    let strides = [kernel.c.offset, kernel.c.batch, kernel.c.row, m.n, kernel.split_stride];
    let is_wide = kernel.c.col == 1 && strides.iter().all(|s| s.is_multiple_of(4));
    kernel.vector = if is_wide { 4 } else { 1 };
    let cubes: usize = tiles.iter().product();
    let grid = target.fold("mma", cubes as u64)?;
    kernel.exact = grid[0] as usize * grid[1] as usize == cubes;
    let spec = |dtype, width, writable| ArgSpec { dtype, width, writable };
    let c_type = if kernel.bf16_out { DType::BF16 } else { DType::F32 };
    let args = vec![
        spec(DType::BF16, kernel.a.vector(), a_info.aliased),
        spec(DType::BF16, kernel.b.vector(), b_info.aliased),
        spec(c_type, kernel.vector, true),
    ];
    // The barriers come first, and the tiles are at multiples of 128 bytes.
    let shared = (8 * STAGES).next_multiple_of(128) + STAGES * DEPTH * 2 * TILE * 2;
    let body = Body::MmaMatmul(kernel);
    let kernel = Generated::new("mma", body, args, (UNITS as u32, shared), target)?;
    out.push(kernel, vec![StageArg::Arg(0), StageArg::Arg(1), last], grid, 1.0);
    if let StageArg::Workspace(workspace) = last {
        let region = sum_of_parts(m, splits, c_info.dtype);
        let parts = ArgInfo::whole(DType::F32, splits * m.batch * m.m * m.n);
        let mut infos = vec![parts, *c_info];
        let mut names = vec![StageArg::Workspace(workspace), StageArg::Arg(2)];
        if m.accumulate {
            infos.push(ArgInfo { aliased: true, ..*c_info });
            names.push(StageArg::Arg(2));
        }
        let mut inner = Launches::default();
        crate::cube::region::lower(&region, &infos, target, true, &mut inner)?;
        out.append(inner, &names);
    }
    Ok(())
}

/// How k is cut: the number of parts, and slices of each. Weight gradients have 8 to 48 tiles and a k of
/// tens of thousands; without a split most of a device would idle.
fn split(tiles: usize, k: usize, target: &Target) -> (usize, usize) {
    let slices = k.div_ceil(DEPTH).next_multiple_of(STAGES);
    // Two cubes fit a multiprocessor; a part shorter than 16 slices is not worth its second pass.
    let wanted = (2 * target.multiprocessors as usize / tiles).min(slices / 16).max(1);
    let steps = slices.div_ceil(wanted).next_multiple_of(STAGES);
    (slices.div_ceil(steps), steps)
}

fn operand(
    m: &Matmul,
    (view, info): (&MatrixView, &ArgInfo),
    (free, free_stride): (usize, usize),
    depth_stride: usize,
) -> Operand {
    let offset = view.offset + info.shift;
    let fits = |len: usize, contiguous: usize, other: usize| {
        contiguous == 1 && [len, other, offset, view.batch].iter().all(|n| n.is_multiple_of(CHUNK))
    };
    let along_depth = fits(m.k, depth_stride, free_stride);
    let aligned = along_depth || fits(free, free_stride, depth_stride);
    let along_depth = along_depth || (!aligned && depth_stride <= free_stride);
    let (batch, depth) = (view.batch, m.k);
    Operand {
        offset,
        batch,
        free,
        free_stride,
        depth,
        depth_stride,
        tile: TILE,
        deep: DEPTH,
        along_depth,
        aligned,
    }
}

/// c = Σ over parts [part, batch, row, column] of a workspace, in order, after c's old value if it is kept.
fn sum_of_parts(m: &Matmul, parts: usize, dtype: DType) -> Region {
    let at = |strides: [usize; 3], offset: usize| Affine {
        offset: offset as i64,
        strides: strides.iter().map(|&s| s as i64).collect(),
    };
    let c = at([m.c.batch, m.c.row, m.c.col], m.c.offset);
    let load = |arg, at| Instr::Load { arg, map: IndexMap { at, guards: vec![] } };
    let mut body = Vec::new();
    let mut args = vec![DType::F32, dtype];
    if m.accumulate {
        body.push(load(2, c.clone()));
        args.push(dtype);
    }
    for part in 0..parts {
        body.push(load(0, at([m.m * m.n, m.n, 1], part * m.batch * m.m * m.n)));
        let value = body.len() as u32 - 1;
        if value > 0 {
            // The sum so far is the last addition, or the first operand.
            let sum = if value == 1 { 0 } else { value - 1 };
            body.push(Instr::Binary(Binary::Add, sum, value));
        }
    }
    let sum = body.len() as u32 - 1;
    body.push(Instr::Store { arg: 1, value: sum, at: c });
    Region { rows: vec![m.batch, m.m], reduced: 0, lanes: m.n, body, args }
}

/// A warp's sums over the slices of its cube.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a kernel's parts")]
fn multiply<A: Size, B: Size, O: Numeric, V: Size, R: Size, C: Size>(
    a: &Array<Vector<bf16, A>>,
    b: &Array<Vector<bf16, B>>,
    c: &mut Array<Vector<O, V>>,
    cube: u32,
    #[comptime] p: MmaMatmul,
) {
    let def = MmaDefinition::<bf16, bf16, f32>::new(16usize, 8usize, 16usize);
    let mut tile_a =
        SharedMemory::<Vector<bf16, A>>::new_aligned(comptime!(p.a.shared_vectors(STAGES)), 128usize);
    let mut tile_b =
        SharedMemory::<Vector<bf16, B>>::new_aligned(comptime!(p.b.shared_vectors(STAGES)), 128usize);
    let mut arrived = Sequence::<Shared<Barrier>>::new();
    #[unroll]
    for _stage in 0..comptime!(STAGES) {
        arrived.push(Barrier::shared(CUBE_DIM, UNIT_POS == 0));
    }
    // Cubes side by side share rows of the left operand.
    let column_tile = cube % comptime!(p.tiles[3] as u32);
    let rest = cube / comptime!(p.tiles[3] as u32);
    let row_tile = rest % comptime!(p.tiles[2] as u32);
    let rest = rest / comptime!(p.tiles[2] as u32);
    let part = rest % comptime!(p.tiles[1] as u32);
    let batch = rest / comptime!(p.tiles[1] as u32);
    let first_row = row_tile * comptime!(TILE as u32);
    let first_column = column_tile * comptime!(TILE as u32);
    let start = part * comptime!((p.steps * DEPTH) as u32);
    let end = u32::min(start + comptime!((p.steps * DEPTH) as u32), comptime!(p.a.depth as u32));
    let base_a = batch * comptime!(p.a.batch as u32) + comptime!(p.a.offset as u32);
    let base_b = batch * comptime!(p.b.batch as u32) + comptime!(p.b.offset as u32);
    let warp = UNIT_POS / 32;
    let warp_row = warp % comptime!(WARP_ROWS as u32) * comptime!((TILE / WARP_ROWS) as u32);
    let warp_column = warp / comptime!(WARP_ROWS as u32) * comptime!((FRAGMENTS[1] * 8) as u32);
    let mut sums = Sequence::<Array<Vector<f32, C>>>::new();
    #[unroll]
    for _i in 0..comptime!(FRAGMENTS[0] * FRAGMENTS[1]) {
        let mut sum = Array::<Vector<f32, C>>::new(2usize);
        sum[0] = Vector::new(0.0f32);
        sum[1] = Vector::new(0.0f32);
        sums.push(sum);
    }
    #[unroll]
    for stage in 0..comptime!(STAGES - 1) {
        let depth = start + comptime!((stage * DEPTH) as u32);
        let at_a = comptime!((stage * p.a.chunks()) as u32);
        let at_b = comptime!((stage * p.b.chunks()) as u32);
        load::<A>(a, &mut tile_a, base_a, first_row, depth, end, at_a, comptime!(p.a));
        load::<B>(b, &mut tile_b, base_b, first_column, depth, end, at_b, comptime!(p.b));
        arrived.index(stage).commit_copy_async();
        arrived.index(stage).arrive();
    }
    for turn in 0..comptime!((p.steps / STAGES) as u32) {
        #[unroll]
        for stage in 0..comptime!(STAGES) {
            let step = turn * comptime!(STAGES as u32) + comptime!(stage as u32);
            arrived.index(stage).wait_parity(turn % 2);
            // Whoever still reads the stage that is filled next must have finished.
            sync_cube();
            let next = step + comptime!((STAGES - 1) as u32);
            if next < comptime!(p.steps as u32) {
                let into = comptime!((stage + STAGES - 1) % STAGES);
                let depth = start + next * comptime!(DEPTH as u32);
                let at_a = comptime!((into * p.a.chunks()) as u32);
                let at_b = comptime!((into * p.b.chunks()) as u32);
                load::<A>(a, &mut tile_a, base_a, first_row, depth, end, at_a, comptime!(p.a));
                load::<B>(b, &mut tile_b, base_b, first_column, depth, end, at_b, comptime!(p.b));
                arrived.index(into).commit_copy_async();
                arrived.index(into).arrive();
            }
            let tile_at_a = comptime!((stage * p.a.chunks()) as u32);
            let tile_at_b = comptime!((stage * p.b.chunks()) as u32);
            #[unroll]
            for half in 0..comptime!(DEPTH / 16) {
                let mut left = Sequence::<Array<Vector<bf16, R>>>::new();
                #[unroll]
                for i in 0..comptime!(FRAGMENTS[0]) {
                    let row = warp_row + comptime!((i * 16) as u32);
                    left.push(fragment_a::<A, R>(&def, &tile_a, row, tile_at_a, half, comptime!(p.a)));
                }
                #[unroll]
                for pair in 0..comptime!(FRAGMENTS[1] / 2) {
                    let column = warp_column + comptime!((pair * 16) as u32);
                    let both = fragments_b::<B, R>(&def, &tile_b, column, tile_at_b, half, comptime!(p.b));
                    #[unroll]
                    for j in 0..2usize {
                        let mut right = Array::<Vector<bf16, R>>::new(2usize);
                        right[0] = both[comptime!(2 * j)];
                        right[1] = both[comptime!(2 * j + 1)];
                        #[unroll]
                        for i in 0..comptime!(FRAGMENTS[0]) {
                            let at = comptime!(i * FRAGMENTS[1] + 2 * pair + j);
                            def.execute_inplace(left.index(i), &right, sums.index_mut(at));
                        }
                    }
                }
            }
        }
    }
    let origin = batch * comptime!(p.c.batch as u32)
        + part * comptime!(p.split_stride as u32)
        + comptime!(p.c.offset as u32);
    store::<O, V, C>(c, &sums, origin, first_row + warp_row, first_column + warp_column, p);
}

/// Writes a warp's results.
#[cube]
fn store<O: Numeric, V: Size, C: Size>(
    c: &mut Array<Vector<O, V>>,
    sums: &Sequence<Array<Vector<f32, C>>>,
    origin: u32,
    first_row: u32,
    first_column: u32,
    #[comptime] p: MmaMatmul,
) {
    let lane = UNIT_POS % 32;
    #[unroll]
    for i in 0..comptime!(FRAGMENTS[0]) {
        #[unroll]
        for half in 0..2usize {
            let row = first_row + comptime!((i * 16 + half * 8) as u32) + lane / 4;
            #[unroll]
            for pair in 0..comptime!(FRAGMENTS[1] / 2) {
                let at = comptime!(i * FRAGMENTS[1] + 2 * pair);
                let left = sums.index(at)[half];
                let right = sums.index(comptime!(at + 1))[half];
                let column = first_column + comptime!((pair * 16) as u32);
                if comptime!(p.vector == 4) {
                    let value = four::<V, C>(left, right);
                    let column = column + lane % 2 * 8 + lane % 4 / 2 * 4;
                    put::<O, V>(c, value, origin, row, column, p);
                } else {
                    let column = column + lane % 4 * 2;
                    #[unroll]
                    for e in 0..2usize {
                        let e_column = column + comptime!(e as u32);
                        put::<O, V>(c, Vector::new(left[e]), origin, row, e_column, p);
                        put::<O, V>(c, Vector::new(right[e]), origin, row, e_column + 8, p);
                    }
                }
            }
        }
    }
}

#[cube]
fn put<O: Numeric, V: Size>(
    c: &mut Array<Vector<O, V>>,
    value: Vector<f32, V>,
    origin: u32,
    row: u32,
    column: u32,
    #[comptime] p: MmaMatmul,
) {
    if row < comptime!(p.a.free as u32) && column < comptime!(p.b.free as u32) {
        let at = origin + row * comptime!(p.c.row as u32) + column * comptime!(p.c.col as u32);
        let at = (at / comptime!(p.vector as u32)) as usize;
        if comptime!(p.accumulate) {
            c[at] = Vector::cast_from(Vector::<f32, V>::cast_from(c[at]) + value);
        } else {
            c[at] = Vector::cast_from(value);
        }
    }
}

define_size!(WidthA);
define_size!(WidthB);
define_size!(WidthC);

#[cube]
fn kernel<O: Numeric>(
    a: &Array<Vector<bf16, WidthA>>,
    b: &Array<Vector<bf16, WidthB>>,
    c: &mut Array<Vector<O, WidthC>>,
    #[comptime] p: MmaMatmul,
) {
    let cube = CUBE_POS as u32;
    if comptime!(p.exact) {
        multiply::<WidthA, WidthB, O, WidthC, Const<2>, Const<2>>(a, b, c, cube, p);
    } else if cube < comptime!(p.tiles.iter().product::<usize>() as u32) {
        multiply::<WidthA, WidthB, O, WidthC, Const<2>, Const<2>>(a, b, c, cube, p);
    }
}

impl MmaMatmul {
    /// What it computes, as text.
    pub(crate) fn describe(&self) -> String {
        let [batch, parts, rows, columns] = self.tiles;
        let walk = |x: &Operand| match (x.along_depth, x.aligned) {
            (true, true) => "along k, in chunks",
            (false, true) => "across k, in chunks",
            (_, false) => "by elements",
        };
        format!(
            "c[{}, {}] {} Σ_{} a · b, bfloat16 on matrix units, {batch} times\n\
             tiles {rows} × {columns} of {TILE} × {TILE}, {parts} parts of k of {} slices of {DEPTH}, {STAGES} stages\n\
             a {}, b {}\n",
            self.a.free,
            self.b.free,
            if self.accumulate { "+=" } else { "=" },
            self.a.depth,
            self.steps,
            walk(&self.a),
            walk(&self.b)
        )
    }

    /// Emits the kernel.
    pub(crate) fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable]) {
        scope.register_size::<WidthA>(self.a.vector());
        scope.register_size::<WidthB>(self.b.vector());
        scope.register_size::<WidthC>(self.vector);
        let [a, b, c] = [0, 1, 2].map(|i| buffers[i].clone());
        if self.bf16_out {
            kernel::expand::<bf16>(scope, a.into(), b.into(), c.into(), *self);
        } else {
            kernel::expand::<f32>(scope, a.into(), b.into(), c.into(), *self);
        }
    }
}
