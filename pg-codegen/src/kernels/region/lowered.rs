//! A region as the generator sees it: quantisers taken apart into a row reduction and element-wise
//! steps, every register with its element kind and whether it varies along the columns.

use std::sync::Arc;

use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::Grid;
use pg_ir::ty::DType;

pub(crate) use crate::region::types::Kind;
use crate::region::types::RegType;
use crate::region::verify::verify;
use crate::region::{Affine, IndexMap, Instr, Reg, Region};

/// One step; step i defines register i.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Step {
    Load {
        arg: usize,
        map: IndexMap,
    },
    /// `rows` are the rows that the table has: other ids give zeros.
    Gather {
        arg: usize,
        row: Reg,
        rows: i32,
        stride: i64,
        map: IndexMap,
    },
    Float(f32),
    Int(i32),
    Index(Affine),
    Unary(Unary, Reg),
    Binary(Binary, Reg, Reg),
    Select(Reg, Reg, Reg),
    Cast(DType, Reg),
    /// |x|, and 0 for NaN.
    Magnitude(Reg),
    /// The quantiser's scale from a row's largest magnitude.
    GridScale(Grid, Reg),
    /// x rounded to the grid with a scale.
    GridValue(Grid, Reg, Reg),
    RowReduce(Reduction, Reg),
    Permute(Arc<[u32]>, Reg),
    Store {
        arg: usize,
        value: Reg,
        at: Affine,
    },
    Accumulate {
        arg: usize,
        value: Reg,
        kind: Reduction,
        at: Affine,
    },
}

/// What is known of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Class {
    pub(crate) kind: Kind,
    /// Whether it has an element per column; otherwise one per row.
    pub(crate) wide: bool,
    /// Row reductions that must be complete before it can be computed.
    pub(crate) level: usize,
}

/// A checked region.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LoweredRegion {
    pub(crate) rows: Vec<usize>,
    pub(crate) reduced: usize,
    pub(crate) columns: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) classes: Vec<Class>,
}

impl LoweredRegion {
    /// Takes a region apart; says what is wrong with a malformed one, or with indices beyond 32 bits. `shifts` are, by
    /// argument, the elements between where its buffer is bound and where it begins.
    pub(crate) fn new(region: &Region, shifts: &[usize]) -> Result<LoweredRegion, String> {
        if region.args.len() != shifts.len() {
            return Err(format!("{} arguments for a region of {}", shifts.len(), region.args.len()));
        }
        let types = verify(region).map_err(|why| why.to_string())?;
        let mut lowered = LoweredRegion {
            rows: region.rows.clone(),
            reduced: region.reduced,
            columns: region.columns,
            steps: Vec::new(),
            classes: Vec::new(),
        };
        let mut renamed = Vec::new();
        for (i, (instr, ty)) in region.body.iter().zip(types).enumerate() {
            let reg = lowered.push_instr(instr, ty, &renamed, shifts);
            renamed.push(reg.map_err(|why| format!("instruction {i}: {why}"))?);
        }
        Ok(lowered)
    }

    /// Number of rows.
    pub(crate) fn row_count(&self) -> usize {
        self.rows.iter().product()
    }

    /// Whether columns of a row meet: such a region runs one row at a time.
    pub(crate) fn has_row_steps(&self) -> bool {
        let meets = |s: &Step| matches!(s, Step::RowReduce(..) | Step::Permute(..));
        self.columns > 1 && self.steps.iter().any(meets)
    }

    /// Whether a write goes to a place per column, rather than one per row.
    pub(crate) fn writes_columns(&self, at: &Affine) -> bool {
        self.columns > 1 && at.strides[self.rows.len()] != 0
    }

    /// Registers that a step reads.
    pub(crate) fn operands(&self, step: usize) -> Vec<Reg> {
        match self.steps[step] {
            Step::Load { .. } | Step::Float(_) | Step::Int(_) | Step::Index(_) => Vec::new(),
            Step::Gather { row: x, .. }
            | Step::Unary(_, x)
            | Step::Cast(_, x)
            | Step::Magnitude(x)
            | Step::GridScale(_, x)
            | Step::RowReduce(_, x)
            | Step::Permute(_, x)
            | Step::Store { value: x, .. }
            | Step::Accumulate { value: x, .. } => vec![x],
            Step::Binary(_, a, b) | Step::GridValue(_, a, b) => vec![a, b],
            Step::Select(c, a, b) => vec![c, a, b],
        }
    }

