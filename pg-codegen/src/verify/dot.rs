//! Products against the dots that they compute: sizes, which element of which operand each matrix element is,
//! where the result goes, and whether an old value is added.
//!
//! Views of operands ride on strides, and so do views of results, which may be written straight into what is a view of
//! them, or the sum of such a view with what a slot held. Nothing here knows the form that dots are brought to.

use pg_ir::graph::{Node, ValueId};
use pg_ir::op::{Binary, DotDims, Op};
use pg_ir::ty::DType;

use super::access::Product;
use super::element::{Below, below, join, ravel, split, unravel};
use super::library::Pair;
use crate::plan::{Matmul, MatrixView};

/// A dot, its axes in three groups.
pub(super) struct Dot<'a> {
    pair: Pair<'a>,
    node: &'a Node,
    dims: &'a DotDims,
    /// Those of the segment at hand.
    operands: [ValueId; 2],
    /// Axes of a and of b: batch, free, contracted.
    axes: [[Vec<usize>; 3]; 2],
    /// Sizes of batch, free axes of a, free axes of b, contracted.
    sizes: [Vec<usize>; 4],
}

impl<'a> Dot<'a> {
    pub(super) fn new(pair: Pair<'a>, node: &'a Node, dims: &'a DotDims) -> Dot<'a> {
        Dot::of_pair(pair, node, dims, 0)
    }

    fn of_pair(pair: Pair<'a>, node: &'a Node, dims: &'a DotDims, segment: usize) -> Dot<'a> {
        let operands = [0, 1].map(|i| node.operands[2 * segment + i]);
        let types = operands.map(|v| pair.s.graph.ty(v));
        let lhs = |pairs: &[(usize, usize)]| pairs.iter().map(|p| p.0).collect::<Vec<_>>();
        let rhs = |pairs: &[(usize, usize)]| pairs.iter().map(|p| p.1).collect::<Vec<_>>();
        let (rank_a, rank_b) = (types[0].rank(), types[1].rank());
        let a = [lhs(&dims.batch), dims.lhs_free(rank_a), lhs(&dims.contract)];
        let b = [rhs(&dims.batch), dims.rhs_free(rank_b), rhs(&dims.contract)];
        let sizes =
            |i: usize, axes: &[usize]| axes.iter().map(|&x| types[i].axes[x].size).collect::<Vec<_>>();
        let sizes = [sizes(0, &a[0]), sizes(0, &a[1]), sizes(1, &b[1]), sizes(0, &a[2])];
        Dot { pair, node, dims, operands, axes: [a, b], sizes }
    }

    pub(super) fn check(&self, product: &Product<'_>) -> Result<(), String> {
        let m = product.matmul;
        if product.segments.len() != self.node.operands.len() / 2 {
            let (have, want) = (product.segments.len(), self.node.operands.len() / 2);
            return Err(format!("it has {have} segments of k, the graph {want}"));
        }
        for (segment, (m, [a, b])) in product.segments.iter().zip(product.operands()).enumerate() {
            let pair = Dot::of_pair(self.pair, self.node, self.dims, segment);
            let want = [0, 1, 2, 3].map(|i| pair.sizes[i].iter().product::<usize>());
            let have = [m.batch, m.m, m.n, m.k];
            if want != have {
                return Err(format!("it multiplies {have:?} (batch, m, n, k), the graph {want:?}"));
            }
            pair.check_operand(0, m.a, [m.batch, m.m, m.k], a)?;
            pair.check_operand(1, m.b, [m.batch, m.k, m.n], b)?;
        }
        if product.region.is_none() { self.check_result(m, product.rest()[0]) } else { Ok(()) }
    }

    /// The matrices of an operand.
    fn check_operand(
        &self,
        operand: usize,
        view: MatrixView,
        sizes: [usize; 3],
        arg: usize,
    ) -> Result<(), String> {
        let Some(held) = self.pair.roles.reads[arg] else { return Err("it reads nothing".into()) };
        for at in (self.pair.points)(&sizes) {
            let [i, row, col] = [at[0], at[1], at[2]];
            let element = self.element(operand, if operand == 0 { [i, row, col] } else { [i, col, row] });
            let found = self.pair.through(self.operands[operand], element, held)?;
            if found != place(view, i, row, col) {
                return Err(format!("operand {operand} has another element at row {row}, column {col}"));
            }
        }
        Ok(())
    }

    /// The element of an operand at indices of batch, free and contracted axes, each group as one axis.
    fn element(&self, operand: usize, at: [usize; 3]) -> usize {
        let axes = &self.pair.s.graph.ty(self.operands[operand]).axes;
        let sizes = [&self.sizes[0], &self.sizes[1 + operand], &self.sizes[3]];
        let mut coords = unravel(0, axes);
        for ((axes, sizes), at) in self.axes[operand].iter().zip(sizes).zip(at) {
            axes.iter().zip(split(at, sizes)).for_each(|(&axis, coord)| coords[axis] = coord);
        }
        ravel(&coords, axes)
    }

    /// Where the result goes: it is what is written, rounded or not, or what is written is a view of it, or the sum of
    /// the old value there with such a view.
    fn check_result(&self, m: &Matmul, arg: usize) -> Result<(), String> {
        let (s, roles) = (self.pair.s, self.pair.roles);
        let Some(held) = roles.writes[arg] else { return Err("it writes nothing".into()) };
        let shape = s.graph.ty(held).shape();
        for at in (self.pair.points)(&shape).iter().map(|at| join(at, &shape)) {
            let old = roles.reads[arg].filter(|_| m.accumulate);
            let (element, added) = self.written(held, at, old)?;
            if added != m.accumulate {
                let adds = if m.accumulate { "adds to an old value" } else { "adds nothing" };
                return Err(format!("it {adds}, unlike {}", s.describe(held)));
            }
            let i = split(element, &[m.batch, m.m, m.n]);
            if place(m.c, i[0], i[1], i[2]) != at {
                return Err(format!("element {at} of {} is written elsewhere", s.describe(held)));
            }
        }
        Ok(())
    }

    /// The element of the result that an element of what is written is, and whether the old value is added to it.
    fn written(&self, held: ValueId, at: usize, old: Option<ValueId>) -> Result<(usize, bool), String> {
        let graph = self.pair.s.graph;
        let (mut value, mut element, mut added) = (held, at, false);
        while value != self.node.first {
            let node = graph.producer(value);
            match (&node.op, below(graph, value, element)) {
                (_, Some(Below::At(operand, at))) => (value, element) = (operand, at),
                (Op::Cast(DType::BF16), _) if value == held => value = node.operands[0],
                // The old value is added where it lies.
                (Op::Binary(Binary::Add), _)
                    if !added && element == at && old.is_some_and(|old| node.operands.contains(&old)) =>
                {
                    value = node.operands[usize::from(Some(node.operands[0]) == old)];
                    added = true;
                }
                _ => return Err(format!("it writes {}, which is more than it", self.pair.s.describe(held))),
            }
        }
        Ok((element, added))
    }
}

fn place(view: MatrixView, batch: usize, row: usize, col: usize) -> usize {
    view.offset + batch * view.batch + row * view.row + col * view.col
}
