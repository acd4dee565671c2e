//! Gradients against a derivation of their own. The other checks hold executors to a graph; this one holds the graph
//! itself to what a gradient is, so that a wrong rule of differentiation is not taken for the reference.
//!
//! Tangents go forward through the graph, from one random direction of all parameters to the loss: through an
//! op that is linear by the op itself, through any other by its derivative. So it shares no rule with
//! what it checks. What passes gradients straight through passes tangents, and what stops them gives none.

use pg_ir::graph::{Graph, Node};
use pg_ir::interp::{self, Environment, Tensor};
use pg_ir::op::{Binary, Op, Reduction, Unary};
use pg_ir::slot::{Slot, Space};

use super::noise::{Comparisons, FLOAT64, Kind, LESS, Noise, is_singular};
use super::reference::Reference;
use crate::rng::Rng;

/// What the gradients give may be off by this part of the slope's scale,
const TOLERANCE: f64 = 1e-7;
/// by this part of the largest tangent on the way, which rounding leaves behind where tangents cancel,
const OF_LARGEST: f64 = 1e-12;
/// and by so many times what float64's rounding was seen to do to them.
const MARGIN: f64 = 64.0;
/// Evaluations that see it.
const EVALUATIONS: usize = 3;

/// What differences say of a program's gradients.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Verdict {
    /// They agree.
    Right,
    /// The loss has a kink here, or divides by what is zero but for rounding: there is nothing to agree with.
    Kink,
    /// They do not agree.
    Wrong(String),
}

/// Compares the gradients that a program writes with the tangent of its loss. `seed` draws the direction.
pub(super) fn check(graph: &Graph, env: &Environment, reference: &Reference<'_>, seed: u64) -> Verdict {
    let Some(loss) = reference.output(&Slot::new(Space::Result, "loss")) else {
        return Verdict::Wrong("there is no loss".into());
    };
    let mut rng = Rng::of(seed, "direction");
    let direction = Direction::draw(graph, env, &mut rng);
    let mut forward = Forward { graph, exact: reference.exact(), needed: graph.needed([loss]), kinks: false };
    let tangents = forward.tangents(&direction);
    let tangent = tangents[loss.index()][0];
    let largest = tangents.iter().flatten().fold(0.0, |m: f64, t| m.max(t.abs()));
    let (slope, scale) = direction.slope(env, reference, reference.exact());
    // Where gradients should be and are not, the tangent is the scale.
    let bound = TOLERANCE * scale.max(tangent.abs()) + OF_LARGEST * largest;
    if (tangent - slope).abs() <= bound {
        return Verdict::Right;
    }
    if forward.kinks || !tangent.is_finite() {
        return Verdict::Kink;
    }
    let mut moved_by = |factor: f64| {
        let evaluations = (0..EVALUATIONS).map(|_| {
            let (exact, kind) = (reference.exact(), Kind::Random(factor));
            let noise = Noise { graph, env, exact, rounds_probabilities: false, kind };
            let moved = noise.evaluate(&mut rng, None, &mut Comparisons::default());
            (direction.slope(env, reference, &moved).0 - slope).abs()
        });
        evaluations.fold(0.0, f64::max)
    };
    let noise = moved_by(FLOAT64);
    let bound = bound + MARGIN * noise;
    if (tangent - slope).abs() <= bound {
        return Verdict::Right;
    }
    if is_singular(moved_by(FLOAT64 / LESS), noise) {
        return Verdict::Kink;
    }
    let mut message = format!(
        "along one direction the loss changes by {tangent:e}, by its gradients {slope:e} ± {bound:.1e}"
    );
    for (slot, moved) in &direction.by_param {
        let alone = Direction { by_param: vec![(slot.clone(), moved.clone())] };
        let (tangent, (slope, _)) =
            (forward.tangents(&alone)[loss.index()][0], alone.slope(env, reference, reference.exact()));
        if (tangent - slope).abs() > bound {
            message += &format!("; along {slot} by {tangent:e}, not {slope:e}");
        }
    }
    Verdict::Wrong(message)
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

    /// The loss's slope along the direction by the gradients among a graph's values, and the sum of its terms' sizes.
    fn slope(&self, env: &Environment, reference: &Reference<'_>, values: &[Tensor]) -> (f64, f64) {
        // Gradients are scaled by what a micro-batch counts for.
        let share = env.get(&Slot::new(Space::Scalar, "inv_accum")).map_or(1.0, |v| v[0]);
        let (mut slope, mut scale) = (0.0, 0.0);
        for (param, moved) in &self.by_param {
            let grad = Slot::new(Space::Grad, param.name.clone());
            let Some(grad) = reference.output(&grad) else { continue };
            for (g, d) in values[grad.index()].iter().zip(moved) {
                slope += g * d / share;
                scale += (g * d / share).abs();
            }
        }
        (slope, scale)
    }
}

