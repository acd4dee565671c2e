//! A region as the generator sees it: quantisers taken apart into a row reduction and element-wise
//! steps, every register with its element kind and whether it varies along the lanes.

use std::sync::Arc;

use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::Grid;
use pg_ir::ty::DType;

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
        stride: i64,
        rows: i64,
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
    Lanes(Arc<[u32]>, Reg),
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

/// What kind of element a register holds. bfloat16 values are floats that were rounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Float,
    Int,
    Bool,
}

impl Kind {
    fn of(dtype: DType) -> Kind {
        match dtype {
            DType::F32 | DType::BF16 => Kind::Float,
            DType::I32 => Kind::Int,
            DType::Bool => Kind::Bool,
        }
    }
}

/// What is known of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Class {
    pub(crate) kind: Kind,
    /// Whether it has an element per lane; otherwise one per row.
    pub(crate) wide: bool,
    /// Row reductions that must be complete before it can be computed.
    pub(crate) level: usize,
}

/// A checked region.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Program {
    pub(crate) rows: Vec<usize>,
    pub(crate) reduced: usize,
    pub(crate) lanes: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) classes: Vec<Class>,
}

/// An argument of a region at a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Buffer {
    pub(crate) dtype: DType,
    /// Elements.
    pub(crate) len: usize,
    /// Elements between where the buffer is bound and where it begins.
    pub(crate) shift: usize,
}

impl Program {
    /// Checks a region and takes it apart; says what is wrong with a malformed one.
    pub(crate) fn new(region: &Region, buffers: &[Buffer]) -> Result<Program, String> {
        if region.rows.contains(&0) || region.lanes == 0 || region.reduced > region.rows.len() {
            return Err("its domain is empty or has fewer axes than it reduces".into());
        }
        if region.args.len() != buffers.len() {
            return Err(format!("{} arguments for a region of {}", buffers.len(), region.args.len()));
        }
        let mut program = Program {
            rows: region.rows.clone(),
            reduced: region.reduced,
            lanes: region.lanes,
            steps: Vec::new(),
            classes: Vec::new(),
        };
        let mut renamed = Vec::new();
        for (i, instr) in region.body.iter().enumerate() {
            let reg = program.push_instr(instr, &renamed, buffers);
            renamed.push(reg.map_err(|why| format!("instruction {i}: {why}"))?);
        }
        Ok(program)
    }

    /// Number of rows.
    pub(crate) fn row_count(&self) -> usize {
        self.rows.iter().product()
    }

    /// Whether lanes of a row meet: such a region runs one row at a time.
    pub(crate) fn has_row_steps(&self) -> bool {
        let meets = |s: &Step| matches!(s, Step::RowReduce(..) | Step::Lanes(..));
        self.lanes > 1 && self.steps.iter().any(meets)
    }

