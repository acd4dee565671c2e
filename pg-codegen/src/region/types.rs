//! Types of registers: what kind of element each holds, and whether it has one for every column or one for the row.
//!
//! A register's type follows from its instruction and the registers that it reads. That they may be read is
//! [`verify`](super::verify)'s business.

use pg_ir::op::Binary;
use pg_ir::ty::DType;

use super::{Instr, Reg, Region};

/// What a register holds. bfloat16 is a type of storage: in a register it is a float.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Of float32 or bfloat16.
    Float,
    /// Of int32.
    Int,
    /// Of a comparison.
    Bool,
}

impl Kind {
    /// The kind of register that an argument of this type is loaded into.
    pub fn of(dtype: DType) -> Kind {
        match dtype {
            DType::F32 | DType::BF16 => Kind::Float,
            DType::I32 => Kind::Int,
            DType::Bool => Kind::Bool,
        }
    }

    /// The type of a value of the graph that such a register holds.
    pub fn dtype(self) -> DType {
        match self {
            Kind::Float => DType::F32,
            Kind::Int => DType::I32,
            Kind::Bool => DType::Bool,
        }
    }
}

/// A register's type. That of a store, which defines none, is the type of what is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegType {
    /// What it holds.
    pub kind: Kind,
    /// Whether it has an element for every column; otherwise it has one for the row.
    pub wide: bool,
}

/// The type of an instruction's register. The registers that it reads must be among those before it.
pub fn reg_type(region: &Region, before: &[RegType], instr: &Instr) -> RegType {
    let reg = |r: Reg| before[r as usize];
    let load = |arg: u32| Kind::of(region.args[arg as usize]);
    match instr {
        Instr::Load { arg, map } => RegType { kind: load(*arg), wide: map.varies_along_columns() },
        Instr::Gather { arg, row, map, .. } => {
            RegType { kind: load(*arg), wide: reg(*row).wide || map.varies_along_columns() }
        }
        Instr::Const(_) => RegType { kind: Kind::Float, wide: false },
        Instr::ConstInt(_) => RegType { kind: Kind::Int, wide: false },
        Instr::Index(at) => RegType { kind: Kind::Int, wide: at.varies_along_columns() },
        Instr::Binary(f, a, b) => {
            let compares = matches!(f, Binary::Gt | Binary::Eq);
            let kind = if compares { Kind::Bool } else { reg(*a).kind };
            RegType { kind, wide: reg(*a).wide || reg(*b).wide }
        }
        Instr::Select(c, a, b) => {
            RegType { kind: reg(*a).kind, wide: reg(*c).wide || reg(*a).wide || reg(*b).wide }
        }
        Instr::Cast(to, a) => RegType { kind: Kind::of(*to), ..reg(*a) },
        Instr::RowReduce(_, a) => RegType { wide: false, ..reg(*a) },
        Instr::Unary(_, a)
        | Instr::Permute(_, a)
        | Instr::FakeQuant(_, a)
        | Instr::Store { value: a, .. }
        | Instr::Accumulate { value: a, .. } => reg(*a),
    }
}

impl Region {
    /// The types of all registers of a well-formed region.
    pub fn reg_types(&self) -> Vec<RegType> {
        let mut types = Vec::with_capacity(self.body.len());
        for instr in &self.body {
            types.push(reg_type(self, &types, instr));
        }
        types
    }
}
