//! Registers that are numbers: constants, indices, and what arithmetic makes of them at one place of the domain.

use pg_ir::op::{Binary, Op};
use pg_ir::ty::{DType, Type};

use super::known::eval;
use super::walk::Walk;
use crate::region::{Instr, Reg};

impl Walk<'_> {
    /// The number that a register is at this place, if that needs no argument.
    pub(super) fn number(&self, reg: Reg, column: usize) -> Option<f64> {
        let of = |r: &Reg| self.number(*r, column);
        Some(match &self.region.body[reg as usize] {
            Instr::Const(number) => f64::from(*number),
            Instr::ConstInt(number) => f64::from(*number),
            Instr::Index(at) => self.place(at, column) as f64,
            Instr::Load { map, .. } | Instr::Gather { map, .. } if self.read(map, column).is_none() => 0.0,
            Instr::Binary(Binary::Gt, a, b) => f64::from(u8::from(of(a)? > of(b)?)),
            Instr::Binary(Binary::Add, a, b) => of(a)? + of(b)?,
            Instr::Binary(Binary::Sub, a, b) => of(a)? - of(b)?,
            Instr::Binary(Binary::Mul, a, b) => of(a)? * of(b)?,
            Instr::Binary(f, a, b) => self.evaluated(Op::Binary(*f), &[*a, *b], &[of(a)?, of(b)?]),
            Instr::Unary(f, a) => self.evaluated(Op::Unary(*f), &[*a], &[of(a)?]),
            Instr::Cast(to, a) => self.evaluated(Op::Cast(*to), &[*a], &[of(a)?]),
            Instr::Select(c, a, b) => of(if of(c)? != 0.0 { a } else { b })?,
            _ => return None,
        })
    }

    fn evaluated(&self, op: Op, regs: &[Reg], numbers: &[f64]) -> f64 {
        let dtype = |r: &Reg| self.prepared.registers[*r as usize].kind.dtype();
        let types: Vec<Type> = regs.iter().map(|r| Type::scalar(dtype(r))).collect();
        let operands: Vec<Vec<f64>> = numbers.iter().map(|&x| vec![x]).collect();
        eval(&op, &operands, &types, Type::scalar(DType::F32))[0]
    }
}
