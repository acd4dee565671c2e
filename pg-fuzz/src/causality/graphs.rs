//! Random graphs from tokens to logits that mix positions in every way that a model could, and many that none should:
//! masks of positions that are right, off by one, turned round, combined and moved by views, with softmax, windows,
//! running sums, shifts, slices, flips, attention, and steps that mix the rows of a batch.

use pg_ir::graph::{Builder, Graph, ValueId};
use pg_ir::op::{Binary, Bits, DotDims, Op, Reduction, Unary};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axes, Axis, DType, Role, Type};

use super::ROWS;
use crate::rng::Rng;

pub(super) struct Gen {
    pub(super) b: Builder,
    pub(super) rng: Rng,
    pub(super) tokens: ValueId,
    pub(super) batch: Axis,
    pub(super) time: Axis,
    pub(super) width: Axis,
    /// Floats [batch, time, width].
    pool: Vec<ValueId>,
    params: usize,
}

/// The graph of a seed, and its logits [batch, time, width].
pub(super) fn graph(seed: u64) -> (Graph, ValueId) {
    let mut rng = Rng::of(seed, "causality");
    let (batch, time) =
        (Axis::new(rng.pick(&[1, 2, 2, 3]), Role::Batch), Axis::new(2 + rng.below(4), Role::Time));
    let width = Axis::channel(1 + rng.below(3));
    let mut b = Builder::default();
    let tokens = b.input(Slot::new(Space::Data, "tokens"), Type::new(DType::I32, [batch, time]));
    let mut g = Gen { b, rng, tokens, batch, time, width, pool: vec![], params: 0 };
    let table = g.param([Axis::channel(ROWS), width]);
    let x = g.b.op(Op::Gather, &[table, tokens]);
    g.pool.push(x);
    for _ in 0..1 + g.rng.below(3) {
        let y = g.step();
        assert_eq!(g.b.ty(y).axes, g.b.ty(x).axes, "a step keeps shapes");
        let y = if g.rng.once_in(3) { g.b.add(x, y) } else { y };
        g.pool.push(y);
    }
    let logits = g.pool[g.pool.len() - 1];
    (g.b.finish(), logits)
}

impl Gen {
    fn param(&mut self, axes: impl IntoIterator<Item = Axis>) -> ValueId {
        self.params += 1;
        let ty = Type::new(DType::F32, axes);
        self.b.input(Slot::new(Space::Param, format!("p{}", self.params)), ty)
    }

    /// A value of the pool, recent ones more often.
    fn value(&mut self) -> ValueId {
        let n = self.pool.len();
        self.pool[if self.rng.once_in(3) { self.rng.below(n) } else { n - 1 }]
    }

    /// x through a matrix of its own.
    fn linear(&mut self, x: ValueId) -> ValueId {
        let w = self.param([self.width, self.width]);
        self.b.dot(DotDims::contract(2, 1), x, w)
    }

    pub(super) fn axes(&self, axes: &[Axis]) -> Axes {
        axes.iter().copied().collect()
    }

    fn step(&mut self) -> ValueId {
        let x = self.value();
        match self.rng.below(16) {
            0..=5 => self.softmax_attention(x),
            6 => self.running_sum(x),
            7..=8 => self.masked_reduction(x),
            9 => self.among_sequences(x),
            10 => self.moved(x),
            11 => self.attention(x),
            12 => self.pooled(x),
            13 => self.by_ids(x),
            _ => self.elementwise(x),
        }
    }

