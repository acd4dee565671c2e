//! What a program must give: the float64 interpreter on its graph, with what rounding may change.

use std::collections::HashMap;

use pg_ir::graph::{Graph, ValueId};
use pg_ir::interp::{self, Environment, Tensor};
use pg_ir::slot::Slot;

use super::noise::{Comparisons, Kind, LESS, Noise, is_singular};
use crate::rng::Rng;

/// Evaluations under noise before anything is compared.
const FIRST: [Kind; 2] = [Kind::Random(1.0); 2];
/// And more of them before anything is called wrong. What divides by a difference of equal numbers moves more, the
/// smaller the noise.
const MORE: [Kind; 12] = {
    let [all, eighth, least] = [Kind::Random(1.0), Kind::Random(0.125), Kind::Random(LESS)];
    [all, all, all, all, all, eighth, eighth, least, least, Kind::Nearest, Kind::Nearest, Kind::Nearest]
};
/// A result may be off by this many times the most that noise moved it by.
const MARGIN: f64 = 6.0;
/// And by this part of the tensor's largest element: a few roundings of float32.
const ROUNDING: f64 = 1e-6;
/// From this part of its largest element on, noise decides what a tensor is,
const ILL_CONDITIONED: f64 = 0.1;
/// if it is not this little beside other tensors.
const NOTHING: f64 = 1e-3;
/// An error that is still nothing may be this many times the spread.
const TAIL: f64 = 500.0;
/// And this is nothing beside the largest output.
const LEAST: f64 = 1e-12;
/// Beyond this there is nothing to compare in float32.
pub(crate) const LARGEST: f64 = 1e18;

/// A program's results.
pub(crate) struct Reference<'a> {
    graph: &'a Graph,
    env: &'a Environment,
    outputs: HashMap<Slot, ValueId>,
    values: Vec<Tensor>,
    /// By value: the most that noise moved any of its elements by.
    spread: Vec<f64>,
    /// By value: the most that much less noise moved it by.
    spread_by_less: Vec<f64>,
    /// By value: the root of the mean square of what noise moved it by.
    typical: Vec<f64>,
    /// By value: evaluations in which noise took an element of it beyond all numbers.
    unbounded: Vec<usize>,
    rng: Rng,
    evaluations: usize,
    rounds_probabilities: bool,
    /// What is nothing beside the largest output: what cancels leaves squares of roundings behind.
    least: f64,
    /// Comparisons that could go either way.
    pub(crate) undecided: usize,
}

impl<'a> Reference<'a> {
    pub(crate) fn new(graph: &'a Graph, env: &'a Environment, seed: u64) -> Result<Self, String> {
        Reference::of(graph, env, seed, false)
    }

    /// For executors whose attention rounds probabilities to bfloat16, or does not.
    pub(crate) fn of(
        graph: &'a Graph,
        env: &'a Environment,
        seed: u64,
        rounds_probabilities: bool,
    ) -> Result<Self, String> {
        let values = interp::evaluate(graph, env).map_err(|e| e.to_string())?;
        let spread = vec![0.0; values.len()];
        let typical = spread.clone();
        let unbounded = vec![0; values.len()];
        let rng = Rng::of(seed, "noise");
        let outputs = graph.outputs.iter().map(|o| (o.slot.clone(), o.value)).collect();
        let written = graph.outputs.iter().flat_map(|o| &values[o.value.index()]);
        let least = LEAST * written.fold(0.0, |m: f64, v| m.max(v.abs()));
        let mut reference = Reference {
            graph,
            env,
            outputs,
            least,
            values,
            spread_by_less: spread.clone(),
            spread,
            typical,
            unbounded,
            rng,
            evaluations: 0,
            rounds_probabilities,
            undecided: 0,
        };
        if reference.is_finite() {
            reference.disturb(&FIRST);
        }
        Ok(reference)
    }

    /// Whether float32 can hold every value.
    pub(crate) fn is_finite(&self) -> bool {
        self.values.iter().flatten().all(|v| v.abs() <= LARGEST)
    }

    fn disturb(&mut self, kinds: &[Kind]) {
        let rounds_probabilities = self.rounds_probabilities;
        let (graph, env, exact) = (self.graph, self.env, &self.values[..]);
        for &kind in kinds {
            let noise = Noise { graph, env, exact, rounds_probabilities, kind };
            let mut seen = Comparisons::default();
            // What the first evaluation moves says which comparisons are undecided.
            let typical = (self.evaluations > 0).then_some(&self.typical[..]);
            let moved = noise.evaluate(&mut self.rng, typical, &mut seen);
            self.undecided = self.undecided.max(seen.undecided);
            for (i, (moved, exact)) in moved.iter().zip(&self.values).enumerate() {
                let (mut most, mut squares, mut is_bounded) = (0.0_f64, 0.0, true);
                for (m, e) in moved.iter().zip(exact) {
                    let apart = (m - e).abs();
                    // What becomes infinite says nothing of how far its neighbours may be off.
                    if apart.is_finite() {
                        most = most.max(apart);
                        squares += apart * apart;
                    } else {
                        is_bounded = false;
                    }
                }
                self.unbounded[i] += usize::from(!is_bounded);
                self.spread[i] = self.spread[i].max(most);
                if kind == Kind::Random(LESS) {
                    self.spread_by_less[i] = self.spread_by_less[i].max(most);
                }
                self.typical[i] = self.typical[i].max((squares / exact.len() as f64).sqrt());
            }
            self.evaluations += 1;
        }
    }

    /// Looks again before something is called wrong.
    pub(crate) fn look_again(&mut self) {
        if self.evaluations == FIRST.len() {
            self.disturb(&MORE);
        }
    }

    /// Every value of the graph.
    pub(crate) fn exact(&self) -> &[Tensor] {
        &self.values
    }

    /// A value, and what it may be off by.
    pub(crate) fn value(&self, value: ValueId) -> (&Tensor, f64) {
        let values = &self.values[value.index()];
        let largest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        (values, MARGIN * self.spread[value.index()] + ROUNDING * largest + self.least)
    }

    /// The value that an output holds.
    pub(crate) fn output(&self, slot: &Slot) -> Option<ValueId> {
        self.outputs.get(slot).copied()
    }

    /// Whether rounding decides what an output is: noise moves it by as much as it holds. A norm's gradient at a sum
    /// that cancels is such a one. What is divided by such a sum has heavy tails, so that an error may be far beyond
    /// the largest of a few draws, as long as it is nothing beside the other outputs of the kind. What is singular may
    /// be off by anything, and so may what rounding takes beyond all numbers: probabilities of scores of 10¹³ are the
    /// exponential of what float32 leaves of a difference.
    pub(crate) fn is_ill_conditioned(&self, slot: &Slot, error: f64) -> bool {
        let largest = |v: ValueId| self.values[v.index()].iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let alike = self.outputs.iter().filter(|(s, _)| s.space == slot.space);
        let scale = alike.map(|(_, &v)| largest(v)).fold(0.0, f64::max);
        self.output(slot).is_some_and(|v| {
            let spread = self.spread[v.index()];
            if 2 * self.unbounded[v.index()] > self.evaluations {
                return true;
            }
            let is_singular = is_singular(spread, self.spread_by_less[v.index()]);
            let is_tail = error <= (TAIL * spread).min(NOTHING * scale);
            let is_noise = spread > ILL_CONDITIONED * largest(v) && (spread > NOTHING * scale || is_tail);
            error.is_finite() && (is_singular || is_noise)
        })
    }
}
