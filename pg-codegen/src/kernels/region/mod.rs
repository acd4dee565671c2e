//! Regions as kernels.
//!
//! A region whose columns do not meet is flat: any thread takes any piece of any row. Otherwise the threads of
//! a thread block share rows: each keeps its pieces of a row in registers (or walks a long row several times),
//! columns meet through shared memory, or within a warp from thread to thread, and rows that are accumulated are summed by each thread for its own
//! columns, then across the thread block, then by a second kernel across thread blocks.

mod access;
mod long;
mod lowered;
mod mapping;
mod permute;
mod reduce;
mod text;
mod tile;
mod value;
mod walk;

use cubecl::frontend::branch::{RangeExpand, for_expand, if_expand};
use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use pg_ir::op::Reduction;
use pg_ir::ty::DType;
use smallvec::SmallVec;

pub(crate) use self::access::and;
use self::access::{Mask, Piece};
use self::lowered::{Buffer, LoweredRegion, Step};
use self::mapping::Mapping;
use self::reduce::{identity, reduce_slots};
pub(crate) use self::tile::{TilePiece, TileRegion, TileRow};
use self::value::Width;
use self::walk::{Walker, mutable};
use super::error::CubeError;
use super::kernel::{ArgSpec, Body, Generated};
use super::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;
use crate::region::{Affine, IndexMap, Instr, Region};

/// The description of a region's kernel.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct RegionKernel {
    pub(crate) program: LoweredRegion,
    pub(crate) mapping: Mapping,
    /// Thread blocks that have work; the grid may have more.
    cubes: usize,
    /// Whether the grid has no more thread blocks than that.
    exact: bool,
}

/// Adds the launches of a region: one, or two if it accumulates over more rows than a thread block takes, or a few if its
/// rows are too long for a thread block.
pub(crate) fn lower(
    region: &Region,
    infos: &[ArgInfo],
    machine: &Machine,
    single: bool,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let malformed = |what: String| CubeError::Malformed { kernel: "region".into(), what };
    let unsupported = |what: String| CubeError::Unsupported { kernel: "region".into(), what };
    let buffers: Vec<Buffer> = (region.args.iter().zip(infos))
        .map(|(&dtype, i)| Buffer { dtype, len: i.len, shift: i.shift })
        .collect();
    let mut program = LoweredRegion::new(region, &buffers).map_err(malformed)?;
    if let Some(rest) = long::cut(region, infos, machine, out)? {
        let first = out.stages.len() - rest.before;
        rest.launch(machine, out)?;
        // What reads the most: what is left, if it knows columns, or else the first reduction.
        let most = if rest.region.columns > 1 { out.stages.len() - 1 } else { first };
        out.stages[most].share = 1.0;
        return Ok(());
    }
    let mut dtypes = region.args.clone();
    let mut mapping = Mapping::new(&program, &dtypes, machine, single).map_err(unsupported)?;
    let work = program.row_count() as u64 * program.columns as u64;
    if work > i32::MAX as u64 {
        return Err(unsupported(format!("{work} elements are more than 2^31")));
    }
    let mut args: Vec<StageArg> = (0..dtypes.len()).map(StageArg::Arg).collect();
    let mut second = Vec::new();
    if mapping.blocks > 1 {
        // Partial results go to a workspace, which a second region sums.
        let kept = mapping.kept;
        for step in &mut program.steps {
            let Step::Accumulate { arg, kind, at, .. } = step else { continue };
            let wide = program.columns > 1 && at.strides[program.rows.len()] != 0;
            let width = if wide { program.columns } else { 1 };
            let workspace = out.workspace(4 * mapping.blocks * kept * width);
            second.push((*arg, *kind, at.clone(), width, workspace));
            *arg = dtypes.len();
            dtypes.push(DType::F32);
            args.push(StageArg::Workspace(workspace));
            mapping.widths.push(if wide { mapping.width_of(DType::F32, &machine.tuning) } else { 1 });
        }
    }
    let written = |i: usize| {
        let writes = |s: &Step| match s {
            Step::Store { arg, .. } | Step::Accumulate { arg, .. } => *arg == i,
            _ => false,
        };
        program.steps.iter().any(writes) || infos.get(i).is_some_and(|info| info.aliased)
    };
    let specs: Vec<ArgSpec> = (dtypes.iter().zip(&mapping.widths).enumerate())
        .map(|(i, (&dtype, &width))| ArgSpec { dtype, width, writable: written(i) })
        .collect();
    let cubes = mapping.cubes();
    let grid = machine.fold("region", cubes as u64)?;
    let exact = grid[0] as usize * grid[1] as usize == cubes;
    let shared = shared_bytes(&program, &mapping);
    let units = mapping.cube_units() as u32;
    let kept_rows = program.rows[..program.rows.len() - program.reduced].to_vec();
    let blocks = mapping.blocks;
    let kernel = RegionKernel { program, mapping, cubes, exact };
    let kernel = Generated::new(kernel, specs, (units, shared), machine)?;
    out.push(kernel, args, grid, 1.0);
    for (arg, kind, at, width, workspace) in second {
        let region = second_pass(&kept_rows, blocks, width, kind, &at, infos[arg].shift);
        let len = blocks * kept_rows.iter().product::<usize>() * width;
        let workspace_info = ArgInfo::whole(DType::F32, len);
        let passed = [workspace_info, infos[arg]];
        let mut inner = Launches::default();
        lower(&region, &passed, machine, true, &mut inner)?;
        let rename = [StageArg::Workspace(workspace), StageArg::Arg(arg)];
        out.append(inner, &rename);
    }
    Ok(())
}

