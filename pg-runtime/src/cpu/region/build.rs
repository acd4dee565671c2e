//! From instructions to typed and classed steps.

use pg_codegen::region::{Affine, IndexMap, Instr, Reg, Region};
use pg_ir::op::Binary;
use pg_ir::ty::DType;

use super::check::interval;
use super::compile::{Accumulator, Class, Kind, Register, Run, Step};

/// Turns instructions into steps, one after the other.
pub(super) struct Builder<'a> {
    pub(super) region: &'a Region,
    pub(super) registers: Vec<Register>,
    pub(super) steps: Vec<Step>,
}

impl Builder<'_> {
    /// Adds an instruction's register and step.
    pub(super) fn add(
        &mut self,
        instr: &Instr,
        accumulators: &mut Vec<Accumulator>,
        reductions: &mut usize,
    ) -> Result<(), &'static str> {
        let reg = |r: Reg| self.registers[r as usize];
        let arg_kind = |arg: u32| Kind::of(self.region.args[arg as usize]);
        let float = |r: Reg| {
            if reg(r).kind == Kind::Float { Ok(reg(r)) } else { Err("the operand must be a float") }
        };
        let nothing = Register { kind: Kind::Float, class: Class::default(), slot: usize::MAX, level: 0 };
        let (register, step) = match instr {
            Instr::Load { arg, map } => {
                let map = self.simplify(map);
                let class = class_of(&map);
                let dense = map.guards.is_empty() && self.is_dense(&map.at);
                let register = Register { kind: arg_kind(*arg), class, ..nothing };
                (register, Step::Load { arg: *arg as usize, map, dense, direct: false })
            }
            Instr::Gather { arg, row, stride, map } => {
                if reg(*row).kind != Kind::Int {
                    return Err("the row index must be an integer");
                }
                let map = self.simplify(map);
                let class = class_of(&map).union(reg(*row).class);
                let register = Register { kind: arg_kind(*arg), class, ..reg(*row) };
                (register, Step::Gather { arg: *arg as usize, row: *row, stride: *stride, map })
            }
            Instr::Const(value) => (nothing, Step::Splat(value.to_bits())),
            Instr::ConstInt(value) => (Register { kind: Kind::Int, ..nothing }, Step::Splat(*value as u32)),
            Instr::Index(at) => {
                (Register { kind: Kind::Int, class: Class::of(at), ..nothing }, Step::Index(at.clone()))
            }
            Instr::Unary(f, x) => (float(*x)?, Step::Unary(*f, *x)),
            Instr::Binary(f, a, b) => {
                let (x, y) = (reg(*a), reg(*b));
                if x.kind != y.kind {
                    return Err("the operands are of different types");
                }
                let ok = match f {
                    Binary::Add | Binary::Sub | Binary::Mul | Binary::Max | Binary::Gt => {
                        x.kind != Kind::Bool
                    }
                    Binary::Div => x.kind == Kind::Float,
                    Binary::Rem => x.kind == Kind::Int,
                    Binary::Xor => x.kind != Kind::Float,
                    Binary::Eq => true,
                };
                if !ok {
                    return Err("the function does not take operands of this type");
                }
                let kind = if matches!(f, Binary::Gt | Binary::Eq) { Kind::Bool } else { x.kind };
                (Register { kind, ..join(x, y) }, Step::Binary(*f, *a, *b))
            }
            Instr::Select(c, a, b) => {
                if reg(*c).kind != Kind::Bool || reg(*a).kind != reg(*b).kind {
                    return Err("a selection takes a boolean and two values of one type");
                }
                let register = Register { kind: reg(*a).kind, ..join(reg(*c), join(reg(*a), reg(*b))) };
                (register, Step::Select(*c, *a, *b))
            }
            Instr::Cast(to, x) => (Register { kind: Kind::of(*to), ..reg(*x) }, Step::Cast(*to, *x)),
            Instr::RowReduce(kind, x) => {
                let x_reg = float(*x)?;
                let class = Class { lane: false, ..x_reg.class };
                *reductions += 1;
                let register = Register { class, level: x_reg.level + 1, ..x_reg };
                (register, Step::RowReduce(*kind, *x, *reductions - 1))
            }
            Instr::Lanes(perm, x) => (reg(*x), Step::Lanes(runs(perm), *x)),
            Instr::FakeQuant(grid, x) => (float(*x)?, Step::FakeQuant(*grid, *x)),
            Instr::Store { arg, value, at } => {
                if reg(*value).kind != arg_kind(*arg) {
                    return Err("the stored value is not of the argument's type");
                }
                if reg(*value).class.lane && self.region.lanes > 1 && at.strides.last() == Some(&0) {
                    return Err("a whole row is stored to one element");
                }
                let step = Step::Store {
                    arg: *arg as usize,
                    value: *value,
                    at: at.clone(),
                    dense: self.is_dense(at),
                };
                (Register { level: reg(*value).level, ..nothing }, step)
            }
            Instr::Accumulate { arg, value, kind, at } => {
                let x = float(*value)?;
                if self.region.args[*arg as usize] != DType::F32 {
                    return Err("accumulated results are float32");
                }
                let wide = at.strides.last() != Some(&0);
                if x.class.lane && !wide && self.region.lanes > 1 {
                    return Err("a whole row is accumulated to one element");
                }
                let width = if wide { self.region.lanes } else { 1 };
                let offset = accumulators.iter().map(|a: &Accumulator| a.width).sum();
                let (arg, at) = (*arg as usize, at.clone());
                accumulators.push(Accumulator { arg, value: *value, kind: *kind, at, width, offset });
                (nothing, Step::Accumulate(accumulators.len() - 1))
            }
        };
        self.registers.push(register);
        self.steps.push(step);
        Ok(())
    }

    /// The same map without the guards that always hold.
    fn simplify(&self, map: &IndexMap) -> IndexMap {
        let domain: Vec<usize> = self.region.rows.iter().copied().chain([self.region.lanes]).collect();
        let mut map = map.clone();
        map.guards.retain(|g| {
            let (low, high) = interval(&g.expr, &domain);
            low < 0 || high >= g.size
        });
        map
    }

    /// Whether the map walks the domain in row-major order without gaps.
    fn is_dense(&self, at: &Affine) -> bool {
        let mut step = 1;
        let sizes = self.region.rows.iter().chain([&self.region.lanes]).rev();
        at.strides.iter().rev().zip(sizes).all(|(&s, &n)| {
            let fits = s == step || n == 1;
            step *= n as i64;
            fits
        })
    }
}

fn join(a: Register, b: Register) -> Register {
    Register { class: a.class.union(b.class), level: a.level.max(b.level), ..a }
}

fn class_of(map: &IndexMap) -> Class {
    map.guards.iter().fold(Class::of(&map.at), |c, g| c.union(Class::of(&g.expr)))
}

/// A permutation as stretches of consecutive lanes.
fn runs(perm: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (to, &from) in perm.iter().enumerate() {
        let from = from as usize;
        match runs.last_mut() {
            Some(run) if run.from + run.len == from => run.len += 1,
            _ => runs.push(Run { from, to, len: 1 }),
        }
    }
    runs
}
