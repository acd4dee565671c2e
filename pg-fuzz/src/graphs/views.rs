//! Views of random graphs, and permutations.

use pg_ir::graph::ValueId;
use pg_ir::op::Op;
use pg_ir::ty::{Axes, Axis, Role};
use smallvec::SmallVec;

use super::Gen;

impl Gen {
    pub(super) fn reshape(&mut self, x: ValueId) {
        // Channel and head axes are merged, or one of them split; sequence axes stay.
        let axes = self.b.ty(x).axes.clone();
        let fixed = axes.iter().take_while(|a| matches!(a.role, Role::Batch | Role::Time)).count();
        let rest: usize = axes[fixed..].iter().map(|a| a.size).product();
        let divisors: Vec<usize> = (1..=rest).filter(|d| rest.is_multiple_of(*d)).collect();
        let d = self.rng.pick(&divisors);
        let mut to: Axes = axes[..fixed].into();
        match self.rng.below(3) {
            0 => to.push(Axis::channel(rest)),
            1 => to.extend([Axis::channel(d), Axis::channel(rest / d)]),
            _ => to.extend([Axis::channel(d), Axis::channel(1), Axis::channel(rest / d)]),
        }
        self.try_add(Op::Reshape(to), &[x]);
    }

    pub(super) fn transpose(&mut self, x: ValueId) {
        let mut perm: SmallVec<[usize; 4]> = (0..self.b.ty(x).rank()).collect();
        for i in (1..perm.len()).rev() {
            perm.swap(i, self.rng.below(i + 1));
        }
        self.try_add(Op::Transpose(perm), &[x]);
    }

    pub(super) fn broadcast(&mut self, x: ValueId) {
        let mut axes: Axes = self.b.ty(x).axes.clone();
        axes.iter_mut().filter(|a| a.size == 1).for_each(|a| a.size = 3);
        if self.rng.below(3) == 0 {
            axes.insert(0, Axis::channel(2));
        }
        self.try_add(Op::Broadcast(axes), &[x]);
    }

    /// A slice, a pad or a shift of an axis, or the last one turned.
    pub(super) fn move_elements(&mut self, which: usize, x: ValueId) {
        let axes = self.b.ty(x).axes.clone();
        if which == 20 {
            let n = axes[axes.len() - 1].size;
            let turn = self.rng.below(n);
            let perm = (0..n).map(|i| ((i + turn) % n) as u32).collect();
            return self.try_add(Op::Permute(perm), &[x]);
        }
        let axis = self.rng.below(axes.len());
        let op = match which {
            17 => {
                let len = 1 + self.rng.below(axes[axis].size);
                Op::Slice { axis, start: self.rng.below(axes[axis].size - len + 1), len }
            }
            18 => Op::Pad { axis, before: self.rng.below(3), after: self.rng.below(3) },
            _ => Op::Shift { axis, by: self.rng.below(5) as i64 - 2 },
        };
        self.try_add(op, &[x]);
    }
}
