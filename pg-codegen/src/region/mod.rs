//! Regions: the unit of fusion. A region is a small SSA program run once for every row of a domain;
//! its values are rows of `columns` elements, or one element where a row has only one.
//!
//! The CPU interprets it, vectorised over blocks; `kernels/region` emits a kernel from it; `plan/cost` counts it. Nothing here knows graph ops: what a region computes is all in its instructions. Their types
//! are in [`types`], what must hold of them in [`verify`], what they compute in [`interp`]: passes, executors and
//! tests have no others.

mod affine;
mod canonical;
mod instr;
pub mod interp;
mod print;
pub mod types;
pub mod verify;

use pg_ir::ty::DType;
use smallvec::SmallVec;

pub use self::affine::{Affine, Guard, IndexMap};
pub use self::canonical::canonical;
pub(crate) use self::instr::chunks_from;
pub use self::instr::{ArgId, Instr, Reg};

/// A fused kernel: a domain of rows and a program run for each.
#[derive(Clone, PartialEq, Debug)]
pub struct Region {
    /// Sizes of the row axes, outermost first.
    pub rows: Vec<usize>,
    /// How many of the innermost row axes [`Instr::Accumulate`] combines over; 0 if none does.
    pub reduced: usize,
    /// Elements of a row.
    pub columns: usize,
    /// The program.
    pub body: Vec<Instr>,
    /// Element types of the arguments.
    pub args: Vec<DType>,
}

impl Region {
    /// Whether it writes an argument.
    pub fn writes(&self, arg: usize) -> bool {
        self.body.iter().any(|instr| instr.is_store() && instr.arg() == Some(arg as ArgId))
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.rows.iter().product()
    }

    /// Whether it stores one element for a row of several columns.
    pub fn stores_once_a_row(&self) -> bool {
        let is_once = |i: &Instr| matches!(i, Instr::Store { at, .. } if !at.varies_along_columns());
        self.columns > 1 && self.body.iter().any(is_once)
    }

    /// Sizes of all axes, columns last.
    pub fn sizes(&self) -> SmallVec<[usize; 5]> {
        self.rows.iter().copied().chain([self.columns]).collect()
    }

    /// Whether columns of a row meet.
    pub fn columns_meet(&self) -> bool {
        self.body.iter().any(Instr::is_row_op)
    }
}
