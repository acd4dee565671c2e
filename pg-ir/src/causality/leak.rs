//! What is wrong with a value that reads what it must not, in words, and the way from where that entered the graph.

use super::analysis::Analysis;
use super::zone::{Coordinate, ORIGIN, Zone};
use crate::graph::{Node, ValueId};
use crate::op::Op;
use crate::refusal::Refusal;
use crate::ty::{Role, Type};

/// Against which of its time (or batch) axes an element's reads are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Axes {
    /// Against each: what a score must pass.
    Every,
    /// Against the one that they fit best. An element (i, j) of a table of positions may read tokens up to i or up to
    /// j; which of them is too late shows only when one of the axes is summed over.
    Best,
}

/// The axes of a role, as coordinates; where there is none, an element belongs to index 0.
fn of_role(ty: &Type, role: Role) -> impl Iterator<Item = Coordinate> {
    let is = move |a: &crate::ty::Axis| a.role == role && a.size > 1;
    let none = (!ty.axes.iter().any(is)).then_some(ORIGIN);
    ty.axes.iter().enumerate().filter(move |(_, a)| is(a)).map(|(axis, _)| axis + 1).chain(none)
}

/// The latest token that is read, counted from the element's position.
pub(super) fn latest(read: &Zone, ty: &Type, axes: Axes) -> i64 {
    let position = read.coordinates() - 1;
    let bounds = of_role(ty, Role::Time).map(|axis| read.bound(position, axis));
    match axes {
        Axes::Every => bounds.max(),
        Axes::Best => bounds.min(),
    }
    .expect("there is an axis, or the origin")
}

/// Whether a token of another sequence than the element's may be read.
pub(super) fn mixes_sequences(read: &Zone, ty: &Type, axes: Axes) -> bool {
    let sequence = read.coordinates() - 2;
    let mut differ =
        of_role(ty, Role::Batch).map(|axis| read.bound(sequence, axis) > 0 || read.bound(axis, sequence) > 0);
    match axes {
        Axes::Every => differ.any(|d| d),
        Axes::Best => differ.all(|d| d),
    }
}

/// Whether a read is of a later token or of another sequence.
fn is_leak(read: &Zone, ty: &Type, axes: Axes) -> bool {
    mixes_sequences(read, ty, axes) || latest(read, ty, axes) > 0
}

impl Analysis<'_> {
    /// How elements of a value read a later token, or one of another sequence; `None` if they do not. `what` says what that is.
    pub(super) fn leak(&self, what: &str, value: ValueId) -> Option<Refusal> {
        let ty = self.graph.ty(value);
        let reads = self.reads(value).into_iter().filter(|read| is_leak(read, ty, Axes::Every));
        let read = reads.max_by_key(|read| latest(read, ty, Axes::Every))?;
        // From operand to operand, to where an element first belongs to no position that could read this.
        let leaks = |v: ValueId| {
            let ty = self.graph.ty(v);
            self.reads(v).iter().any(|read| is_leak(read, ty, Axes::Best))
        };
        let way = self.back_while(value, leaks);
        let culprit = *way.last()?;
        let why =
            self.why(self.graph.producer(culprit), culprit).map_or(String::new(), |why| format!("; {why}"));
        let how = format!("{}{why}", self.says(&read, ty));
        Some(Refusal { how, ..Refusal::new(what) }.through(self.graph, &way))
    }

    /// How elements of a value read anything of another position; `None` if they do not. `what` says what that is.
    pub(super) fn stranger(&self, what: &str, value: ValueId) -> Option<Refusal> {
        let strange = |value: ValueId| {
            let ty = self.graph.ty(value);
            let is_other = |read: &Zone| {
                let position = read.coordinates() - 1;
                of_role(ty, Role::Time).any(|axis| read.bound(axis, position) > 0)
            };
            self.reads(value).iter().any(|read| is_leak(read, ty, Axes::Every) || is_other(read))
        };
        strange(value).then(|| Refusal::new(what).through(self.graph, &self.back_while(value, strange)))
    }

    /// A value, an operand of its op of which something is so, an operand of that one's, and so on to the last.
    fn back_while(&self, value: ValueId, is_so: impl Fn(ValueId) -> bool) -> Vec<ValueId> {
        let operand = |v: &ValueId| self.graph.producer(*v).operands.iter().copied().find(|&v| is_so(v));
        std::iter::successors(Some(value), operand).collect()
    }

    /// A read in words.
    fn says(&self, read: &Zone, ty: &Type) -> String {
        let k = latest(read, ty, Axes::Every);
        if mixes_sequences(read, ty, Axes::Every) {
            "a sequence reads tokens of another sequence of its batch".into()
        } else if of_role(ty, Role::Time).eq([ORIGIN]) || k >= self.last() {
            format!("position 0 reads tokens up to the last, {}", self.last())
        } else {
            format!("position i reads token i + {k}")
        }
    }

    /// What is wrong with a mask, where positions are summed over.
    fn why(&self, node: &Node, result: ValueId) -> Option<String> {
        let ty = self.graph.ty(result);
        let leaks = |reads: Vec<Zone>| reads.iter().any(|read| is_leak(read, ty, Axes::Best));
        if matches!(node.op, Op::Dot(_)) && !leaks(self.reads_if_finite(node, result)) {
            let why = "one factor is zero at later positions, but the other may be infinite or NaN there, and 0 · ∞ is \
                       NaN: bound it, as by `select(lt(v * v, 1e8), v, 0.0)`";
            return Some(why.into());
        }
        if let Some(why) = self.lets_through(node) {
            return Some(why);
        }
        let is_apart = |operand: usize| !leaks(self.reads_through(node, result, operand));
        (matches!(node.op, Op::Dot(_)) && (0..node.operands.len()).any(is_apart)).then(|| {
            "no factor is known to be zero at later positions: a mask makes it so with 0.0 after the `exp` of a \
             softmax, not with a large negative number before it"
                .into()
        })
    }

    /// Of a table of positions that is summed over: which later ones are in it.
    fn lets_through(&self, node: &Node) -> Option<String> {
        let summed = |operand: usize, axis: usize| match &node.op {
            Op::Reduce(_, axes) => axes.contains(&axis),
            Op::Dot(d) => d.contract.iter().any(|pair| [pair.0, pair.1][operand % 2] == axis),
            _ => false,
        };
        node.operands.iter().enumerate().find_map(|(operand, &value)| {
            let ty = self.graph.ty(value);
            let axes = |is_summed: bool| {
                let is = move |axis: &Coordinate| *axis != ORIGIN && summed(operand, axis - 1) == is_summed;
                of_role(ty, Role::Time).find(is)
            };
            let (i, j) = (axes(false)?, axes(true)?);
            let late = self.reads(value).into_iter().filter(|read| read.bound(read.coordinates() - 1, i) > 0);
            let most = late.map(|read| read.bound(j, i)).max().filter(|most| *most > 0)?;
            Some(if most + 1 >= ty.axes[j - 1].size as i64 {
                "no mask before it leaves out every position j > i".into()
            } else {
                format!("the mask before it lets position j = i + {most} through")
            })
        })
    }
}
