//! Random regions, with what their arguments hold: every instruction, class of operand, kind of access and guard.
//!
//! Executors of regions are held to [`interp`](pg_codegen::region::interp) by them, each by a test of its own. Numbers
//! stay where float32 can follow float64: comparisons and grids take loaded values only, and functions that grow are
//! bounded.

use std::collections::BTreeMap;

use pg_codegen::region::types::{RegType, reg_type};
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Reg, Region};
use pg_ir::interp::Tensor;
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::ty::DType;

use crate::coverage::{INSTRUCTIONS, instruction};
use crate::rng::Rng;

/// Elements of each argument that is loaded from, but for the table.
const LEN: usize = 20_000;
/// Rows of the table.
const ROWS: usize = 8;

/// How far an element may be off: this times the greater of 1 and its magnitude.
pub const TOLERANCE: f64 = 2e-4;

/// A region, and what its arguments hold before it runs: the last ones, which it writes, zeros.
pub struct Case {
    /// The region.
    pub region: Region,
    /// By argument, its elements; each is a value of the argument's type.
    pub args: Vec<Tensor>,
    /// Arguments that it loads from; it writes those behind them.
    pub loaded: usize,
}

/// Where an executor is no test of a region.
#[derive(Clone, Copy, Default)]
pub struct Limits {
    /// Whether it has no arguments in bfloat16.
    pub no_bf16: bool,
}

/// Arguments that are loaded from.
const FLOATS: u32 = 0;
const IDS: u32 = 1;
const NARROW: u32 = 2;
const BOOLS: u32 = 3;
const TABLE: u32 = 4;

/// The region of a seed.
pub fn case(seed: u64, limits: Limits) -> Case {
    let mut g = Gen::new(seed, limits);
    g.fill();
    g.finish()
}

/// How often instructions turn up in regions, by name.
pub fn census<'a>(regions: impl IntoIterator<Item = &'a Region>) -> BTreeMap<String, usize> {
    let mut census = BTreeMap::new();
    for instr in regions.into_iter().flat_map(|region| &region.body) {
        *census.entry(instruction(instr)).or_default() += 1;
    }
    census
}

/// Demands that every instruction turned up more than `n` times.
///
/// # Panics
/// If one did not.
pub fn assert_all_met(census: &BTreeMap<String, usize>, n: usize) {
    for name in INSTRUCTIONS {
        assert!(census.get(name).is_some_and(|&met| met > n), "{name}: {census:?}");
    }
}

struct Gen {
    random: Rng,
    region: Region,
    floats: Vec<Reg>,
    /// Loaded floats: comparing computed ones would compare rounding errors.
    exact: Vec<Reg>,
    ints: Vec<Reg>,
    bools: Vec<Reg>,
    types: Vec<RegType>,
    /// Elements of a row of the table.
    width: usize,
    /// Elements of the arguments that are written.
    lens: Vec<usize>,
}

impl Gen {
    fn new(seed: u64, limits: Limits) -> Self {
        let mut random = Rng::of(seed, "regions");
        let rank = random.below(4);
        let rows: Vec<usize> = (0..rank).map(|_| random.pick(&[1, 2, 3, 5, 7, 11])).collect();
        let columns = random.pick(&[1, 1, 2, 3, 8, 17, 32, 64, 128, 131, 257, 512]);
        let reduced = random.below(rank + 1);
        let narrow = if limits.no_bf16 { DType::F32 } else { DType::BF16 };
        let args = vec![DType::F32, DType::I32, narrow, DType::Bool, DType::F32];
        let width = random.pick(&[1, 3, 4, 8, 100]);
        let region = Region { rows, reduced, columns, body: Vec::new(), args };
        let [floats, exact, ints, bools] = [const { Vec::new() }; 4];
        Gen { random, region, width, floats, exact, ints, bools, types: Vec::new(), lens: Vec::new() }
    }

    fn push(&mut self, instr: Instr) -> Reg {
        self.types.push(reg_type(&self.region, &self.types, &instr));
        self.region.body.push(instr);
        self.region.body.len() as Reg - 1
    }

    /// The register, or one with its element for every column: what instructions on rows read.
    fn row(&mut self, reg: Reg) -> Reg {
        if self.types[reg as usize].wide || self.region.columns == 1 {
            return reg;
        }
        let rank = self.region.rows.len();
        let column = Affine { offset: 0, strides: (0..=rank).map(|a| i64::from(a == rank)).collect() };
        let index = self.push(Instr::Index(column));
        let least = self.push(Instr::ConstInt(-1));
        let always = self.push(Instr::Binary(Binary::Gt, index, least));
        self.push(Instr::Select(always, reg, reg))
    }

