//! Programs that run the model: gradients of one micro-batch, scores, logits.

use super::{Program, WeightCache, result};
use crate::autodiff::gradients;
use crate::graph::{Origin, ValueId};
use crate::lang::model::Model;
use crate::lang::{Diagnostics, Head, Trace};
use crate::op::Reduction;
use crate::slot::{Slot, Space};
use crate::ty::Type;

/// Forward and backward of one micro-batch of `batch` sequences. The gradients are scaled by `inv_accum`;
/// with `accumulate` they are added to what is there. Parameters are the same for all micro-batches of a step: the
/// first leaves their cached weights to the others.
pub fn grad(
    model: &Model,
    phase: usize,
    (batch, seq): (usize, usize),
    qat: bool,
    accumulate: bool,
) -> Result<Program, Diagnostics> {
    let name = if accumulate { "grad.next" } else { "grad.first" };
    backward(model, name, &Trace { phase, batch, seq, qat, head: Head::Loss }, accumulate)
}

/// As [`grad`], of the mean of the scores whatever training minimises, in the phase that is scored.
pub fn score_grad(
    model: &Model,
    (batch, seq): (usize, usize),
    qat: bool,
    accumulate: bool,
) -> Result<Program, Diagnostics> {
    let name = if accumulate { "score_grad.next" } else { "score_grad.first" };
    let phase = model.phases.len() - 1;
    backward(model, name, &Trace { phase, batch, seq, qat, head: Head::MeanNll }, accumulate)
}

fn backward(model: &Model, name: &str, request: &Trace, accumulate: bool) -> Result<Program, Diagnostics> {
    let traced = model.trace(request)?;
    let (mut b, loss, logits, nll) = (traced.builder, traced.value, traced.logits, traced.nll);
    result(&mut b, "loss", loss);
    let seed = b.scalar("inv_accum");
    let used: Vec<ValueId> = traced.params.values().copied().collect();
    let grads = gradients(&mut b, loss, seed, &used);
    for param in model.params.values() {
        let slot = Slot::new(Space::Grad, &param.name);
        let ty = Type::channels(&param.shape);
        let found = traced.params.get_index_of(&param.name).and_then(|i| grads[i]);
        match (found, accumulate) {
            (Some(grad), true) => {
                let scope = param.name.rsplit_once('.').map_or("", |(scope, _)| scope);
                b.set_origin(Origin { scope: scope.into(), backward: true, ..Origin::pass("accumulate") });
                let old = b.input(slot.clone(), ty);
                let sum = b.add(old, grad);
                b.output(slot, sum);
            }
            (Some(grad), false) => b.output(slot, grad),
            // A parameter that this phase does not use keeps a zero gradient.
            (None, true) => {}
            (None, false) => {
                let zero = b.constant(0.0);
                let zeros = b.broadcast(zero, ty.axes);
                b.output(slot, zeros);
            }
        }
    }
    let weight_cache = if accumulate { WeightCache::Read } else { WeightCache::Write };
    let name = suffixed(name, request.phase, request.qat);
    Ok(Program { weight_cache, ..Program::new(name, b).with_scores(logits, nll) })
}

/// Negative log-likelihood in nats of each target, and the largest logit at its position, both [batch, time]: a
/// likelihood is no more exact than float32 is at the logits that it comes from.
pub fn score(model: &Model, phase: usize, shape: (usize, usize), qat: bool) -> Result<Program, Diagnostics> {
    forward(model, phase, shape, qat, Head::Nll)
}

/// Logits [batch, time, vocabulary].
pub fn logits(model: &Model, phase: usize, shape: (usize, usize), qat: bool) -> Result<Program, Diagnostics> {
    forward(model, phase, shape, qat, Head::Logits)
}

fn forward(
    model: &Model,
    phase: usize,
    (batch, seq): (usize, usize),
    qat: bool,
    head: Head,
) -> Result<Program, Diagnostics> {
    // `score` writes only the likelihoods, but remembers which value is the logits: the proof that they are
    // causal is of the very graph that is scored.
    let traced = model.trace(&Trace { phase, batch, seq, qat, head })?;
    let mut b = traced.builder;
    let (name, output) = match head {
        Head::Nll => ("score", "nll"),
        Head::Logits | Head::MeanNll | Head::Loss => ("logits", "logits"),
    };
    result(&mut b, output, traced.value);
    if let (Some(nll), Some(logits)) = (traced.nll, traced.logits) {
        let axes = b.ty(nll).axes.clone();
        let largest = b.reduce(Reduction::Max, logits, &[axes.len()]);
        let largest = b.reshape(largest, axes);
        result(&mut b, "logit_max", largest);
    }
    Ok(Program::new(suffixed(name, phase, qat), b).with_scores(traced.logits, traced.nll))
}

fn suffixed(name: &str, phase: usize, qat: bool) -> String {
    let qat = if qat { ".qat" } else { "" };
    let phase = if phase > 0 { format!(".phase{phase}") } else { String::new() };
    format!("{name}{qat}{phase}")
}