    /// Scores, a mask, a softmax, values: each step at times left out, or done wrong.
    fn softmax_attention(&mut self, x: ValueId) -> ValueId {
        let y = self.value();
        let (q, k, v) = (self.linear(x), self.linear(y), self.linear(y));
        let s = self.b.dot(DotDims::batched(2, 2), q, k);
        let mask = self.mask();
        let fill = self.rng.pick(&[f64::NEG_INFINITY, f64::NEG_INFINITY, -1e30, -1e30, -5.0, 0.0]);
        let s = if self.rng.once_in(8) { s } else { self.keep(mask, s, fill) };
        let s = if self.rng.once_in(4) { self.biased(s) } else { s };
        let over = if self.rng.once_in(12) { 1 } else { 2 };
        let top = self.b.reduce(Reduction::Max, s, &[over]);
        let shifted = self.b.sub(s, top);
        let e = self.b.unary(Unary::Exp, shifted);
        let again = if self.rng.once_in(6) { self.mask() } else { mask };
        let e = if fill == f64::NEG_INFINITY && self.rng.once_in(2) { e } else { self.keep(again, e, 0.0) };
        let sum = self.b.reduce(Reduction::Sum, e, &[over]);
        let p = if self.rng.once_in(4) { e } else { self.b.div(e, sum) };
        let p = if self.rng.once_in(10) {
            self.b.op(Op::Transpose([0, 2, 1].into_iter().collect()), &[p])
        } else {
            p
        };
        let v = if self.rng.once_in(3) { self.overflowing(v) } else { v };
        let v = self.bounded(v);
        let summed = if self.rng.once_in(12) { 1 } else { 2 };
        self.b.dot(DotDims::batched(summed, 1), p, v)
    }

    /// Σ of earlier positions, by a triangular matrix.
    fn running_sum(&mut self, x: ValueId) -> ValueId {
        let mask = self.mask();
        let w = if self.b.ty(mask).rank() == 2 {
            self.b.op(Op::Cast(DType::F32), &[mask])
        } else {
            let m = self.b.op(Op::Cast(DType::F32), &[mask]);
            let m = self.b.reduce(Reduction::Max, m, &[0]);
            let axes = self.axes(&[self.time, self.time]);
            self.b.reshape(m, axes)
        };
        let x = self.bounded(x);
        let y = self.b.dot(DotDims::contract(1, 1), w, x);
        self.b.op(Op::Transpose([1, 0, 2].into_iter().collect()), &[y])
    }

    /// A reduction over [batch, time, time, width], most of the time behind a mask.
    fn masked_reduction(&mut self, x: ValueId) -> ValueId {
        let one = Axis { size: 1, ..self.time };
        let (b, t, c) = (self.batch, self.time, self.width);
        let wide = self.axes(&[b, one, t, c]);
        let x = self.b.reshape(x, wide);
        let full = self.axes(&[b, t, t, c]);
        let x = self.b.broadcast(x, full.clone());
        let x = if self.rng.once_in(3) {
            let own = self.value();
            let tall = self.axes(&[b, t, one, c]);
            let own = self.b.reshape(own, tall);
            self.b.add(x, own)
        } else {
            x
        };
        let mask = self.mask();
        let lead = if self.b.ty(mask).rank() == 2 { vec![] } else { vec![b] };
        let axes: Axes = lead.into_iter().chain([t, t, Axis::channel(1)]).collect();
        let mask = self.b.reshape(mask, axes);
        let mask = self.b.broadcast(mask, full);
        let fill = self.rng.pick(&[0.0, 0.0, -1e30, 2.0, f64::NEG_INFINITY]);
        let x = if self.rng.once_in(8) { x } else { self.keep(mask, x, fill) };
        let x = if self.rng.once_in(3) { self.b.unary(Unary::Tanh, x) } else { x };
        let kind = self.rng.pick(&[Reduction::Sum, Reduction::Max]);
        let over = if self.rng.once_in(8) { 1 } else { 2 };
        let y = self.b.reduce(kind, x, &[over]);
        let axes = self.axes(&[b, t, c]);
        self.b.reshape(y, axes)
    }

