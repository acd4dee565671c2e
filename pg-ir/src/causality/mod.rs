//! The static proof that no score depends on a later token, nor on another sequence of the batch: windows overlap, and
//! what one row scores another may hold as context.
//!
//! It is an abstract interpretation of the graph. What is found of a value covers each of its elements by at least one
//! piece: at the indices of the piece's zone the element may be a number that the piece allows, which then depends
//! on no tokens but those that the piece reads. A zone bounds differences of indices ([`zone`]); reads are zones over
//! the element's indices and the sequence and position of the token. So a read "no later than axis 1" and a mask
//! `j <= i` are the same kind of fact, and meet by intersection. An axis that is summed over is projected away: what
//! was read no later than j, where j ≤ i holds, stays a read no later than i.
//!
//! Each op says two things in its record: its access relation (which elements of its operands an element of the result
//! is computed from, [`Access`]), and what it makes of elements of which something is known ([`Case`]). What it does
//! not say is everything: any element along an axis, any number. Why that is sound, op by op:
//!
//! - *Composition.* If an element reads operands' elements at indices in relation A, and those read tokens in relation
//!   R, it reads tokens in A ∘ R. Zones over-approximate both; projection of a closed zone loses no point.
//! - *Pieces.* Which of several pieces holds may depend on tokens, as which branch of a select is taken. Each of them
//!   reads those tokens, and a sum or an op that says nothing reads what any of them reads.
//! - *Comparison.* Whole numbers that follow from indices alone (`iota`, sums and differences of such) compare as their
//!   formulas do, wherever no executor rounds or wraps them. A condition on token values is unknown, and an unknown
//!   condition reads its operands and both branches.
//! - *Select.* Where the condition is known, only that branch is read. So a reduction over masked elements needs no
//!   neutral element: whatever the mask put there depends on no token.
//! - *Product with zero.* A dot reads no token through an element that meets an exact zero and is known to be finite:
//!   0 · ∞ and 0 · NaN are NaN, and would tell of a later token. Zeros are those of a select with 0, or exp of one with
//!   −∞; exp of a large negative number is zero only while scores stay small, which no proof knows. A product outside of
//!   a dot reads both factors, since the sign of zero tells of the other factor; a sum that starts with +0 does not.
//!
//! It must never be optimistic.

mod access;
mod analysis;
pub(crate) mod known;
mod leak;
pub(crate) mod zone;

pub use self::access::{Access, Case, Cases, Index, Indices, Meeting};
use self::analysis::Analysis;
use self::leak::{Axes, latest, mixes_sequences};
use crate::graph::{Graph, ValueId};
use crate::refusal::Refusal;
use crate::slot::{Slot, Space};

/// How the elements at position t depend on an input along time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// Not at all.
    Never,
    /// On positions up to t + k of the same sequence, and possibly every one before.
    Until(i64),
    /// On any position, or on other sequences.
    Everything,
}

/// How far into the future of its position an element of `value` looks in a data input [batch, time].
pub fn reach(graph: &Graph, input: &Slot, value: ValueId) -> Reach {
    let (analysis, ty) = (Analysis::of(graph, input, value), graph.ty(value));
    let reaches = analysis.reads(value).into_iter().map(|read| {
        let k = latest(&read, ty, Axes::Every);
        let is_anywhere = k > 0 && k >= analysis.last();
        if is_anywhere || mixes_sequences(&read, ty, Axes::Every) {
            Reach::Everything
        } else {
            Reach::Until(k)
        }
    });
    reaches.max().unwrap_or(Reach::Never)
}

/// Proves that `logits` at position t depend on tokens up to t only and on no target.
///
/// # Errors
/// Which position reads which token, where the dependence entered, and how it reached the logits.
pub fn prove_causal(graph: &Graph, logits: ValueId) -> Result<(), Refusal> {
    let [tokens, targets] = ["tokens", "targets"].map(|name| Slot::new(Space::Data, name));
    if !Analysis::of(graph, &targets, logits).reads(logits).is_empty() {
        return Err(Refusal::new(format!("the logits depend on {targets}")).through(graph, &[logits]));
    }
    let leak =
        Analysis::of(graph, &tokens, logits).leak("the logits of a position depend on later tokens", logits);
    leak.map_or(Ok(()), Err)
}

/// Proves that `nll` at position t depends on tokens up to t and on the target of t alone.
///
/// Together with [`prove_causal`] of the logits in the same graph: every target is scored once, by a
/// distribution that knows neither it nor what follows.
///
/// # Errors
/// What it depends on besides, and where that entered.
pub fn prove_pointwise(graph: &Graph, nll: ValueId) -> Result<(), Refusal> {
    let [tokens, targets] = ["tokens", "targets"].map(|name| Slot::new(Space::Data, name));
    if let Some(leak) =
        Analysis::of(graph, &tokens, nll).leak("the loss of a position depends on later tokens", nll)
    {
        return Err(leak);
    }
    let analysis = Analysis::of(graph, &targets, nll);
    if analysis.reads(nll).is_empty() {
        let what = "the loss of a position does not depend on its target";
        return Err(Refusal::new(what).through(graph, &[nll]));
    }
    analysis.stranger("the loss reads targets of other positions", nll).map_or(Ok(()), Err)
}
