//! What a region means, one row after the other in float64. Executors are held to it by their tests, and plans by the
//! executor of plans in float64, so it is written to be obviously right. Functions of elements are those of the ops.

use pg_ir::interp::Tensor;
use pg_ir::op::{Op, Reduction};
use pg_ir::ty::{Axis, Type};

use super::types::{Kind, RegType};
use super::{Instr, Region};

/// Runs a [verified](super::verify) region on its arguments. A load sees what an argument held before.
///
/// # Panics
/// If the region is malformed, if it takes another number of arguments, or if an index map leaves its argument.
pub fn run(region: &Region, args: &mut [Tensor]) {
    assert_eq!(region.args.len(), args.len(), "arguments of\n{region}");
    let types = super::verify::verify(region).unwrap_or_else(|why| panic!("{why}\n{region}"));
    let is_loaded = |arg: usize| region.body.iter().any(|i| !i.is_store() && i.arg() == Some(arg as u32));
    let is_both = |arg: usize| region.writes(arg) && is_loaded(arg);
    let before: Vec<Option<Tensor>> =
        args.iter().enumerate().map(|(i, arg)| is_both(i).then(|| arg.clone())).collect();
    let reduced: usize = region.rows[region.rows.len() - region.reduced..].iter().product();
    let mut row = Row { region, types: &types, index: vec![0; region.rows.len() + 1], regs: Vec::new() };
    for number in 0..region.row_count() {
        row.go_to(number);
        for instr in &region.body {
            let value = match instr {
                Instr::Store { arg, value, at } => {
                    row.write(*value, |index, x| args[*arg as usize][at.at(index) as usize] = x);
                    Tensor::new()
                }
                Instr::Accumulate { arg, value, kind, at } => {
                    let is_first = number.is_multiple_of(reduced);
                    row.write(*value, |index, x| {
                        let sum = &mut args[*arg as usize][at.at(index) as usize];
                        *sum = if is_first { x } else { combine(*kind, &[*sum, x]) };
                    });
                    Tensor::new()
                }
                _ => {
                    let load = |arg: u32| before[arg as usize].as_ref().unwrap_or(&args[arg as usize]);
                    row.compute(instr, load)
                }
            };
            row.regs.push(value);
        }
    }
}

/// One row of the domain, and the registers so far: a row's elements, or one.
struct Row<'a> {
    region: &'a Region,
    types: &'a [RegType],
    index: Vec<usize>,
    regs: Vec<Tensor>,
}

impl Row<'_> {
    fn go_to(&mut self, number: usize) {
        let mut rest = number;
        for (i, n) in self.region.rows.iter().enumerate().rev() {
            self.index[i] = rest % n;
            rest /= n;
        }
        self.regs.clear();
    }

    fn compute<'a>(&mut self, instr: &Instr, load: impl Fn(u32) -> &'a Tensor) -> Tensor {
        let register = self.regs.len();
        match instr {
            Instr::Load { arg, map } => {
                let data = load(*arg);
                self.tabulate(register, |_, index, _| map.at(index).map_or(0.0, |at| data[at as usize]))
            }
            Instr::Gather { arg, row, stride, map, .. } => {
                let data = load(*arg);
                self.tabulate(register, |regs, index, column| {
                    let start = element(&regs[*row as usize], column) as i64 * stride;
                    map.at(index).map_or(0.0, |at| data[(at + start) as usize])
                })
            }
            Instr::Const(x) => vec![f64::from(*x)],
            Instr::ConstInt(x) => vec![f64::from(*x)],
            Instr::Index(at) => self.tabulate(register, |_, index, _| at.at(index) as f64),
            Instr::Unary(f, a) => self.apply(Op::Unary(*f), &[*a]),
            Instr::Binary(f, a, b) => self.apply(Op::Binary(*f), &[*a, *b]),
            Instr::Select(c, a, b) => self.apply(Op::Select, &[*c, *a, *b]),
            Instr::Cast(to, a) => self.apply(Op::Cast(*to), &[*a]),
            Instr::FakeQuant(grid, a) => self.apply(Op::FakeQuant(*grid), &[*a]),
            Instr::RowReduce(kind, a) => vec![combine(*kind, &self.regs[*a as usize])],
            Instr::Permute(perm, a) => perm.iter().map(|&p| self.regs[*a as usize][p as usize]).collect(),
            Instr::Store { .. } | Instr::Accumulate { .. } => unreachable!("stores define no register"),
        }
    }

    /// One element for every column of a wide register, one of a narrow one.
    fn tabulate(&mut self, register: usize, f: impl Fn(&[Tensor], &[usize], usize) -> f64) -> Tensor {
        let (column, n) =
            (self.index.len() - 1, if self.types[register].wide { self.region.columns } else { 1 });
        let element = |at| {
            self.index[column] = at;
            f(&self.regs, &self.index, at)
        };
        let out = (0..n).map(element).collect();
        self.index[column] = 0;
        out
    }

    /// An op on whole registers, those of one element repeated as the longest wants.
    fn apply(&self, op: Op, regs: &[u32]) -> Tensor {
        let n = regs.iter().map(|&r| self.regs[r as usize].len()).max().unwrap_or(1);
        let tensors: Vec<Tensor> =
            regs.iter().map(|&r| (0..n).map(|at| element(&self.regs[r as usize], at)).collect()).collect();
        let tensors: Vec<&Tensor> = tensors.iter().collect();
        let ty = |kind: Kind| Type::new(kind.dtype(), [Axis::channel(n)]);
        let types: Vec<Type> = regs.iter().map(|&r| ty(self.types[r as usize].kind)).collect();
        let result = ty(self.types[self.regs.len()].kind);
        (op.record().eval)(&op, &tensors, &types.iter().collect::<Vec<_>>(), &[result]).swap_remove(0)
    }

    /// Calls `write` with the index and the value of every element of a register.
    fn write(&mut self, value: u32, mut write: impl FnMut(&[usize], f64)) {
        let column = self.index.len() - 1;
        for (at, &x) in self.regs[value as usize].iter().enumerate() {
            self.index[column] = at;
            write(&self.index, x);
        }
        self.index[column] = 0;
    }
}

fn element(reg: &[f64], column: usize) -> f64 {
    if reg.len() == 1 { reg[0] } else { reg[column] }
}

fn combine(kind: Reduction, values: &[f64]) -> f64 {
    match kind {
        Reduction::Sum => values.iter().sum(),
        Reduction::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}
