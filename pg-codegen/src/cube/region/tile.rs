//! A region on a tile of a result that another kernel has at hand: its argument 0 is never in memory. The owner
//! says which pieces of which row it holds; the region loads what else it needs and stores what it makes.
//!
//! Only regions whose lanes do not meet can run so. Nothing here may depend on how the tile is cut.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;

use super::access::Piece;
use super::program::{Buffer, Kind, Program, Step};
use super::schedule::{Schedule, live_rows};
use super::value::{Lanes, Value};
use super::walk::Walker;
use super::{signed, split};
use crate::cube::kernel::ArgSpec;
use crate::cube::stage::ArgInfo;
use crate::cube::target::{CubeError, Target};
use crate::region::{Instr, Region};

/// The description of a region on tiles.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct TileRegion {
    program: Program,
    schedule: Schedule,
    /// Rows of a matrix of the result.
    height: usize,
}

/// A piece of a row of the tile, in float32.
pub(crate) struct TilePiece {
    /// Its number within the row.
    pub(crate) index: NativeExpand<u32>,
    /// Whether the row has it.
    pub(crate) ok: Option<NativeExpand<bool>>,
    /// Its elements.
    pub(crate) value: ManagedVariable,
}

/// Whether a tile gives a region what it needs of its argument 0: rows that do not meet and lanes that do not
/// meet. Sums and permutations of whole rows take a second launch.
pub(crate) fn runs_on_tiles(region: &Region) -> bool {
    let meets = |i: &Instr| {
        matches!(i, Instr::RowReduce(..) | Instr::Lanes(..) | Instr::FakeQuant(..) | Instr::Accumulate { .. })
    };
    region.reduced == 0 && region.lanes > 1 && !region.body.iter().any(meets)
}

impl TileRegion {
    /// A region over arguments of which the first is a tile of matrices of `height` rows. `infos` are of the others.
    ///
    /// # Errors
    /// If the region is malformed, or has steps that a tile cannot run.
    pub(crate) fn new(
        region: &Region,
        height: usize,
        infos: &[ArgInfo],
        vector: usize,
        target: &Target,
    ) -> Result<TileRegion, CubeError> {
        let malformed = |what: String| CubeError::Malformed { kernel: "region on tiles".into(), what };
        let Some(&tile) = region.args.first() else { return Err(malformed("it has no tile".into())) };
        if !runs_on_tiles(region) {
            return Err(malformed("its lanes or rows meet".into()));
        }
        let tile = ArgInfo::whole(tile, region.row_count() * region.lanes);
        let buffers: Vec<Buffer> = (region.args.iter().zip([&tile].into_iter().chain(infos)))
            .map(|(&dtype, i)| Buffer { dtype, len: i.len, shift: i.shift })
            .collect();
        let program = Program::new(region, &buffers).map_err(malformed)?;
        let schedule = Schedule::on_tile(&program, &region.args, &target.tuning, vector);
        Ok(TileRegion { program, schedule, height })
    }

    /// Its buffers: arguments from 1 on.
    pub(crate) fn specs(&self, infos: &[ArgInfo]) -> Vec<ArgSpec> {
        let is_written = |arg: usize| {
            self.program.steps.iter().any(|s| matches!(s, Step::Store { arg: a, .. } if *a == arg))
        };
        let spec = |(i, info): (usize, &ArgInfo)| ArgSpec {
            dtype: info.dtype,
            width: self.schedule.widths[i],
            writable: is_written(i) || info.aliased,
        };
        (1..).zip(infos).map(spec).collect()
    }

    /// How many arguments it has, the tile among them.
    pub(crate) fn arguments(&self) -> usize {
        self.schedule.widths.len()
    }

    /// Lanes of a piece.
    pub(crate) fn vector(&self) -> usize {
        self.schedule.vector
    }

    /// The most values per lane that it has in hand at once.
    pub(crate) fn live_rows(&self) -> usize {
        live_rows(&self.program)
    }

    /// The program as text, one step a line.
    pub(crate) fn describe(&self) -> String {
        (0..self.program.steps.len()).map(|i| format!("{}\n", self.program.line(i))).collect()
    }

    /// Makes vectors of this kernel as wide as a piece.
    pub(crate) fn register(&self, scope: &mut Scope) {
        scope.register_size::<Lanes>(self.schedule.vector);
    }

    /// Emits the region for pieces of one row of one matrix of the result, which does nothing unless `ok`. Buffers
    /// are those from argument 0 on, of which the first is not touched.
    pub(crate) fn emit(
        &self,
        scope: &mut Scope,
        (buffers, args): (&[ManagedVariable], &[ArgSpec]),
        (matrix, row, ok): (&NativeExpand<u32>, &NativeExpand<u32>, Option<NativeExpand<bool>>),
        pieces: Vec<TilePiece>,
    ) {
        let mut walker = Walker::new(&self.program, &self.schedule, buffers, args);
        walker.place.axes = self.axes(scope, matrix, row);
        walker.row_ok = ok;
        let mut places = Vec::new();
        let mut tile = Vec::new();
        for piece in pieces {
            places.push(Piece { index: signed::expand(scope, piece.index), ok: piece.ok });
            tile.push(Value::new(piece.value, Kind::Float, true));
        }
        walker.on_tile(scope, &places, &tile);
    }

    /// The index along each row axis: outer axes are those that number matrices, where the axes say it.
    fn axes(
        &self,
        scope: &mut Scope,
        matrix: &NativeExpand<u32>,
        row: &NativeExpand<u32>,
    ) -> Vec<NativeExpand<i32>> {
        let rows = &self.program.rows;
        let inner = |at: usize| rows[at..].iter().product::<usize>();
        if let Some(at) = (0..=rows.len()).find(|&at| inner(at) == self.height) {
            let mut axes = split(scope, matrix, &rows[..at]);
            axes.extend(split(scope, row, &rows[at..]));
            return axes;
        }
        let all = super::row_of::expand(scope, matrix.clone(), row.clone(), self.height as u32);
        split(scope, &all, rows)
    }
}
