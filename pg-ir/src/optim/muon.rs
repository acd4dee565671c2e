//! Muon (Jordan et al. 2024): momentum, orthogonalised by a Newton–Schulz iteration.

use super::{Definition, Packing, Range, Setting, Step};
use crate::graph::{Builder, ValueId};
use crate::op::{DotDims, Reduction, Unary};
use crate::slot::Space;

/// Coefficients of the quintic Newton–Schulz iteration (Jordan et al. 2024).
const NEWTON_SCHULZ: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

/// Settings of Muon. The momentum itself is scheduled.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Muon {
    /// Base learning rate.
    pub lr: f64,
    /// Decoupled weight decay, times the learning rate.
    pub weight_decay: f64,
    /// Newton–Schulz iterations.
    pub ns_steps: usize,
}

impl Definition for Muon {
    const NAME: &'static str = "muon";
    const DOC: &'static str = "momentum orthogonalised by Newton–Schulz, for matrices";
    const SETTINGS: &'static [Setting] = &[
        Setting::required("lr", Range::Magnitude),
        Setting::optional("weight_decay", Range::Magnitude, 0.0),
        Setting::optional("ns_steps", Range::Count, 5.0),
    ];
    const PACKING: Packing = Packing::Matrices;
    const STATE: &'static [Space] = &[Space::Momentum];

    fn new(settings: &[f64]) -> Self {
        Muon { lr: settings[0], weight_decay: settings[1], ns_steps: settings[2] as usize }
    }

    fn lr(&self) -> f64 {
        self.lr
    }

    fn step(&self, step: &mut Step<'_>, grad: ValueId) -> ValueId {
        let (rows, cols) = step.matrix().expect("a bank of Muon's holds matrices");
        let momentum = step.b.scalar("momentum");
        let old = step.read(Space::Momentum);
        let kept = step.b.mul(old, momentum);
        let buffer = step.b.add(kept, grad);
        step.write(Space::Momentum, buffer);
        let scaled = step.b.mul(buffer, momentum);
        let nesterov = step.b.add(grad, scaled);
        let direction = newton_schulz(step.b, nesterov, (rows, cols), self.ns_steps);
        let lr = step.learning_rate(self.lr);
        let weights = step.decayed_weights(lr, self.weight_decay);
        let length = step.b.scale((rows as f64 / cols as f64).max(1.0).sqrt(), lr);
        let delta = step.b.mul(direction, length);
        step.b.sub(weights, delta)
    }
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
