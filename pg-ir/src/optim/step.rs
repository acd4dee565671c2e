//! What steps are written with: the state of one bank, the scheduled learning rate, decoupled decay.

use crate::graph::{Builder, ValueId};
use crate::lang::layout::Bank;
use crate::slot::{Slot, Space};

/// The step of one bank, as it is built.
pub(crate) struct Step<'a> {
    pub(crate) b: &'a mut Builder,
    bank: &'a Bank,
}

impl<'a> Step<'a> {
    pub(crate) fn new(b: &'a mut Builder, bank: &'a Bank) -> Self {
        Step { b, bank }
    }

    /// Rows and columns of the bank's matrices, if it holds matrices of one shape.
    pub(crate) fn matrix(&self) -> Option<(usize, usize)> {
        self.bank.matrix()
    }

    /// What the bank's slot of a space held.
    pub(crate) fn read(&mut self, space: Space) -> ValueId {
        self.b.input(Slot::new(space, &self.bank.name), self.bank.ty())
    }

    pub(crate) fn write(&mut self, space: Space, value: ValueId) {
        self.b.output(Slot::new(space, &self.bank.name), value);
    }

    /// The weights, shrunk: w·(1 − lr·decay).
    pub(crate) fn decayed_weights(&mut self, lr: ValueId, decay: f64) -> ValueId {
        let weights = self.read(Space::Param);
        let (one, shrink) = (self.b.constant(1.0), self.b.scale(decay, lr));
        let keep = self.b.sub(one, shrink);
        self.b.mul(weights, keep)
    }

    /// The base learning rate times `lr_scale`.
    pub(crate) fn learning_rate(&mut self, base: f64) -> ValueId {
        let scale = self.b.scalar("lr_scale");
        self.b.scale(base, scale)
    }

    /// β·old + (1 − β)·new.
    pub(crate) fn blend(&mut self, beta: f64, old: ValueId, new: ValueId) -> ValueId {
        let (kept, fresh) = (self.b.scale(beta, old), self.b.scale(1.0 - beta, new));
        self.b.add(kept, fresh)
    }
}