    /// Whether a write goes to a place per lane, rather than one per row.
    pub(crate) fn writes_lanes(&self, at: &Affine) -> bool {
        self.lanes > 1 && at.strides[self.rows.len()] != 0
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
            | Step::Lanes(_, x)
            | Step::Store { value: x, .. }
            | Step::Accumulate { value: x, .. } => vec![x],
            Step::Binary(_, a, b) | Step::GridValue(_, a, b) => vec![a, b],
            Step::Select(c, a, b) => vec![c, a, b],
        }
    }

    fn push(&mut self, step: Step, kind: Kind, wide: bool) -> Reg {
        self.steps.push(step);
        let at = self.steps.len() - 1;
        let operands = self.operands(at);
        let level = operands.iter().map(|&r| self.classes[r as usize].level).max().unwrap_or(0);
        let level = level + usize::from(matches!(self.steps[at], Step::RowReduce(..)));
        self.classes.push(Class { kind, wide: wide && self.lanes > 1, level });
        at as Reg
    }

    fn push_instr(&mut self, instr: &Instr, renamed: &[Reg], buffers: &[Buffer]) -> Result<Reg, String> {
        let rank = self.rows.len() + 1;
        let reg = |r: Reg| renamed.get(r as usize).copied().ok_or("an operand is not an earlier instruction");
        let buffer = |arg: u32| buffers.get(arg as usize).copied().ok_or("no such argument");
        let affine = |a: &Affine, shift: usize| {
            let fits = |n: i64| i32::try_from(n).is_ok();
            if a.strides.len() != rank {
                return Err("an index map has not one stride per axis");
            }
            let mut a = a.clone();
            a.offset += shift as i64;
            if !fits(a.offset) || !a.strides.iter().all(|&s| fits(s)) {
                return Err("an index is beyond 2^31");
            }
            Ok(a)
        };
        let map = |m: &IndexMap, shift: usize| {
            let mut m = m.clone();
            m.at = affine(&m.at, shift)?;
            m.guards.iter().try_for_each(|g| affine(&g.expr, 0).map(|_| ()))?;
            Ok::<IndexMap, &'static str>(m)
        };
        let varies = |m: &IndexMap| {
            m.at.strides[rank - 1] != 0 || m.guards.iter().any(|g| g.expr.strides[rank - 1] != 0)
        };
        let class = |p: &Program, r: Reg| p.classes[r as usize];
        Ok(match instr {
            Instr::Load { arg, map: m } => {
                let b = buffer(*arg)?;
                let m = map(m, b.shift)?;
                let wide = varies(&m);
                self.push(Step::Load { arg: *arg as usize, map: m }, Kind::of(b.dtype), wide)
            }
            Instr::Gather { arg, row, stride, map: m } => {
                let (b, row) = (buffer(*arg)?, reg(*row)?);
                if *stride < 0 || i32::try_from(*stride).is_err() || class(self, row).kind != Kind::Int {
                    return Err("a gather needs an integer row and no negative stride".into());
                }
                // The rows of a broadcast table are all one.
                let rows = match *stride {
                    0 => i64::from(i32::MAX),
                    _ => gather_rows(b.len, *stride, &m.at, &self.rows, self.lanes),
                };
                let m = map(m, b.shift)?;
                let wide = varies(&m) || class(self, row).wide;
                let step = Step::Gather { arg: *arg as usize, row, stride: *stride, rows, map: m };
                self.push(step, Kind::of(b.dtype), wide)
            }
            Instr::Const(c) => self.push(Step::Float(*c), Kind::Float, false),
            Instr::ConstInt(c) => self.push(Step::Int(*c), Kind::Int, false),
            Instr::Index(a) => {
                let a = affine(a, 0)?;
                let wide = a.strides[rank - 1] != 0;
                self.push(Step::Index(a), Kind::Int, wide)
            }
            Instr::Unary(f, x) => {
                let x = reg(*x)?;
                if class(self, x).kind != Kind::Float {
                    return Err("a function of something that is no float".into());
                }
                self.push(Step::Unary(*f, x), Kind::Float, class(self, x).wide)
            }
            Instr::Binary(f, a, b) => {
                let (a, b) = (reg(*a)?, reg(*b)?);
                let (ca, cb) = (class(self, a), class(self, b));
                let integer_only = matches!(f, Binary::Rem | Binary::Xor);
                if ca.kind != cb.kind || ca.kind == Kind::Bool || (integer_only && ca.kind == Kind::Float) {
                    return Err(format!("{f:?} of {:?} and {:?}", ca.kind, cb.kind));
                }
                let kind = if matches!(f, Binary::Gt | Binary::Eq) { Kind::Bool } else { ca.kind };
                self.push(Step::Binary(*f, a, b), kind, ca.wide || cb.wide)
            }
            Instr::Select(c, a, b) => {
                let (c, a, b) = (reg(*c)?, reg(*a)?, reg(*b)?);
                let (cc, ca, cb) = (class(self, c), class(self, a), class(self, b));
                if cc.kind != Kind::Bool || ca.kind != cb.kind {
                    return Err("a selection by no boolean, or of two kinds".into());
                }
                self.push(Step::Select(c, a, b), ca.kind, cc.wide || ca.wide || cb.wide)
            }
            Instr::Cast(to, x) => {
                let x = reg(*x)?;
                self.push(Step::Cast(*to, x), Kind::of(*to), class(self, x).wide)
            }
            Instr::RowReduce(kind, x) => {
                let x = reg(*x)?;
                if class(self, x).kind != Kind::Float {
                    return Err("a row reduction of something that is no float".into());
                }
                self.push(Step::RowReduce(*kind, x), Kind::Float, false)
            }
            Instr::Lanes(perm, x) => {
                let x = reg(*x)?;
                if perm.len() != self.lanes || perm.iter().any(|&p| p as usize >= self.lanes) {
                    return Err("a lane permutation that does not fit the lanes".into());
                }
                let class = class(self, x);
                if !class.wide {
                    return Ok(x);
                }
                if class.kind != Kind::Float {
                    return Err("a lane permutation of something that is no float".into());
                }
                self.push(Step::Lanes(perm.clone(), x), Kind::Float, true)
            }
            Instr::FakeQuant(grid, x) => {
                let x = reg(*x)?;
                let Class { kind: Kind::Float, wide, .. } = class(self, x) else {
                    return Err("a quantiser of something that is no float".into());
                };
                let magnitude = self.push(Step::Magnitude(x), Kind::Float, wide);
                let amax = self.push(Step::RowReduce(Reduction::Max, magnitude), Kind::Float, false);
                let scale = self.push(Step::GridScale(*grid, amax), Kind::Float, false);
                self.push(Step::GridValue(*grid, x, scale), Kind::Float, wide)
            }
            Instr::Store { arg, value, at } => {
                let (b, value) = (buffer(*arg)?, reg(*value)?);
                let at = affine(at, b.shift)?;
                self.check_written(b, value, &at)?;
                let kind = class(self, value).kind;
                self.push(Step::Store { arg: *arg as usize, value, at }, kind, false)
            }
            Instr::Accumulate { arg, value, kind, at } => {
                let (b, value) = (buffer(*arg)?, reg(*value)?);
                let at = affine(at, b.shift)?;
                self.check_written(b, value, &at)?;
                let kept = self.rows.len() - self.reduced;
                if self.reduced == 0 || at.strides[kept..rank - 1].iter().any(|&s| s != 0) {
                    return Err("an accumulated result that moves along a reduced axis".into());
                }
                if class(self, value).kind != Kind::Float {
                    return Err("an accumulation of something that is no float".into());
                }
                let step = Step::Accumulate { arg: *arg as usize, value, kind: *kind, at };
                self.push(step, Kind::Float, false)
            }
        })
    }

    fn check_written(&self, buffer: Buffer, value: Reg, at: &Affine) -> Result<(), String> {
        let class = self.classes[value as usize];
        if class.kind != Kind::of(buffer.dtype) {
            return Err(format!("{:?} stored to a buffer of {}", class.kind, buffer.dtype));
        }
        if class.wide && at.strides[self.rows.len()] == 0 {
            return Err("a value per lane stored to one place".into());
        }
        Ok(())
    }
}

/// How many rows a gathered table has: those of which every element that the map can reach lies inside.
fn gather_rows(len: usize, stride: i64, at: &Affine, rows: &[usize], lanes: usize) -> i64 {
    let sizes = rows.iter().chain([&lanes]);
    let reach: i64 = at.strides.iter().zip(sizes).map(|(&s, &n)| (s * (n as i64 - 1)).max(0)).sum();
    let last = len as i64 - 1 - at.offset - reach;
    if last < 0 { 0 } else { last / stride + 1 }
}
