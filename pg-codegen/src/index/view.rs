//! Index-map composition: where an element of a view lies in the value below it.
//!
//! A kernel walks a domain of index tuples. A [`Point`] says which element of a value is wanted at each
//! of them: one affine coordinate per axis of the value, and guards from pads and shifts. Stepping down
//! a view op rewrites the point; when it arrives at a value in memory it becomes the [`IndexMap`] of a
//! load. It must never approximate: a reshape whose coordinates are not affine is refused (or answered
//! with a finer domain), and an element outside a guard is zero whatever lies below.

use pg_ir::interp::strides;
use pg_ir::op::Op;
use pg_ir::ty::Type;
use smallvec::SmallVec;

use crate::region::{Affine, Guard, IndexMap};

/// Sizes of axes, outermost first.
pub(crate) type Sizes = SmallVec<[usize; 6]>;

/// One coordinate per axis of a value, over the axes of a domain.
pub(crate) type Coords = SmallVec<[Affine; 4]>;

/// Why a value cannot be computed where it is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Domain axis `axis` must be split, its inner part `inner` wide, for coordinates to be affine.
    Refine {
        /// The domain axis.
        axis: usize,
        /// Size of the inner part.
        inner: usize,
    },
    /// No split helps.
    NotAffine,
}

impl Affine {
    /// The same value at every index of a domain of `rank` axes.
    pub(crate) fn constant(rank: usize, offset: i64) -> Self {
        Affine { offset, strides: SmallVec::from_elem(0, rank) }
    }

    /// The index along one axis.
    pub(crate) fn axis(rank: usize, axis: usize) -> Self {
        let mut out = Affine::constant(rank, 0);
        out.strides[axis] = 1;
        out
    }

    /// Adds `factor` · `other`.
    pub(crate) fn add_scaled(&mut self, other: &Affine, factor: i64) {
        self.offset += other.offset * factor;
        self.strides.iter_mut().zip(&other.strides).for_each(|(s, o)| *s += o * factor);
    }

    /// Σ strides[i] · coords[i].
    pub(crate) fn combine(rank: usize, coords: &[Affine], strides: &[usize]) -> Affine {
        let mut out = Affine::constant(rank, 0);
        coords.iter().zip(strides).for_each(|(c, &s)| out.add_scaled(c, s as i64));
        out
    }
}

/// Which element of a value is wanted at each index of a domain.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Point {
    /// One coordinate per axis of the value.
    pub(crate) coords: Coords,
    /// Where any of these fails, zero is wanted. Sorted and without duplicates.
    pub(crate) guards: Vec<Guard>,
}

impl Point {
    /// The element with the domain's own index: the value has the domain's axes.
    pub(crate) fn identity(rank: usize) -> Self {
        Point { coords: (0..rank).map(|i| Affine::axis(rank, i)).collect(), guards: Vec::new() }
    }

    /// The element's place in a contiguous row-major buffer of the value.
    pub(crate) fn map(&self, ty: &Type, rank: usize) -> IndexMap {
        let at = Affine::combine(rank, &self.coords, &strides(&ty.shape()));
        IndexMap { at, guards: self.guards.clone() }
    }

    fn guard(&mut self, expr: Affine, size: usize, domain: &[usize]) {
        let size = size as i64;
        let (low, high) = expr.interval(domain);
        if low >= 0 && high < size {
            return;
        }
        let guard = Guard { expr, size };
        // A fixed order makes equal sets of guards equal.
        let key = |g: &Guard| (g.size, g.expr.offset, g.expr.strides.clone());
        match self.guards.binary_search_by_key(&key(&guard), key) {
            Ok(_) => {}
            Err(at) => self.guards.insert(at, guard),
        }
    }
}

/// The point of a view's operand at which the view's element at `point` lies.
pub(crate) fn step(
    op: &Op,
    operand: &Type,
    result: &Type,
    point: &Point,
    domain: &[usize],
) -> Result<Point, Refused> {
    let mut out = point.clone();
    match op {
        Op::Reshape(_) => {
            out.coords = regroup(&point.coords, &result.shape(), &operand.shape(), domain)?;
        }
        Op::Transpose(perm) => {
            perm.iter().enumerate().for_each(|(i, &p)| out.coords[p] = point.coords[i].clone());
        }
        Op::Broadcast(_) => {
            let lead = result.rank() - operand.rank();
            out.coords.drain(..lead);
            for (coord, axis) in out.coords.iter_mut().zip(&operand.axes) {
                if axis.size == 1 {
                    *coord = Affine::constant(domain.len(), 0);
                }
            }
        }
        &Op::Slice { axis, start, .. } => out.coords[axis].offset += start as i64,
        &Op::Pad { axis, before, .. } => {
            out.coords[axis].offset -= before as i64;
            out.guard(out.coords[axis].clone(), operand.axes[axis].size, domain);
        }
        &Op::Shift { axis, by } => {
            out.coords[axis].offset -= by;
            out.guard(out.coords[axis].clone(), operand.axes[axis].size, domain);
        }
        _ => unreachable!("{op} is not a view"),
    }
    Ok(out)
}

