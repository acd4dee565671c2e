//! Permuting the columns of a row: from thread to thread where whole pieces move within a warp, otherwise through shared
//! memory, at places computed from the column. All permutations of a region that move alike use the same shared memory.

use cubecl::prelude::*;

use super::access::{Piece, vector_of};
use super::lowered::Kind;
use super::mapping::Mapping;
use super::reduce::Scratch;
use super::value::{Value, Width};
use crate::region::pieces_from;

/// A permutation in so few runs is arithmetic on the column, beyond that a table.
const RUNS: usize = 8;

#[cube]
pub(super) fn chunk_index(unit: i32, chunk: u32, #[comptime] units: i32) -> i32 {
    chunk as i32 * units + unit
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
fn column_at(piece: i32, #[comptime] vector: i32, #[comptime] element: i32) -> i32 {
    piece * vector + element
}

/// The first place of this thread's row in shared memory.
#[cube]
fn row_start(#[comptime] units: u32, #[comptime] len: i32) -> i32 {
    (UNIT_POS / units) as i32 * len
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

/// Stretches of pieces that come from consecutive pieces.
fn piece_runs(sources: &[usize]) -> Vec<Stretch> {
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
    /// Whole pieces within a warp; this one of the row comes from that one.
    Warp(Vec<usize>),
    /// Whole pieces through shared memory.
    Pieces(Vec<Stretch>),
    /// One column after the other through shared memory.
    Columns,
}

impl Exchange {
    fn of(s: &Mapping, perm: &[u32]) -> Exchange {
        match pieces_from(perm, s.vector) {
            Some(sources) if s.within_plane() => Exchange::Warp(sources),
            Some(sources) => {
                let runs = piece_runs(&sources);
                if runs.len() <= RUNS { Exchange::Pieces(runs) } else { Exchange::Columns }
            }
            None => Exchange::Columns,
        }
    }
}

/// Bytes of shared memory that the permutations of a region take together.
pub(super) fn shared_bytes<'a>(s: &Mapping, perms: impl Iterator<Item = &'a [u32]>) -> usize {
    let (mut pieces, mut columns) = (false, false);
    for perm in perms {
        match Exchange::of(s, perm) {
            Exchange::Warp(_) => {}
            Exchange::Pieces(_) => pieces = true,
            Exchange::Columns => columns = true,
        }
    }
    (usize::from(pieces) + usize::from(columns)) * 4 * s.slots * s.pieces * s.vector
}

/// Each piece of the row, with its columns taken from where `perm` says.
pub(super) fn permute(
    scope: &mut Scope,
    scratch: &mut Scratch,
    s: &Mapping,
    perm: &[u32],
    row: &[Value],
    pieces: &[Piece],
) -> Vec<Value> {
    let moved = match Exchange::of(s, perm) {
        Exchange::Warp(sources) => return exchanged(scope, s, &sources, row),
        Exchange::Pieces(runs) => whole_pieces(scope, scratch, s, &runs, row, pieces),
        Exchange::Columns => column_by_column(scope, scratch, s, perm, row, pieces),
    };
    // The next permutation uses the same memory.
    sync_cube::expand(scope);
    moved
}

#[cube]
fn unit_of_row(#[comptime] units: u32) -> i32 {
    (UNIT_POS % units) as i32
}

/// What a thread of this row holds.
#[cube]
fn held_by<N: Size>(
    x: Vector<f32, N>,
    unit: i32,
    #[comptime] width: usize,
    #[comptime] units: u32,
    #[comptime] plane: u32,
) -> Vector<f32, N> {
    let lane = UNIT_POS % plane / units * units + unit as u32;
    let mut y = Vector::<f32, N>::empty();
    #[unroll]
    for i in 0..width {
        y[i] = plane_shuffle(x[i], lane);
    }
    y
}

#[cube]
fn choose<N: Size>(
    unit: i32,
    #[comptime] end: i32,
    then: Vector<f32, N>,
    other: Vector<f32, N>,
) -> Vector<f32, N> {
    select(unit < end, then, other)
}

/// Whole pieces from thread to thread: piece c of thread u is number c · threads + u of the row.
fn exchanged(scope: &mut Scope, s: &Mapping, sources: &[usize], row: &[Value]) -> Vec<Value> {
    let units = s.units;
    let unit = unit_of_row::expand(scope, units as u32);
    // Threads beyond the row's end have nothing to take.
    let from = |piece: usize| sources.get(piece).copied().unwrap_or(piece);
    let mut moved = Vec::new();
    for piece in 0..row.len() {
        let (iterations, holders): (Vec<usize>, Vec<usize>) =
            (0..units).map(|u| from(piece * units + u)).map(|p| (p / units, p % units)).unzip();
        let mut taken: Option<Value> = None;
        // The threads whose pieces come from one iteration, the last first.
        let mut end = units;
        while end > 0 {
            let iteration = iterations[end - 1];
            let start = iterations[..end].iter().rposition(|&t| t != iteration).map_or(0, |at| at + 1);
            let here = &row[iteration];
            let stays = (start..end).all(|u| holders[u] == u);
            let value = if stays {
                here.clone()
            } else {
                // Whoever does not take this may ask anyone.
                let holders: Vec<usize> =
                    (0..units).map(|u| if (start..end).contains(&u) { holders[u] } else { u }).collect();
                let holder = source(scope, &piece_runs(&holders), &unit);
                let x = here.var.clone();
                let (units, plane) = (units as u32, s.plane as u32);
                Value::new(
                    held_by::expand::<Width>(scope, x.into(), holder, s.vector, units, plane),
                    Kind::Float,
                    true,
                )
            };
            taken = Some(match taken {
                None => value,
                Some(later) => Value::new(
                    choose::expand::<Width>(
                        scope,
                        unit.clone(),
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

fn whole_pieces(
    scope: &mut Scope,
    scratch: &mut Scratch,
    s: &Mapping,
    runs: &[Stretch],
    row: &[Value],
    pieces: &[Piece],
) -> Vec<Value> {
    let memory = scratch.row_pieces(scope, s.slots * s.pieces);
    let start = row_start::expand(scope, s.units as u32, s.pieces as i32);
    for (value, piece) in row.iter().zip(pieces) {
        when(scope, piece, |scope| {
            put::expand::<Width>(
                scope,
                memory.clone(),
                start.clone(),
                piece.index.clone(),
                value.var.clone().into(),
            );
        });
    }
    sync_cube::expand(scope);
    let take = |piece: &Piece| {
        let at = inside(scope, s, piece);
        let from = source(scope, runs, &at);
        let x = get::expand::<Width>(scope, memory.clone(), start.clone(), from);
        Value::new(x, Kind::Float, true)
    };
    pieces.iter().map(take).collect()
}

fn column_by_column(
    scope: &mut Scope,
    scratch: &mut Scratch,
    s: &Mapping,
    perm: &[u32],
    row: &[Value],
    pieces: &[Piece],
) -> Vec<Value> {
    let columns = (s.pieces * s.vector) as i32;
    let memory = scratch.row_columns(scope, s.slots * s.pieces * s.vector);
    let start = row_start::expand(scope, s.units as u32, columns);
    let v = s.vector as i32;
    for (value, piece) in row.iter().zip(pieces) {
        when(scope, piece, |scope| {
            for e in 0..s.vector {
                let column = column_at::expand(scope, piece.index.clone(), v, e as i32);
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
    let mut take = |piece: &Piece| {
        let mut elements = Vec::new();
        let at = inside(scope, s, piece);
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
    pieces.iter().map(&mut take).collect()
}

/// The piece's number, or 0 where the row does not have it.
fn inside(scope: &mut Scope, s: &Mapping, piece: &Piece) -> NativeExpand<i32> {
    match piece.ok {
        Some(_) => pick::expand(scope, piece.index.clone(), s.pieces as i32, piece.index.clone(), 0.into()),
        None => piece.index.clone(),
    }
}

fn when(scope: &mut Scope, piece: &Piece, body: impl FnOnce(&mut Scope)) {
    match &piece.ok {
        Some(ok) => cubecl::frontend::branch::if_expand(scope, ok.clone(), body),
        None => body(scope),
    }
}
