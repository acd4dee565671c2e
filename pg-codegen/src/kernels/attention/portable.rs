//! Causal attention in float32, flash style: a thread block owns a block of queries of one head and walks the
//! blocks of keys up to the diagonal, keeping a running maximum and sum per query.
//!
//! The threads of a thread block form a rectangle: one row of threads per query of the block. Each thread computes a
//! few of its query's scores, and a few elements of its result.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use pg_ir::ty::DType;

use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;
use crate::plan::AttentionShape;

pub(crate) const UNITS: usize = 256;

/// Stands for −∞ in a running maximum: its exponential is 0 beside any score.
pub(crate) const LOWEST: f32 = -1e30;

/// How attention is cut into blocks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Tiling {
    pub(crate) shape: AttentionShape,
    /// Queries, and keys, of a block.
    pub(crate) block: usize,
    /// Blocks of a sequence.
    pub(crate) blocks: usize,
    /// Threads of a query.
    pub(crate) columns: usize,
    /// Scores that a thread computes.
    pub(crate) scores: usize,
    /// Elements of a result that a thread computes.
    pub(crate) elements: usize,
    /// Elements from one row of a tile to the next.
    pub(crate) stride: usize,
    /// Elements of a load.
    pub(crate) vector: usize,
    /// Thread blocks that have work, and whether the grid has no more.
    pub(crate) cubes: usize,
    pub(crate) exact: bool,
}

impl Tiling {
    /// The largest blocks that fit shared memory with `tiles` tiles of [block, dim] and `squares` of
    /// [block, block].
    pub(crate) fn new(
        shape: AttentionShape,
        heads: usize,
        (tiles, squares): (usize, usize),
        aligned: bool,
        machine: &Machine,
    ) -> (Tiling, usize) {
        let size = |block: usize| {
            let elements = shape.dim.div_ceil(UNITS / block);
            let stride = elements * (UNITS / block) + 1;
            4 * (tiles * block * stride + squares * block * (block + 1))
        };
        let longest = shape.time.next_power_of_two().clamp(4, machine.tuning.attention_block);
        let fits = |b: &usize| *b <= longest && size(*b) <= machine.limits.shared_bytes;
        let block = [32, 16, 8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let columns = UNITS / block;
        let elements = shape.dim.div_ceil(columns);
        let blocks = shape.time.div_ceil(block);
        let tiling = Tiling {
            shape,
            block,
            blocks,
            columns,
            scores: block.div_ceil(columns),
            elements,
            stride: elements * columns + 1,
            vector: if aligned && shape.dim.is_multiple_of(4) { 4 } else { 1 },
            cubes: shape.batch * heads * blocks,
            exact: true,
        };
        (tiling, size(block))
    }
}

impl Tiling {
    /// The shape and the blocks, as text.
    pub(crate) fn describe(&self) -> String {
        let s = &self.shape;
        format!(
            "{} × {} positions, {} query heads on {} of width {}, scores times {}\n\
             a thread block owns {} rows of a head and walks {} at a time through shared memory, loaded by {}",
            s.batch, s.time, s.heads, s.kv_heads, s.dim, s.scale, self.block, self.block, self.vector
        )
    }
}

/// The description of the forward kernel. Shifts are of q, k, v, o and lse.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Forward {
    tiling: Tiling,
    shifts: [usize; 5],
}

/// Checks an attention's shape and arguments: q, k, v, o and lse, and for the gradient more; all float32.
pub(crate) fn check(s: &AttentionShape, infos: &[ArgInfo], names: &str) -> Result<(), CubeError> {
    if let Some(other) = infos.iter().find(|i| i.dtype != DType::F32) {
        let what = format!("the portable variant computes in float32, not {}", other.dtype);
        return Err(CubeError::Unsupported { kernel: "attention".into(), what });
    }
    check_sizes(s, infos, names)
}

/// Checks shape and lengths only.
pub(crate) fn check_sizes(s: &AttentionShape, infos: &[ArgInfo], names: &str) -> Result<(), CubeError> {
    let malformed = |what: String| Err(CubeError::Malformed { kernel: "attention".into(), what });
    if s.batch * s.time * s.heads * s.kv_heads * s.dim == 0 || !s.heads.is_multiple_of(s.kv_heads) {
        return malformed(format!("a shape of {s:?}"));
    }
    let (rows, kv) = (s.batch * s.time * s.heads, s.batch * s.time * s.kv_heads * s.dim);
    let wanted: Vec<usize> = (names.split(' '))
        .map(|name| match name {
            "lse" => rows,
            "k" | "v" | "dk" | "dv" => kv,
            _ => rows * s.dim,
        })
        .collect();
    if infos.len() != wanted.len() {
        return malformed(format!("{} arguments, not {names}", infos.len()));
    }
    for ((info, name), len) in infos.iter().zip(names.split(' ')).zip(wanted) {
        if info.len < len || len + info.shift > i32::MAX as usize {
            return malformed(format!("{name} of {} {} elements", info.len, info.dtype));
        }
    }
    Ok(())
}

