//! Emits a region's kernel: which thread takes which rows, and what becomes of accumulated sums.

use cubecl::frontend::branch::{RangeExpand, for_expand, if_expand};
use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use smallvec::SmallVec;

use super::access::{Chunk, Mask, and};
use super::lowered::Step;
use super::reduce::{identity, reduce_block_rows};
use super::value::Width;
use super::walk::{Walker, mutable};
use super::{RegionKernel, permute};
use crate::kernels::kernel::{ArgSpec, Body, has_work};
use crate::region::Affine;

#[cube]
fn thread_index() -> u32 {
    ABSOLUTE_POS as u32
}

#[cube]
fn block_index() -> u32 {
    CUBE_POS as u32
}

#[cube]
pub(super) fn thread_in_block() -> u32 {
    UNIT_POS
}

#[cube]
pub(super) fn part(x: u32, #[comptime] below: u32, #[comptime] size: u32) -> u32 {
    let mut y = x;
    if comptime!(below > 1) {
        y /= below;
    }
    if comptime!(size > 0) {
        y %= size;
    }
    y
}

#[cube]
pub(super) fn signed(x: u32) -> i32 {
    x as i32
}

#[cube]
fn less(x: u32, #[comptime] bound: u32) -> bool {
    x < bound
}

#[cube]
pub(super) fn is_zero(x: u32) -> bool {
    x == 0
}

#[cube]
pub(super) fn row_of(outer: u32, inner: u32, #[comptime] size: u32) -> u32 {
    outer * size + inner
}

/// The index along each axis of a row number.
pub(super) fn split(scope: &mut Scope, row: &NativeExpand<u32>, sizes: &[usize]) -> Vec<NativeExpand<i32>> {
    let mut below: usize = sizes.iter().product();
    let mut indices = Vec::new();
    for (i, &size) in sizes.iter().enumerate() {
        below /= size;
        if size == 1 {
            indices.push(0i32.into());
            continue;
        }
        // The outermost axis is not wrapped: rows beyond the last are masked.
        let wrap = if i == 0 { 0 } else { size as u32 };
        let index = match (below, wrap) {
            (1, 0) => row.clone(),
            _ => part::expand(scope, row.clone(), below as u32, wrap),
        };
        indices.push(signed::expand(scope, index));
    }
    indices
}

impl Body for RegionKernel {
    fn family(&self) -> &'static str {
        "region"
    }

    fn describe(&self) -> String {
        let p = &self.program;
        let kept = p.rows.len() - p.reduced;
        let mut text = format!(
            "rows {:?}, accumulated over {:?}, columns {}\n",
            &p.rows[..kept],
            &p.rows[kept..],
            p.columns
        );
        (0..p.steps.len()).for_each(|i| text += &format!("{}\n", p.line(i)));
        text
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], args: &[ArgSpec]) {
        scope.register_size::<Width>(self.mapping.vector);
        let mut walker = Walker::new(&self.program, &self.mapping, buffers, args);
        if self.mapping.flat {
            self.define_flat(scope, &mut walker);
            return;
        }
        let thread_block = block_index::expand(scope);
        let busy = has_work::expand(scope, thread_block.clone(), self.thread_blocks, self.exact);
        if_expand(scope, busy, |scope| self.define_rows(scope, &mut walker, &thread_block));
    }
}

impl RegionKernel {
    fn define_flat(&self, scope: &mut Scope, walker: &mut Walker<'_>) {
        let s = &self.mapping;
        let total = s.kept * s.row_chunks;
        let me = thread_index::expand(scope);
        let busy =
            has_work::expand(scope, me.clone(), total, self.exact && total.is_multiple_of(s.block_threads));
        if_expand(scope, busy, |scope| {
            let (row, index) = match s.row_chunks {
                1 => (me.clone(), 0u32.into()),
                n => (
                    part::expand(scope, me.clone(), n as u32, 0),
                    part::expand(scope, me.clone(), 1, n as u32),
                ),
            };
            walker.location.axes = split(scope, &row, &self.program.rows);
            if s.row_chunks > 1 {
                walker.first = Some(is_zero::expand(scope, index.clone()));
            }
            let chunk = Chunk { index: signed::expand(scope, index), ok: None };
            walker.resident(scope, &[chunk]);
        });
    }

