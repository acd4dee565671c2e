//! What rounding does to a graph: it is evaluated again with every operation's result, and every term of every sum,
//! moved by a random few units in float32's last place. How far the outputs move is how far an executor's may be off.
//!
//! Where a graph rounds to bfloat16, a value next to a boundary may fall on either side; where it compares, either
//! side may win. Both are tried. This says what may be off; what is right is the interpreter's alone to say.

use pg_ir::graph::{Graph, Node, ValueId};
use pg_ir::interp::{self, Environment, Tensor};
use pg_ir::op::{Binary, Op, Reduction};
use pg_ir::ty::DType;

use crate::rng::Rng;

/// Largest relative change of a result: four roundings of float32.
const ROUND: f64 = 1.0 / (1u64 << 22) as f64;
/// Largest relative change of what is rounded to bfloat16 next: one element in sixty falls to the other side.
const NEXT_TO_BOUNDARY: f64 = 1.0 / (1u64 << 15) as f64;
/// Largest relative change of a term that is rounded to bfloat16 on its way into a sum.
const PROBABILITY: f64 = 1.0 / 256.0;
/// A comparison may go either way within so many times what noise moves its operands by.
const UNDECIDED: f64 = 4.0;

/// What is smaller than this part of its terms is left over where they cancel.
const LEFT_OVER: f64 = 1e-3;

/// How comparisons came out under noise.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Comparisons {
    /// Those that may go either way.
    pub(crate) undecided: usize,
}

/// One evaluation under noise.
pub(crate) struct Noise<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) env: &'a Environment,
    /// Every value without noise.
    pub(crate) exact: &'a [Tensor],
    /// Whether attention's probabilities are rounded to bfloat16.
    pub(crate) rounds_probabilities: bool,
    /// What noise there is.
    pub(crate) kind: Kind,
}

/// How values are disturbed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind {
    /// At random by as much as float32's roundings, times a factor.
    Random(f64),
    /// To the nearest float32 in the forward pass, where differences of what is alike are then nothing at all, and at
    /// random in the backward pass.
    Nearest,
}

/// At random as float64 rounds: 2⁻⁵³ is to 2⁻²⁴ as this is to 1.
pub(crate) const FLOAT64: f64 = 1.0 / (1u64 << 29) as f64;

/// A part of noise that is so much less that it must do less.
pub(crate) const LESS: f64 = 1.0 / 1024.0;

/// Whether less noise moved something about as much: it is decided by rounding however fine. Where a model divides by
/// what is zero but for rounding, it is.
pub(crate) fn is_singular(moved: f64, by_less: f64) -> bool {
    by_less > 16.0 * LESS * moved
}