/// Sums partial results [blocks, kept, width] over blocks.
fn second_pass(
    kept: &[usize],
    blocks: usize,
    width: usize,
    kind: Reduction,
    at: &Affine,
    shift: usize,
) -> Region {
    let rows: usize = kept.iter().product();
    // Kept axes, then blocks, then columns.
    let mut from: SmallVec<[i64; 5]> = SmallVec::new();
    let mut stride = (rows * width) as i64;
    for &n in kept {
        stride /= n as i64;
        from.push(stride);
    }
    from.extend([(rows * width) as i64, i64::from(width > 1)]);
    let mut to: SmallVec<[i64; 5]> = at.strides[..kept.len()].into();
    to.extend([0, at.strides[at.strides.len() - 1]]);
    // The offset has the shift in it already; the second kernel would add it again.
    let to = Affine { offset: at.offset - shift as i64, strides: to };
    Region {
        rows: kept.iter().copied().chain([blocks]).collect(),
        reduced: 1,
        columns: width,
        body: vec![
            Instr::Load { arg: 0, map: IndexMap { at: Affine { offset: 0, strides: from }, guards: vec![] } },
            Instr::Accumulate { arg: 1, value: 0, kind, at: to },
        ],
        args: vec![DType::F32, DType::F32],
    }
}

/// Bytes of shared memory of a region's kernel.
fn shared_bytes(program: &LoweredRegion, s: &Mapping) -> usize {
    if s.flat {
        return 0;
    }
    let cells = 4 * s.units * s.slots;
    let reduces = s.units > 1 && program.steps.iter().any(|x| matches!(x, Step::RowReduce(..)));
    let (mut single, mut wide) = (reduces && s.plane == 1, false);
    // One result of each warp.
    let planes = if reduces && s.units > s.plane { 4 * s.cube_units() / s.plane } else { 0 };
    let mut permutations = 0;
    for step in &program.steps {
        match step {
            Step::Accumulate { at, .. } if s.slots > 1 => {
                let vector = program.writes_columns(at) && s.vector > 1;
                wide |= vector;
                single |= !vector;
            }
            Step::Permute(perm, _) => permutations += permute::shared_bytes(s, perm),
            _ => {}
        }
    }
    planes * usize::from(s.plane > 1)
        + usize::from(single) * cells
        + usize::from(wide) * cells * s.vector
        + permutations
}

