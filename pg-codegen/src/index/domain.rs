//! Domains: the index space that a region walks, and its normal form.
//!
//! Emission works on a domain with one axis per axis of the shapes at hand, so that coordinates stay
//! affine. [`Draft::finish`] then merges whatever is contiguous for every index map, picks the columns,
//! and puts the axes that are accumulated over innermost. It must not change which elements meet:
//! columns that a row instruction sees are fixed before it runs.

use pg_ir::op::Binary;
use pg_ir::ty::DType;
use smallvec::SmallVec;

use crate::index::view::Sizes;
use crate::region::types::{RegType, reg_type};
use crate::region::{Affine, Instr, Reg, Region};

/// Columns are merged with rows until they are this many: enough for any vector unit, and few enough that
/// a block of rows stays in cache.
const ENOUGH_COLUMNS: usize = 256;

/// The index space of a region before normalisation: sizes without ones, of which the innermost
/// `columns` axes together are a row's columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Domain {
    /// Sizes of all axes, outermost first; none is 1.
    pub(crate) sizes: Sizes,
    /// How many of the innermost axes are columns.
    pub(crate) columns: usize,
}

impl Domain {
    /// The domain of a shape whose innermost `columns` axes are columns.
    pub(crate) fn new(shape: &[usize], columns: usize) -> Self {
        let columns = shape[shape.len() - columns..].iter().filter(|&&s| s > 1).count();
        Domain { sizes: shape.iter().copied().filter(|&s| s > 1).collect(), columns }
    }

    /// The domain of a shape whose last axis that is not 1 is the columns.
    pub(crate) fn pointwise(shape: &[usize]) -> Self {
        let mut domain = Domain::new(shape, 0);
        domain.columns = domain.sizes.len().min(1);
        domain
    }

    /// Number of axes.
    pub(crate) fn rank(&self) -> usize {
        self.sizes.len()
    }

    /// Number of row axes.
    pub(crate) fn row_rank(&self) -> usize {
        self.rank() - self.columns
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Number of rows.
    pub(crate) fn row_count(&self) -> usize {
        self.sizes[..self.row_rank()].iter().product()
    }

    /// Sizes of the column axes.
    pub(crate) fn column_sizes(&self) -> &[usize] {
        &self.sizes[self.row_rank()..]
    }

    /// The index along each of a range of axes.
    pub(crate) fn indices(&self, axes: std::ops::Range<usize>) -> SmallVec<[Affine; 4]> {
        axes.map(|i| Affine::axis(self.rank(), i)).collect()
    }

    /// Splits an axis, its inner part `inner` wide. Both parts of a column axis stay columns.
    pub(crate) fn refine(&self, axis: usize, inner: usize) -> Self {
        let mut out = self.clone();
        out.sizes[axis] = self.sizes[axis] / inner;
        out.sizes.insert(axis + 1, inner);
        out.columns += usize::from(axis >= self.row_rank());
        out
    }

    /// Whether an expression is the same for all columns of a row.
    pub(crate) fn is_row_constant(&self, expr: &Affine) -> bool {
        expr.strides[self.row_rank()..].iter().all(|&s| s == 0)
    }
}

/// A region's program over an unnormalised domain.
pub(crate) struct Draft {
    /// The domain.
    pub(crate) domain: Domain,
    /// Row axes that the region accumulates over.
    pub(crate) reduced: SmallVec<[bool; 6]>,
    /// Whether some instruction depends on which elements are a row's columns.
    pub(crate) fixed_columns: bool,
    /// The program.
    pub(crate) body: Vec<Instr>,
    /// Element types of the arguments.
    pub(crate) args: Vec<DType>,
}

/// A run of domain axes that the region walks as one.
#[derive(Clone)]
struct AxisRun {
    size: usize,
    /// The axis whose strides the run has.
    inner: usize,
}

impl Draft {
    /// The normal form, or `None` if the columns cannot be walked as one axis.
    pub(crate) fn finish(mut self) -> Option<Region> {
        let (rank, row_rank) = (self.domain.rank(), self.domain.row_rank());
        let run = |i: usize| AxisRun { size: self.domain.sizes[i], inner: i };
        let mut kept: Vec<AxisRun> = (0..row_rank).filter(|&i| !self.reduced[i]).map(run).collect();
        let mut reduced: Vec<AxisRun> = (0..row_rank).filter(|&i| self.reduced[i]).map(run).collect();
        let mut columns: Vec<AxisRun> = (row_rank..rank).map(run).collect();
        if self.fixed_columns {
            self.merge(&mut columns);
            if columns.len() > 1 {
                return None;
            }
        } else {
            // No instruction cares which elements are columns: take the innermost axis that is kept, then
            // as many of its neighbours as it takes.
            kept.append(&mut columns);
            let mut inner = kept.pop();
            while let (Some(column), Some(outer)) = (&inner, kept.last()) {
                match self.joined(outer, column) {
                    Some(run) if column.size < ENOUGH_COLUMNS => inner = Some(run),
                    _ => break,
                }
                kept.pop();
            }
            columns.extend(inner);
        }
        self.merge(&mut kept);
        self.merge(&mut reduced);
        let axes: Vec<usize> = kept.iter().chain(&reduced).chain(&columns).map(|r| r.inner).collect();
        let no_columns = columns.is_empty();
        for affine in self.body.iter_mut().flat_map(Instr::affines_mut) {
            let mut strides: SmallVec<[i64; 5]> = axes.iter().map(|&a| affine.strides[a]).collect();
            if no_columns {
                strides.push(0);
            }
            affine.strides = strides;
        }
        let columns = columns.first().map_or(1, |r| r.size);
        Some(widen(Region {
            rows: kept.iter().chain(&reduced).map(|r| r.size).collect(),
            reduced: reduced.len(),
            columns,
            body: self.body,
            args: self.args,
        }))
    }

