//! How the portable attention kernels are cut into tiles, and what they take.

use pg_ir::ty::DType;

use crate::kernels::error::CubeError;
use crate::kernels::kernel::ArgSpec;
use crate::kernels::stage::ArgInfo;
use crate::machine::Machine;
use crate::plan::AttentionShape;

/// Threads of a thread block.
pub(crate) const THREADS: usize = 256;

/// How attention is cut into tiles.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Tiling {
    pub(crate) shape: AttentionShape,
    /// Queries, and keys, of a tile.
    pub(crate) block: usize,
    /// Tiles of a sequence.
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
    pub(crate) thread_blocks: usize,
    pub(crate) exact: bool,
}

impl Tiling {
    /// The largest tiles that fit shared memory with `tiles` of [block, dim] and `squares` of [block, block],
    /// and their bytes.
    pub(crate) fn new(
        shape: AttentionShape,
        heads: usize,
        (tiles, squares): (usize, usize),
        aligned: bool,
        machine: &Machine,
    ) -> (Tiling, usize) {
        let size = |block: usize| {
            let elements = shape.dim.div_ceil(THREADS / block);
            let stride = elements * (THREADS / block) + 1;
            4 * (tiles * block * stride + squares * block * (block + 1))
        };
        let longest = shape.time.next_power_of_two().clamp(4, machine.tuning.attention_block);
        let fits = |b: &usize| *b <= longest && size(*b) <= machine.limits.shared_bytes;
        let block = [32, 16, 8, 4, 2].into_iter().find(fits).unwrap_or(1);
        let columns = THREADS / block;
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
            thread_blocks: shape.batch * heads * blocks,
            exact: true,
        };
        (tiling, size(block))
    }

    /// The grid that walks the tiles; notes whether all its thread blocks have work.
    pub(crate) fn grid(&mut self, kernel: &str, machine: &Machine) -> Result<[u32; 3], CubeError> {
        let (grid, exact) = machine.grid(kernel, self.thread_blocks as u64)?;
        self.exact = exact;
        Ok(grid)
    }

    /// The shape and the tiles, as text.
    pub(crate) fn describe(&self) -> String {
        let s = &self.shape;
        format!(
            "{} × {} positions, {} query heads on {} of width {}, scores times {}\n\
             a thread block owns {} rows of a head and walks {} at a time through shared memory, loaded by {}",
            s.batch, s.time, s.heads, s.kv_heads, s.dim, s.scale, self.block, self.block, self.vector
        )
    }
}

/// Checks that all arguments are float32.
pub(crate) fn check_types(infos: &[ArgInfo]) -> Result<(), CubeError> {
    if let Some(other) = infos.iter().find(|i| i.dtype != DType::F32) {
        let what = format!("the portable variant computes in float32, not {}", other.dtype);
        return Err(CubeError::Unsupported { kernel: "attention".into(), what });
    }
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