impl Mapping {
    /// Whether every chunk of every thread is a piece of the row.
    pub(crate) fn exact_chunks(&self) -> bool {
        self.pieces == self.units * self.chunks * self.column_blocks
    }
}

#[cube]
fn unit_index() -> u32 {
    ABSOLUTE_POS as u32
}

#[cube]
fn cube_index() -> u32 {
    CUBE_POS as u32
}

#[cube]
fn unit_in_cube() -> u32 {
    UNIT_POS
}

#[cube]
fn part(x: u32, #[comptime] below: u32, #[comptime] size: u32) -> u32 {
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
fn signed(x: u32) -> i32 {
    x as i32
}

#[cube]
fn less(x: u32, #[comptime] bound: u32) -> bool {
    x < bound
}

#[cube]
fn is_zero(x: u32) -> bool {
    x == 0
}

#[cube]
fn row_of(outer: u32, inner: u32, #[comptime] size: u32) -> u32 {
    outer * size + inner
}

/// The index along each axis of a row number.
fn split(scope: &mut Scope, row: &NativeExpand<u32>, sizes: &[usize]) -> Vec<NativeExpand<i32>> {
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
        let cube = cube_index::expand(scope);
        if self.exact {
            self.define_rows(scope, &mut walker, &cube);
        } else {
            let busy = less::expand(scope, cube.clone(), self.cubes as u32);
            if_expand(scope, busy, |scope| self.define_rows(scope, &mut walker, &cube));
        }
    }
}

impl RegionKernel {
    fn define_flat(&self, scope: &mut Scope, walker: &mut Walker<'_>) {
        let s = &self.mapping;
        let total = s.kept * s.pieces;
        let me = unit_index::expand(scope);
        let mut body = |scope: &mut Scope| {
            let (row, index) = match s.pieces {
                1 => (me.clone(), 0u32.into()),
                n => (
                    part::expand(scope, me.clone(), n as u32, 0),
                    part::expand(scope, me.clone(), 1, n as u32),
                ),
            };
            walker.location.axes = split(scope, &row, &self.program.rows);
            if s.pieces > 1 {
                walker.first = Some(is_zero::expand(scope, index.clone()));
            }
            let piece = Piece { index: signed::expand(scope, index), ok: None };
            walker.resident(scope, &[piece]);
        };
        if self.exact && total.is_multiple_of(s.cube_units()) {
            body(scope);
        } else {
            let busy = less::expand(scope, me.clone(), total as u32);
            if_expand(scope, busy, body);
        }
    }