/// Adds the launch of attention.
pub(crate) fn lower(
    shape: &AttentionShape,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    check(shape, infos, "q k v o lse")?;
    let aligned = infos[..3].iter().all(|i| i.shift.is_multiple_of(4));
    let (mut tiling, shared) = Tiling::new(*shape, shape.heads, (3, 1), aligned, machine);
    let grid = machine.fold("attention", tiling.cubes as u64)?;
    tiling.exact = grid[0] as usize * grid[1] as usize == tiling.cubes;
    let shifts = [0, 1, 2, 3, 4].map(|i| infos[i].shift);
    let args = specs(infos, tiling.vector, 3, 3);
    let body = Forward { tiling, shifts };
    let kernel = Generated::new(body, args, (UNITS as u32, shared), machine)?;
    out.push(kernel, (0..5).map(StageArg::Arg).collect(), grid, 1.0);
    Ok(())
}

/// Buffers of which the first `wide` are read as vectors, and those from `written` on are written.
pub(crate) fn specs(infos: &[ArgInfo], vector: usize, wide: usize, written: usize) -> Vec<ArgSpec> {
    let spec = |(i, info): (usize, &ArgInfo)| ArgSpec {
        dtype: DType::F32,
        width: if i < wide { vector } else { 1 },
        writable: i >= written || info.aliased,
    };
    infos.iter().enumerate().map(spec).collect()
}

/// Loads rows `first ..` of one head of a [batch, time, heads, dim] tensor into a tile; zeros beyond the
/// end of the sequence and of the head.
#[cube]
pub(crate) fn load_rows<N: Size>(
    from: &Array<Vector<f32, N>>,
    tile: &mut SharedMemory<f32>,
    batch: u32,
    head: u32,
    first: u32,
    #[comptime] heads: usize,
    #[comptime] shift: usize,
    #[comptime] t: Tiling,
) {
    let pieces = comptime!(((t.stride - 1).div_ceil(t.vector)) as u32);
    let real = comptime!((t.shape.dim / t.vector) as u32);
    let loads = comptime!((t.block * (t.stride - 1).div_ceil(t.vector)) as u32);
    let time = comptime!(t.shape.time as u32);
    for iteration in 0..comptime!(loads.div_ceil(UNITS as u32)) {
        let load = iteration * comptime!(UNITS as u32) + UNIT_POS;
        if load < loads {
            let row = load / pieces;
            let piece = load % pieces;
            let mut value = Vector::<f32, N>::new(0.0f32);
            if first + row < time && piece < real {
                let at = ((batch * time + first + row) * comptime!(heads as u32) + head) * real + piece;
                value = from[(at + comptime!((shift / t.vector) as u32)) as usize];
            }
            let to = row * comptime!(t.stride as u32) + piece * comptime!(t.vector as u32);
            #[unroll]
            for i in 0..comptime!(t.vector) {
                if comptime!((t.stride - 1).is_multiple_of(t.vector))
                    || piece * comptime!(t.vector as u32) + comptime!(i as u32)
                        < comptime!((t.stride - 1) as u32)
                {
                    tile[(to + comptime!(i as u32)) as usize] = value[i];
                }
            }
        }
    }
}

/// The product of two rows of tiles.
#[cube]
pub(crate) fn dot(
    a: &SharedMemory<f32>,
    row_a: u32,
    b: &SharedMemory<f32>,
    row_b: u32,
    #[comptime] t: Tiling,
) -> f32 {
    let start_a = row_a * comptime!(t.stride as u32);
    let start_b = row_b * comptime!(t.stride as u32);
    let mut sum = 0.0f32;
    for d in 0..comptime!(t.shape.dim as u32) {
        sum += a[(start_a + d) as usize] * b[(start_b + d) as usize];
    }
    sum
}

/// Adds `weight` times this thread's elements of a tile's row.
#[cube]
pub(crate) fn add_row(
    sums: &mut Array<f32>,
    weight: f32,
    tile: &SharedMemory<f32>,
    row: u32,
    column: u32,
    #[comptime] t: Tiling,
) {
    let start = row * comptime!(t.stride as u32) + column;
    #[unroll]
    for i in 0..comptime!(t.elements) {
        sums[i] += weight * tile[(start + comptime!((i * t.columns) as u32)) as usize];
    }
}