/// Coordinates of a shape `to` from those of a shape `from` with the same number of elements, in
/// row-major order. Axes that both shapes share pass through; only groups that differ are linearised
/// and split again.
pub(crate) fn regroup(
    coords: &[Affine],
    from: &[usize],
    to: &[usize],
    domain: &[usize],
) -> Result<Coords, Refused> {
    let rank = domain.len();
    let mut out = Coords::new();
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        let (start_i, start_j) = (i, j);
        let (mut p, mut q) = (1, 1);
        // Each round takes the smallest groups of axes with equal products.
        loop {
            if p <= q && i < from.len() {
                p *= from[i];
                i += 1;
            } else if j < to.len() {
                q *= to[j];
                j += 1;
            } else {
                panic!("internal error: shapes {from:?} and {to:?} differ in size");
            }
            if p == q {
                break;
            }
        }
        let group = &from[start_i..i];
        let mut rest = Affine::combine(rank, &coords[start_i..i], &strides(group));
        let mut tail = Coords::new();
        for &size in to[start_j..j].iter().skip(1).rev() {
            let (quotient, remainder) = split(&rest, size, domain)?;
            tail.push(remainder);
            rest = quotient;
        }
        if start_j < j {
            tail.push(rest);
        }
        tail.reverse();
        out.extend(tail);
    }
    Ok(out)
}

/// Quotient and remainder of an affine expression by `size`, if both are affine over the domain.
fn split(expr: &Affine, size: usize, domain: &[usize]) -> Result<(Affine, Affine), Refused> {
    let rank = domain.len();
    let k = size as i64;
    let (mut quotient, mut remainder) = (Affine::constant(rank, 0), Affine::constant(rank, 0));
    for (axis, &stride) in expr.strides.iter().enumerate() {
        if stride % k == 0 {
            quotient.strides[axis] = stride / k;
        } else {
            remainder.strides[axis] = stride;
        }
    }
    quotient.offset = expr.offset.div_euclid(k);
    remainder.offset = expr.offset.rem_euclid(k);
    let (low, high) = remainder.interval(domain);
    if low >= 0 && high < k {
        return Ok((quotient, remainder));
    }
    for (axis, &stride) in remainder.strides.iter().enumerate() {
        let n = domain[axis] as i64;
        if stride > 0 && k % stride == 0 {
            let inner = k / stride;
            if inner > 1 && inner < n && n % inner == 0 {
                return Err(Refused::Refine { axis, inner: inner as usize });
            }
        }
    }
    Err(Refused::NotAffine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ir::ty::{Axis, DType};

    fn ty(sizes: &[usize]) -> Type {
        Type::new(DType::F32, sizes.iter().map(|&s| Axis::channel(s)))
    }

    #[test]
    fn a_reshape_that_splits_an_axis_asks_for_a_finer_domain() {
        let point = Point::identity(2);
        let op = Op::Reshape(ty(&[6, 2, 4]).axes);
        // Elements of [6, 8] lie in [6, 2, 4] at (i, j / 4, j % 4).
        let found = step(&op, &ty(&[6, 2, 4]), &ty(&[6, 8]), &point, &[6, 8]);
        assert_eq!(found, Err(Refused::Refine { axis: 1, inner: 4 }));
        let coords = [Affine::axis(3, 0), Affine { offset: 0, strides: SmallVec::from_slice(&[0, 4, 1]) }];
        let fine = regroup(&coords, &[6, 8], &[6, 2, 4], &[6, 2, 4]).unwrap();
        assert_eq!(fine[1], Affine::axis(3, 1));
        assert_eq!(fine[2], Affine::axis(3, 2));
    }

    #[test]
    fn a_shift_of_a_pad_guards_both() {
        let (inner, outer) = (ty(&[5]), ty(&[8]));
        let shifted = step(&Op::Shift { axis: 0, by: 2 }, &outer, &outer, &Point::identity(1), &[8]).unwrap();
        assert_eq!(shifted.coords[0].offset, -2);
        let padded = step(&Op::Pad { axis: 0, before: 1, after: 2 }, &inner, &outer, &shifted, &[8]).unwrap();
        assert_eq!(padded.coords[0].offset, -3);
        assert_eq!(
            padded.guards.iter().map(|g| (g.expr.offset, g.size)).collect::<Vec<_>>(),
            [(-3, 5), (-2, 8)]
        );
    }
}