impl Noise<'_> {
    /// Every value under noise. `typical` is how far earlier evaluations moved each value's elements, in
    /// the mean; with it, comparisons that it leaves undecided go either way.
    pub(crate) fn evaluate(
        &self,
        rng: &mut Rng,
        typical: Option<&[f64]>,
        seen: &mut Comparisons,
    ) -> Vec<Tensor> {
        let mut values: Vec<Tensor> = Vec::with_capacity(self.exact.len());
        for (_, node) in self.graph.nodes() {
            if let Op::Input(slot, _) = &node.op {
                values.push(self.env[slot].clone());
                continue;
            }
            let mut operands: Vec<std::borrow::Cow<'_, Tensor>> =
                node.operands.iter().map(|v| std::borrow::Cow::Borrowed(&values[v.index()])).collect();
            self.disturb(node, &mut operands, rng);
            let operands: Vec<&Tensor> = operands.iter().map(|c| &**c).collect();
            let mut results = interp::results(self.graph, node, &operands);
            if rounds(&node.op) {
                let values = self.graph.results(node);
                let is_float32 = |v: ValueId| self.graph.ty(v).dtype == DType::F32;
                for (result, _) in results.iter_mut().zip(values).filter(|(_, v)| is_float32(*v)) {
                    self.move_all(node, result, ROUND, rng);
                }
            }
            if let Some(typical) = typical {
                self.cancel(node, typical, &mut results[0], rng);
            }
            if let (Op::Binary(Binary::Gt), Some(typical)) = (&node.op, typical) {
                self.decide(node, typical, &mut results[0], rng, seen);
            }
            values.extend(results);
        }
        values
    }

    /// Terms of sums, and what stands next to a boundary of bfloat16.
    fn disturb(&self, node: &Node, operands: &mut [std::borrow::Cow<'_, Tensor>], rng: &mut Rng) {
        let amount = match node.op {
            Op::Attention { .. } | Op::AttentionGrad { .. } if self.rounds_probabilities => PROBABILITY,
            Op::Dot(_)
            | Op::Reduce(Reduction::Sum, _)
            | Op::ScatterAdd { .. }
            | Op::Attention { .. }
            | Op::AttentionGrad { .. } => ROUND,
            Op::Cast(DType::BF16) => NEXT_TO_BOUNDARY,
            _ => return,
        };
        for (i, (operand, &value)) in operands.iter_mut().zip(&node.operands).enumerate() {
            // The log-sum-exp is exponentiated, and no tensor core rounds it.
            let amount = if i == 4 { amount.min(ROUND) } else { amount };
            if self.graph.ty(value).dtype.is_float() {
                self.move_all(node, operand.to_mut(), amount, rng);
            }
        }
    }

    fn move_all(&self, node: &Node, values: &mut [f64], amount: f64, rng: &mut Rng) {
        let factor = match self.kind {
            Kind::Nearest if !node.origin.backward => {
                return values.iter_mut().for_each(|v| *v = f64::from(*v as f32));
            }
            Kind::Nearest => 1.0,
            Kind::Random(factor) => factor,
        };
        values.iter_mut().for_each(|v| *v *= 1.0 + factor * amount * rng.float());
    }

    /// Where terms cancel, what noise cannot tell from zero may be zero itself: some functions are not continuous there.
    fn cancel(&self, node: &Node, typical: &[f64], result: &mut Tensor, rng: &mut Rng) {
        let exact = &self.exact[node.first.index()];
        let term = |i: usize, at: usize| self.exact[node.operands[i].index()][at].abs();
        let is_pair = matches!(node.op, Op::Binary(Binary::Add | Binary::Sub));
        let is_sum = matches!(node.op, Op::Reduce(Reduction::Sum, _) | Op::Dot(_));
        // Sums of squares do not cancel.
        let may_cancel = is_pair || is_sum && exact.iter().any(|e| *e < 0.0);
        if !may_cancel {
            return;
        }
        let is_left_over = |at: usize| is_sum || exact[at].abs() < LEFT_OVER * term(0, at).max(term(1, at));
        let width = UNDECIDED * typical[node.first.index()];
        for (at, r) in result.iter_mut().enumerate() {
            let is_close = exact[at] != 0.0 && exact[at].abs() <= width;
            if is_close && is_left_over(at) && rng.once_in(2) {
                *r = 0.0;
            }
        }
    }

    /// Lets undecided comparisons go either way.
    fn decide(
        &self,
        node: &Node,
        typical: &[f64],
        result: &mut Tensor,
        rng: &mut Rng,
        seen: &mut Comparisons,
    ) {
        let [a, b] = [node.operands[0].index(), node.operands[1].index()];
        let width = UNDECIDED * (typical[a] + typical[b]);
        for (i, r) in result.iter_mut().enumerate() {
            let apart = (self.exact[a][i] - self.exact[b][i]).abs();
            if apart > 0.0 && apart <= width {
                seen.undecided += 1;
                if rng.once_in(2) {
                    *r = 1.0 - *r;
                }
            }
        }
    }
}

/// Whether an operation's result is rounded in float32; the others give one of their operands, or whole numbers.
fn rounds(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(Binary::Add | Binary::Sub | Binary::Mul | Binary::Div)
            | Op::Reduce(Reduction::Sum, _)
            | Op::Dot(_)
            | Op::ScatterAdd { .. }
            | Op::Attention { .. }
            | Op::AttentionGrad { .. }
    )
}