/// The part of a graph that leads to its loss.
struct Forward<'a> {
    graph: &'a Graph,
    /// Every value.
    exact: &'a [Tensor],
    /// By value: whether the loss needs it.
    needed: Vec<bool>,
    /// Whether some tangent met a kink.
    kinks: bool,
}

impl Forward<'_> {
    /// The tangent of every value that the loss needs.
    fn tangents(&mut self, direction: &Direction) -> Vec<Tensor> {
        let mut tangents: Vec<Tensor> = Vec::with_capacity(self.exact.len());
        for (_, node) in self.graph.nodes() {
            if !self.graph.results(node).any(|v| self.needed[v.index()]) {
                tangents.extend(self.graph.results(node).map(|_| Tensor::new()));
                continue;
            }
            let given: Vec<&Tensor> = node.operands.iter().map(|v| &tangents[v.index()]).collect();
            let found = self.tangent(node, &given, direction);
            tangents.extend(found);
        }
        tangents
    }

    fn operand(&self, node: &Node, i: usize) -> &Tensor {
        &self.exact[node.operands[i].index()]
    }

    /// Evaluates a node on other operands.
    fn evaluate(&self, node: &Node, operands: &[&Tensor]) -> Vec<Tensor> {
        interp::results(self.graph, node, operands)
    }

    fn tangent(&mut self, node: &Node, given: &[&Tensor], direction: &Direction) -> Vec<Tensor> {
        let zeros = |this: &Self| -> Vec<Tensor> {
            this.graph.results(node).map(|v| vec![0.0; this.graph.ty(v).len()]).collect()
        };
        match &node.op {
            Op::Input(slot, _) => match direction.by_param.iter().find(|(s, _)| s == slot) {
                Some((_, moved)) => vec![moved.clone()],
                None => zeros(self),
            },
            Op::Const(..) | Op::Iota(_) | Op::StopGradient => zeros(self),
            Op::Binary(Binary::Gt | Binary::Eq | Binary::Rem | Binary::Xor) => zeros(self),
            Op::FakeQuant(_) => vec![given[0].clone()],
            Op::Cast(to) if to.is_float() => vec![given[0].clone()],
            Op::Cast(_) => zeros(self),
            Op::Select => self.evaluate(node, &[self.operand(node, 0), given[1], given[2]]),
            Op::Gather => self.evaluate(node, &[given[0], self.operand(node, 1)]),
            Op::ScatterAdd { .. } | Op::AttentionGrad { .. } => {
                unreachable!("internal error: {} is of the backward pass", node.op)
            }
            op if op.is_view() => self.evaluate(node, given),
            Op::Permute(_) | Op::Binary(Binary::Add | Binary::Sub) | Op::Reduce(Reduction::Sum, _) => {
                self.evaluate(node, given)
            }
            Op::Binary(Binary::Mul) | Op::Dot(_) => {
                let (a, b) = (self.operand(node, 0), self.operand(node, 1));
                let (left, right) =
                    (self.evaluate(node, &[given[0], b]), self.evaluate(node, &[a, given[1]]));
                vec![left[0].iter().zip(&right[0]).map(|(l, r)| l + r).collect()]
            }
            Op::Reduce(Reduction::Max, _) => self.of_largest(node, given[0]),
            Op::Unary(f) => self.unary(node, *f, given[0]),
            Op::Binary(Binary::Div) => self.quotient(node, given),
            Op::Binary(Binary::Max) => self.larger(node, given),
            Op::Attention { scale } => self.attention(node, scale.get(), given),
            op => unreachable!("internal error: {op} has no tangent"),
        }
    }

    fn unary(&self, node: &Node, f: Unary, given: &Tensor) -> Vec<Tensor> {
        let (x, y) = (self.operand(node, 0), &self.exact[node.first.index()]);
        let slope = |(x, y): (&f64, &f64)| match f {
            Unary::Exp => *y,
            Unary::Log => 1.0 / x,
            Unary::Tanh => 1.0 - y * y,
            Unary::Sigmoid => y * (1.0 - y),
            Unary::Sqrt => 0.5 / y,
            Unary::Rsqrt => -0.5 * y * y * y,
            Unary::Sin => x.cos(),
            Unary::Cos => -x.sin(),
        };
        // What does not move stays where it is, even where the slope is infinite.
        let times = |(slope, t): (f64, &f64)| if *t == 0.0 { 0.0 } else { slope * t };
        vec![x.iter().zip(y).map(slope).zip(given).map(times).collect()]
    }

    fn quotient(&self, node: &Node, given: &[&Tensor]) -> Vec<Tensor> {
        let (b, y) = (self.operand(node, 1), &self.exact[node.first.index()]);
        let element = |i: usize| (given[0][i] - y[i] * given[1][i]) / b[i];
        vec![(0..y.len()).map(element).collect()]
    }

    /// The tangent of the larger of two; of equals that move apart, it is a kink.
    fn larger(&mut self, node: &Node, given: &[&Tensor]) -> Vec<Tensor> {
        let (a, b) = (self.operand(node, 0), self.operand(node, 1));
        let kinks = (0..a.len()).any(|i| a[i] == b[i] && given[0][i] != given[1][i]);
        let tangent = (0..a.len()).map(|i| if a[i] >= b[i] { given[0][i] } else { given[1][i] }).collect();
        self.kinks |= kinks;
        vec![tangent]
    }

    /// The tangent of what is largest; several that are, are a kink.
    fn of_largest(&mut self, node: &Node, given: &Tensor) -> Vec<Tensor> {
        let sum = |this: &Self, x: &Tensor| -> Tensor {
            let Op::Reduce(_, axes) = &node.op else { unreachable!("a reduction") };
            let op = Op::Reduce(Reduction::Sum, axes.clone());
            let types = this.graph.operand_types(node);
            let result = this.graph.ty(node.first).clone();
            (op.record().eval)(&op, &[x], &types, &[result]).swap_remove(0)
        };
        let x = self.operand(node, 0);
        let largest = self.spread(node, &self.exact[node.first.index()]);
        let is_largest: Tensor = x.iter().zip(&largest).map(|(x, m)| f64::from(u8::from(x == m))).collect();
        let count = sum(self, &is_largest);
        let tangent: Tensor = given.iter().zip(&is_largest).map(|(t, is)| t * is).collect();
        let total = sum(self, &tangent);
        self.kinks |= count.iter().zip(&total).any(|(n, t)| *n > 1.0 && *t != 0.0);
        vec![total.iter().zip(&count).map(|(t, n)| t / n).collect()]
    }

    /// A reduction's result at every element that it is of.
    fn spread(&self, node: &Node, reduced: &Tensor) -> Tensor {
        let op = Op::Broadcast(self.graph.ty(node.operands[0]).axes.clone());
        let result = self.graph.ty(node.operands[0]).clone();
        (op.record().eval)(&op, &[reduced], &[self.graph.ty(node.first)], &[result]).swap_remove(0)
    }

    /// Of softmax(s) v, with s = scale q kᵀ: P v' + P (s' − P s') v, and P s' of the log-sum-exp.
    fn attention(&self, node: &Node, scale: f64, given: &[&Tensor]) -> Vec<Tensor> {
        let [q, k, v] = [0, 1, 2].map(|i| self.operand(node, i));
        let lse = &self.exact[node.first.index() + 1];
        let (of_q, of_k) = (self.graph.ty(node.operands[0]).shape(), self.graph.ty(node.operands[1]).shape());
        let [batch, time, heads, dim] = of_q[..] else { unreachable!("queries have four axes") };
        let group = heads / of_k[2];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (mut o, mut l) = (vec![0.0; q.len()], vec![0.0; lse.len()]);
        for row in 0..batch * time * heads {
            let (sequence, t, head) = (row / (time * heads), row / heads % time, row % heads);
            let query = row * dim..(row + 1) * dim;
            let key = |s: usize| {
                let at = ((sequence * time + s) * of_k[2] + head / group) * dim;
                at..at + dim
            };
            let p = |s: usize| (scale * dot(&q[query.clone()], &k[key(s)]) - lse[row]).exp();
            let moved = |s: usize| {
                scale
                    * (dot(&given[0][query.clone()], &k[key(s)]) + dot(&q[query.clone()], &given[1][key(s)]))
            };
            let mean: f64 = (0..=t).map(|s| p(s) * moved(s)).sum();
            l[row] = mean;
            for s in 0..=t {
                let (p, apart) = (p(s), moved(s) - mean);
                let (v, moved) = (&v[key(s)], &given[2][key(s)]);
                let out = o[query.clone()].iter_mut().zip(v.iter().zip(moved));
                out.for_each(|(o, (v, moved))| *o += p * (moved + apart * v));
            }
        }
        vec![o, l]
    }
}
