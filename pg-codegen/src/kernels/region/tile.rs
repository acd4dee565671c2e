//! A region on a tile of a result that another kernel has at hand: its argument 0 is never in memory. The owner
//! says which chunks of which row it holds; the region loads what else it needs and stores what it makes.
//!
//! The region's rows are rows of the result, or equal parts of them. Columns can meet where neighbouring threads of one
//! warp hold a whole row. Nothing here may depend on how the tile is cut otherwise.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;

use super::access::Chunk;
use super::body::{is_zero, part, row_of, signed, split, thread_in_block};
use super::lowered::{Kind, LoweredRegion, Step};
use super::mapping::{Mapping, live_rows};
use super::value::{Value, Width};
use super::walk::Walker;
use crate::kernels::error::CubeError;
use crate::kernels::kernel::ArgSpec;
use crate::kernels::stage::ArgInfo;
use crate::machine::Machine;
use crate::region::Region;

/// The description of a region on tiles.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct TileRegion {
    program: LoweredRegion,
    mapping: Mapping,
    /// Rows of a matrix of the result.
    height: usize,
    /// The region's rows in a row of the result.
    parts: usize,
}

/// Where in the result a row of the region lies.
pub(crate) struct TileRow {
    pub(crate) matrix: NativeExpand<u32>,
    pub(crate) row: NativeExpand<u32>,
    /// Which part of the row, where rows of the region are parts.
    pub(crate) part: NativeExpand<u32>,
    /// Whether it is there at all.
    pub(crate) ok: Option<NativeExpand<bool>>,
}

/// A chunk of a row of the tile, in float32.
pub(crate) struct TileChunk {
    /// Its number within the row.
    pub(crate) index: NativeExpand<u32>,
    /// Whether the row has it.
    pub(crate) ok: Option<NativeExpand<bool>>,
    /// Its elements.
    pub(crate) value: ManagedVariable,
}

impl TileRegion {
    /// A region over arguments of which the first is a tile of matrices of `height` rows and `columns` columns, held in
    /// chunks of `vector` columns. `infos` are of the others.
    ///
    /// # Errors
    /// If the region is malformed.
    pub(crate) fn new(
        region: &Region,
        (height, columns): (usize, usize),
        vector: usize,
        infos: &[ArgInfo],
        machine: &Machine,
    ) -> Result<TileRegion, CubeError> {
        let malformed = |what: String| CubeError::Malformed { kernel: "region on tiles".into(), what };
        let Some(&tile) = region.args.first() else { return Err(malformed("it has no tile".into())) };
        if !columns.is_multiple_of(region.columns) {
            return Err(malformed("its rows are no parts of the result's".into()));
        }
        let tile = ArgInfo::whole(tile, region.row_count() * region.columns);
        let shifts: Vec<usize> = [&tile].into_iter().chain(infos).map(|i| i.shift).collect();
        let lowered = LoweredRegion::new(region, &shifts).map_err(malformed)?;
        let mapping = Mapping::on_tile(&lowered, &region.args, machine, vector);
        Ok(TileRegion { program: lowered, mapping, height, parts: columns / region.columns })
    }

    /// The same region where each row is held by so many neighbouring threads of a warp, chunk by chunk in turn.
    pub(crate) fn shared_by(mut self, sharers: usize) -> TileRegion {
        self.mapping.row_threads = sharers;
        self.mapping.thread_chunks = self.mapping.row_chunks / sharers;
        self
    }

    /// Columns of a row of the region.
    pub(crate) fn columns(&self) -> usize {
        self.program.columns
    }

    /// Whether its rows must be at hand whole: they are parts of the result's, their columns meet, or one of their
    /// threads stores for all.
    pub(crate) fn wants_rows(&self) -> bool {
        let p = &self.program;
        let is_once =
            |s: &Step| p.columns > 1 && matches!(s, Step::Store { at, .. } if !p.writes_columns(at));
        self.parts > 1 || p.has_row_steps() || p.steps.iter().any(is_once)
    }

