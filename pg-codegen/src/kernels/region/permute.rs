//! Permuting the columns of a row: from thread to thread where whole chunks move within a warp, otherwise through shared
//! memory, at places computed from the column. All permutations of a region that move alike use the same shared memory.

use cubecl::prelude::*;

use super::access::{Chunk, vector_of};
use super::lowered::Kind;
use super::mapping::Mapping;
use super::scratch::Scratch;
use super::value::{Value, Width};
use crate::region::chunks_from;

/// A permutation in so few runs is arithmetic on the column, beyond that a table.
const RUNS: usize = 8;

#[cube]
pub(super) fn strided(first: i32, iteration: u32, #[comptime] stride: i32) -> i32 {
    iteration as i32 * stride + first
}

#[cube]
pub(super) fn below(x: i32, #[comptime] bound: i32) -> bool {
    x < bound
}

#[cube]
pub(super) fn offset(x: i32, #[comptime] by: i32) -> i32 {
    x + by
}

#[cube]
fn column_at(chunk: i32, #[comptime] vector: i32, #[comptime] element: i32) -> i32 {
    chunk * vector + element
}

/// The first place of this thread's row in shared memory.
#[cube]
fn row_start(#[comptime] row_threads: u32, #[comptime] len: i32) -> i32 {
    (UNIT_POS / row_threads) as i32 * len
}

#[cube]
fn put<N: Size>(memory: &mut SharedMemory<Vector<f32, N>>, start: i32, at: i32, x: Vector<f32, N>) {
    memory[(start + at) as usize] = x;
}

#[cube]
fn get<N: Size>(memory: &SharedMemory<Vector<f32, N>>, start: i32, at: i32) -> Vector<f32, N> {
    memory[(start + at) as usize]
}

#[cube]
fn pick(column: i32, #[comptime] end: i32, then: i32, other: i32) -> i32 {
    select(column < end, then, other)
}

#[cube]
fn look_up(table: &Array<i32>, column: i32, #[comptime] last: i32) -> i32 {
    table[select(column > last, last, column) as usize]
}

/// A stretch of columns, up to `end`: column i comes from column `step` · i + `start`.
struct Stretch {
    end: i32,
    step: i32,
    start: i32,
}

/// Stretches of columns that come from evenly spaced columns. A table of hundreds of columns takes Mesa minutes
/// to compile, so what is arithmetic must be seen to be.
fn spaced_runs(perm: &[u32]) -> Vec<Stretch> {
    let mut runs = Vec::new();
    let mut i = 0;
    while i < perm.len() {
        let step = perm.get(i + 1).map_or(1, |&next| next as i32 - perm[i] as i32);
        let start = perm[i] as i32 - step * i as i32;
        let end = (i..perm.len()).find(|&j| perm[j] as i32 != step * j as i32 + start);
        i = end.unwrap_or(perm.len());
        runs.push(Stretch { end: i as i32, step, start });
    }
    runs
}

/// Stretches of chunks that come from consecutive chunks.
fn chunk_runs(sources: &[usize]) -> Vec<Stretch> {
    let mut runs: Vec<Stretch> = Vec::new();
    for (i, &from) in sources.iter().enumerate() {
        let shift = from as i32 - i as i32;
        match runs.last_mut() {
            Some(last) if last.start == shift => last.end = i as i32 + 1,
            _ => runs.push(Stretch { end: i as i32 + 1, step: 1, start: shift }),
        }
    }
    runs
}

/// How the columns of a row move.
enum Exchange {
    /// Whole chunks within a warp; this one of the row comes from that one.
    Warp(Vec<usize>),
    /// Whole chunks through shared memory.
    Chunks(Vec<Stretch>),
    /// One column after the other through shared memory.
    Columns,
}

impl Exchange {
    fn of(s: &Mapping, perm: &[u32]) -> Exchange {
        match chunks_from(perm, s.vector) {
            Some(sources) if s.within_warp() => Exchange::Warp(sources),
            Some(sources) => {
                let runs = chunk_runs(&sources);
                if runs.len() <= RUNS { Exchange::Chunks(runs) } else { Exchange::Columns }
            }
            None => Exchange::Columns,
        }
    }
}

