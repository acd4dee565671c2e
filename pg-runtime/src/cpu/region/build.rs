//! From instructions to steps, each register with what it varies with.

use super::compile::{Accumulator, Class, Register, Step, Stretch, Table};
use pg_codegen::region::types::RegType;
use pg_codegen::region::{Affine, IndexMap, Instr, Reg, Region};

/// Turns instructions into steps, one after the other.
pub(super) struct Builder<'a> {
    pub(super) region: &'a Region,
    pub(super) types: &'a [RegType],
    pub(super) registers: Vec<Register>,
    pub(super) steps: Vec<Step>,
}

impl Builder<'_> {
    /// Adds an instruction's register and step.
    pub(super) fn add(&mut self, instr: &Instr, accumulators: &mut Vec<Accumulator>, reductions: &mut usize) {
        let reg = |r: Reg| self.registers[r as usize];
        let kind = self.types[self.registers.len()].kind;
        let nothing = Register { kind, class: Class::default(), vector: usize::MAX, level: 0 };
        let (register, step) = match instr {
            Instr::Load { arg, map } => {
                let map = self.simplify(map);
                let class = class_of(&map);
                let dense = map.guards.is_empty() && self.is_dense(&map.at);
                (Register { class, ..nothing }, Step::Load { arg: *arg as usize, map, dense, direct: false })
            }
            Instr::Gather { arg, row, rows, stride, map } => {
                let map = self.simplify(map);
                let class = class_of(&map).union(reg(*row).class);
                let register = Register { class, level: reg(*row).level, ..nothing };
                let (arg, table) = (*arg as usize, Table { rows: *rows, stride: *stride });
                (register, Step::Gather { arg, row: *row, table, map })
            }
            Instr::Const(value) => (nothing, Step::Splat(value.to_bits())),
            Instr::ConstInt(value) => (nothing, Step::Splat(*value as u32)),
            Instr::Index(at) => (Register { class: Class::of(at), ..nothing }, Step::Index(at.clone())),
            Instr::Unary(f, x) => (reg(*x), Step::Unary(*f, *x)),
            Instr::Binary(f, a, b) => (Register { kind, ..join(reg(*a), reg(*b)) }, Step::Binary(*f, *a, *b)),
            Instr::Select(c, a, b) => {
                let register = Register { kind, ..join(reg(*c), join(reg(*a), reg(*b))) };
                (register, Step::Select(*c, *a, *b))
            }
            Instr::Cast(to, x) => (Register { kind, ..reg(*x) }, Step::Cast(*to, *x)),
            Instr::RowReduce(f, x) => {
                let class = Class { column: false, ..reg(*x).class };
                *reductions += 1;
                let register = Register { class, level: reg(*x).level + 1, ..nothing };
                (register, Step::RowReduce(*f, *x, *reductions - 1))
            }
            Instr::Permute(perm, x) => (reg(*x), Step::Permute(runs(perm), *x)),
            Instr::FakeQuant(grid, x) => (reg(*x), Step::FakeQuant(*grid, *x)),
            Instr::Store { arg, value, at } => {
                let (arg, value, dense) = (*arg as usize, *value, self.is_dense(at));
                let register = Register { level: reg(value).level, ..nothing };
                (register, Step::Store { arg, value, at: at.clone(), dense })
            }
            Instr::Accumulate { arg, value, kind, at } => {
                let width = if at.varies_along_columns() { self.region.columns } else { 1 };
                let offset = accumulators.iter().map(|a: &Accumulator| a.width).sum();
                let (arg, at) = (*arg as usize, at.clone());
                accumulators.push(Accumulator { arg, value: *value, kind: *kind, at, width, offset });
                (nothing, Step::Accumulate(accumulators.len() - 1))
            }
        };
        self.registers.push(register);
        self.steps.push(step);
    }

    /// The same map without the guards that always hold.
    fn simplify(&self, map: &IndexMap) -> IndexMap {
        let sizes = self.region.sizes();
        let mut map = map.clone();
        map.guards.retain(|g| {
            let (low, high) = g.expr.interval(&sizes);
            low < 0 || high >= g.size
        });
        map
    }

    /// Whether the map walks the domain in row-major order without gaps.
    fn is_dense(&self, at: &Affine) -> bool {
        let mut step = 1;
        let sizes = self.region.rows.iter().chain([&self.region.columns]).rev();
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

/// A permutation as stretches of consecutive columns.
fn runs(perm: &[u32]) -> Vec<Stretch> {
    let mut runs: Vec<Stretch> = Vec::new();
    for (to, &from) in perm.iter().enumerate() {
        let from = from as usize;
        match runs.last_mut() {
            Some(run) if run.from + run.len == from => run.len += 1,
            _ => runs.push(Stretch { from, to, len: 1 }),
        }
    }
    runs
}
