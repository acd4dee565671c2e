//! Gradients against differences of the loss. The other checks hold executors to a graph; this one holds the graph
//! itself to what a gradient is, so that a wrong rule of differentiation is not taken for the reference.
//!
//! The loss is evaluated in float64 on both sides of the parameters, along one random direction of all of them.
//! What passes gradients straight through moves with its operand, and what stops them does not move.

use pg_ir::graph::{Graph, ValueId};
use pg_ir::interp::{Environment, Tensor};
use pg_ir::op::Op;
use pg_ir::slot::{Slot, Space};

use super::reference::Reference;
use crate::rng::Rng;

/// How far along the direction the loss is evaluated; a direction's elements are about as large as a parameter's.
const STEP: f64 = 1e-6;
/// Slopes on both sides that differ by more than this part of the slope's scale belong to a kink.
const KINK: f64 = 1e-3;
/// What the gradients give may be off by this part of the slope's scale,
const TOLERANCE: f64 = 1e-4;
/// and by so many roundings of the loss.
const ROUNDINGS: f64 = 64.0;

/// What differences say of a program's gradients.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Verdict {
    /// They agree.
    Right,
    /// The loss has a kink here, so that there is nothing to agree with.
    Kink,
    /// They do not agree.
    Wrong(String),
}

/// Compares the gradients that a program writes, times `seed` of the loss, with differences of its loss.
pub(super) fn check(graph: &Graph, env: &Environment, reference: &Reference<'_>, seed: u64) -> Verdict {
    let loss = Slot::new(Space::Result, "loss");
    let Some(loss) = reference.output(&loss) else { return Verdict::Wrong("there is no loss".into()) };
    let mut rng = Rng::of(seed, "direction");
    let direction = Direction::draw(graph, env, &mut rng);
    let forward = Forward { graph, env, exact: reference.exact(), needed: needed(graph, loss) };
    let [before, here, after] =
        [-STEP, 0.0, STEP].map(|step| forward.evaluate(&direction, step)[loss.index()][0]);
    let [left, right] = [(here - before) / STEP, (after - here) / STEP];

    // Gradients are scaled by what a micro-batch counts for.
    let share = env.get(&Slot::new(Space::Scalar, "inv_accum")).map_or(1.0, |v| v[0]);
    let (mut slope, mut scale) = (0.0, 0.0);
    for (param, moved) in &direction.by_param {
        let Some(grad) = reference.output(&Slot::new(Space::Grad, param.name.clone())) else { continue };
        for (g, d) in reference.exact()[grad.index()].iter().zip(moved) {
            slope += g * d / share;
            scale += (g * d / share).abs();
        }
    }
    let measured = (left + right) / 2.0;
    let rounding = ROUNDINGS * f64::EPSILON * here.abs().max(1.0) / STEP;
    // Where gradients should be and are not, the loss's own slope is the scale.
    let scale = scale.max(measured.abs());
    // Gradients that are far too large must not make a kink look flat.
    if (left - right).abs() > KINK * left.abs().max(right.abs()) + rounding {
        return Verdict::Kink;
    }
    if (measured - slope).abs() > TOLERANCE * scale + rounding {
        return Verdict::Wrong(format!(
            "along one direction the loss changes by {measured:e}, by its gradients {slope:e}"
        ));
    }
    Verdict::Right
}

/// A direction in the space of all parameters.
struct Direction {
    by_param: Vec<(Slot, Tensor)>,
}

impl Direction {
    fn draw(graph: &Graph, env: &Environment, rng: &mut Rng) -> Direction {
        let params = graph.inputs().filter(|(slot, _)| slot.space == Space::Param);
        let by_param = params
            .map(|(slot, _)| {
                let values = &env[slot];
                let largest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                (slot.clone(), values.iter().map(|_| largest * rng.float()).collect())
            })
            .collect();
        Direction { by_param }
    }
}

/// Which nodes the loss needs, by position.
fn needed(graph: &Graph, loss: ValueId) -> Vec<bool> {
    let mut values = vec![false; graph.value_count()];
    values[loss.index()] = true;
    let nodes: Vec<_> = graph.nodes().collect();
    let mut needed = vec![false; nodes.len()];
    for (i, (_, node)) in nodes.iter().enumerate().rev() {
        needed[i] = graph.results(node).any(|v| values[v.index()]);
        if needed[i] {
            node.operands.iter().for_each(|v| values[v.index()] = true);
        }
    }
    needed
}

/// The part of a graph that leads to its loss.
struct Forward<'a> {
    graph: &'a Graph,
    env: &'a Environment,
    /// Every value at the parameters themselves.
    exact: &'a [Tensor],
    needed: Vec<bool>,
}

impl Forward<'_> {
    /// Every value that the loss needs, a step along the direction.
    fn evaluate(&self, direction: &Direction, step: f64) -> Vec<Tensor> {
        let mut values: Vec<Tensor> = Vec::with_capacity(self.exact.len());
        for (i, (_, node)) in self.graph.nodes().enumerate() {
            if !self.needed[i] {
                values.extend(self.graph.results(node).map(|_| Tensor::new()));
                continue;
            }
            let operand = |i: usize| node.operands[i].index();
            match &node.op {
                Op::Input(slot, _) => {
                    let mut at = self.env[slot].clone();
                    if let Some((_, moved)) = direction.by_param.iter().find(|(s, _)| s == slot) {
                        at.iter_mut().zip(moved).for_each(|(v, d)| *v += step * d);
                    }
                    values.push(at);
                }
                Op::StopGradient => values.push(self.exact[values.len()].clone()),
                Op::FakeQuant(_) => {
                    let (rounded, before) = (&self.exact[values.len()], &self.exact[operand(0)]);
                    let moved = values[operand(0)].iter().zip(before).map(|(v, e)| v - e);
                    let straight = rounded.iter().zip(moved).map(|(r, m)| r + m).collect();
                    values.push(straight);
                }
                op => {
                    let operands: Vec<&Tensor> = node.operands.iter().map(|v| &values[v.index()]).collect();
                    let types = self.graph.operand_types(node);
                    let results: Vec<_> =
                        self.graph.results(node).map(|v| self.graph.ty(v).clone()).collect();
                    values.extend((op.record().eval)(op, &operands, &types, &results));
                }
            }
        }
        values
    }
}