    fn define_rows(&self, scope: &mut Scope, walker: &mut Walker<'_>, cube: &NativeExpand<u32>) {
        let s = &self.mapping;
        let units = s.units as u32;
        let me = unit_in_cube::expand(scope);
        let slot = part::expand(scope, me.clone(), units, 0);
        let unit = part::expand(scope, me, 1, units);
        let mut first: Mask = (units > 1).then(|| is_zero::expand(scope, unit.clone()));
        let mut column = signed::expand(scope, unit.clone());
        let rest = match s.column_blocks {
            1 => cube.clone(),
            n => {
                let block = part::expand(scope, cube.clone(), 1, n as u32);
                let is_first = is_zero::expand(scope, block.clone());
                first = and(scope, first, Some(is_first));
                column = permute::chunk_index::expand(scope, column, block, s.units as i32);
                part::expand(scope, cube.clone(), n as u32, 0)
            }
        };
        walker.first = first;
        let pieces = self.pieces(scope, &column);
        if !s.accumulates {
            let row = row_of::expand(scope, rest, slot, s.slots as u32);
            walker.row_ok =
                (!s.kept.is_multiple_of(s.slots)).then(|| less::expand(scope, row.clone(), s.kept as u32));
            walker.location.axes = split(scope, &row, &self.program.rows);
            match s.streamed {
                true => walker.streamed(scope, &column),
                false => walker.resident(scope, &pieces),
            }
            return;
        }
        let p = &self.program;
        let block = part::expand(scope, rest.clone(), 1, s.blocks as u32);
        let kept = part::expand(scope, rest, s.blocks as u32, 0);
        let (kept_sizes, folded_sizes) = p.rows.split_at(p.rows.len() - p.reduced);
        let kept_axes = split(scope, &kept, kept_sizes);
        for step in &p.steps {
            if let Step::Accumulate { kind, at, .. } = step {
                let wide = p.writes_columns(at);
                let count = if wide { pieces.len() } else { 1 };
                let start = (0..count).map(|_| mutable(scope, identity(*kind), wide)).collect();
                walker.accumulators.push(start);
            }
        }
        let range = RangeExpand::new(0u32.into(), (s.trip as u32).into(), false);
        for_expand(scope, range, false, |scope, i: NativeExpand<u32>| {
            let iteration = row_of::expand(scope, block.clone(), i, s.trip as u32);
            let row = row_of::expand(scope, iteration, slot.clone(), s.slots as u32);
            let exact = s.folded == s.blocks * s.trip * s.slots;
            walker.row_ok = (!exact).then(|| less::expand(scope, row.clone(), s.folded as u32));
            walker.location.axes = kept_axes.clone();
            walker.location.axes.extend(split(scope, &row, folded_sizes));
            match s.streamed {
                true => walker.streamed(scope, &column),
                false => walker.resident(scope, &pieces),
            }
        });
        let is_owner = (s.slots > 1).then(|| is_zero::expand(scope, slot.clone()));
        self.finish_accumulations(scope, walker, &kept_axes, (&kept, &block), is_owner, &pieces);
    }

    /// The pieces of a row that a thread computes.
    fn pieces(&self, scope: &mut Scope, column: &NativeExpand<i32>) -> Vec<Piece> {
        let s = &self.mapping;
        if s.streamed {
            return Vec::new();
        }
        let piece = |c: usize| {
            let index = match c {
                0 => column.clone(),
                c => permute::offset::expand(scope, column.clone(), (c * s.units) as i32),
            };
            let last = (c + 1) * s.units > s.pieces || s.column_blocks > 1;
            let ok = (last && !s.exact_chunks())
                .then(|| permute::below::expand(scope, index.clone(), s.pieces as i32));
            Piece { index, ok }
        };
        (0..s.chunks).map(piece).collect()
    }

    /// Combines accumulators across the thread block and writes them.
    fn finish_accumulations(
        &self,
        scope: &mut Scope,
        walker: &mut Walker<'_>,
        kept_axes: &[NativeExpand<i32>],
        (kept, block): (&NativeExpand<u32>, &NativeExpand<u32>),
        is_owner: Mask,
        pieces: &[Piece],
    ) {
        let (p, s) = (&self.program, &self.mapping);
        let mut number = 0;
        for step in &p.steps {
            let Step::Accumulate { arg, kind, at, .. } = step else { continue };
            let wide = p.writes_columns(at);
            // Where the result goes: its own place, or [block, kept row, column] of the workspace.
            let at = match s.blocks {
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
                let total = reduce_slots(scope, &mut walker.scratch, *kind, part, (s.units, s.slots));
                let mask = match wide {
                    true => is_owner.clone(),
                    false => and(scope, is_owner.clone(), walker.first.clone()),
                };
                let spec = walker.args[*arg];
                let to = access::Source { var: &walker.buffers[*arg], dtype: spec.dtype, width: spec.width };
                let piece = wide.then(|| &pieces[i]);
                walker.location.store(scope, &to, &at, &total, piece, mask);
            }
            number += 1;
        }
    }
}
