//! Conditions on positions i and j: [time, time], or [batch, time, time] where they read token values.

use pg_ir::graph::ValueId;
use pg_ir::op::{Binary, Bits, Op};
use pg_ir::ty::{Axis, DType};

use super::graphs::Gen;

impl Gen {
    /// Positions i [time, 1] and j [time].
    pub(super) fn positions(&mut self) -> [ValueId; 2] {
        self.positions_of(self.time.size)
    }

    fn positions_of(&mut self, size: usize) -> [ValueId; 2] {
        let axis = if self.rng.once_in(4) { Axis::channel(size) } else { Axis { size, ..self.time } };
        let mut j = self.b.op(Op::Iota(axis), &[]);
        if self.rng.once_in(20) {
            // From the last position to the first.
            j = self.b.op(Op::Permute((0..size as u32).rev().collect()), &[j]);
        }
        let column = self.axes(&[Axis { size, ..self.time }, Axis::channel(1)]);
        let row = self.axes(&[Axis { size, ..self.time }]);
        [self.b.reshape(j, column), self.b.reshape(j, row)]
    }

    /// A number as a constant of an element type.
    pub(super) fn number(&mut self, value: f64, like: ValueId) -> ValueId {
        let dtype = self.b.ty(like).dtype;
        self.b.op(Op::Const(Bits::new(value), dtype), &[])
    }

    /// A condition that a mask could be: in most cases some right one, if not turned round.
    pub(super) fn mask(&mut self) -> ValueId {
        let size = self.time.size;
        let mask = match self.rng.below(10) {
            0 => self.sliced(),
            1 => {
                // A window.
                let (causal, near) = (self.comparison(size, 0), self.near(size));
                self.b.op(Op::Select, &[causal, near, causal])
            }
            2 => {
                let (a, b) = (self.near(size), self.comparison(size, 0));
                if self.rng.once_in(2) { self.either(a, b) } else { self.both(a, b) }
            }
            3 => {
                let a = self.off(size);
                self.negated(a)
            }
            4 => self.off(size),
            5 => self.of_values(),
            _ => self.comparison(size, 0),
        };
        if self.b.ty(mask).rank() == 2 { self.viewed(mask) } else { mask }
    }

    /// j ≤ i + by, said in some way.
    fn comparison(&mut self, size: usize, by: i64) -> ValueId {
        let [i, j] = self.positions_of(size);
        let by = by as f64;
        match self.rng.below(6) {
            0 => {
                // i + by + 1 > j
                let next = self.number(by + 1.0, i);
                let i = self.b.add(i, next);
                self.b.binary(Binary::Gt, i, j)
            }
            1 => {
                // by + 1 > j − i
                let distance = self.b.sub(j, i);
                let most = self.number(by + 1.0, i);
                self.b.binary(Binary::Gt, most, distance)
            }
            2 => {
                let [i, j] = [i, j].map(|x| self.b.op(Op::Cast(DType::F32), &[x]));
                let half = self.number(by + 1.0, i);
                let i = self.b.add(i, half);
                self.b.binary(Binary::Gt, i, j)
            }
            3 => {
                // Both doubled, by multiplication and by addition; or but one.
                let two = self.number(2.0, i);
                let next = self.number(2.0 * by + 1.0, i);
                let i = if self.rng.once_in(2) { self.b.mul(i, two) } else { self.b.mul(two, i) };
                let j = if self.rng.once_in(6) { j } else { self.b.add(j, j) };
                let i = self.b.add(i, next);
                self.b.binary(Binary::Gt, i, j)
            }
            _ => {
                let by = self.number(by, i);
                let i = self.b.add(i, by);
                let later = self.b.binary(Binary::Gt, j, i);
                self.negated(later)
            }
        }
    }

    /// The same, off by some, or turned round.
    fn off(&mut self, size: usize) -> ValueId {
        let by = self.rng.pick(&[-2, -1, -1, 1, 1, 2]);
        let mask = self.comparison(size, by);
        if self.rng.once_in(3) {
            self.b.op(Op::Transpose([1, 0].into_iter().collect()), &[mask])
        } else {
            mask
        }
    }

