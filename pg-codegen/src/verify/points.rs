//! Points of a domain at which index maps are compared: enough to tell affine maps apart, and on both sides of every
//! guard.
//!
//! Two affine maps that agree at the origin and at the far end of each axis are one. Maps that are not affine, or that
//! guards cut, differ at some of the other points: the far corner, a few that are drawn, and those where a guarded
//! coordinate steps over its bounds. The points of a region are always the same.

use pg_ir::op::Binary;
use smallvec::SmallVec;

use super::element::{Coords, split};
use crate::region::{Affine, Instr, Region};

/// Guards beyond these are seen at the other points only.
const MOST_GUARDS: usize = 12;

/// A row, with columns of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) index: Coords,
    pub(super) columns: SmallVec<[usize; 6]>,
}

/// Some number below `n` that depends on `seed` alone.
pub(super) fn drawn(seed: u64, n: usize) -> usize {
    // SplitMix64.
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % n.max(1) as u64) as usize
}

/// The origin, the far end of each axis, the far corner and `draws` more, in order.
pub(super) fn corners(sizes: &[usize], draws: u64) -> Vec<Coords> {
    let origin: Coords = SmallVec::from_elem(0, sizes.len());
    let mut out = vec![origin.clone()];
    for (axis, &size) in sizes.iter().enumerate().filter(|(_, n)| **n > 1) {
        let mut at = origin.clone();
        at[axis] = size - 1;
        out.push(at);
    }
    out.push(sizes.iter().map(|n| n - 1).collect());
    let len: usize = sizes.iter().product();
    out.extend((0..draws).map(|i| split(drawn(i, len), sizes)));
    out.sort_unstable();
    out.dedup();
    out
}

/// The far corner and one more point, for index maps that have been compared for another launch.
pub(super) fn ends(sizes: &[usize]) -> Vec<Coords> {
    let len: usize = sizes.iter().product();
    vec![split(drawn(11, len), sizes), split(len - 1, sizes)]
}

fn sorted(mut columns: SmallVec<[usize; 6]>) -> SmallVec<[usize; 6]> {
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Points of a region for which nothing is known yet: three columns of the first row and of the last, one of the others.
pub(super) fn all(region: &Region) -> Vec<Row> {
    let column = drawn(7, region.columns);
    let corners = corners(&region.rows, 2);
    let (first, last) = (corners.first().cloned(), corners.last().cloned());
    let of = |index: Coords| {
        let is_end = Some(&index) == first.as_ref() || Some(&index) == last.as_ref();
        let ends: &[usize] = if is_end { &[0, column, region.columns - 1] } else { &[column] };
        Row { index, columns: sorted(SmallVec::from_slice(ends)) }
    };
    let mut rows: Vec<Row> = corners.iter().cloned().map(of).collect();
    let sizes = region.sizes();
    for (expr, bound) in boundaries(region) {
        for fill in [0, 1] {
            let Some(mut index) = reach(expr, bound, &sizes, fill) else { continue };
            let column = index.pop().unwrap_or(0);
            let mut columns = readers(region, column);
            if region.columns_meet() {
                columns.extend([0, region.columns - 1]);
            }
            rows.push(Row { index, columns: sorted(columns) });
        }
    }
    rows.sort_unstable_by(|a, b| (&a.index, &a.columns).cmp(&(&b.index, &b.columns)));
    rows.dedup();
    rows
}

/// Most columns of one row at which a boundary is looked at.
const MOST_READERS: usize = 16;

/// A column, and those that permutations take its element to.
fn readers(region: &Region, column: usize) -> SmallVec<[usize; 6]> {
    let mut columns = SmallVec::from_slice(&[column]);
    for instr in &region.body {
        let Instr::Permute(sources, _) = instr else { continue };
        let read = |columns: &[usize], source: u32| columns.contains(&(source as usize));
        let to = (0..sources.len()).filter(|&j| read(&columns, sources[j]) && !columns.contains(&j));
        let to: SmallVec<[usize; 6]> = to.take(MOST_READERS - columns.len().min(MOST_READERS)).collect();
        columns.extend(to);
    }
    columns
}

/// Points of a region whose index maps have been compared for another launch.
pub(super) fn few(region: &Region) -> Vec<Row> {
    let rows: usize = region.rows.iter().product();
    let mut columns = SmallVec::from_slice(&[drawn(7, region.columns)]);
    if region.columns_meet() {
        columns.push(region.columns - 1);
    }
    let columns = sorted(columns);
    let mut rows = vec![drawn(11, rows), rows - 1];
    rows.dedup();
    rows.iter().map(|&row| Row { index: split(row, &region.rows), columns: columns.clone() }).collect()
}

/// Coordinates with values at which something begins or ends: guards, and comparisons that stand for guards.
fn boundaries(region: &Region) -> Vec<(&Affine, i64)> {
    let mut guards: Vec<(&Affine, i64)> = Vec::new();
    let mut add = |expr, size| {
        if guards.len() < MOST_GUARDS && !guards.contains(&(expr, size)) {
            guards.push((expr, size));
        }
    };
    for instr in &region.body {
        match instr {
            Instr::Load { map, .. } | Instr::Gather { map, .. } => {
                map.guards.iter().for_each(|g| add(&g.expr, g.size));
            }
            Instr::Binary(Binary::Gt, a, b) => match (&region.body[*a as usize], &region.body[*b as usize]) {
                (Instr::Index(expr), Instr::ConstInt(n)) => add(expr, i64::from(*n) + 1),
                (Instr::ConstInt(n), Instr::Index(expr)) => add(expr, i64::from(*n)),
                _ => {}
            },
            _ => {}
        }
    }
    guards.iter().flat_map(|&(expr, n)| [-1, 0, n - 1, n].map(|at| (expr, at))).collect()
}

/// An index at which a map has a value, if one is found: axes that do not matter at their start, or at their middle.
fn reach(expr: &Affine, value: i64, sizes: &[usize], fill: usize) -> Option<Coords> {
    let mut index: Coords = sizes.iter().map(|n| fill * (n / 2)).collect();
    let mut order: SmallVec<[usize; 6]> = (0..sizes.len()).filter(|&a| expr.strides[a] != 0).collect();
    order.sort_by_key(|&a| std::cmp::Reverse(expr.strides[a].abs()));
    let mut left = value - expr.offset;
    for (i, &axis) in order.iter().enumerate() {
        let stride = expr.strides[axis];
        let (low, high) = order[i + 1..].iter().fold((0, 0), |(low, high), &a| {
            let reach = expr.strides[a] * (sizes[a] as i64 - 1);
            (low + reach.min(0), high + reach.max(0))
        });
        // left − stride · x has to be between low and high.
        let ends = [left - high, left - low].map(|end| end as f64 / stride as f64);
        let (from, to) = (ends[0].min(ends[1]).ceil() as i64, ends[0].max(ends[1]).floor() as i64);
        let (from, to) = (from.max(0), to.min(sizes[axis] as i64 - 1));
        if from > to {
            return None;
        }
        let x = (index[axis] as i64).clamp(from, to);
        left -= stride * x;
        index[axis] = x as usize;
    }
    (left == 0).then_some(index)
}
