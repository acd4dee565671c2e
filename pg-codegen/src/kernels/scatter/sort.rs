//! A stable counting sort of positions by id, in four launches: a histogram of every segment of positions, its prefix sums
//! over segments and over rows, and each position put where these say.
//!
//! A position's place within its segment is found by comparing it with the segment's others, so that the work is that of
//! the positions times a constant.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use pg_ir::ty::DType;

use super::{Sizes, Sorted, THREADS};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;

/// Positions of a segment.
const SEGMENT: usize = 1024;
/// Positions of a segment for each thread.
const EACH: usize = SEGMENT / THREADS;
/// Rows whose counts are in shared memory at once.
const TABLE: usize = 2048;
/// Segments whose counts a thread loads before it uses the first.
const AHEAD: usize = 8;

/// Segments of so many positions.
pub(super) fn segments(count: usize) -> usize {
    count.div_ceil(SEGMENT)
}

/// Sizes of a sort, and which of its launches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sort {
    pass: Pass,
    rows: usize,
    count: usize,
    /// Elements before the first id.
    shift: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    Histogram,
    ScanSegments,
    ScanRows,
    Scatter,
}

/// Adds the launches of a sort.
pub(super) fn lower(
    Sizes { rows, count, .. }: Sizes,
    ids: &ArgInfo,
    machine: &Machine,
    out: &mut Launches,
) -> Result<Sorted, CubeError> {
    let mut workspace = |words: usize| StageArg::Workspace(out.workspace(4 * words.max(1)));
    let ranks = workspace(count);
    let counts = workspace(rows * segments(count));
    let totals = workspace(rows);
    let sorted = Sorted { ids: workspace(count), order: workspace(count), starts: workspace(rows + 1) };
    let id_words = StageArg::Arg(0);
    let blocks = |threads: usize| threads.div_ceil(THREADS);
    let tables = 4 * (SEGMENT + TABLE.min(rows));
    // Of each launch: thread blocks, bytes of shared memory, and its buffers, with those that it writes.
    let passes = [
        (Pass::Histogram, segments(count), tables, vec![(id_words, false), (ranks, true), (counts, true)]),
        (Pass::ScanSegments, blocks(rows), 0, vec![(counts, true), (totals, true)]),
        (Pass::ScanRows, 1, 4 * THREADS, vec![(totals, false), (sorted.starts, true)]),
        (
            Pass::Scatter,
            blocks(count),
            0,
            vec![
                (id_words, false),
                (ranks, false),
                (counts, false),
                (sorted.starts, false),
                (sorted.ids, true),
                (sorted.order, true),
            ],
        ),
    ];
    for (pass, thread_blocks, shared, buffers) in passes {
        if thread_blocks == 0 {
            continue;
        }
        let body = Sort { pass, rows, count, shift: ids.shift };
        let (grid, _) = machine.grid(body.family(), thread_blocks as u64)?;
        let args = buffers.iter().map(|&(_, writable)| ArgSpec { dtype: DType::I32, width: 1, writable });
        let kernel = Generated::new(body, args.collect(), (THREADS as u32, shared), machine)?;
        out.push(kernel, buffers.into_iter().map(|(buffer, _)| buffer).collect(), grid, 0.0);
    }
    Ok(sorted)
}

/// Of each position how many of its segment's come before it with its id; of each row, how many of a segment have its id.
#[cube]
fn histogram(ids: &Array<i32>, ranks: &mut Array<i32>, counts: &mut Array<i32>, #[comptime] p: Sort) {
    let segment = CUBE_POS as u32;
    let first = segment * comptime!(SEGMENT as u32);
    let mut tile = SharedMemory::<i32>::new(SEGMENT);
    let mut table = SharedMemory::<i32>::new(comptime!(TABLE.min(p.rows)));
    let mut mine = Array::<i32>::new(EACH);
    let mut before = Array::<i32>::new(EACH);
    let mut all = Array::<i32>::new(EACH);
    #[unroll]
    for i in 0..EACH {
        let at = UNIT_POS + comptime!((i * THREADS) as u32);
        // Beyond the last position, no row.
        let mut id = comptime!(-1i32).runtime();
        if first + at < comptime!(p.count as u32) {
            id = ids[(first + at + comptime!(p.shift as u32)) as usize];
        }
        tile[at as usize] = id;
        mine[i] = id;
        before[i] = 0i32;
        all[i] = 0i32;
    }
    sync_cube();
    for other in 0..comptime!(SEGMENT as u32) {
        let id = tile[other as usize];
        #[unroll]
        for i in 0..EACH {
            let at = UNIT_POS + comptime!((i * THREADS) as u32);
            let same = select(id == mine[i], 1i32, 0i32);
            all[i] += same;
            before[i] += select(other < at, same, 0i32);
        }
    }
    #[unroll]
    for i in 0..EACH {
        let at = first + UNIT_POS + comptime!((i * THREADS) as u32);
        if at < comptime!(p.count as u32) {
            ranks[at as usize] = before[i];
        }
    }
    for part in 0..comptime!(p.rows.div_ceil(TABLE) as u32) {
        let from = part * comptime!(TABLE as u32);
        let words = comptime!(TABLE.min(p.rows) as u32);
        let mut row = UNIT_POS;
        while row < words {
            table[row as usize] = 0i32;
            row += comptime!(THREADS as u32);
        }
        sync_cube();
        #[unroll]
        for i in 0..EACH {
            // The last of its id in the segment knows how many there are.
            let is_last = before[i] + 1i32 == all[i];
            let id = mine[i] - from as i32;
            if is_last && id >= 0i32 && id < comptime!(TABLE.min(p.rows) as i32) {
                table[id as usize] = all[i];
            }
        }
        sync_cube();
        let mut row = UNIT_POS;
        while row < words {
            let to = from + row;
            if to < comptime!(p.rows as u32) {
                counts[(segment * comptime!(p.rows as u32) + to) as usize] = table[row as usize];
            }
            row += comptime!(THREADS as u32);
        }
        sync_cube();
    }
}

