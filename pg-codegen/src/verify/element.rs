//! One element of a value, followed through views: where it lies in what is viewed, or that it is outside, where a pad
//! or a shift gives zero.
//!
//! An element is a number: its place in the value's row-major order. So a reshape leaves it alone, and no affine map is
//! composed here: this is what composed index maps are held to.

use pg_ir::graph::{Graph, ValueId};
use pg_ir::op::Op;
use pg_ir::ty::Axis;
use smallvec::SmallVec;

/// One index an axis.
pub(super) type Coords = SmallVec<[usize; 6]>;

/// Where an element of a view lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Below {
    /// In the viewed value.
    At(ValueId, usize),
    /// Nowhere: it is zero.
    Outside,
}

/// Indices of an element.
pub(super) fn unravel(mut element: usize, axes: &[Axis]) -> Coords {
    let mut coords: Coords = SmallVec::from_elem(0, axes.len());
    for (coord, axis) in coords.iter_mut().zip(axes).rev() {
        (*coord, element) = (element % axis.size, element / axis.size);
    }
    coords
}

/// The element at indices.
pub(super) fn ravel(coords: &[usize], axes: &[Axis]) -> usize {
    coords.iter().zip(axes).fold(0, |at, (coord, axis)| at * axis.size + coord)
}

/// [`unravel`] for sizes.
pub(super) fn split(mut element: usize, sizes: &[usize]) -> Coords {
    let mut coords: Coords = SmallVec::from_elem(0, sizes.len());
    for (coord, size) in coords.iter_mut().zip(sizes).rev() {
        (*coord, element) = (element % size, element / size);
    }
    coords
}

/// [`ravel`] for sizes.
pub(super) fn join(coords: &[usize], sizes: &[usize]) -> usize {
    coords.iter().zip(sizes).fold(0, |at, (coord, size)| at * size + coord)
}

/// One step from a view, or an identity, to its operand; `None` from anything else.
pub(super) fn below(graph: &Graph, value: ValueId, element: usize) -> Option<Below> {
    let node = graph.producer(value);
    let &[operand, ..] = &node.operands[..] else { return None };
    let moved = |axis: usize, by: i64| {
        let (from, to) = (&graph.ty(operand).axes, &graph.ty(value).axes);
        let mut coords = unravel(element, to);
        let at = coords[axis] as i64 + by;
        if at < 0 || at >= from[axis].size as i64 {
            return Below::Outside;
        }
        coords[axis] = at as usize;
        Below::At(operand, ravel(&coords, from))
    };
    Some(match &node.op {
        Op::Reshape(_) | Op::StopGradient => Below::At(operand, element),
        Op::Transpose(perm) => {
            let coords = unravel(element, &graph.ty(value).axes);
            let mut from = coords.clone();
            perm.iter().zip(&coords).for_each(|(&p, &coord)| from[p] = coord);
            Below::At(operand, ravel(&from, &graph.ty(operand).axes))
        }
        Op::Broadcast(axes) => {
            let from = &graph.ty(operand).axes;
            let lead = axes.len() - from.len();
            // Most are of a scalar or along leading axes.
            if from[..] == axes[lead..] || from.iter().all(|axis| axis.size == 1) {
                return Some(Below::At(operand, element % graph.ty(operand).len()));
            }
            let coords = unravel(element, axes);
            let kept = coords[lead..].iter().zip(from);
            let kept: Coords = kept.map(|(&coord, axis)| if axis.size == 1 { 0 } else { coord }).collect();
            Below::At(operand, ravel(&kept, from))
        }
        &Op::Slice { axis, start, .. } => moved(axis, start as i64),
        &Op::Pad { axis, before, .. } => moved(axis, -(before as i64)),
        &Op::Shift { axis, by } => moved(axis, -by),
        _ => return None,
    })
}