    /// A map of some kind that stays within `len`.
    fn map(&mut self, len: usize) -> Affine {
        let sizes = self.region.sizes();
        loop {
            let mut order: Vec<usize> = (0..sizes.len()).collect();
            if self.random.once_in(3) {
                order.rotate_left(self.random.below(sizes.len()));
            }
            let mut strides = vec![0; sizes.len()];
            let mut step = 1;
            for &axis in order.iter().rev() {
                if !self.random.once_in(4) {
                    strides[axis] = step * if self.random.once_in(8) { -1 } else { 1 };
                    step *= sizes[axis] as i64 + if self.random.once_in(6) { 3 } else { 0 };
                }
            }
            let map = Affine { offset: 0, strides: strides.into() };
            let (low, high) = map.interval(&sizes);
            let room = len as i64 - (high - low) - 1;
            if room >= 0 {
                let free = self.random.below(room as usize + 1) as i64;
                // Half of them where accesses of several elements may begin.
                let free = if self.random.once_in(2) { free - free % 8 } else { free };
                return Affine { offset: free - low, ..map };
            }
        }
    }

    /// A map that stays within `len` by itself, or by a guard of its own.
    fn index_map(&mut self, len: usize) -> IndexMap {
        let mut at = self.map(len);
        let mut guards = Vec::new();
        if self.random.once_in(3) {
            at.offset += self.random.below(40) as i64 - 20;
            guards.push(Guard { expr: at.clone(), size: len as i64 });
        }
        while self.random.once_in(3) {
            let strides =
                self.region.sizes().iter().map(|_| self.random.pick(&[-1i64, 0, 0, 1, 2])).collect();
            let offset = self.random.below(9) as i64 - 4;
            let size = 1 + self.random.below(20) as i64;
            guards.push(Guard { expr: Affine { offset, strides }, size });
        }
        IndexMap { at, guards }
    }

    /// Elements of a row of the table, to which nothing but guards keeps it.
    fn row_of_table(&mut self) -> IndexMap {
        let mut strides = vec![0; self.region.rows.len() + 1];
        if let Some(column) = strides.last_mut() {
            *column = self.random.pick(&[-1, 0, 1, 1]);
        }
        let offset = self.random.below(self.width + 8) as i64 - 4;
        let at = Affine { offset, strides: strides.into() };
        IndexMap { guards: vec![Guard { expr: at.clone(), size: self.width as i64 }], at }
    }

    fn load(&mut self) {
        let arg = self.random.pick(&[FLOATS, FLOATS, FLOATS, IDS, NARROW, BOOLS]);
        let map = self.index_map(LEN);
        let reg = self.push(Instr::Load { arg, map });
        match arg {
            IDS => self.ints.push(reg),
            BOOLS => self.bools.push(reg),
            _ => {
                self.floats.push(reg);
                self.exact.push(reg);
            }
        }
    }

    fn float(&mut self) -> Reg {
        let i = self.random.below(self.floats.len());
        self.floats[i]
    }

    fn int(&mut self) -> Reg {
        let i = self.random.below(self.ints.len());
        self.ints[i]
    }

    fn step(&mut self) {
        match self.random.below(14) {
            0 | 1 => self.load(),
            2 => {
                let (row, map) = (self.ints[0], self.row_of_table());
                let (stride, rows) = (self.width as i64, ROWS);
                let reg = self.push(Instr::Gather { arg: TABLE, row, rows, stride, map });
                self.floats.push(reg);
            }
            3 => self.unary(),
            4..=6 => self.binary(),
            7 => self.integers(),
            8 => {
                let (a, b) = (self.float(), self.float());
                let c = self.random.below(self.bools.len());
                let c = self.bools[c];
                let reg = self.push(Instr::Select(c, a, b));
                self.floats.push(reg);
            }
            9 => {
                let x = self.float();
                let x = self.row(x);
                let kind = self.random.pick(&[Reduction::Sum, Reduction::Max]);
                let reg = self.push(Instr::RowReduce(kind, x));
                let reg = self.push(Instr::Unary(Unary::Tanh, reg));
                self.floats.push(reg);
            }
            10 => self.permute(),
            11 => {
                let x = self.int();
                let reg = self.push(Instr::Cast(DType::F32, x));
                let reg = self.push(Instr::Unary(Unary::Sin, reg));
                self.floats.push(reg);
            }
            12 => {
                let sizes = self.region.sizes();
                let strides = sizes.iter().map(|_| self.random.below(4) as i64 - 1).collect::<Vec<_>>();
                let reg = self.push(Instr::Index(Affine { offset: 5, strides: strides.into() }));
                self.ints.push(reg);
            }
            // The quantiser amplifies rounding, so it takes loaded values only: register 0.
            _ => {
                let clip = self.random.pick(&[7, 31]);
                let rule = self.random.pick(&[ScaleRule::Amax, ScaleRule::Floored]);
                let x = self.row(0);
                let reg = self.push(Instr::FakeQuant(Grid { clip, rule }, x));
                self.floats.push(reg);
            }
        }
    }

    fn unary(&mut self) {
        let f = self.random.pick(&[Unary::Tanh, Unary::Sigmoid, Unary::Sin, Unary::Cos]);
        let x = self.float();
        let reg = self.push(Instr::Unary(f, x));
        // Bounded, so that the functions of the positive half line are defined, with room.
        let two = self.push(Instr::Const(2.0));
        let y = self.push(Instr::Binary(Binary::Add, reg, two));
        let f = self.random.pick(&[Unary::Exp, Unary::Log, Unary::Sqrt, Unary::Rsqrt]);
        let y = self.push(Instr::Unary(f, y));
        self.floats.extend([reg, y]);
    }

