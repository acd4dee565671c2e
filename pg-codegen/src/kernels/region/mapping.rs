//! How a region is cut into thread blocks and threads. Everything follows from shapes and the machine's tuning, so that
//! the order of every sum is fixed.

use pg_ir::ty::DType;

use super::lowered::{LoweredRegion, Step};
use crate::kernels::generate::element_bytes;
use crate::machine::Machine;
use crate::machine::tuning::Tuning;
use crate::region::{Affine, IndexMap};

/// Threads of a block on a machine without warp operations.
const BLOCK_THREADS: usize = 256;
/// Threads of a block on a machine with warp operations: small, so that blocks fit into what registers are left.
const WARP_BLOCK_THREADS: usize = 128;

/// Threads that share the columns of a second pass.
const NARROW: usize = 8;
/// Values that a thread may keep at once for its row to stay within a warp.
const WARP_ROW_VALUES: usize = 48;

/// How a region runs.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Mapping {
    /// No columns meet and nothing is accumulated: any thread takes any vector chunk of any row.
    pub(crate) flat: bool,
    /// Columns of a vector chunk.
    pub(crate) vector: usize,
    /// Chunks of a row.
    pub(crate) row_chunks: usize,
    /// Threads of a thread block.
    pub(crate) block_threads: usize,
    /// Threads that share a row, a power of two.
    pub(crate) row_threads: usize,
    /// Rows that a thread block has in hand at once.
    pub(crate) block_rows: usize,
    /// Chunks of a row that a thread computes.
    pub(crate) thread_chunks: usize,
    /// Whether thread blocks own rows of a result, rather than rows of the domain.
    pub(crate) accumulates: bool,
    /// Whether the chunks are a loop, repeated for each row reduction.
    pub(crate) streamed: bool,
    /// Thread blocks that share a row, each with its own columns.
    pub(crate) column_blocks: usize,
    /// Rows of the result of accumulations, or all rows.
    pub(crate) kept: usize,
    /// Rows that are accumulated into each.
    pub(crate) folded: usize,
    /// Thread blocks that share those rows.
    pub(crate) fold_blocks: usize,
    /// Rows that a thread walks, one after the other.
    pub(crate) trip: usize,
    /// Threads that exchange values directly, 1 if none do.
    pub(crate) warp: usize,
    /// Elements of an access, by argument.
    pub(crate) widths: Vec<usize>,
}

impl Mapping {
    /// Chooses for a region. `single` keeps accumulations in one pass.
    pub(crate) fn new(
        p: &LoweredRegion,
        dtypes: &[DType],
        machine: &Machine,
        single: bool,
    ) -> Result<Mapping, String> {
        let tuning = &machine.tuning;
        let accumulates = p.steps.iter().any(|s| matches!(s, Step::Accumulate { .. }));
        let flat = !accumulates && !p.has_row_steps();
        let (mut vector, mut widths) = widths(p, dtypes, tuning.region_access);
        if flat && machine.warp().is_some() {
            // Little work is spread over a device rather than done in wide accesses.
            let busy = machine.processors as usize * WARP_BLOCK_THREADS;
            while vector > 1 && p.row_count() * p.columns / vector < busy {
                vector /= 2;
            }
            widths.iter_mut().for_each(|w| *w = vector.min(*w));
        }
        let row_chunks = p.columns / vector;
        let block_threads = if machine.warp().is_some() { WARP_BLOCK_THREADS } else { BLOCK_THREADS };
        let one = Mapping::of_one_thread(p, vector, widths, machine);
        let mut s = Mapping { block_threads, row_threads: block_threads, flat, accumulates, ..one };
        if s.flat {
            return Ok(s);
        }
        // What a thread keeps is counted in elements: wider vectors are fewer.
        let resident = (4 * tuning.region_resident / vector.max(4)).max(1);
        if p.has_row_steps() {
            s.row_threads = s.threads_of_row(p, resident);
            s.thread_chunks = row_chunks.div_ceil(s.row_threads);
        } else {
            // Columns never meet, so thread blocks may share them. A second pass has no other thread blocks: a few lines each.
            let most = if single { NARROW } else { block_threads };
            s.row_threads = row_chunks.next_power_of_two().min(most);
            s.column_blocks = row_chunks.div_ceil(s.row_threads);
        }
        s.block_rows = block_threads / s.row_threads;
        s.streamed = s.thread_chunks > resident;
        if s.streamed {
            let needs_row = |step: &Step| match step {
                Step::Permute(..) => true,
                Step::Accumulate { at, .. } => p.writes_columns(at),
                _ => false,
            };
            if p.steps.iter().any(needs_row) {
                return Err(format!("a row of {} columns is too long to keep in registers", p.columns));
            }
        }
        if accumulates {
            s.folded = p.rows[p.rows.len() - p.reduced..].iter().product();
            s.kept = p.row_count() / s.folded;
            let most = if single { 1 } else { (tuning.region_spread / (s.kept * s.column_blocks)).max(1) };
            s.fold_blocks = s.folded.div_ceil(tuning.region_rows * s.block_rows).clamp(1, most);
            s.trip = s.folded.div_ceil(s.fold_blocks * s.block_rows);
            s.fold_blocks = s.folded.div_ceil(s.trip * s.block_rows);
        }
        Ok(s)
    }

