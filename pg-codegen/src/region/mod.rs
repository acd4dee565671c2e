//! Regions: the unit of fusion. A region is a small SSA program run once for every row of a domain;
//! its values are rows of `lanes` elements, or one element where a row has only one.
//!
//! The CPU executes a region as a block-vectorised interpreter, CubeCL walks it to emit a kernel and the
//! cost model counts it. Nothing here knows graph ops: what a region computes is all in its instructions.

use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::Grid;
use pg_ir::ty::DType;
use smallvec::SmallVec;
use std::sync::Arc;

/// offset + Σ strides[i] · index[i] over the axes of a region's domain, lanes last.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Affine {
    /// Value at index 0.
    pub offset: i64,
    /// Increment per step of each domain axis; the last is the lane stride.
    pub strides: SmallVec<[i64; 5]>,
}

impl Affine {
    /// The element with the domain's own index in a row-major buffer, from `offset` on.
    pub(crate) fn row_major(rows: &[usize], lanes: usize, offset: usize) -> Affine {
        let mut strides: SmallVec<[i64; 5]> = SmallVec::new();
        let mut stride = 1;
        for &size in rows.iter().chain([&lanes]).rev() {
            strides.insert(0, stride as i64);
            stride *= size;
        }
        Affine { offset: offset as i64, strides }
    }
}

/// The piece of `width` lanes that each piece comes from, if a permutation moves all of them whole.
pub(crate) fn pieces_from(perm: &[u32], width: usize) -> Option<Vec<usize>> {
    let piece = |lanes: &[u32]| {
        let moves = lanes.iter().zip(lanes[0]..).all(|(&p, q)| p == q);
        let first = lanes[0] as usize;
        (first.is_multiple_of(width) && moves).then_some(first / width)
    };
    perm.chunks(width).map(piece).collect()
}

/// Elements for which `0 ≤ expr < size` are inside; a load of any other element gives zero.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Guard {
    /// The guarded coordinate.
    pub expr: Affine,
    /// Its bound.
    pub size: i64,
}

/// Which element of an argument a load reads, in elements from the argument's start. Reshapes,
/// transposes, slices, broadcasts, pads and shifts are all index maps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IndexMap {
    /// Element offset.
    pub at: Affine,
    /// All must hold for the element to be read.
    pub guards: Vec<Guard>,
}

/// An instruction's result, by position in [`Region::body`].
pub type Reg = u32;

/// An argument of a kernel, by position.
pub type ArgId = u32;

/// One instruction. Instruction i defines register i; stores define nothing that may be read.
#[derive(Clone, PartialEq, Debug)]
pub enum Instr {
    /// An element of an argument per lane.
    Load {
        /// The argument.
        arg: ArgId,
        /// Which element.
        map: IndexMap,
    },
    /// Like a load, at `map` + `row` · `stride`: a row of a table by id.
    Gather {
        /// The table.
        arg: ArgId,
        /// Register of the row index, int32.
        row: Reg,
        /// Elements between rows of the table.
        stride: i64,
        /// The rest of the offset.
        map: IndexMap,
    },
    /// A float constant.
    Const(f32),
    /// An integer constant.
    ConstInt(i32),
    /// An index, int32.
    Index(Affine),
    /// Element-wise function.
    Unary(Unary, Reg),
    /// Element-wise function of two registers of one type.
    Binary(Binary, Reg, Reg),
    /// cond ? a : b.
    Select(Reg, Reg, Reg),
    /// Conversion; to bf16 it rounds to nearest even and stays in a float32 register.
    Cast(DType, Reg),
    /// Combines the lanes of each row into one element, in a fixed order.
    RowReduce(Reduction, Reg),
    /// result[j] = operand[perm[j]] within each row. `perm.len()` is the number of lanes.
    Lanes(Arc<[u32]>, Reg),
    /// The row rounded to the grid with its own scale; the row is the whole row of the parameter.
    FakeQuant(Grid, Reg),
    /// Writes a register; one element a row if the register has one and the lane stride is 0.
    Store {
        /// The argument.
        arg: ArgId,
        /// What to write.
        value: Reg,
        /// Where.
        at: Affine,
    },
    /// Combines a register over the region's reduced axes, in a fixed order whatever the thread count,
    /// and writes the result once per kept row. Strides of reduced axes in `at` are 0.
    Accumulate {
        /// The argument.
        arg: ArgId,
        /// What to combine.
        value: Reg,
        /// How.
        kind: Reduction,
        /// Where the result goes.
        at: Affine,
    },
}

impl Instr {
    /// Whether it combines or moves the lanes of a row.
    pub fn is_row_op(&self) -> bool {
        matches!(self, Instr::RowReduce(..) | Instr::Lanes(..) | Instr::FakeQuant(..))
    }
}

/// A fused kernel: a domain of rows and a program run for each.
#[derive(Clone, PartialEq, Debug)]
pub struct Region {
    /// Sizes of the row axes, outermost first.
    pub rows: Vec<usize>,
    /// How many of the innermost row axes [`Instr::Accumulate`] combines over; 0 if none does.
    pub reduced: usize,
    /// Elements of a row.
    pub lanes: usize,
    /// The program.
    pub body: Vec<Instr>,
    /// Element types of the arguments.
    pub args: Vec<DType>,
}

impl Region {
    /// Whether it writes an argument.
    pub fn writes(&self, arg: usize) -> bool {
        self.body.iter().any(|instr| match instr {
            Instr::Store { arg: a, .. } | Instr::Accumulate { arg: a, .. } => *a as usize == arg,
            _ => false,
        })
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.rows.iter().product()
    }

    /// Whether it stores one element for a row of several lanes.
    pub fn stores_once_a_row(&self) -> bool {
        let is_once = |i: &Instr| matches!(i, Instr::Store { at, .. } if at.strides.last() == Some(&0));
        self.lanes > 1 && self.body.iter().any(is_once)
    }

    /// Whether lanes of a row meet.
    pub fn lanes_meet(&self) -> bool {
        self.body.iter().any(Instr::is_row_op)
    }
}
