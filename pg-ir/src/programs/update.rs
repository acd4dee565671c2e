//! The optimiser step as a program: global clip, each bank's optimiser, and the exponential moving average of the new
//! weights.

use super::clip::global_norm;
use super::{Program, result};
use crate::graph::{Builder, Origin, ValueId};
use crate::lang::layout::Layout;
use crate::lang::model::Train;
use crate::optim::Step;
use crate::slot::Space;

/// The update of every parameter from its accumulated gradient.
pub fn update(layout: &Layout, train: &Train) -> Program {
    let mut b = Builder::default();
    b.set_origin(Origin::pass("update"));
    let grad = |bank| Step::new(&mut b, bank).read(Space::Grad);
    let grads: Vec<ValueId> = layout.banks.iter().map(grad).collect();
    let (norm, factor) = global_norm(&mut b, &grads, train.grad_clip);
    result(&mut b, "grad_norm", norm);
    for (bank, grad) in layout.banks.iter().zip(grads) {
        b.set_origin(Origin { scope: bank.name.as_str().into(), ..Origin::pass("update") });
        let grad = factor.map_or(grad, |f| b.mul(grad, f));
        let mut step = Step::new(&mut b, bank);
        let weights = bank.optimiser.step(&mut step, grad);
        step.write(Space::Param, weights);
        if train.ema_decay > 0.0 {
            let (decay, rest) = (step.b.scalar("ema_decay"), step.b.scalar("ema_rest"));
            let old = step.read(Space::Ema);
            let (kept, new) = (step.b.mul(old, decay), step.b.mul(weights, rest));
            let average = step.b.add(kept, new);
            step.write(Space::Ema, average);
        }
    }
    Program::new("update", b)
}
