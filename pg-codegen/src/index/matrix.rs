//! Operands of the kernels that are not regions: matrices with strides, and contiguous buffers.
//!
//! A view of a matmul operand rides on strides where its axes merge into batch, row and column; it must
//! be copied (the caller keeps the view itself in memory) only where they do not.

use pg_ir::graph::{Graph, Node, ValueId};
use pg_ir::interp::strides;
use pg_ir::op::Op;

use crate::index::access::{Blocked, Context, locate};
use crate::index::view::Point;
use crate::plan::{Matmul, MatrixView, Member, Segment};

/// Sizes and element strides of some axes.
type Layout = Vec<(usize, i64)>;

/// Where a value lies: its buffer, the offset, and a stride for each axis.
fn layout(cx: Context<'_>, value: ValueId) -> Result<(ValueId, usize, Layout), Blocked> {
    let sizes = cx.graph.ty(value).shape();
    let (buffer, map) = match locate(cx, value, Point::identity(sizes.len()), &sizes) {
        // In memory, what is reshaped is the reshaped value as well.
        Err(Blocked::Refine { reshaped: Some(v), .. }) if v != value && !cx.in_memory(v) => {
            return Err(Blocked::Store(v, "a reshape of it is read as it lies"));
        }
        Err(Blocked::Refine { .. }) => return Err(Blocked::Store(value, "a reshape splits its axes")),
        other => other?,
    };
    if !map.guards.is_empty() {
        return Err(Blocked::Store(value, "a matmul cannot skip padded elements"));
    }
    let layout = sizes.iter().copied().zip(map.at.strides.iter().copied()).collect();
    Ok((buffer, map.at.offset as usize, layout))
}

/// One size and stride for several axes, if they are walked as one.
fn merge(axes: &[(usize, i64)]) -> Option<(usize, usize)> {
    let mut axes = axes.iter().filter(|(size, _)| *size > 1).rev();
    let Some(&(mut size, stride)) = axes.next() else { return Some((1, 0)) };
    for &(outer, outer_stride) in axes {
        if outer_stride != stride * size as i64 {
            return None;
        }
        size *= outer;
    }
    Some((size, stride as usize))
}

/// An operand of a canonical dot.
struct Matrix {
    buffer: ValueId,
    offset: usize,
    /// (size, stride) of the batch, free and contracted axes.
    axes: [(usize, usize); 3],
}

fn matrix(cx: Context<'_>, node: &Node, index: usize) -> Result<Matrix, Blocked> {
    let Op::Dot(dims) = &node.op else { unreachable!("a dot") };
    let value = node.operands[index];
    let (buffer, offset, axes) = layout(cx, value)?;
    let (n_batch, n_free) = (dims.batch.len(), axes.len() - dims.contract.len());
    match [&axes[..n_batch], &axes[n_batch..n_free], &axes[n_free..]].map(merge) {
        [Some(batch), Some(free), Some(contract)] => {
            Ok(Matrix { buffer, offset, axes: [batch, free, contract] })
        }
        _ => Err(Blocked::Store(value, "its axes do not merge into a matrix")),
    }
}

/// A canonical dot as a product without an epilogue. `c` is contiguous.
pub(crate) fn product(cx: Context<'_>, node: &Node) -> Result<Member, Blocked> {
    let ([batch, m, n], first) = segment(cx, node, 0)?;
    let matmul = Matmul {
        batch,
        m,
        n,
        k: first.k,
        a: first.a,
        b: first.b,
        c: MatrixView { offset: 0, batch: m * n, row: n, col: 1 },
        accumulate: false,
        symmetric: is_symmetric(node),
    };
    let further = (1..node.operands.len() / 2).map(|pair| segment(cx, node, pair).map(|s| s.1));
    Ok(Member { segments: further.collect::<Result<_, _>>()?, ..Member::from(matmul) })
}

/// Matrices, rows and columns of a pair's product, and the pair.
fn segment(cx: Context<'_>, node: &Node, pair: usize) -> Result<([usize; 3], Segment), Blocked> {
    let (a, b) = (matrix(cx, node, 2 * pair)?, matrix(cx, node, 2 * pair + 1)?);
    let ([batch, m, k], [b_batch, n, b_k]) = (a.axes, b.axes);
    let segment = Segment {
        k: k.0,
        a: MatrixView { offset: a.offset, batch: batch.1, row: m.1, col: k.1 },
        b: MatrixView { offset: b.offset, batch: b_batch.1, row: b_k.1, col: n.1 },
    };
    Ok(([batch.0, m.0, n.0], segment))
}