/// Each row's counts become how many there are in segments before; and how many in all.
#[cube]
fn scan_segments(counts: &mut Array<i32>, totals: &mut Array<i32>, #[comptime] p: Sort) {
    let row = ABSOLUTE_POS as u32;
    let all = comptime!(segments(p.count) as u32);
    if row < comptime!(p.rows as u32) {
        let mut total = 0i32.runtime();
        for step in 0..comptime!(segments(p.count).div_ceil(AHEAD) as u32) {
            let first = step * comptime!(AHEAD as u32);
            let mut next = Array::<i32>::new(AHEAD);
            #[unroll]
            for i in 0..AHEAD {
                let segment = first + comptime!(i as u32);
                next[i] = 0i32;
                if segment < all {
                    next[i] = counts[(segment * comptime!(p.rows as u32) + row) as usize];
                }
            }
            #[unroll]
            for i in 0..AHEAD {
                let segment = first + comptime!(i as u32);
                if segment < all {
                    counts[(segment * comptime!(p.rows as u32) + row) as usize] = total;
                    total += next[i];
                }
            }
        }
        totals[row as usize] = total;
    }
}

/// Where each row's ids begin among the sorted ones. One thread block.
#[cube]
fn scan_rows(totals: &Array<i32>, starts: &mut Array<i32>, #[comptime] p: Sort) {
    let each = comptime!(p.rows.div_ceil(THREADS) as u32);
    let rows = comptime!(p.rows as u32);
    let first = UNIT_POS * each;
    let mut sums = SharedMemory::<i32>::new(THREADS);
    let mut own = 0i32.runtime();
    for i in 0..each {
        if first + i < rows {
            own += totals[(first + i) as usize];
        }
    }
    sums[UNIT_POS as usize] = own;
    sync_cube();
    let mut start = 0i32.runtime();
    for thread in 0..comptime!(THREADS as u32) {
        if thread < UNIT_POS {
            start += sums[thread as usize];
        }
    }
    for i in 0..each {
        if first + i < rows {
            starts[(first + i) as usize] = start;
            start += totals[(first + i) as usize];
        }
    }
    if UNIT_POS == comptime!(THREADS as u32 - 1) {
        starts[rows as usize] = start;
    }
}

/// Puts each position where its id, segment and rank say.
#[cube]
fn scatter(
    ids: &Array<i32>,
    ranks: &Array<i32>,
    counts: &Array<i32>,
    starts: &Array<i32>,
    sorted: &mut Array<i32>,
    order: &mut Array<i32>,
    #[comptime] p: Sort,
) {
    let me = ABSOLUTE_POS as u32;
    if me < comptime!(p.count as u32) {
        let id = ids[(me + comptime!(p.shift as u32)) as usize];
        // An id that names no row is nobody's.
        if id >= 0i32 && id < comptime!(p.rows as i32) {
            let segment = me / comptime!(SEGMENT as u32);
            let before = counts[(segment * comptime!(p.rows as u32) + id as u32) as usize];
            let to = starts[id as usize] + before + ranks[me as usize];
            sorted[to as usize] = id;
            order[to as usize] = me as i32;
        }
    }
}

impl Body for Sort {
    fn family(&self) -> &'static str {
        match self.pass {
            Pass::Histogram => "histogram",
            Pass::ScanSegments => "scan_segments",
            Pass::ScanRows => "scan_rows",
            Pass::Scatter => "sort_scatter",
        }
    }

    fn describe(&self) -> String {
        let Sort { rows, count, .. } = self;
        match self.pass {
            Pass::Histogram => format!(
                "counts the {rows} ids in each segment of {SEGMENT} of {count} positions, and ranks each position among \
                 its segment's with its id"
            ),
            Pass::ScanSegments => {
                format!(
                    "counts of {rows} rows in {} segments become prefix sums over segments",
                    segments(*count)
                )
            }
            Pass::ScanRows => format!("prefix sums of the counts of {rows} rows: where each row's ids begin"),
            Pass::Scatter => format!("puts each of {count} positions where its id, segment and rank say"),
        }
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], _: &[ArgSpec]) {
        let buffer = |i: usize| buffers[i].clone();
        match self.pass {
            Pass::Histogram => {
                histogram::expand(scope, buffer(0).into(), buffer(1).into(), buffer(2).into(), *self)
            }
            Pass::ScanSegments => scan_segments::expand(scope, buffer(0).into(), buffer(1).into(), *self),
            Pass::ScanRows => scan_rows::expand(scope, buffer(0).into(), buffer(1).into(), *self),
            Pass::Scatter => scatter::expand(
                scope,
                buffer(0).into(),
                buffer(1).into(),
                buffer(2).into(),
                buffer(3).into(),
                buffer(4).into(),
                buffer(5).into(),
                *self,
            ),
        }
    }
}