    fn define_rows(&self, scope: &mut Scope, walker: &mut Walker<'_>, thread_block: &NativeExpand<u32>) {
        let s = &self.mapping;
        let row_threads = s.row_threads as u32;
        let me = thread_in_block::expand(scope);
        let block_row = part::expand(scope, me.clone(), row_threads, 0);
        let thread = part::expand(scope, me, 1, row_threads);
        let mut first: Mask = (row_threads > 1).then(|| is_zero::expand(scope, thread.clone()));
        let mut column = signed::expand(scope, thread.clone());
        let rest = match s.column_blocks {
            1 => thread_block.clone(),
            n => {
                let block = part::expand(scope, thread_block.clone(), 1, n as u32);
                let is_first = is_zero::expand(scope, block.clone());
                first = and(scope, first, Some(is_first));
                column = permute::strided::expand(scope, column, block, s.row_threads as i32);
                part::expand(scope, thread_block.clone(), n as u32, 0)
            }
        };
        walker.first = first;
        let chunks = self.chunks(scope, &column);
        if !s.accumulates {
            let row = row_of::expand(scope, rest, block_row, s.block_rows as u32);
            walker.row_ok = (!s.kept.is_multiple_of(s.block_rows))
                .then(|| less::expand(scope, row.clone(), s.kept as u32));
            walker.location.axes = split(scope, &row, &self.program.rows);
            match s.streamed {
                true => walker.streamed(scope, &column),
                false => walker.resident(scope, &chunks),
            }
            return;
        }
        let p = &self.program;
        let block = part::expand(scope, rest.clone(), 1, s.fold_blocks as u32);
        let kept = part::expand(scope, rest, s.fold_blocks as u32, 0);
        let (kept_sizes, folded_sizes) = p.rows.split_at(p.rows.len() - p.reduced);
        let kept_axes = split(scope, &kept, kept_sizes);
        for step in &p.steps {
            if let Step::Accumulate { kind, at, .. } = step {
                let wide = p.writes_columns(at);
                let count = if wide { chunks.len() } else { 1 };
                let start = (0..count).map(|_| mutable(scope, identity(*kind), wide)).collect();
                walker.accumulators.push(start);
            }
        }
        let range = RangeExpand::new(0u32.into(), (s.trip as u32).into(), false);
        for_expand(scope, range, false, |scope, i: NativeExpand<u32>| {
            let iteration = row_of::expand(scope, block.clone(), i, s.trip as u32);
            let row = row_of::expand(scope, iteration, block_row.clone(), s.block_rows as u32);
            let exact = s.folded == s.fold_blocks * s.trip * s.block_rows;
            walker.row_ok = (!exact).then(|| less::expand(scope, row.clone(), s.folded as u32));
            walker.location.axes = kept_axes.clone();
            walker.location.axes.extend(split(scope, &row, folded_sizes));
            match s.streamed {
                true => walker.streamed(scope, &column),
                false => walker.resident(scope, &chunks),
            }
        });
        let is_owner = (s.block_rows > 1).then(|| is_zero::expand(scope, block_row.clone()));
        self.finish_accumulations(scope, walker, &kept_axes, (&kept, &block), is_owner, &chunks);
    }

    /// The chunks of a row that a thread computes.
    fn chunks(&self, scope: &mut Scope, column: &NativeExpand<i32>) -> Vec<Chunk> {
        let s = &self.mapping;
        if s.streamed {
            return Vec::new();
        }
        let chunk = |c: usize| {
            let index = match c {
                0 => column.clone(),
                c => permute::offset::expand(scope, column.clone(), (c * s.row_threads) as i32),
            };
            let last = (c + 1) * s.row_threads > s.row_chunks || s.column_blocks > 1;
            let ok = (last && !s.exact_chunks())
                .then(|| permute::below::expand(scope, index.clone(), s.row_chunks as i32));
            Chunk { index, ok }
        };
        (0..s.thread_chunks).map(chunk).collect()
    }

    /// Combines accumulators across the thread block and writes them.
    fn finish_accumulations(
        &self,
        scope: &mut Scope,
        walker: &mut Walker<'_>,
        kept_axes: &[NativeExpand<i32>],
        (kept, block): (&NativeExpand<u32>, &NativeExpand<u32>),
        is_owner: Mask,
        chunks: &[Chunk],
    ) {
        let (p, s) = (&self.program, &self.mapping);
        let mut number = 0;
        for step in &p.steps {
            let Step::Accumulate { arg, kind, at, .. } = step else { continue };
            let wide = p.writes_columns(at);
            // Where the result goes: its own place, or [block, kept row, column] of the workspace.
            let at = match s.fold_blocks {
                1 => {
                    walker.location.axes = kept_axes.to_vec();
                    let mut strides: SmallVec<[i64; 5]> = at.strides[..kept_axes.len()].into();
                    strides.push(at.strides[p.rows.len()]);
                    Affine { offset: at.offset, strides }
                }
                _ => {
                    let (block, kept) = (block.clone(), kept.clone());
                    walker.location.axes = vec![signed::expand(scope, block), signed::expand(scope, kept)];
                    let width = if wide { p.columns as i64 } else { 1 };
                    let strides = [s.kept as i64 * width, width, i64::from(wide)];
                    Affine { offset: 0, strides: SmallVec::from_slice(&strides) }
                }
            };
            let parts = walker.accumulators[number].clone();
            for (i, part) in parts.iter().enumerate() {
                let total =
                    reduce_block_rows(scope, &mut walker.scratch, *kind, part, (s.row_threads, s.block_rows));
                let mask = match wide {
                    true => is_owner.clone(),
                    false => and(scope, is_owner.clone(), walker.first.clone()),
                };
                let chunk = wide.then(|| &chunks[i]);
                walker.location.store(scope, &walker.source(*arg), &at, &total, chunk, mask);
            }
            number += 1;
        }
    }
}