    fn push(&mut self, step: Step, ty: RegType) -> Reg {
        self.steps.push(step);
        let at = self.steps.len() - 1;
        let operands = self.operands(at);
        let level = operands.iter().map(|&r| self.classes[r as usize].level).max().unwrap_or(0);
        let level = level + usize::from(matches!(self.steps[at], Step::RowReduce(..)));
        self.classes.push(Class { kind: ty.kind, wide: ty.wide && self.columns > 1, level });
        at as Reg
    }

    fn push_instr(
        &mut self,
        instr: &Instr,
        ty: RegType,
        renamed: &[Reg],
        shifts: &[usize],
    ) -> Result<Reg, String> {
        let reg = |r: Reg| renamed[r as usize];
        let shift = |arg: u32| shifts[arg as usize];
        let map = |m: &IndexMap, shift: usize| {
            m.guards.iter().try_for_each(|g| narrow(&g.expr, 0).map(|_| ()))?;
            Ok::<_, String>(IndexMap { at: narrow(&m.at, shift)?, guards: m.guards.clone() })
        };
        let step = match instr {
            Instr::Load { arg, map: m } => Step::Load { arg: *arg as usize, map: map(m, shift(*arg))? },
            Instr::Gather { arg, row, rows, stride, map: m } => {
                if *stride < 0 || i32::try_from(*stride).is_err() {
                    return Err(format!("a gather of rows at a stride of {stride}"));
                }
                let Ok(rows) = i32::try_from(*rows) else {
                    return Err(format!("a gather of {rows} rows"));
                };
                let map = map(m, shift(*arg))?;
                Step::Gather { arg: *arg as usize, row: reg(*row), rows, stride: *stride, map }
            }
            Instr::Const(c) => Step::Float(*c),
            Instr::ConstInt(c) => Step::Int(*c),
            Instr::Index(at) => Step::Index(narrow(at, 0)?),
            Instr::Unary(f, x) => Step::Unary(*f, reg(*x)),
            Instr::Binary(f, a, b) => Step::Binary(*f, reg(*a), reg(*b)),
            Instr::Select(c, a, b) => Step::Select(reg(*c), reg(*a), reg(*b)),
            Instr::Cast(to, x) => Step::Cast(*to, reg(*x)),
            Instr::RowReduce(kind, x) => Step::RowReduce(*kind, reg(*x)),
            // Of one column, it is the identity.
            Instr::Permute(_, x) if self.columns == 1 => return Ok(reg(*x)),
            Instr::Permute(..) if ty.kind != Kind::Float => {
                return Err(format!("a permutation of {:?}, which kernels do not move", ty.kind));
            }
            Instr::Permute(perm, x) => Step::Permute(perm.clone(), reg(*x)),
            Instr::FakeQuant(grid, x) => {
                let (x, row) = (reg(*x), RegType { wide: false, ..ty });
                let magnitude = self.push(Step::Magnitude(x), ty);
                let amax = self.push(Step::RowReduce(Reduction::Max, magnitude), row);
                let scale = self.push(Step::GridScale(*grid, amax), row);
                Step::GridValue(*grid, x, scale)
            }
            Instr::Store { arg, value, at } => {
                let at = narrow(at, shift(*arg))?;
                let step = Step::Store { arg: *arg as usize, value: reg(*value), at };
                return Ok(self.push(step, RegType { wide: false, ..ty }));
            }
            Instr::Accumulate { arg, value, kind, at } => {
                let at = narrow(at, shift(*arg))?;
                let step = Step::Accumulate { arg: *arg as usize, value: reg(*value), kind: *kind, at };
                return Ok(self.push(step, RegType { wide: false, ..ty }));
            }
        };
        Ok(self.push(step, ty))
    }
}

/// An affine function from where a buffer is bound, in 32 bits.
fn narrow(at: &Affine, shift: usize) -> Result<Affine, String> {
    let mut at = at.clone();
    at.offset += shift as i64;
    let fits = |n: i64| i32::try_from(n).is_ok();
    if fits(at.offset) && at.strides.iter().all(|&s| fits(s)) {
        Ok(at)
    } else {
        Err("an index is beyond 2^31".into())
    }
}