    /// The same among the rows of a batch.
    fn among_sequences(&mut self, x: ValueId) -> ValueId {
        let (b, t, c) = (self.batch, self.time, self.width);
        let one = Axis { size: 1, ..b };
        let wide = self.axes(&[one, b, t, c]);
        let y = self.b.reshape(x, wide);
        let full = self.axes(&[b, b, t, c]);
        let y = self.b.broadcast(y, full.clone());
        let index = self.b.op(Op::Iota(b), &[]);
        let column = self.axes(&[b, one]);
        let other = self.b.reshape(index, column);
        let by = self.rng.pick(&[0.0, 0.0, 0.0, 1.0]);
        let shifted = self.number(by, other);
        let other = self.b.add(other, shifted);
        let f = self.rng.pick(&[Binary::Eq, Binary::Eq, Binary::Eq, Binary::Gt]);
        let mask = self.b.binary(f, other, index);
        let axes = self.axes(&[b, b, Axis::channel(1), Axis::channel(1)]);
        let mask = self.b.reshape(mask, axes);
        let mask = self.b.broadcast(mask, full);
        let y = self.keep(mask, y, 0.0);
        let y = self.b.reduce(Reduction::Sum, y, &[1]);
        let axes = self.axes(&[b, t, c]);
        self.b.reshape(y, axes)
    }

    /// Views that move elements along time or the batch.
    fn moved(&mut self, x: ValueId) -> ValueId {
        let axis = if self.rng.once_in(6) { 0 } else { 1 };
        let size = self.b.ty(x).axes[axis].size;
        match self.rng.below(5) {
            0 => self.b.op(Op::Shift { axis, by: self.rng.below(4) as i64 - 1 }, &[x]),
            1 => {
                // A shift by a cut at one end and zeros at the other.
                let cut = self.rng.below(size);
                let from = if self.rng.once_in(3) { cut } else { 0 };
                let y = self.b.op(Op::Slice { axis, start: from, len: size - cut }, &[x]);
                let (before, after) = if self.rng.once_in(4) { (0, cut) } else { (cut, 0) };
                self.b.op(Op::Pad { axis, before, after }, &[y])
            }
            2 => self.flipped(x, axis),
            3 => {
                let twice = self.flipped(x, axis);
                self.flipped(twice, axis)
            }
            _ => {
                // One position for all.
                let start = if self.rng.once_in(2) { 0 } else { self.rng.below(size) };
                let y = self.b.op(Op::Slice { axis, start, len: 1 }, &[x]);
                let axes = self.b.ty(x).axes.clone();
                let y = self.b.broadcast(y, axes);
                self.b.add(x, y)
            }
        }
    }

    /// Against the order of an axis.
    pub(super) fn flipped(&mut self, x: ValueId, axis: usize) -> ValueId {
        let rank = self.b.ty(x).rank();
        let size = self.b.ty(x).axes[axis].size;
        let perm = || {
            (0..rank)
                .map(|a| {
                    if a == axis {
                        rank - 1
                    } else if a == rank - 1 {
                        axis
                    } else {
                        a
                    }
                })
                .collect()
        };
        let y = self.b.op(Op::Transpose(perm()), &[x]);
        let y = self.b.op(Op::Permute((0..size as u32).rev().collect()), &[y]);
        self.b.op(Op::Transpose(perm()), &[y])
    }

    /// The op.
    fn attention(&mut self, x: ValueId) -> ValueId {
        let (y, z) = (self.value(), self.value());
        let axes = self.axes(&[self.batch, self.time, Axis::new(1, Role::Head), self.width]);
        let [q, k, v] = [x, y, z].map(|x| self.b.reshape(x, axes.clone()));
        let o = self.b.push(Op::Attention { scale: Bits::new(0.7) }, &[q, k, v]).expect("attention fits")[0];
        let axes = self.b.ty(x).axes.clone();
        self.b.reshape(o, axes)
    }