    fn binary(&mut self) {
        let f =
            self.random.pick(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Gt, Binary::Eq]);
        let compares = matches!(f, Binary::Gt | Binary::Eq);
        let (a, b) = if compares {
            let n = self.exact.len();
            (self.exact[self.random.below(n)], self.exact[self.random.below(n)])
        } else {
            (self.float(), self.float())
        };
        let reg = self.push(Instr::Binary(f, a, b));
        match f {
            Binary::Gt | Binary::Eq => self.bools.push(reg),
            // Products of products would outgrow the tolerance.
            _ => {
                let y = self.push(Instr::Unary(Unary::Tanh, reg));
                self.floats.push(y);
            }
        }
    }

    fn integers(&mut self) {
        let (a, b) = (self.int(), self.int());
        let f = self.random.pick(&[Binary::Add, Binary::Mul, Binary::Xor, Binary::Sub, Binary::Max]);
        let reg = self.push(Instr::Binary(f, a, b));
        let k = self.push(Instr::ConstInt(13));
        let reg = self.push(Instr::Binary(Binary::Rem, reg, k));
        self.ints.push(reg);
    }

    fn permute(&mut self) {
        let x = self.float();
        let x = self.row(x);
        let columns = self.region.columns;
        let by = self.random.below(columns);
        let perm: Vec<u32> = match self.random.below(3) {
            0 => (0..columns).map(|l| ((l + by) % columns) as u32).collect(),
            1 => (0..columns).rev().map(|l| l as u32).collect(),
            _ => (0..columns).map(|_| self.random.below(columns) as u32).collect(),
        };
        let reg = self.push(Instr::Permute(perm.into(), x));
        self.floats.push(reg);
    }

    /// A dense layout of the domain (or its kept part) in some order, for a new output.
    fn output(&mut self, narrow: bool, kept: bool) -> (u32, Affine) {
        let mut sizes = self.region.sizes();
        let rank = self.region.rows.len();
        if kept {
            sizes[rank - self.region.reduced..rank].fill(1);
        }
        if narrow {
            sizes[rank] = 1;
        }
        let mut order: Vec<usize> = (0..=rank).collect();
        if self.random.once_in(3) {
            order.rotate_left(self.random.below(rank + 1));
        }
        let mut strides = vec![0; rank + 1];
        let mut step = 1;
        for &axis in order.iter().rev() {
            strides[axis] = if sizes[axis] > 1 { step } else { 0 };
            step *= sizes[axis] as i64;
        }
        self.region.args.push(DType::F32);
        self.lens.push(step as usize);
        (self.region.args.len() as u32 - 1, Affine { offset: 0, strides: strides.into() })
    }

    fn fill(&mut self) {
        let at = self.map(LEN);
        let x = self.push(Instr::Load { arg: FLOATS, map: IndexMap { at, guards: vec![] } });
        self.floats.push(x);
        self.exact.push(x);
        let map = self.index_map(LEN);
        let id = self.push(Instr::Load { arg: IDS, map });
        self.ints.push(id);
        let c = self.push(Instr::Binary(Binary::Gt, x, x));
        self.bools.push(c);
        for _ in 0..3 + self.random.below(12) {
            self.step();
        }
        for _ in 0..1 + self.random.below(3) {
            self.write();
        }
        if !self.region.body.iter().any(|i| matches!(i, Instr::Accumulate { .. })) {
            self.region.reduced = 0;
        }
    }

    fn write(&mut self) {
        let value = self.float();
        let narrow = !self.types[value as usize].wide && self.random.once_in(2);
        let value = if narrow { value } else { self.row(value) };
        if self.region.reduced > 0 && self.random.once_in(2) {
            let (arg, at) = self.output(narrow, true);
            let kind = self.random.pick(&[Reduction::Sum, Reduction::Max]);
            self.push(Instr::Accumulate { arg, value, kind, at });
        } else {
            let (arg, at) = self.output(narrow, false);
            self.push(Instr::Store { arg, value, at });
        }
    }

    fn finish(mut self) -> Case {
        let loaded = self.region.args.len() - self.lens.len();
        let mut args = Vec::new();
        for arg in 0..loaded {
            let len = if arg == TABLE as usize { ROWS * self.width } else { LEN };
            let random = &mut self.random;
            let mut element = || match self.region.args[arg] {
                DType::F32 => random.float(),
                DType::I32 => random.below(ROWS) as f64,
                DType::BF16 => f64::from(f32::from_bits((random.float() as f32).to_bits() & 0xffff_0000)),
                DType::Bool => random.below(2) as f64,
            };
            args.push((0..len).map(|_| element()).collect());
        }
        args.extend(self.lens.iter().map(|&len| vec![0.0; len]));
        Case { region: self.region, args, loaded }
    }
}