/// Whether a canonical dot is of a value with itself over one free axis: x · xᵀ.
pub(crate) fn is_symmetric(node: &Node) -> bool {
    let [a, b] = node.operands[..] else { return false };
    matches!(&node.op, Op::Dot(dims) if a == b && dims.contract.first().is_some_and(|c| c.0 == dims.batch.len() + 1))
}

/// The buffer that a node with a kernel family of its own reads as one of its operands.
pub(crate) fn operand(cx: Context<'_>, node: &Node, index: usize) -> Result<ValueId, Blocked> {
    match node.op {
        Op::Dot(_) => matrix(cx, node, index).map(|m| m.buffer),
        _ => contiguous(cx, node.operands[index]),
    }
}

/// The buffer that holds exactly the elements of `value` in row-major order.
fn contiguous(cx: Context<'_>, value: ValueId) -> Result<ValueId, Blocked> {
    if let Some(buffer) = cx.buffer_of(value) {
        return Ok(buffer);
    }
    let (buffer, offset, axes) = layout(cx, value)?;
    let dense = strides(&cx.graph.ty(value).shape());
    let same = axes.iter().zip(dense).all(|(&(size, stride), d)| size == 1 || stride == d as i64);
    if same && offset == 0 && cx.graph.ty(buffer).len() == cx.graph.ty(value).len() {
        Ok(buffer)
    } else {
        Err(Blocked::Store(value, "its kernel reads a contiguous buffer"))
    }
}

/// Strides with which the dot that computes `from` can write straight into a contiguous buffer of its
/// view `to`; `None` if the view is not a rearrangement of whole matrices.
pub(crate) fn written_as(cx: Context<'_>, from: ValueId, to: ValueId) -> Option<MatrixView> {
    let node = cx.graph.producer(from);
    let Op::Dot(dims) = &node.op else { return None };
    let (a, b) = (cx.graph.ty(node.operands[0]).shape(), cx.graph.ty(node.operands[1]).shape());
    let (nb, nk) = (dims.batch.len(), dims.contract.len());
    let sizes = [&a[..nb], &a[nb..a.len() - nk], &b[nb..b.len() - nk]].map(|s| s.iter().product::<usize>());
    let (buffer, offset, axes) = layout(cx, to).ok()?;
    if buffer != from || offset != 0 {
        return None;
    }
    // Axes of `to` in the order in which the dot writes them, each with its stride in `to`.
    let dense = strides(&cx.graph.ty(to).shape());
    let mut moved: Vec<(i64, usize, i64)> =
        axes.iter().zip(dense).filter(|((n, _), _)| *n > 1).map(|(&(n, s), d)| (s, n, d as i64)).collect();
    moved.sort_unstable_by_key(|m| std::cmp::Reverse(m.0));
    let mut expected = 1;
    for &(stride, size, _) in moved.iter().rev() {
        if stride != expected {
            return None;
        }
        expected *= size as i64;
    }
    let mut rest = moved.into_iter().map(|(_, n, d)| (n, d)).collect::<Layout>();
    let mut part = |size: usize| {
        let mut product = 1;
        let mut taken = 0;
        while product < size {
            product *= rest.get(taken)?.0;
            taken += 1;
        }
        let group: Layout = rest.drain(..taken).collect();
        (product == size).then(|| merge(&group))?.map(|(_, stride)| stride)
    };
    let (batch, row, col) = (part(sizes[0])?, part(sizes[1])?, part(sizes[2])?);
    Some(MatrixView { offset: 0, batch, row, col })
}

/// Whether everything that reads `from` reads it through views that lead to `to`.
pub(crate) fn only_reaches(graph: &Graph, readers: &[Vec<ValueId>], from: ValueId, to: ValueId) -> bool {
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        let is_output = graph.outputs.iter().any(|o| o.value == at);
        if is_output || readers[at.index()].is_empty() {
            return false;
        }
        for &reader in readers[at.index()].iter().filter(|&&r| r != to) {
            if !graph.producer(reader).op.is_view() {
                return false;
            }
            open.push(reader);
        }
    }
    true
}
