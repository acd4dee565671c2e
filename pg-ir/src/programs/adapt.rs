//! One step of test-time training: SGD with momentum on the accumulated gradients, clipped globally.

use super::clip::global_norm;
use super::{Program, result};
use crate::graph::{Builder, Origin, ValueId};
use crate::lang::layout::{Bank, Layout};
use crate::lang::model::{Model, Ttt};
use crate::slot::{Slot, Space};
use crate::ty::Type;

/// v ← momentum·v + g, w ← w − lr·v for every parameter that is not frozen.
pub fn adapt(model: &Model, layout: &Layout, ttt: &Ttt) -> Program {
    let mut b = Builder::default();
    b.set_origin(Origin::pass("adapt"));
    let parts: Vec<(String, Type)> = layout.banks.iter().flat_map(|bank| parts(model, bank)).collect();
    let read =
        |b: &mut Builder, space, (name, ty): &(String, Type)| b.input(Slot::new(space, name), ty.clone());
    let grads: Vec<ValueId> = parts.iter().map(|part| read(&mut b, Space::Grad, part)).collect();
    let (norm, factor) = global_norm(&mut b, &grads, ttt.grad_clip);
    result(&mut b, "grad_norm", norm);
    let lr = b.scalar("ttt_lr");
    for (part, grad) in parts.iter().zip(grads) {
        let grad = factor.map_or(grad, |f| b.mul(grad, f));
        let old = read(&mut b, Space::Velocity, part);
        let kept = b.scale(ttt.momentum, old);
        let velocity = b.add(kept, grad);
        b.output(Slot::new(Space::Velocity, &part.0), velocity);
        let weights = read(&mut b, Space::Param, part);
        let delta = b.mul(velocity, lr);
        let weights = b.sub(weights, delta);
        b.output(Slot::new(Space::Param, &part.0), weights);
    }
    Program::new("adapt", b)
}

/// A bank as a whole where all of it adapts, else its members that do.
fn parts(model: &Model, bank: &Bank) -> Vec<(String, Type)> {
    let members = bank.members.iter().map(|name| &model.params[name]);
    let adapting: Vec<_> = members.filter(|p| !p.ttt_frozen).collect();
    if adapting.len() == bank.members.len() {
        return vec![(bank.name.clone(), bank.ty())];
    }
    adapting.into_iter().map(|p| (p.name.clone(), Type::channels(&p.shape))).collect()
}