/// Bytes of shared memory that the permutations of a region take together.
pub(super) fn shared_bytes<'a>(s: &Mapping, perms: impl Iterator<Item = &'a [u32]>) -> usize {
    let (mut chunks, mut columns) = (false, false);
    for perm in perms {
        match Exchange::of(s, perm) {
            Exchange::Warp(_) => {}
            Exchange::Chunks(_) => chunks = true,
            Exchange::Columns => columns = true,
        }
    }
    (usize::from(chunks) + usize::from(columns)) * 4 * s.block_rows * s.row_chunks * s.vector
}

/// Each chunk of the row, with its columns taken from where `perm` says.
pub(super) fn permute(
    scope: &mut Scope,
    scratch: &mut Scratch,
    s: &Mapping,
    perm: &[u32],
    row: &[Value],
    chunks: &[Chunk],
) -> Vec<Value> {
    let moved = match Exchange::of(s, perm) {
        Exchange::Warp(sources) => return exchanged(scope, s, &sources, row),
        Exchange::Chunks(runs) => whole_chunks(scope, scratch, s, &runs, row, chunks),
        Exchange::Columns => column_by_column(scope, scratch, s, perm, row, chunks),
    };
    // The next permutation uses the same memory.
    sync_cube::expand(scope);
    moved
}

#[cube]
fn thread_of_row(#[comptime] row_threads: u32) -> i32 {
    (UNIT_POS % row_threads) as i32
}

/// What a thread of this row holds.
#[cube]
fn held_by<N: Size>(
    x: Vector<f32, N>,
    thread: i32,
    #[comptime] width: usize,
    #[comptime] row_threads: u32,
    #[comptime] warp: u32,
) -> Vector<f32, N> {
    let lane = UNIT_POS % warp / row_threads * row_threads + thread as u32;
    let mut y = Vector::<f32, N>::empty();
    #[unroll]
    for i in 0..width {
        y[i] = plane_shuffle(x[i], lane);
    }
    y
}

#[cube]
fn choose<N: Size>(
    thread: i32,
    #[comptime] end: i32,
    then: Vector<f32, N>,
    other: Vector<f32, N>,
) -> Vector<f32, N> {
    select(thread < end, then, other)
}

/// Whole chunks from thread to thread: chunk c of thread t is number c · threads + t of the row.
fn exchanged(scope: &mut Scope, s: &Mapping, sources: &[usize], row: &[Value]) -> Vec<Value> {
    let row_threads = s.row_threads;
    let thread = thread_of_row::expand(scope, row_threads as u32);
    // Threads beyond the row's end have nothing to take.
    let from = |chunk: usize| sources.get(chunk).copied().unwrap_or(chunk);
    let mut moved = Vec::new();
    for chunk in 0..row.len() {
        let (held_as, holders): (Vec<usize>, Vec<usize>) = (0..row_threads)
            .map(|t| from(chunk * row_threads + t))
            .map(|p| (p / row_threads, p % row_threads))
            .unzip();
        let mut taken: Option<Value> = None;
        // The threads whose chunks are the same of their holders', the last first.
        let mut end = row_threads;
        while end > 0 {
            let held = held_as[end - 1];
            let start = held_as[..end].iter().rposition(|&other| other != held).map_or(0, |at| at + 1);
            let here = &row[held];
            let stays = (start..end).all(|t| holders[t] == t);
            let value = if stays {
                here.clone()
            } else {
                // Whoever does not take this may ask anyone.
                let holders: Vec<usize> = (0..row_threads)
                    .map(|t| if (start..end).contains(&t) { holders[t] } else { t })
                    .collect();
                let holder = source(scope, &chunk_runs(&holders), &thread);
                let x = here.var.clone();
                let (row_threads, warp) = (row_threads as u32, s.warp as u32);
                Value::new(
                    held_by::expand::<Width>(scope, x.into(), holder, s.vector, row_threads, warp),
                    Kind::Float,
                    true,
                )
            };
            taken = Some(match taken {
                None => value,
                Some(later) => Value::new(
                    choose::expand::<Width>(
                        scope,
                        thread.clone(),
                        end as i32,
                        value.var.into(),
                        later.var.into(),
                    ),
                    Kind::Float,
                    true,
                ),
            });
            end = start;
        }
        moved.extend(taken);
    }
    moved
}

