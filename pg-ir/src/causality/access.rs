//! What an op's record says for the proof: which elements of its operands an element of its result is computed from,
//! and what it makes of elements of which something is known.

use smallvec::SmallVec;

use super::known::Known;
use super::zone::Zone;
use crate::op::Op;
use crate::ty::{DType, Type};

/// Where one index of an operand's element may lie: an index of the result's element, or of what is summed over, plus
/// a number between two. Without an axis it is that number alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Index {
    /// An axis of the result; past those, one that is summed over.
    pub axis: Option<usize>,
    /// The least that is added.
    pub low: i64,
    /// The most that is added.
    pub high: i64,
}

impl Index {
    /// The same index as along an axis of the result.
    pub fn along(axis: usize) -> Index {
        Index::shifted(axis, 0)
    }

    /// That plus `by`.
    pub fn shifted(axis: usize, by: i64) -> Index {
        Index { axis: Some(axis), low: by, high: by }
    }

    /// The first along its axis.
    pub fn first() -> Index {
        Index { axis: None, low: 0, high: 0 }
    }

    /// Any along an axis of `size` elements.
    pub fn any(size: usize) -> Index {
        Index { axis: None, low: 0, high: size as i64 - 1 }
    }

    pub(super) fn is_exact(self) -> bool {
        self.low == self.high
    }
}

/// By axis of an operand.
pub type Indices = SmallVec<[Index; 4]>;

/// Which elements of its operands an element of a result is computed from.
#[derive(Clone, PartialEq, Debug)]
pub struct Access {
    /// Sizes of the axes that are summed over. Indices count them after the result's axes.
    pub summed: SmallVec<[usize; 2]>,
    /// By operand.
    pub operands: SmallVec<[Indices; 3]>,
    /// How many operands meet in one element: all, but of a dot those of a pair.
    pub together: usize,
    /// Whether the result is zero where an index leaves its axis, as in a pad.
    pub padded: bool,
}

impl Access {
    /// Of operands whose elements meet one to one.
    pub fn of(operands: impl IntoIterator<Item = Indices>) -> Access {
        let operands: SmallVec<[Indices; 3]> = operands.into_iter().collect();
        Access { summed: SmallVec::new(), together: operands.len(), operands, padded: false }
    }
}

/// One element of each operand, of which something is known, where they meet.
pub struct Meeting<'a> {
    /// The indices at which they meet: the result's, and those that are summed over.
    pub(crate) zone: &'a Zone,
    /// What is known of each, for some tokens.
    pub(crate) known: &'a [&'a Known],
    /// What is known of an operand's elements there, whatever the tokens are.
    pub(crate) whatever: &'a dyn Fn(usize) -> Known,
    /// Types of the operands.
    pub(crate) operands: &'a [&'a Type],
    /// Element type of the result.
    pub(crate) dtype: DType,
}

/// What comes of a [`Meeting`] at some of its points.
pub struct Case {
    pub(crate) zone: Zone,
    pub(crate) known: Known,
    /// Whether the result depends on an operand's element, in their order.
    pub(crate) reads: SmallVec<[bool; 6]>,
}

/// How an op's record gives the cases of a meeting.
pub type Cases = fn(&Op, &Meeting<'_>) -> SmallVec<[Case; 3]>;

impl Meeting<'_> {
    /// One case: at all points the same is known, and every operand is read.
    pub(crate) fn always(&self, known: Known) -> SmallVec<[Case; 3]> {
        SmallVec::from_iter([self.case(self.zone.clone(), known)])
    }

    /// A case in which every operand is read.
    pub(crate) fn case(&self, zone: Zone, known: Known) -> Case {
        Case { zone, known, reads: SmallVec::from_elem(true, self.known.len()) }
    }

    /// A condition: zones where it holds and zones where it does not.
    pub(crate) fn condition(
        &self,
        holds: impl IntoIterator<Item = Zone>,
        fails: impl IntoIterator<Item = Zone>,
    ) -> SmallVec<[Case; 3]> {
        let number = |value| Known::number(value, self.zone.coordinates());
        let holds = holds.into_iter().map(|zone| self.case(zone, number(1.0)));
        holds.chain(fails.into_iter().map(|zone| self.case(zone, number(0.0)))).collect()
    }
}