    /// The most values per column that it has in hand at once.
    pub(crate) fn live_rows(&self) -> usize {
        live_rows(&self.program)
    }

    /// The region's rows in a row of the result.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// Its buffers: arguments from 1 on.
    pub(crate) fn specs(&self, infos: &[ArgInfo]) -> Vec<ArgSpec> {
        let is_written = |arg: usize| {
            self.program.steps.iter().any(|s| matches!(s, Step::Store { arg: a, .. } if *a == arg))
        };
        let spec = |(i, info): (usize, &ArgInfo)| ArgSpec {
            dtype: info.dtype,
            width: self.mapping.widths[i],
            writable: is_written(i) || info.aliased,
        };
        (1..).zip(infos).map(spec).collect()
    }

    /// How many arguments it has, the tile among them.
    pub(crate) fn arguments(&self) -> usize {
        self.mapping.widths.len()
    }

    /// Columns of a chunk.
    pub(crate) fn vector(&self) -> usize {
        self.mapping.vector
    }

    /// The region as text, one step a line.
    pub(crate) fn describe(&self) -> String {
        (0..self.program.steps.len()).map(|i| format!("{}\n", self.program.line(i))).collect()
    }

    /// Makes vectors of this kernel as wide as a chunk.
    pub(crate) fn register(&self, scope: &mut Scope) {
        scope.register_size::<Width>(self.mapping.vector);
    }

    /// Emits the region for chunks of one row. Buffers are those from argument 0 on, of which the first is not touched.
    pub(crate) fn emit(
        &self,
        scope: &mut Scope,
        (buffers, args): (&[ManagedVariable], &[ArgSpec]),
        at: TileRow,
        chunks: Vec<TileChunk>,
    ) {
        let mut walker = Walker::new(&self.program, &self.mapping, buffers, args);
        walker.location.axes = self.axes(scope, &at);
        walker.row_ok = at.ok;
        if self.mapping.row_threads > 1 {
            let me = thread_in_block::expand(scope);
            let thread = part::expand(scope, me, 1, self.mapping.row_threads as u32);
            walker.first = Some(is_zero::expand(scope, thread));
        }
        let mut places = Vec::new();
        let mut tile = Vec::new();
        for chunk in chunks {
            places.push(Chunk { index: signed::expand(scope, chunk.index), ok: chunk.ok });
            tile.push(Value::new(chunk.value, Kind::Float, true));
        }
        walker.on_tile(scope, &places, &tile);
    }

    /// The index along each row axis: outer axes are those that number matrices, and inner axes those that number
    /// parts of rows, where the axes say it.
    fn axes(&self, scope: &mut Scope, at: &TileRow) -> Vec<NativeExpand<i32>> {
        let rows = &self.program.rows;
        let inner = |from: usize| rows[from..].iter().product::<usize>();
        let from = |n: usize| (0..=rows.len()).find(|&at| inner(at) == n);
        let (outer, within) = match from(self.parts) {
            Some(within) => (from(self.parts * self.height).filter(|o| *o <= within), Some(within)),
            None => (None, None),
        };
        if let (Some(outer), Some(within)) = (outer, within) {
            let mut axes = split(scope, &at.matrix, &rows[..outer]);
            axes.extend(split(scope, &at.row, &rows[outer..within]));
            axes.extend(split(scope, &at.part, &rows[within..]));
            return axes;
        }
        let mut all = row_of::expand(scope, at.matrix.clone(), at.row.clone(), self.height as u32);
        if let Some(within) = within {
            let mut axes = split(scope, &all, &rows[..within]);
            axes.extend(split(scope, &at.part, &rows[within..]));
            return axes;
        }
        if self.parts > 1 {
            all = row_of::expand(scope, all, at.part.clone(), self.parts as u32);
        }
        split(scope, &all, rows)
    }
}
