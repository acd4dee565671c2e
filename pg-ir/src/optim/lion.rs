//! Lion (Chen et al. 2023): the sign of a momentum, decoupled decay.

use super::{Definition, Packing, Range, Setting, Step};
use crate::graph::ValueId;
use crate::op::{Binary, Op};
use crate::slot::Space;

/// Settings of Lion.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lion {
    /// Base learning rate.
    pub lr: f64,
    /// Part of the momentum in the update.
    pub beta1: f64,
    /// Decay of the momentum.
    pub beta2: f64,
    /// Decoupled weight decay, times the learning rate.
    pub weight_decay: f64,
}

impl Definition for Lion {
    const NAME: &'static str = "lion";
    const DOC: &'static str = "Lion: the sign of a momentum";
    const SETTINGS: &'static [Setting] = &[
        Setting::required("lr", Range::Magnitude),
        Setting::optional("beta1", Range::Fraction, 0.9),
        Setting::optional("beta2", Range::Fraction, 0.99),
        Setting::optional("weight_decay", Range::Magnitude, 0.0),
    ];
    const PACKING: Packing = Packing::Flat;
    const STATE: &'static [Space] = &[Space::Momentum];

    fn new(settings: &[f64]) -> Self {
        let [lr, beta1, beta2, weight_decay] = settings.try_into().expect("Lion's settings");
        Lion { lr, beta1, beta2, weight_decay }
    }

    fn lr(&self) -> f64 {
        self.lr
    }

    fn step(&self, step: &mut Step<'_>, grad: ValueId) -> ValueId {
        let old = step.read(Space::Momentum);
        let mixed = step.blend(self.beta1, old, grad);
        let direction = sign(step, mixed);
        let momentum = step.blend(self.beta2, old, grad);
        step.write(Space::Momentum, momentum);
        let lr = step.learning_rate(self.lr);
        let weights = step.decayed_weights(lr, self.weight_decay);
        let delta = step.b.mul(direction, lr);
        step.b.sub(weights, delta)
    }
}

/// −1, 0 or 1.
fn sign(step: &mut Step<'_>, x: ValueId) -> ValueId {
    let [zero, one, minus_one] = [0.0, 1.0, -1.0].map(|c| step.b.constant_like(c, x));
    let is_positive = step.b.op(Op::Binary(Binary::Gt), &[x, zero]);
    let is_negative = step.b.op(Op::Binary(Binary::Gt), &[zero, x]);
    let otherwise = step.b.op(Op::Select, &[is_negative, minus_one, zero]);
    step.b.op(Op::Select, &[is_positive, one, otherwise])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Builder;
    use crate::interp::{self, Environment};
    use crate::lang::layout::{Bank, BankKind};
    use crate::optim::Optimiser;
    use crate::slot::Slot;

    #[test]
    fn a_step_goes_by_the_sign_of_a_momentum() {
        let lion = Lion { lr: 0.1, beta1: 0.9, beta2: 0.99, weight_decay: 0.5 };
        let (weights, momentum) = ([1.0, -2.0, 0.5, 3.0], [0.2, -0.1, 0.0, 1e-3]);
        // The third gradient is zero with a momentum of zero; the last turns its direction round.
        let (grads, lr_scale) = ([0.3, 0.1, 0.0, -1.0], 0.5);
        let name = "lion.0.flat";
        let bank = Bank {
            name: name.into(),
            kind: BankKind::Flat { len: 4 },
            optimiser: Optimiser::Lion(lion),
            members: Vec::new(),
        };
        let mut b = Builder::default();
        let mut step = Step::new(&mut b, &bank);
        let grad = step.read(Space::Grad);
        let new = lion.step(&mut step, grad);
        step.write(Space::Param, new);
        let mut env = Environment::new();
        env.insert(Slot::new(Space::Param, name), weights.to_vec());
        env.insert(Slot::new(Space::Momentum, name), momentum.to_vec());
        env.insert(Slot::new(Space::Grad, name), grads.to_vec());
        env.insert(Slot::new(Space::Scalar, "lr_scale"), vec![lr_scale]);
        let found = interp::run(&b.finish(), &env).unwrap();
        for i in 0..4 {
            let mixed: f64 = 0.9 * momentum[i] + (1.0 - 0.9) * grads[i];
            let sign = if mixed == 0.0 { 0.0 } else { mixed.signum() };
            let lr = 0.1 * lr_scale;
            let want = weights[i] * (1.0 - lr * 0.5) - lr * sign;
            assert!((found[&Slot::new(Space::Param, name)][i] - want).abs() < 1e-12, "weight {i}");
            let want = 0.99 * momentum[i] + (1.0 - 0.99) * grads[i];
            assert!((found[&Slot::new(Space::Momentum, name)][i] - want).abs() < 1e-12, "momentum {i}");
        }
    }
}