    /// A norm over an axis: over the last one it is right.
    fn pooled(&mut self, x: ValueId) -> ValueId {
        let axis = self.rng.pick(&[2, 2, 2, 1, 0]);
        let kind = self.rng.pick(&[Reduction::Sum, Reduction::Max]);
        let y = self.b.reduce(kind, x, &[axis]);
        self.b.sub(x, y)
    }

    /// Rows of a table, by ids of this position or another.
    fn by_ids(&mut self, x: ValueId) -> ValueId {
        let by = self.rng.pick(&[1, 1, 2, 0, -1]);
        let ids = self.b.op(Op::Shift { axis: 1, by }, &[self.tokens]);
        let table = self.param([Axis::channel(ROWS), self.width]);
        let y = self.b.op(Op::Gather, &[table, ids]);
        self.b.mul(x, y)
    }

    fn elementwise(&mut self, x: ValueId) -> ValueId {
        let y = self.value();
        match self.rng.below(7) {
            0 => self.b.mul(x, y),
            1 => self.b.binary(Binary::Max, x, y),
            2 => self.b.unary(Unary::Tanh, x),
            3 => self.b.unary(Unary::Exp, x),
            4 => self.b.div(x, y),
            5 => {
                let zero = self.b.constant_like(0.0, x);
                let above = self.b.binary(Binary::Gt, x, zero);
                self.b.op(Op::Select, &[above, x, zero])
            }
            _ => self.linear(x),
        }
    }

    /// What is infinite or NaN for some tokens.
    fn overflowing(&mut self, x: ValueId) -> ValueId {
        let up = self.b.scale(1e3, x);
        let large = self.b.unary(Unary::Exp, up);
        match self.rng.below(3) {
            0 => large,
            1 => self.b.scale(-1.0, large),
            _ => self.b.sub(large, large),
        }
    }

    /// x, most of the time neither infinite nor NaN.
    fn bounded(&mut self, x: ValueId) -> ValueId {
        let most = self.b.constant_like(1e8, x);
        let zero = self.b.constant_like(0.0, x);
        match self.rng.below(8) {
            0 => x,
            1 => {
                let y = self.b.binary(Binary::Max, x, zero);
                let least = self.b.scale(-1.0, y);
                let lowest = self.b.scale(-1.0, most);
                let y = self.b.binary(Binary::Max, least, lowest);
                self.b.scale(-1.0, y)
            }
            2 => self.b.unary(Unary::Tanh, x),
            3 => {
                let below = self.b.binary(Binary::Gt, most, x);
                self.b.op(Op::Select, &[below, x, zero])
            }
            4 => {
                let lowest = self.b.scale(-1.0, most);
                let above = self.b.binary(Binary::Gt, x, lowest);
                let y = self.b.op(Op::Select, &[above, x, zero]);
                let below = self.b.binary(Binary::Gt, most, y);
                self.b.op(Op::Select, &[below, y, zero])
            }
            _ => {
                let square = self.b.mul(x, x);
                let below = self.b.binary(Binary::Gt, most, square);
                self.b.op(Op::Select, &[below, x, zero])
            }
        }
    }

    /// x where the mask holds, `fill` elsewhere; seldom the other way round.
    fn keep(&mut self, mask: ValueId, x: ValueId, fill: f64) -> ValueId {
        let fill = if self.rng.once_in(12) {
            // Of this element, which is no better than x itself.
            self.b.unary(Unary::Tanh, x)
        } else {
            self.b.constant_like(fill, x)
        };
        let branches = if self.rng.once_in(10) { [fill, x] } else { [x, fill] };
        self.b.try_select(mask, branches[0], branches[1]).expect("masks fit scores")
    }

    /// Scores that fall with distance.
    fn biased(&mut self, s: ValueId) -> ValueId {
        let [i, j] = self.positions();
        let distance = self.b.sub(j, i);
        let distance = self.b.op(Op::Cast(DType::F32), &[distance]);
        let bias = self.b.scale(0.3, distance);
        self.b.add(s, bias)
    }
}