    /// Chooses for a region that another kernel runs on its own chunks, of `vector` columns.
    pub(super) fn on_tile(p: &LoweredRegion, dtypes: &[DType], machine: &Machine, vector: usize) -> Mapping {
        let (_, widths) = widths(p, dtypes, machine.tuning.region_access);
        let widths = widths.iter().map(|&w| w.min(vector)).collect();
        Mapping::of_one_thread(p, vector, widths, machine)
    }

    /// A thread for each row.
    fn of_one_thread(p: &LoweredRegion, vector: usize, widths: Vec<usize>, machine: &Machine) -> Mapping {
        Mapping {
            flat: !p.has_row_steps(),
            vector,
            row_chunks: p.columns / vector,
            block_threads: 1,
            row_threads: 1,
            block_rows: 1,
            thread_chunks: 1,
            accumulates: false,
            streamed: false,
            column_blocks: 1,
            kept: p.row_count(),
            folded: 1,
            fold_blocks: 1,
            trip: 1,
            warp: machine.warp().map_or(1, |n| n as usize),
            widths,
        }
    }

    /// Whether the threads that share a row exchange values directly.
    pub(super) fn within_warp(&self) -> bool {
        self.warp > 1 && self.row_threads <= self.warp
    }

    /// Elements of an access of whole rows of a type.
    pub(super) fn width_of(&self, dtype: DType, tuning: &Tuning) -> usize {
        self.vector.min(most_elements(dtype, tuning.region_access))
    }

    /// Thread blocks of the launch.
    pub(crate) fn thread_blocks(&self) -> usize {
        match (self.flat, self.accumulates) {
            (true, _) => (self.kept * self.row_chunks).div_ceil(self.block_threads),
            (false, true) => self.kept * self.fold_blocks * self.column_blocks,
            (false, false) => self.kept.div_ceil(self.block_rows),
        }
    }

    /// Threads that share a row whose columns meet.
    fn threads_of_row(&self, p: &LoweredRegion, resident: usize) -> usize {
        let (chunks, warp) = (self.row_chunks, self.warp);
        if chunks > self.block_threads {
            return least_waste(chunks, resident, self.block_threads);
        }
        // Within a warp nobody waits at a barrier, if the row and all that is made of it fit a thread's registers.
        let values = chunks.div_ceil(warp) * self.vector * live_rows(p);
        let is_small = chunks >= warp && chunks.is_multiple_of(warp) && values <= WARP_ROW_VALUES;
        if warp > 1 && is_small { warp } else { chunks.next_power_of_two() }
    }
}