fn source(scope: &mut Scope, runs: &[Stretch], at: &NativeExpand<i32>) -> NativeExpand<i32> {
    let mut from = at.clone();
    for (i, run) in runs.iter().rev().enumerate() {
        let here = match run.step {
            1 => offset::expand(scope, at.clone(), run.start),
            step => column_at::expand(scope, at.clone(), step, run.start),
        };
        from = if i == 0 { here } else { pick::expand(scope, at.clone(), run.end, here, from) };
    }
    from
}

fn whole_chunks(
    scope: &mut Scope,
    scratch: &mut Scratch,
    s: &Mapping,
    runs: &[Stretch],
    row: &[Value],
    chunks: &[Chunk],
) -> Vec<Value> {
    let memory = scratch.row_vectors(scope, s.block_rows * s.row_chunks);
    let start = row_start::expand(scope, s.row_threads as u32, s.row_chunks as i32);
    for (value, chunk) in row.iter().zip(chunks) {
        when(scope, chunk, |scope| {
            put::expand::<Width>(
                scope,
                memory.clone(),
                start.clone(),
                chunk.index.clone(),
                value.var.clone().into(),
            );
        });
    }
    sync_cube::expand(scope);
    let take = |chunk: &Chunk| {
        let at = inside(scope, s, chunk);
        let from = source(scope, runs, &at);
        let x = get::expand::<Width>(scope, memory.clone(), start.clone(), from);
        Value::new(x, Kind::Float, true)
    };
    chunks.iter().map(take).collect()
}

fn column_by_column(
    scope: &mut Scope,
    scratch: &mut Scratch,
    s: &Mapping,
    perm: &[u32],
    row: &[Value],
    chunks: &[Chunk],
) -> Vec<Value> {
    let columns = (s.row_chunks * s.vector) as i32;
    let memory = scratch.row_columns(scope, s.block_rows * s.row_chunks * s.vector);
    let start = row_start::expand(scope, s.row_threads as u32, columns);
    let v = s.vector as i32;
    for (value, chunk) in row.iter().zip(chunks) {
        when(scope, chunk, |scope| {
            for e in 0..s.vector {
                let column = column_at::expand(scope, chunk.index.clone(), v, e as i32);
                let x = value.element(scope, e).var;
                put::expand::<Const<1>>(scope, memory.clone(), start.clone(), column, x.into());
            }
        });
    }
    sync_cube::expand(scope);
    let short = Some(spaced_runs(perm)).filter(|r| r.len() <= RUNS);
    let table = short.is_none().then(|| {
        let values = perm.iter().map(|&p| p as i32);
        let values = values.map(|p| *NativeExpand::<i32>::from(p).expand).collect();
        scope.create_const_array(i32::as_type(scope), values)
    });
    let mut take = |chunk: &Chunk| {
        let mut elements = Vec::new();
        let at = inside(scope, s, chunk);
        for e in 0..s.vector {
            let column = column_at::expand(scope, at.clone(), v, e as i32);
            let from = match (&short, &table) {
                (Some(runs), _) => source(scope, runs, &column),
                (None, Some(table)) => look_up::expand(scope, table.clone().into(), column, columns - 1),
                (None, None) => column,
            };
            elements.push(get::expand::<Const<1>>(scope, memory.clone(), start.clone(), from).into());
        }
        Value::new(vector_of(scope, Kind::Float, &elements), Kind::Float, true)
    };
    chunks.iter().map(&mut take).collect()
}

/// The chunk's number, or 0 where the row does not have it.
fn inside(scope: &mut Scope, s: &Mapping, chunk: &Chunk) -> NativeExpand<i32> {
    match chunk.ok {
        Some(_) => {
            pick::expand(scope, chunk.index.clone(), s.row_chunks as i32, chunk.index.clone(), 0.into())
        }
        None => chunk.index.clone(),
    }
}

fn when(scope: &mut Scope, chunk: &Chunk, body: impl FnOnce(&mut Scope)) {
    match &chunk.ok {
        Some(ok) => cubecl::frontend::branch::if_expand(scope, ok.clone(), body),
        None => body(scope),
    }
}
