//! The optimiser step as a program: global clip, Muon on banks of matrices, AdamW on flat banks, and the
//! exponential moving average of the new weights.

use super::clip::global_norm;
use super::{Program, bias_scalar, result};
use crate::graph::{Builder, Origin, ValueId};
use crate::lang::layout::{Bank, BankKind, Layout};
use crate::lang::model::{AdamW, Muon, Train};
use crate::op::{DotDims, Reduction, Unary};
use crate::slot::{Slot, Space};

/// Coefficients of the quintic Newton–Schulz iteration (Jordan et al. 2024).
const NEWTON_SCHULZ: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

/// The update of every parameter from its accumulated gradient.
pub fn update(layout: &Layout, train: &Train) -> Program {
    let mut b = Builder::default();
    b.set_origin(Origin::pass("update"));
    let grads: Vec<ValueId> = layout.banks.iter().map(|bank| read(&mut b, Space::Grad, bank)).collect();
    let (norm, factor) = global_norm(&mut b, &grads, train.grad_clip);
    result(&mut b, "grad_norm", norm);
    for (bank, grad) in layout.banks.iter().zip(grads) {
        b.set_origin(Origin { scope: bank.name.as_str().into(), ..Origin::pass("update") });
        let grad = factor.map_or(grad, |f| b.mul(grad, f));
        let weights = match bank.kind {
            BankKind::Matrices { rows, cols, muon, .. } => muon_step(&mut b, bank, grad, (rows, cols), muon),
            BankKind::Flat { adamw, .. } => adamw_step(&mut b, bank, grad, adamw),
        };
        write(&mut b, Space::Param, bank, weights);
        if train.ema_decay > 0.0 {
            let (decay, rest) = (b.scalar("ema_decay"), b.scalar("ema_rest"));
            let old = read(&mut b, Space::Ema, bank);
            let (kept, new) = (b.mul(old, decay), b.mul(weights, rest));
            let average = b.add(kept, new);
            write(&mut b, Space::Ema, bank, average);
        }
    }
    Program::new("update", b)
}

fn read(b: &mut Builder, space: Space, bank: &Bank) -> ValueId {
    b.input(Slot::new(space, &bank.name), bank.ty())
}

fn write(b: &mut Builder, space: Space, bank: &Bank, value: ValueId) {
    b.output(Slot::new(space, &bank.name), value);
}

/// w·(1 − lr·decay)
fn decayed(b: &mut Builder, weights: ValueId, lr: ValueId, decay: f64) -> ValueId {
    let (one, shrink) = (b.constant(1.0), b.scale(decay, lr));
    let keep = b.sub(one, shrink);
    b.mul(weights, keep)
}

fn learning_rate(b: &mut Builder, base: f64) -> ValueId {
    let scale = b.scalar("lr_scale");
    b.scale(base, scale)
}

fn muon_step(
    b: &mut Builder,
    bank: &Bank,
    grad: ValueId,
    (rows, cols): (usize, usize),
    muon: Muon,
) -> ValueId {
    let momentum = b.scalar("momentum");
    let old = read(b, Space::Momentum, bank);
    let kept = b.mul(old, momentum);
    let buffer = b.add(kept, grad);
    write(b, Space::Momentum, bank, buffer);
    let ahead = b.mul(buffer, momentum);
    let nesterov = b.add(grad, ahead);
    let direction = newton_schulz(b, nesterov, (rows, cols), muon.ns_steps);
    let lr = learning_rate(b, muon.lr);
    let weights = read(b, Space::Param, bank);
    let weights = decayed(b, weights, lr, muon.weight_decay);
    let step = b.scale((rows as f64 / cols as f64).max(1.0).sqrt(), lr);
    let delta = b.mul(direction, step);
    b.sub(weights, delta)
}

/// Orthogonalises each matrix of x [N, R, C]: X ← aX + (bG + cG²)X with G = XXᵀ, on the shorter side.
fn newton_schulz(b: &mut Builder, x: ValueId, (rows, cols): (usize, usize), steps: usize) -> ValueId {
    let squares = b.mul(x, x);
    let total = b.reduce(Reduction::Sum, squares, &[1, 2]);
    let norm = b.unary(Unary::Sqrt, total);
    let eps = b.constant(1e-7);
    let norm = b.add(norm, eps);
    let mut x = b.div(x, norm);
    let (c1, c3, c5) = NEWTON_SCHULZ;
    let tall = rows > cols;
    for _ in 0..steps {
        let side = if tall { 1 } else { 2 };
        let gram = b.dot(DotDims::batched(side, side), x, x);
        let gram2 = b.dot(DotDims::batched(2, 1), gram, gram);
        let (linear, quadratic) = (b.scale(c3, gram), b.scale(c5, gram2));
        let poly = b.add(linear, quadratic);
        let turned = match tall {
            true => b.dot(DotDims::batched(2, 1), x, poly),
            false => b.dot(DotDims::batched(2, 1), poly, x),
        };
        let own = b.scale(c1, x);
        x = b.add(own, turned);
    }
    x
}

fn adamw_step(b: &mut Builder, bank: &Bank, grad: ValueId, adamw: AdamW) -> ValueId {
    let blend = |b: &mut Builder, space: Space, beta: f64, new: ValueId| {
        let old = read(b, space, bank);
        let (kept, fresh) = (b.scale(beta, old), b.scale(1.0 - beta, new));
        let moment = b.add(kept, fresh);
        write(b, space, bank, moment);
        moment
    };
    let mean = blend(b, Space::Mean, adamw.beta1, grad);
    let squares = b.mul(grad, grad);
    let variance = blend(b, Space::Variance, adamw.beta2, squares);
    let (bias1, bias2) = (b.scalar(&bias_scalar(adamw.beta1)), b.scalar(&bias_scalar(adamw.beta2)));
    let corrected = b.div(variance, bias2);
    let root = b.unary(Unary::Sqrt, corrected);
    let eps = b.constant(adamw.eps);
    let denominator = b.add(root, eps);
    let mean = b.div(mean, bias1);
    let lr = learning_rate(b, adamw.lr);
    let weights = read(b, Space::Param, bank);
    let weights = decayed(b, weights, lr, adamw.weight_decay);
    let scaled = b.mul(mean, lr);
    let delta = b.div(scaled, denominator);
    b.sub(weights, delta)
}
