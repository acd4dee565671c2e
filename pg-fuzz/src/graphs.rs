//! Random graphs over every op, with views over everything and axis sizes 1 and primes.

use pg_ir::graph::{Builder, Graph, ValueId};
use pg_ir::interp::Environment;
use pg_ir::op::{Binary, Bits, DotDims, Op, Reduction, Unary};
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axis, DType, Role, Type};
use smallvec::SmallVec;

use crate::rng::Rng;

mod outputs;
mod views;

const SIZES: [usize; 7] = [1, 2, 3, 4, 5, 7, 8];
const ROWS: usize = 6;

struct Gen {
    b: Builder,
    rng: Rng,
    floats: Vec<ValueId>,
    bools: Vec<ValueId>,
    /// Non-negative integers.
    ids: Vec<ValueId>,
    batch: usize,
    time: usize,
    inputs: usize,
}

/// A random graph and values for its inputs.
pub fn graph(seed: u64) -> (Graph, Environment) {
    let mut rng = Rng::new(seed);
    let (batch, time) = (rng.pick(&[1, 2, 3]), rng.pick(&[1, 3, 4, 5]));
    let mut g = Gen {
        b: Builder::default(),
        rng,
        floats: vec![],
        bools: vec![],
        ids: vec![],
        batch,
        time,
        inputs: 0,
    };
    for _ in 0..3 {
        g.float_input();
    }
    let tokens = Type::new(DType::I32, [Axis::new(batch, Role::Batch), Axis::new(time, Role::Time)]);
    let tokens = g.b.input(Slot::new(Space::Data, "tokens"), tokens);
    g.ids.push(tokens);
    let steps = 12 + g.rng.below(40);
    for _ in 0..steps {
        g.step();
    }
    g.outputs();
    let graph = g.b.finish();
    let env = graph
        .inputs()
        .map(|(slot, value)| {
            let ty = graph.ty(value);
            let mut draw = || if ty.dtype == DType::I32 { g.rng.below(ROWS) as f64 } else { g.rng.float() };
            (slot.clone(), (0..ty.len()).map(|_| draw()).collect())
        })
        .collect();
    (graph, env)
}

impl Gen {
    fn float_input(&mut self) {
        let (b, t) = (Axis::new(self.batch, Role::Batch), Axis::new(self.time, Role::Time));
        let mut size = || Axis::channel(self.rng.pick(&SIZES));
        let (c, d) = (size(), size());
        let axes: Vec<Axis> = match self.rng.below(5) {
            0 => vec![b, t, c],
            1 => vec![b, t, Axis::new(c.size, Role::Head), d],
            2 => vec![c],
            3 => vec![c, d],
            _ => vec![c, d, Axis::channel(self.rng.pick(&SIZES))],
        };
        self.inputs += 1;
        let name = format!("p{}", self.inputs);
        let x = self.b.input(Slot::new(Space::Param, name), Type::new(DType::F32, axes));
        self.floats.push(x);
    }

    fn float(&mut self) -> ValueId {
        // Recent values more often, so that chains grow.
        let n = self.floats.len();
        let from = if self.rng.below(2) == 0 { n.saturating_sub(4) } else { 0 };
        self.floats[from + self.rng.below(n - from)]
    }

    /// A value that broadcasts with `x`: another of the pool, or something made of `x`.
    fn partner(&mut self, x: ValueId) -> ValueId {
        for _ in 0..6 {
            let y = self.float();
            if pg_ir::graph::common_axes(self.b.ty(x), self.b.ty(y)).is_ok() {
                return y;
            }
        }
        let last = self.b.ty(x).rank();
        if last > 0 && self.rng.below(2) == 0 {
            let axis = self.rng.below(last);
            return self.b.op(Op::Shift { axis, by: 1 }, &[x]);
        }
        self.b.unary(Unary::Tanh, x)
    }

    fn add(&mut self, x: ValueId) {
        // Values stay small enough for float64 and few enough to be quick.
        if self.b.ty(x).len() > 4000 {
            return;
        }
        match self.b.ty(x).dtype {
            DType::F32 | DType::BF16 => self.floats.push(x),
            DType::Bool => self.bools.push(x),
            DType::I32 => self.ids.push(x),
        }
    }

    fn try_add(&mut self, op: Op, operands: &[ValueId]) {
        if let Ok(results) = self.b.push(op, operands) {
            results.into_iter().for_each(|r| self.add(r));
        }
    }

