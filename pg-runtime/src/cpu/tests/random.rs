//! Random regions against their meaning in float64. Every instruction, class of operand, mode of execution
//! and kind of access must turn up; the test counts them.

use std::collections::BTreeMap;

use pg_codegen::plan::Kernel;
use pg_codegen::region::types::{RegType, reg_type};
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Reg, Region, interp};
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::ty::DType;

use super::{Data, Random, assert_close, launch_all};

const TABLE: usize = 20_000;

struct Gen {
    random: Random,
    region: Region,
    floats: Vec<Reg>,
    /// Loaded floats: comparing computed ones would compare rounding errors.
    exact: Vec<Reg>,
    ints: Vec<Reg>,
    bools: Vec<Reg>,
    types: Vec<RegType>,
}

impl Gen {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rank = random.below(4);
        let rows: Vec<usize> = (0..rank).map(|_| random.pick(&[1, 2, 3, 5, 7, 11])).collect();
        let lanes = random.pick(&[1, 1, 2, 3, 8, 17, 64, 131, 257]);
        let reduced = random.below(rank + 1);
        // Arguments: floats, ids, bfloat16, booleans; outputs follow.
        let args = vec![DType::F32, DType::I32, DType::BF16, DType::Bool];
        let region = Region { rows, reduced, lanes, body: Vec::new(), args };
        Gen { random, region, floats: vec![], exact: vec![], ints: vec![], bools: vec![], types: vec![] }
    }

    fn push(&mut self, instr: Instr) -> Reg {
        self.types.push(reg_type(&self.region, &self.types, &instr));
        self.region.body.push(instr);
        self.region.body.len() as Reg - 1
    }

    /// The register, or one with its element for every lane: what instructions on rows read.
    fn row(&mut self, reg: Reg) -> Reg {
        if self.types[reg as usize].wide || self.region.lanes == 1 {
            return reg;
        }
        let rank = self.region.rows.len();
        let lane = Affine { offset: 0, strides: (0..=rank).map(|a| i64::from(a == rank)).collect() };
        let index = self.push(Instr::Index(lane));
        let least = self.push(Instr::ConstInt(-1));
        let always = self.push(Instr::Binary(Binary::Gt, index, least));
        self.push(Instr::Select(always, reg, reg))
    }

    /// A map of some kind that stays within `len`.
    fn map(&mut self, len: usize) -> Affine {
        let sizes = self.region.sizes();
        loop {
            let mut order: Vec<usize> = (0..sizes.len()).collect();
            if self.random.below(3) == 0 {
                order.rotate_left(self.random.below(sizes.len()));
            }
            let mut strides = vec![0; sizes.len()];
            let mut step = 1;
            for &axis in order.iter().rev() {
                if self.random.below(4) > 0 {
                    strides[axis] = step * if self.random.below(8) == 0 { -1 } else { 1 };
                    step *= sizes[axis] as i64 + if self.random.below(6) == 0 { 3 } else { 0 };
                }
            }
            let map = Affine { offset: 0, strides: strides.into() };
            let (low, high) = map.interval(&sizes);
            let room = len as i64 - (high - low) - 1;
            if room >= 0 {
                let offset = -low + self.random.below(room as usize + 1) as i64;
                return Affine { offset, ..map };
            }
        }
    }

    fn index_map(&mut self, len: usize) -> IndexMap {
        let at = self.map(len);
        let mut guards = Vec::new();
        while self.random.below(3) == 0 {
            let strides =
                self.region.sizes().iter().map(|_| self.random.pick(&[-1i64, 0, 0, 1, 2])).collect();
            let offset = self.random.below(9) as i64 - 4;
            let size = 1 + self.random.below(20) as i64;
            guards.push(Guard { expr: Affine { offset, strides }, size });
        }
        IndexMap { at, guards }
    }

    fn load(&mut self) {
        let arg = self.random.pick(&[0, 0, 0, 1, 2, 3]);
        let map = self.index_map(TABLE);
        let reg = self.push(Instr::Load { arg, map });
        match arg {
            1 => self.ints.push(reg),
            3 => self.bools.push(reg),
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
                let (row, map) = (self.ints[0], self.index_map(TABLE - 8 * 100));
                let reg = self.push(Instr::Gather { arg: 0, row, stride: 100, map });
                self.floats.push(reg);
            }
            3 => {
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
            4..=6 => {
                let f = self.random.pick(&[
                    Binary::Add,
                    Binary::Sub,
                    Binary::Mul,
                    Binary::Max,
                    Binary::Gt,
                    Binary::Eq,
                ]);
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
            7 => {
                let (a, b) = (self.int(), self.int());
                let f = self.random.pick(&[Binary::Add, Binary::Mul, Binary::Xor, Binary::Sub, Binary::Max]);
                let reg = self.push(Instr::Binary(f, a, b));
                let k = self.push(Instr::ConstInt(13));
                let reg = self.push(Instr::Binary(Binary::Rem, reg, k));
                self.ints.push(reg);
            }
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
            10 => {
                let x = self.float();
                let x = self.row(x);
                let lanes = self.region.lanes;
                let by = self.random.below(lanes);
                let perm: Vec<u32> = match self.random.below(3) {
                    0 => (0..lanes).map(|l| ((l + by) % lanes) as u32).collect(),
                    1 => (0..lanes).rev().map(|l| l as u32).collect(),
                    _ => (0..lanes).map(|_| self.random.below(lanes) as u32).collect(),
                };
                let reg = self.push(Instr::Lanes(perm.into(), x));
                self.floats.push(reg);
            }
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

    /// A dense layout of the domain (or its kept part) in some order, for a new output.
    fn output(&mut self, narrow: bool, kept: bool, dtype: DType) -> (u32, Affine, usize) {
        let mut sizes = self.region.sizes();
        let rank = self.region.rows.len();
        if kept {
            sizes[rank - self.region.reduced..rank].fill(1);
        }
        if narrow {
            sizes[rank] = 1;
        }
        let mut order: Vec<usize> = (0..=rank).collect();
        if self.random.below(3) == 0 {
            order.rotate_left(self.random.below(rank + 1));
        }
        let mut strides = vec![0; rank + 1];
        let mut step = 1;
        for &axis in order.iter().rev() {
            strides[axis] = if sizes[axis] > 1 { step } else { 0 };
            step *= sizes[axis] as i64;
        }
        self.region.args.push(dtype);
        (self.region.args.len() as u32 - 1, Affine { offset: 0, strides: strides.into() }, step as usize)
    }
}

#[test]
fn random_regions_agree_with_their_meaning() {
    let mut coverage: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..400 {
        let mut g = Gen::new(seed);
        let map = g.map(TABLE);
        let x = g.push(Instr::Load { arg: 0, map: IndexMap { at: map, guards: vec![] } });
        g.floats.push(x);
        g.exact.push(x);
        let map = g.index_map(TABLE);
        let id = g.push(Instr::Load { arg: 1, map });
        g.ints.push(id);
        let c = g.push(Instr::Binary(Binary::Gt, x, x));
        g.bools.push(c);
        for _ in 0..3 + g.random.below(12) {
            g.step();
        }
        let mut lens = Vec::new();
        for _ in 0..1 + g.random.below(3) {
            let value = g.float();
            let narrow = !g.types[value as usize].wide && g.random.below(2) == 0;
            let value = if narrow { value } else { g.row(value) };
            if g.region.reduced > 0 && g.random.below(2) == 0 {
                let (arg, at, len) = g.output(narrow, true, DType::F32);
                let kind = g.random.pick(&[Reduction::Sum, Reduction::Max]);
                g.push(Instr::Accumulate { arg, value, kind, at });
                lens.push(len);
            } else {
                let (arg, at, len) = g.output(narrow, false, DType::F32);
                g.push(Instr::Store { arg, value, at });
                lens.push(len);
            }
        }
        if !g.region.body.iter().any(|i| matches!(i, Instr::Accumulate { .. })) {
            g.region.reduced = 0;
        }
        for instr in &g.region.body {
            let text = format!("{instr:?}");
            let name = text.split(['(', ' ', '{']).next().unwrap_or("").to_owned();
            *coverage.entry(Box::leak(name.into_boxed_str())).or_default() += 1;
        }
        let mut data = vec![g.random.floats(TABLE)];
        data.push(Data::I32((0..TABLE).map(|_| g.random.below(8) as i32).collect()));
        data.push(Data::BF16((0..TABLE).map(|_| (g.random.float().to_bits() >> 16) as u16).collect()));
        data.push(Data::Bool((0..TABLE).map(|_| g.random.below(2) as u8).collect()));
        data.extend(lens.iter().map(|&len| Data::zeros(DType::F32, len)));
        let mut want: Vec<Vec<f64>> = data.iter().map(Data::f64).collect();
        interp::run(&g.region, &mut want);
        let have = launch_all(&Kernel::Region(g.region.clone()), &data);
        for (i, (have, want)) in have.iter().zip(&want).enumerate().skip(4) {
            let close = std::panic::catch_unwind(|| assert_close(have.f32(), want, 2e-4));
            assert!(close.is_ok(), "seed {seed}, argument {i}: {:?}", g.region);
        }
    }
    for name in [
        "Load",
        "Gather",
        "Const",
        "ConstInt",
        "Index",
        "Unary",
        "Binary",
        "Select",
        "Cast",
        "RowReduce",
        "Lanes",
        "FakeQuant",
        "Store",
        "Accumulate",
    ] {
        assert!(coverage.get(name).is_some_and(|&n| n > 50), "{name}: {coverage:?}");
    }
}
