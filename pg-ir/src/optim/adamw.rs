//! AdamW (Loshchilov & Hutter 2019): two moments with bias correction, decoupled decay.

use super::{Definition, Packing, Range, Setting, Step};
use crate::graph::ValueId;
use crate::op::Unary;
use crate::programs::bias_scalar;
use crate::slot::Space;

/// Settings of AdamW.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    /// Base learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, times the learning rate.
    pub weight_decay: f64,
}

impl Definition for AdamW {
    const NAME: &'static str = "adamw";
    const DOC: &'static str = "AdamW";
    const SETTINGS: &'static [Setting] = &[
        Setting::required("lr", Range::Magnitude),
        Setting::optional("beta1", Range::Fraction, 0.9),
        Setting::optional("beta2", Range::Fraction, 0.95),
        Setting::optional("eps", Range::Magnitude, 1e-8),
        Setting::optional("weight_decay", Range::Magnitude, 0.0),
    ];
    const PACKING: Packing = Packing::Flat;
    const STATE: &'static [Space] = &[Space::Mean, Space::Variance];

    fn new(settings: &[f64]) -> Self {
        let [lr, beta1, beta2, eps, weight_decay] = settings.try_into().expect("AdamW's settings");
        AdamW { lr, beta1, beta2, eps, weight_decay }
    }

    fn lr(&self) -> f64 {
        self.lr
    }

    fn bias_corrected(&self) -> Vec<f64> {
        vec![self.beta1, self.beta2]
    }

    fn step(&self, step: &mut Step<'_>, grad: ValueId) -> ValueId {
        let old = step.read(Space::Mean);
        let mean = step.blend(self.beta1, old, grad);
        step.write(Space::Mean, mean);
        let squares = step.b.mul(grad, grad);
        let old = step.read(Space::Variance);
        let variance = step.blend(self.beta2, old, squares);
        step.write(Space::Variance, variance);
        let [bias1, bias2] = [self.beta1, self.beta2].map(|beta| step.b.scalar(&bias_scalar(beta)));
        let corrected = step.b.div(variance, bias2);
        let root = step.b.unary(Unary::Sqrt, corrected);
        let eps = step.b.constant(self.eps);
        let denominator = step.b.add(root, eps);
        let mean = step.b.div(mean, bias1);
        let lr = step.learning_rate(self.lr);
        let weights = step.decayed_weights(lr, self.weight_decay);
        let scaled = step.b.mul(mean, lr);
        let delta = step.b.div(scaled, denominator);
        step.b.sub(weights, delta)
    }
}
