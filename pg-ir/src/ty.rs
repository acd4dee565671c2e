//! Types of values: an element type and axes that carry a role.
//!
//! Roles say what the proof of causality holds scores to: along [`Role::Time`] no later token is read, along
//! [`Role::Batch`] no other sequence.

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;

/// Element type. Arithmetic on `F32` values is float32 mathematics; `BF16` marks a value that an
/// explicit [`cast`](crate::op::Op::Cast) has rounded for storage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// bfloat16: storage of activations and matmul operands on the GPU.
    BF16,
    /// Token ids, hash buckets and positions.
    I32,
    /// Results of comparisons.
    Bool,
}

impl DType {
    /// Bytes of one stored element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::BF16 => 2,
            DType::Bool => 1,
        }
    }

    /// Whether gradients can flow through values of this type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::BF16)
    }

    const NAMES: [(DType, &'static str); 4] =
        [(DType::F32, "f32"), (DType::BF16, "bf16"), (DType::I32, "i32"), (DType::Bool, "bool")];
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = Self::NAMES.iter().find(|(d, _)| d == self).expect("every dtype has a name");
        f.write_str(name)
    }
}

impl FromStr for DType {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, n)| *n == s);
        found.map(|(d, _)| *d).ok_or_else(|| format!("unknown element type `{s}`"))
    }
}

/// What an axis means. `Batch` rows are independent sequences, `Time` is the position in a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Role {
    /// Independent sequences.
    Batch,
    /// Position in a sequence; the axis that causality is about.
    Time,
    /// Attention heads.
    Head,
    /// Everything else: features, vocabulary, parameter axes.
    Channel,
}

impl Role {
    const LETTERS: [(Role, char); 4] =
        [(Role::Batch, 'b'), (Role::Time, 't'), (Role::Head, 'h'), (Role::Channel, 'c')];

    fn letter(self) -> char {
        Self::LETTERS.iter().find(|(r, _)| *r == self).expect("every role has a letter").1
    }
}

/// One axis: its size and its role. Printed as `t512`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Axis {
    /// Number of elements along the axis; at least 1.
    pub size: usize,
    /// What the axis means.
    pub role: Role,
}

impl Axis {
    /// An axis of `size` elements with `role`.
    pub fn new(size: usize, role: Role) -> Self {
        Axis { size, role }
    }

    /// A feature axis.
    pub fn channel(size: usize) -> Self {
        Axis::new(size, Role::Channel)
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.role.letter(), self.size)
    }
}

impl FromStr for Axis {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is not an axis; one looks like `t512`");
        let letter = s.chars().next().ok_or_else(bad)?;
        let (role, _) = Role::LETTERS.iter().find(|(_, l)| *l == letter).ok_or_else(bad)?;
        let size = s[1..].parse().map_err(|_| bad())?;
        Ok(Axis::new(size, *role))
    }
}

/// Most axes of a value of a program that a text describes.
pub const MAX_RANK: usize = 16;

/// Most elements of a tensor, and the largest size of anything: products and sums of sizes stay in range.
pub(crate) const MAX_ELEMENTS: usize = 1 << 40;

/// Whether axes of these sizes hold at most [`MAX_ELEMENTS`].
pub(crate) fn is_storable(sizes: impl IntoIterator<Item = usize>) -> bool {
    let count = sizes.into_iter().try_fold(1_usize, |n, s| n.checked_mul(s));
    count.is_some_and(|n| n <= MAX_ELEMENTS)
}

/// The axes of a value, outermost first. Most values have at most four.
pub type Axes = SmallVec<[Axis; 4]>;

/// Element type and axes of a value. Printed as `f32[b4, t512, c512]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Axes, outermost first; none for a scalar.
    pub axes: Axes,
}

impl Type {
    /// A type from its parts.
    pub fn new(dtype: DType, axes: impl IntoIterator<Item = Axis>) -> Self {
        Type { dtype, axes: axes.into_iter().collect() }
    }

    /// A scalar.
    pub fn scalar(dtype: DType) -> Self {
        Type::new(dtype, [])
    }

    /// float32 with feature axes only: the type of parameters.
    pub fn channels(sizes: &[usize]) -> Self {
        Type::new(DType::F32, sizes.iter().map(|&s| Axis::channel(s)))
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> SmallVec<[usize; 4]> {
        self.axes.iter().map(|a| a.size).collect()
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.axes.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.axes.iter().map(|a| a.size).product()
    }

    /// Whether there are no elements; never true of a verified graph.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the stored value.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// Index of the time axis, if there is one.
    pub fn time_axis(&self) -> Option<usize> {
        self.axes.iter().position(|a| a.role == Role::Time)
    }

    /// The same axes with another element type.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Type { dtype, axes: self.axes.clone() }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, axis) in self.axes.iter().enumerate() {
            write!(f, "{}{axis}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

impl FromStr for Type {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is not a type; one looks like `f32[b4, c512]`");
        let (dtype, rest) = s.split_once('[').ok_or_else(bad)?;
        let inner = rest.strip_suffix(']').ok_or_else(bad)?;
        let axes: Result<Axes, String> =
            inner.split(',').map(str::trim).filter(|a| !a.is_empty()).map(str::parse).collect();
        Ok(Type { dtype: dtype.trim().parse()?, axes: axes? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_round_trip_through_text() {
        for text in ["f32[]", "bf16[b4, t512, h8, c64]", "i32[b1, t7]", "bool[c3]"] {
            assert_eq!(text.parse::<Type>().unwrap().to_string(), text);
        }
        for text in ["f32", "f33[]", "f32[x4]", "f32[c]"] {
            assert!(text.parse::<Type>().is_err(), "{text}");
        }
    }
}