    fn step(&mut self) {
        let x = self.float();
        let rank = self.b.ty(x).rank();
        match self.rng.below(30) {
            0 => self.float_input(),
            1..=3 => self.unary(x),
            4..=6 => {
                let y = self.partner(x);
                let f = self.rng.pick(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Max]);
                let z = self.b.binary(f, x, y);
                self.add(z);
            }
            7 => self.quotient(x),
            8 => self.comparison(x),
            9 => self.select(x),
            10 => {
                let y = self.b.op(Op::Cast(DType::BF16), &[x]);
                self.add(y);
            }
            11..=13 if rank > 0 => self.reduce(x),
            14 => self.reshape(x),
            15 if rank > 1 => self.transpose(x),
            16 => self.broadcast(x),
            n @ 17..=20 if rank > 0 => self.move_elements(n, x),
            21 => {
                let grid = Grid { clip: self.rng.pick(&[7, 31]), rule: ScaleRule::Amax };
                self.try_add(Op::FakeQuant(grid), &[x]);
            }
            22..=23 => self.dot(x),
            24 => self.attention(x),
            25 => self.gather(x),
            26 => self.scatter(x),
            27 => self.integers(),
            28 => {
                let y = self.b.op(Op::StopGradient, &[x]);
                self.add(y);
            }
            _ => self.table(),
        }
    }

    fn quotient(&mut self, x: ValueId) {
        let y = self.partner(x);
        let y2 = self.b.mul(y, y);
        let half = self.b.constant_like(0.5, y2);
        let d = self.b.add(y2, half);
        let z = self.b.div(x, d);
        self.add(z);
    }

    fn comparison(&mut self, x: ValueId) {
        let y = self.partner(x);
        // Not equal by construction: plans round constants to float32, so ties may break.
        let offset = self.b.constant_like(0.013_671_875, x);
        let x = self.b.add(x, offset);
        let z = self.b.binary(Binary::Gt, x, y);
        self.add(z);
    }

    fn select(&mut self, x: ValueId) {
        let Some(&c) = self.bools.last() else { return };
        let y = self.partner(x);
        if let Ok(z) = self.b.try_select(c, x, y) {
            self.add(z);
        }
        let cast = self.b.op(Op::Cast(DType::F32), &[c]);
        self.add(cast);
    }

    fn reduce(&mut self, x: ValueId) {
        let axes = self.b.ty(x).axes.clone();
        let over: SmallVec<[usize; 4]> = (0..axes.len()).filter(|_| self.rng.below(2) == 0).collect();
        let kind = self.rng.pick(&[Reduction::Sum, Reduction::Max]);
        let y = self.b.op(Op::Reduce(kind, over), &[x]);
        // Bring it back now and then: the pattern of norms.
        if self.rng.below(2) == 0 {
            let r = self.b.broadcast(y, axes);
            let z = self.b.sub(x, r);
            self.add(z);
        }
        self.add(y);
    }

    fn scatter(&mut self, x: ValueId) {
        let ids = self.rng.below(self.ids.len());
        let ids = self.ids[ids];
        // Values whose leading axes are those of the ids.
        let (lead, axes) = (self.b.ty(ids).axes.clone(), &self.b.ty(x).axes);
        if axes.len() >= lead.len() && axes[..lead.len()] == lead[..] {
            let ids = self.bounded(ids);
            self.try_add(Op::ScatterAdd { rows: ROWS }, &[ids, x]);
        }
    }

    /// A constant table: trigonometric functions of indices.
    fn table(&mut self) {
        let n = self.rng.pick(&SIZES);
        let i = self.b.op(Op::Iota(Axis::channel(n)), &[]);
        let f = self.b.op(Op::Cast(DType::F32), &[i]);
        let unary = self.rng.pick(&[Unary::Sin, Unary::Cos]);
        let s = self.b.unary(unary, f);
        self.add(s);
        self.add(i);
    }

    fn unary(&mut self, x: ValueId) {
        let f = self.rng.pick(&[
            Unary::Exp,
            Unary::Log,
            Unary::Tanh,
            Unary::Sigmoid,
            Unary::Sqrt,
            Unary::Rsqrt,
            Unary::Sin,
            Unary::Cos,
        ]);
        let safe = match f {
            Unary::Exp => self.b.unary(Unary::Tanh, x),
            Unary::Log | Unary::Sqrt | Unary::Rsqrt => {
                let squash = self.b.unary(Unary::Sigmoid, x);
                let eighth = self.b.constant_like(0.125, squash);
                self.b.add(squash, eighth)
            }
            _ => x,
        };
        let y = self.b.unary(f, safe);
        self.add(y);
    }

    fn dot(&mut self, x: ValueId) {
        let y = self.float();
        let (a, b) = (self.b.ty(x).clone(), self.b.ty(y).clone());
        let mut dims = DotDims::default();
        let mut used = vec![false; b.rank()];
        for (i, axis) in a.axes.iter().enumerate() {
            let Some(j) = (0..b.rank()).find(|&j| !used[j] && b.axes[j].size == axis.size) else { continue };
            match self.rng.below(3) {
                0 => dims.batch.push((i, j)),
                1 => dims.contract.push((i, j)),
                _ => continue,
            }
            used[j] = true;
        }
        // Products of one operand may run side by side.
        let others = match self.rng.below(3) {
            0 => vec![(x, self.b.unary(Unary::Sin, y))],
            1 if a.dtype == DType::F32 => vec![(self.b.unary(Unary::Sin, x), y)],
            _ => vec![],
        };
        let pairs = [(x, y)].into_iter().chain(others);
        let products: Vec<ValueId> =
            pairs.filter_map(|(x, y)| self.b.try_op(Op::Dot(dims.clone()), &[x, y]).ok()).collect();
        let products = match products[..] {
            // Two products may be one, over segments of k.
            [p, q] if self.rng.below(2) == 0 => vec![self.b.add(p, q)],
            _ => products,
        };
        for z in products {
            let z = self.b.scale(0.25, z);
            self.add(z);
        }
    }

    fn attention(&mut self, x: ValueId) {
        let ty = self.b.ty(x).clone();
        if ty.rank() != 4 || ty.axes[0].role != Role::Batch || ty.axes[1].role != Role::Time {
            return;
        }
        let k = self.b.op(Op::Shift { axis: 1, by: 1 }, &[x]);
        let k = if self.rng.below(2) == 0 { self.b.unary(Unary::Tanh, k) } else { k };
        // Grouped heads where they divide.
        let kv = |g: &mut Gen, v| match ty.axes[2].size {
            n if n % 2 == 0 => g.b.op(Op::Slice { axis: 2, start: 0, len: n / 2 }, &[v]),
            _ => v,
        };
        let (k, v) = (kv(self, k), kv(self, x));
        let scale = Bits::new(0.5);
        let Ok(r) = self.b.push(Op::Attention { scale }, &[x, k, v]) else { return };
        if self.rng.below(2) == 0 {
            let g = self.b.unary(Unary::Sin, r[0]);
            self.try_add(Op::AttentionGrad { scale }, &[x, k, v, r[0], r[1], g]);
        }
        r.into_iter().for_each(|v| self.add(v));
    }

    /// Ids that exist in tables of at least `ROWS` rows.
    fn bounded(&mut self, ids: ValueId) -> ValueId {
        let rows = self.b.constant_like(ROWS as f64, ids);
        self.b.op(Op::Binary(Binary::Rem), &[ids, rows])
    }

    fn gather(&mut self, x: ValueId) {
        let ids = self.rng.below(self.ids.len());
        let ids = self.bounded(self.ids[ids]);
        let ty = self.b.ty(x).clone();
        if ty.rank() == 0 {
            return;
        }
        let missing = ROWS.saturating_sub(ty.axes[0].size);
        let table = match self.rng.below(2) {
            0 => self.b.op(Op::Pad { axis: 0, before: missing, after: 0 }, &[x]),
            _ => {
                let lead = [Axis::channel(ROWS)].into_iter().chain(ty.axes.iter().copied()).collect();
                self.b.broadcast(x, lead)
            }
        };
        self.try_add(Op::Gather, &[table, ids]);
    }

    fn integers(&mut self) {
        let (i, j) = (self.rng.below(self.ids.len()), self.rng.below(self.ids.len()));
        let (a, b) = (self.ids[i], self.ids[j]);
        let f = self.rng.pick(&[Binary::Add, Binary::Mul, Binary::Xor, Binary::Max]);
        if let Ok(c) = self.b.try_binary(f, a, b) {
            let c = self.bounded(c);
            self.add(c);
            let f = self.b.op(Op::Cast(DType::F32), &[c]);
            self.add(f);
            let same = self.b.binary(Binary::Eq, a, b);
            self.add(same);
        }
        if self.b.ty(a).rank() > 0 {
            let axis = self.b.ty(a).rank() - 1;
            self.try_add(Op::Shift { axis, by: 1 }, &[a]);
        }
    }
}