    /// j > i − w; or j = i + c, or j or i against a number.
    fn near(&mut self, size: usize) -> ValueId {
        let [i, j] = self.positions_of(size);
        let c = self.rng.below(4) as f64;
        match self.rng.below(6) {
            0 => {
                let c = self.number(1.0 - c, i);
                let i = self.b.add(i, c);
                self.b.binary(Binary::Eq, i, j)
            }
            1 => {
                let c = self.number(c, i);
                let (i, c) = self.b.try_align(i, c).expect("a number broadcasts");
                let row = self.b.binary(Binary::Gt, i, c);
                let (row, _) = self.b.try_align(row, j).expect("rows and columns");
                row
            }
            2 => {
                let c = self.number(c, j);
                let column = self.b.binary(Binary::Gt, c, j);
                let (column, _) = self.b.try_align(column, i).expect("rows and columns");
                column
            }
            _ => {
                let c = self.number(-c, i);
                let i = self.b.add(i, c);
                self.b.binary(Binary::Gt, j, i)
            }
        }
    }

    /// Token values against positions, or a comparison that only looks like one of positions.
    fn of_values(&mut self) -> ValueId {
        let [i, j] = self.positions();
        let axes = self.axes(&[self.batch, self.time, Axis::channel(1)]);
        let ids = self.b.reshape(self.tokens, axes);
        let zero = self.number(0.0, ids);
        let factor = if self.rng.once_in(2) { ids } else { self.b.mul(ids, zero) };
        let i = self.b.add(i, factor);
        let later = self.b.binary(Binary::Gt, j, i);
        self.negated(later)
    }

    /// Part of a larger mask: the same offset on both axes leaves it right.
    fn sliced(&mut self) -> ValueId {
        let size = self.time.size;
        let mut mask = self.comparison(size + 2, 0);
        let start = self.rng.below(3);
        for axis in [0, 1] {
            let start = if self.rng.once_in(4) { self.rng.below(3) } else { start };
            mask = self.b.op(Op::Slice { axis, start, len: size }, &[mask]);
        }
        mask
    }

    /// Views of a mask, some of which leave it as it was.
    fn viewed(&mut self, mask: ValueId) -> ValueId {
        let size = self.time.size;
        match self.rng.below(20) {
            0 => self.b.op(Op::Transpose([1, 0].into_iter().collect()), &[mask]),
            1 => self.b.op(Op::Shift { axis: self.rng.below(2), by: self.rng.below(3) as i64 - 1 }, &[mask]),
            2 => self.flipped(mask, 0),
            3 => {
                let once = self.flipped(mask, 1);
                self.flipped(once, 0)
            }
            4 => {
                let axis = self.rng.below(2);
                let cut = self.b.op(Op::Slice { axis, start: 0, len: size - 1 }, &[mask]);
                self.b.op(Op::Pad { axis, before: 1, after: 0 }, &[cut])
            }
            5 => {
                let axes = self.axes(&[Axis::channel(1), self.time, self.time]);
                let wide = self.b.reshape(mask, axes);
                let axes = self.axes(&[self.time, self.time]);
                self.b.reshape(wide, axes)
            }
            6 => {
                // Through numbers and back.
                let ones = self.b.op(Op::Cast(DType::F32), &[mask]);
                let half = self.b.constant_like(0.5, ones);
                self.b.binary(Binary::Gt, ones, half)
            }
            7 => {
                let twice = self.negated(mask);
                self.negated(twice)
            }
            _ => mask,
        }
    }

    fn both(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.b.op(Op::Select, &[a, b, a])
    }

    fn either(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.b.op(Op::Select, &[a, a, b])
    }

    fn negated(&mut self, a: ValueId) -> ValueId {
        let [no, yes] = [0.0, 1.0].map(|v| self.b.constant_like(v, a));
        self.b.op(Op::Select, &[a, no, yes])
    }
}
