//! Instructions of a region, and the walks over what they read.

use std::sync::Arc;

use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::Grid;
use pg_ir::ty::DType;
use smallvec::{SmallVec, smallvec};

use super::affine::{Affine, Guard, IndexMap};

/// An instruction's result, by position in [`Region::body`](super::Region::body).
pub type Reg = u32;

/// An argument of a kernel, by position.
pub type ArgId = u32;

/// One instruction. Instruction i defines register i; stores define nothing that may be read.
#[derive(Clone, PartialEq, Debug)]
pub enum Instr {
    /// An element of an argument per column.
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
        /// Rows of the table. Generated kernels read zero for an id of no row; the CPU reports it.
        rows: usize,
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
    /// Combines the columns of each row into one element, in a fixed order.
    RowReduce(Reduction, Reg),
    /// `result[j] = operand[perm[j]]` within each row. `perm.len()` is the number of columns.
    Permute(Arc<[u32]>, Reg),
    /// The row rounded to the grid with its own scale; the row is the whole row of the parameter.
    FakeQuant(Grid, Reg),
    /// Writes a register; one element a row if the register has one and the column stride is 0.
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
    /// The argument that it reads or writes.
    pub fn arg(&self) -> Option<ArgId> {
        match self {
            Instr::Load { arg, .. }
            | Instr::Gather { arg, .. }
            | Instr::Store { arg, .. }
            | Instr::Accumulate { arg, .. } => Some(*arg),
            _ => None,
        }
    }

    /// [`Instr::arg`], to change it.
    pub fn arg_mut(&mut self) -> Option<&mut ArgId> {
        match self {
            Instr::Load { arg, .. }
            | Instr::Gather { arg, .. }
            | Instr::Store { arg, .. }
            | Instr::Accumulate { arg, .. } => Some(arg),
            _ => None,
        }
    }

    /// Whether it writes an argument, and so defines no register.
    pub fn is_store(&self) -> bool {
        matches!(self, Instr::Store { .. } | Instr::Accumulate { .. })
    }

    /// The registers that it reads, in their order.
    pub fn operands(&self) -> SmallVec<[Reg; 3]> {
        match *self {
            Instr::Load { .. } | Instr::Const(_) | Instr::ConstInt(_) | Instr::Index(_) => smallvec![],
            Instr::Gather { row: a, .. }
            | Instr::Unary(_, a)
            | Instr::Cast(_, a)
            | Instr::RowReduce(_, a)
            | Instr::Permute(_, a)
            | Instr::FakeQuant(_, a)
            | Instr::Store { value: a, .. }
            | Instr::Accumulate { value: a, .. } => smallvec![a],
            Instr::Binary(_, a, b) => smallvec![a, b],
            Instr::Select(c, a, b) => smallvec![c, a, b],
        }
    }

    /// Calls `f` with every register that it reads, to change it.
    pub fn for_each_operand(&mut self, mut f: impl FnMut(&mut Reg)) {
        match self {
            Instr::Load { .. } | Instr::Const(_) | Instr::ConstInt(_) | Instr::Index(_) => {}
            Instr::Gather { row, .. } => f(row),
            Instr::Unary(_, a)
            | Instr::Cast(_, a)
            | Instr::RowReduce(_, a)
            | Instr::Permute(_, a)
            | Instr::FakeQuant(_, a) => f(a),
            Instr::Store { value, .. } | Instr::Accumulate { value, .. } => f(value),
            Instr::Binary(_, a, b) => [a, b].into_iter().for_each(f),
            Instr::Select(c, a, b) => [c, a, b].into_iter().for_each(f),
        }
    }

    /// Its affine functions of the index: offsets and guards.
    pub fn affines(&self) -> impl Iterator<Item = &Affine> {
        let (at, guards): (Option<&Affine>, &[Guard]) = match self {
            Instr::Load { map, .. } | Instr::Gather { map, .. } => (Some(&map.at), &map.guards),
            Instr::Index(at) | Instr::Store { at, .. } | Instr::Accumulate { at, .. } => (Some(at), &[]),
            _ => (None, &[]),
        };
        at.into_iter().chain(guards.iter().map(|g| &g.expr))
    }

    /// [`Instr::affines`], to change them.
    pub fn affines_mut(&mut self) -> impl Iterator<Item = &mut Affine> {
        let (at, guards): (Option<&mut Affine>, &mut [Guard]) = match self {
            Instr::Load { map, .. } | Instr::Gather { map, .. } => (Some(&mut map.at), &mut map.guards),
            Instr::Index(at) | Instr::Store { at, .. } | Instr::Accumulate { at, .. } => (Some(at), &mut []),
            _ => (None, &mut []),
        };
        at.into_iter().chain(guards.iter_mut().map(|g| &mut g.expr))
    }

    /// Whether it combines or moves the columns of a row.
    pub fn is_row_op(&self) -> bool {
        matches!(self, Instr::RowReduce(..) | Instr::Permute(..) | Instr::FakeQuant(..))
    }
}

/// The chunk of `width` columns that each chunk comes from, if a permutation moves all of them whole.
pub(crate) fn chunks_from(perm: &[u32], width: usize) -> Option<Vec<usize>> {
    let chunk = |columns: &[u32]| {
        let moves = columns.iter().zip(columns[0]..).all(|(&p, q)| p == q);
        let first = columns[0] as usize;
        (first.is_multiple_of(width) && moves).then_some(first / width)
    };
    perm.chunks(width).map(chunk).collect()
}
