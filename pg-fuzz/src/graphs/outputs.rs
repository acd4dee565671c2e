//! What random graphs give: results, state that is overwritten, and gradients.

use pg_ir::graph::{Builder, ValueId};
use pg_ir::op::{DotDims, Op, Unary};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axes, Axis, DType, Role, Type};
use smallvec::SmallVec;

use super::{Gen, SIZES};

impl Gen {
    /// Results, and state that is overwritten: in place, swapped, from a view, twice.
    pub(super) fn outputs(&mut self) {
        for i in 0..1 + self.rng.below(4) {
            let x = self.float();
            self.result(&format!("r{i}"), x);
        }
        if let (Some(&c), 0) = (self.bools.last(), self.rng.below(2)) {
            self.result("mask", c);
        }
        if let (Some(&c), 0) = (self.ids.last(), self.rng.below(2)) {
            self.result("ids", c);
        }
        self.gradients();
        let inputs: Vec<(Slot, ValueId)> = self
            .b
            .graph()
            .inputs()
            .filter(|(s, _)| s.space == Space::Param)
            .map(|(s, v)| (s.clone(), v))
            .collect();
        for (slot, old) in &inputs {
            let ty = self.b.ty(*old).clone();
            let fits: Vec<ValueId> =
                self.floats.iter().copied().filter(|&v| *self.b.ty(v) == ty && v != *old).collect();
            let new = match self.rng.below(4) {
                0 if !fits.is_empty() => self.rng.pick(&fits),
                1 => {
                    let x = self.b.unary(Unary::Sin, *old);
                    if ty.rank() > 0 { self.b.op(Op::Shift { axis: 0, by: 1 }, &[x]) } else { x }
                }
                2 if !fits.is_empty() => {
                    let y = self.rng.pick(&fits);
                    self.b.add(*old, y)
                }
                _ => continue,
            };
            self.b.output(slot.clone(), new);
        }
    }

    /// Programs give float32 only.
    fn result(&mut self, name: &str, value: ValueId) {
        let is_float = self.b.ty(value).dtype == DType::F32;
        let value = if is_float { value } else { self.b.op(Op::Cast(DType::F32), &[value]) };
        self.b.output(Slot::new(Space::Result, name), value);
    }

    /// Gradients that a matmul adds to state, or writes there, in the axis order of the parameter.
    fn gradients(&mut self) {
        for i in 0..self.rng.below(3) {
            let (b, t) = (Axis::new(self.batch, Role::Batch), Axis::new(self.time, Role::Time));
            let mut channel = || Axis::channel(self.rng.pick(&SIZES));
            let (m, n, groups) = (channel(), channel(), channel());
            let input = |b: &mut Builder, name: &str, axes: &[Axis]| {
                b.input(
                    Slot::new(Space::Mean, format!("{name}{i}")),
                    Type::new(DType::F32, axes.iter().copied()),
                )
            };
            let x = input(&mut self.b, "x", &[b, t, groups, m]);
            let g = input(&mut self.b, "g", &[b, t, groups, n]);
            let x = if self.rng.below(2) == 0 { self.b.unary(Unary::Sin, x) } else { x };
            let mut dims = DotDims::contract_all(&[(0, 0), (1, 1)]);
            dims.batch.push((2, 2));
            let dot = self.b.dot(dims, x, g);
            let perms: [&[usize]; 4] = [&[0, 1, 2], &[0, 2, 1], &[2, 0, 1], &[1, 0, 2]];
            let perm = self.rng.pick(&perms);
            let mut sum = self.b.op(Op::Transpose(SmallVec::from_slice(perm)), &[dot]);
            if self.rng.below(2) == 0 {
                let flat = Axis::channel(self.b.ty(sum).len());
                sum = self.b.reshape(sum, Axes::from_slice(&[flat]));
            }
            let slot = Slot::new(Space::Grad, format!("w{i}"));
            if self.rng.below(2) == 0 {
                let ty = self.b.ty(sum).clone();
                let old = self.b.input(slot.clone(), ty);
                sum = self.b.add(old, sum);
                if self.rng.below(4) == 0 {
                    self.b.output(Slot::new(Space::Result, format!("norm{i}")), sum);
                }
            }
            self.b.output(slot, sum);
        }
    }
}