#[cube]
fn attend<N: Size>(
    q: &Array<Vector<f32, N>>,
    k: &Array<Vector<f32, N>>,
    v: &Array<Vector<f32, N>>,
    o: &mut Array<f32>,
    lse: &mut Array<f32>,
    cube: u32,
    #[comptime] p: Forward,
) {
    let t = comptime!(p.tiling);
    let heads = comptime!(t.shape.heads);
    let group = comptime!((t.shape.heads / t.shape.kv_heads) as u32);
    let block = comptime!(t.block as u32);
    let time = comptime!(t.shape.time as u32);
    let width = comptime!((t.block + 1) as u32);
    let mut tile_q = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
    let mut tile_k = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
    let mut tile_v = SharedMemory::<f32>::new(comptime!(t.block * t.stride));
    let mut scores = SharedMemory::<f32>::new(comptime!(t.block * (t.block + 1)));
    let blocks = comptime!(t.blocks as u32);
    // The last queries have the most keys: they go first.
    let query_block = comptime!((t.blocks - 1) as u32) - cube % blocks;
    let head = (cube / blocks) % comptime!(heads as u32);
    let batch = cube / blocks / comptime!(heads as u32);
    let row = UNIT_POS / comptime!(t.columns as u32);
    let column = UNIT_POS % comptime!(t.columns as u32);
    let first = query_block * block;
    load_rows::<N>(q, &mut tile_q, batch, head, first, heads, comptime!(p.shifts[0]), t);

    let mut most = LOWEST.runtime();
    let mut total = 0.0f32;
    let mut result = Array::<f32>::new(comptime!(t.elements));
    #[unroll]
    for i in 0..comptime!(t.elements) {
        result[i] = 0.0f32;
    }
    for key_block in 0..query_block + 1 {
        let first_key = key_block * block;
        sync_cube();
        load_rows::<N>(
            k,
            &mut tile_k,
            batch,
            head / group,
            first_key,
            comptime!(t.shape.kv_heads),
            comptime!(p.shifts[1]),
            t,
        );
        load_rows::<N>(
            v,
            &mut tile_v,
            batch,
            head / group,
            first_key,
            comptime!(t.shape.kv_heads),
            comptime!(p.shifts[2]),
            t,
        );
        sync_cube();
        let mut mine = Array::<f32>::new(comptime!(t.scores));
        #[unroll]
        for i in 0..comptime!(t.scores) {
            let key = column + comptime!((i * t.columns) as u32);
            mine[i] = LOWEST.runtime();
            if key < block {
                if first_key + key <= first + row {
                    mine[i] = dot(&tile_q, row, &tile_k, key, t) * comptime!(t.shape.scale);
                }
                scores[(row * width + key) as usize] = mine[i];
            }
        }
        sync_cube();
        let before = most;
        for key in 0..block {
            most = max(most, scores[(row * width + key) as usize]);
        }
        let fade = f32::exp(before - most);
        sync_cube();
        #[unroll]
        for i in 0..comptime!(t.scores) {
            let key = column + comptime!((i * t.columns) as u32);
            if key < block {
                scores[(row * width + key) as usize] = f32::exp(mine[i] - most);
            }
        }
        sync_cube();
        total *= fade;
        #[unroll]
        for i in 0..comptime!(t.elements) {
            result[i] = result[i] * fade;
        }
        for key in 0..block {
            let weight = scores[(row * width + key) as usize];
            total += weight;
            add_row(&mut result, weight, &tile_v, key, column, t);
        }
    }
    if first + row < time {
        let at = (batch * time + first + row) * comptime!(heads as u32) + head;
        if column == 0 {
            lse[(at + comptime!(p.shifts[4] as u32)) as usize] = most + f32::ln(total);
        }
        write_row(o, &result, 1.0f32 / total, at, column, comptime!(p.shifts[3]), t);
    }
}

/// Writes this thread's elements of a row, times a factor.
#[cube]
pub(crate) fn write_row(
    to: &mut Array<f32>,
    sums: &Array<f32>,
    factor: f32,
    row: u32,
    column: u32,
    #[comptime] shift: usize,
    #[comptime] t: Tiling,
) {
    let start = row * comptime!(t.shape.dim as u32) + column + comptime!(shift as u32);
    #[unroll]
    for i in 0..comptime!(t.elements) {
        let d = comptime!((i * t.columns) as u32);
        if comptime!(t.stride - 1 == t.shape.dim) || column + d < comptime!(t.shape.dim as u32) {
            to[(start + d) as usize] = sums[i] * factor;
        }
    }
}

#[cube]
fn kernel<N: Size>(
    q: &Array<Vector<f32, N>>,
    k: &Array<Vector<f32, N>>,
    v: &Array<Vector<f32, N>>,
    o: &mut Array<f32>,
    lse: &mut Array<f32>,
    #[comptime] p: Forward,
) {
    let cube = CUBE_POS as u32;
    if comptime!(p.tiling.exact) {
        attend::<N>(q, k, v, o, lse, cube, p);
    } else if cube < comptime!(p.tiling.cubes as u32) {
        attend::<N>(q, k, v, o, lse, cube, p);
    }
}

define_size!(pub(crate) Width);

impl Body for Forward {
    fn family(&self) -> &'static str {
        "attention"
    }

    fn describe(&self) -> String {
        let shape = self.tiling.describe();
        format!("o = softmax(scale · q kᵀ, keys up to the query) v, lse = log of the softmax's sum\n{shape}")
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        scope.register_size::<Width>(self.tiling.vector);
        let [q, k, v, o, lse] = [0, 1, 2, 3, 4].map(|i| buffers[i].clone());
        kernel::expand::<Width>(scope, q.into(), k.into(), v.into(), o.into(), lse.into(), *self);
    }
}