    /// Merges neighbours wherever every index map continues from one into the other.
    fn merge(&mut self, runs: &mut Vec<AxisRun>) {
        let mut merged: Vec<AxisRun> = Vec::new();
        for run in runs.drain(..).rev() {
            match merged.last().and_then(|inner| self.joined(&run, inner)) {
                Some(both) => *merged.last_mut().expect("just looked at") = both,
                None => merged.push(run),
            }
        }
        merged.reverse();
        *runs = merged;
    }

    fn joined(&self, outer: &AxisRun, inner: &AxisRun) -> Option<AxisRun> {
        let is_one = |a: &Affine| a.strides[outer.inner] == a.strides[inner.inner] * inner.size as i64;
        self.body
            .iter()
            .flat_map(Instr::affines)
            .all(is_one)
            .then(|| AxisRun { size: outer.size * inner.size, inner: inner.inner })
    }
}

/// Gives every row instruction and every store of a whole row a register that has a whole row, as the verifier of regions
/// wants it: a register has one element where nothing it came from knows columns.
fn widen(mut region: Region) -> Region {
    if region.columns == 1 {
        return region;
    }
    let (body, column) = (std::mem::take(&mut region.body), region.rows.len());
    let mut types: Vec<RegType> = Vec::with_capacity(body.len());
    let mut renamed: Vec<Reg> = Vec::with_capacity(body.len());
    let push = |region: &mut Region, types: &mut Vec<RegType>, instr: Instr| {
        types.push(reg_type(region, types, &instr));
        region.body.push(instr);
        types.len() as Reg - 1
    };
    for mut instr in body {
        instr.for_each_operand(|r| *r = renamed[*r as usize]);
        let needs_row = match &instr {
            Instr::Store { at, .. } | Instr::Accumulate { at, .. } => at.varies_along_columns(),
            other => other.is_row_op(),
        };
        if needs_row {
            instr.for_each_operand(|r| {
                if !types[*r as usize].wide {
                    let index = push(&mut region, &mut types, Instr::Index(Affine::axis(column + 1, column)));
                    let least = push(&mut region, &mut types, Instr::ConstInt(-1));
                    let always = push(&mut region, &mut types, Instr::Binary(Binary::Gt, index, least));
                    *r = push(&mut region, &mut types, Instr::Select(always, *r, *r));
                }
            });
        }
        renamed.push(push(&mut region, &mut types, instr));
    }
    region
}