/// The most values per column that are needed later, at any step, with what is accumulated.
pub(super) fn live_rows(p: &LoweredRegion) -> usize {
    let is_sum = |s: &&Step| matches!(s, Step::Accumulate { at, .. } if p.writes_columns(at));
    let sums = p.steps.iter().filter(is_sum).count();
    let mut last = vec![0; p.steps.len()];
    (0..p.steps.len()).for_each(|i| p.operands(i).iter().for_each(|&r| last[r as usize] = i));
    let live = |at: usize| (0..=at).filter(|&i| p.classes[i].wide && last[i] > at).count();
    sums + (0..p.steps.len()).map(live).max().unwrap_or(0)
}

/// Threads for a row of more chunks than a thread block has threads: the fewest idle, and then the most threads.
fn least_waste(chunks: usize, resident: usize, block_threads: usize) -> usize {
    let waste = |u: usize| chunks.div_ceil(u) * u - chunks;
    [block_threads, block_threads / 2, block_threads / 4]
        .into_iter()
        .filter(|&u| chunks.div_ceil(u) <= resident || u == block_threads)
        .min_by_key(|&u| (waste(u), block_threads - u))
        .unwrap_or(block_threads)
}

/// The vector width of the region, the widest of its accesses, and the width of each argument's.
fn widths(p: &LoweredRegion, dtypes: &[DType], bytes: usize) -> (usize, Vec<usize>) {
    let most = |arg: usize| most_elements(dtypes[arg], bytes);
    let mut known = vec![None; dtypes.len()];
    let mut see = |arg: usize, width: usize| {
        known[arg] = Some(known[arg].unwrap_or(width).min(width));
    };
    for (i, step) in p.steps.iter().enumerate() {
        let wide = p.classes[i].wide;
        match step {
            Step::Load { arg, map } if wide => see(*arg, width_of_map(p, map, most(*arg))),
            Step::Gather { arg, row, stride, map, .. } if wide && !p.classes[*row as usize].wide => {
                see(*arg, even(width_of_map(p, map, most(*arg)), *stride));
            }
            Step::Store { arg, at, .. } | Step::Accumulate { arg, at, .. } if p.writes_columns(at) => {
                see(*arg, width_of_affine(p, at, most(*arg)));
            }
            Step::Load { arg, .. }
            | Step::Gather { arg, .. }
            | Step::Store { arg, .. }
            | Step::Accumulate { arg, .. } => see(*arg, 1),
            _ => {}
        }
    }
    let widest = known.iter().flatten().copied().max().unwrap_or(1);
    let vector = even(widest, p.columns as i64);
    (vector, known.iter().map(|w| w.unwrap_or(1).min(vector)).collect())
}

/// Elements of an access of so many bytes.
fn most_elements(dtype: DType, bytes: usize) -> usize {
    (bytes / element_bytes(dtype)).max(1)
}

/// The greatest power of two up to `most` that divides `n`.
fn even(most: usize, n: i64) -> usize {
    let mut width = most;
    while n % width as i64 != 0 {
        width /= 2;
    }
    width
}

fn width_of_map(p: &LoweredRegion, map: &IndexMap, most: usize) -> usize {
    let guarded = map.guards.iter().any(|g| g.expr.strides[p.rows.len()] != 0);
    if guarded { 1 } else { width_of_affine(p, &map.at, most) }
}

/// The most elements, up to `most`, that lie side by side at an aligned place in every row.
fn width_of_affine(p: &LoweredRegion, at: &Affine, most: usize) -> usize {
    if at.strides[p.rows.len()] != 1 {
        return 1;
    }
    let strides = at.strides.iter().zip(&p.rows).filter(|(_, n)| **n > 1).map(|(s, _)| *s);
    strides.chain([at.offset]).fold(most, even)
}
