//! Kernels of a family of their own against the nodes that they compute: sizes, which element of which operand each
//! matrix element is, where results go, whether an old value is added; and constants against what they are constants of.
//!
//! Views of operands ride on strides, views of results on where they are written. Both are compared element by element
//! at [`points`], through the graph's views one by one.

use pg_ir::graph::{Node, NodeId, ValueId};
use pg_ir::op::{Binary, DotDims, Op};
use pg_ir::ty::DType;

use super::access::products;
use super::element::{Below, below, join, ravel, split, unravel};
use super::known::bits;
use super::{Check, Finding, Subject, points};
use crate::plan::{AttentionShape, Kernel, Launch, Matmul, MatrixView, Place};
use crate::witness::Roles;

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let mut tables = vec![false; s.plan.buffers.len()];
    for (i, launch, roles) in s.launches() {
        let fault = |message: String| Finding::at(Check::Meaning, i, message);
        check_launch(s, launch, roles).map_err(fault)?;
        for (arg, value) in roles.reads.iter().enumerate() {
            let at = launch.args[arg].0 as usize;
            if let (Some(value), Place::Constant(table)) = (value, &s.plan.buffers[at].place)
                && !std::mem::replace(&mut tables[at], true)
            {
                check_table(s, table, *value).map_err(fault)?;
            }
        }
    }
    Ok(())
}

fn check_table(s: Subject<'_>, table: &[u32], value: ValueId) -> Result<(), String> {
    if !s.known.is_known(value) {
        return Err(format!("a constant stands for {}, which depends on inputs", s.describe(value)));
    }
    let ty = s.graph.ty(value);
    for at in points::elements(&ty.shape(), 12) {
        let want = s.known.element(value, at).map(|number| bits(number, ty.dtype));
        if want.is_some_and(|want| want != table[at]) {
            return Err(format!("element {at} of the constant {} is another number", s.describe(value)));
        }
    }
    Ok(())
}

fn check_launch(s: Subject<'_>, launch: &Launch, roles: &Roles) -> Result<(), String> {
    let kernel = s.kernel(launch);
    for (product, &id) in products(kernel).iter().zip(&roles.opaque) {
        let node = s.graph.node(id);
        let Op::Dot(dims) = &node.op else { return Err(not(s, id, "a product")) };
        let dot = Dot::new(s, node, dims);
        dot.check(s, product.matmul, roles, &product.args)
            .map_err(|e| format!("as {}, {e}", s.describe(node.first)))?;
        if product.region.is_none() {
            dot.check_result(s, product.matmul, roles, product.args[2])
                .map_err(|e| format!("as {}, {e}", s.describe(node.first)))?;
        }
    }
    match kernel {
        Kernel::Attention(shape) => {
            let node = s.graph.node(roles.opaque[0]);
            let Op::Attention { scale } = node.op else { return Err(not(s, roles.opaque[0], "attention")) };
            check_attention(s, shape, node, scale.get())?;
            check_args(s, node, roles, &[0, 1, 2], &[3, 4])
        }
        Kernel::AttentionGrad(shape) => {
            let node = s.graph.node(roles.opaque[0]);
            let Op::AttentionGrad { scale } = node.op else {
                return Err(not(s, roles.opaque[0], "attention's gradient"));
            };
            check_attention(s, shape, node, scale.get())?;
            check_args(s, node, roles, &[0, 1, 2, 3, 4, 5], &[6, 7, 8])
        }
        &Kernel::ScatterAdd { rows, width, count } => {
            let node = s.graph.node(roles.opaque[0]);
            let Op::ScatterAdd { rows: want } = node.op else {
                return Err(not(s, roles.opaque[0], "a scatter"));
            };
            let (ids, values) = (s.graph.ty(node.operands[0]).len(), s.graph.ty(node.operands[1]).len());
            if (rows, count, count * width) != (want, ids, values) {
                return Err(format!("it is {count} × {width} into {rows} rows, the graph has {want} rows"));
            }
            check_args(s, node, roles, &[0, 1], &[2])
        }
        _ => Ok(()),
    }
}

fn not(s: Subject<'_>, id: NodeId, what: &str) -> String {
    format!("the kernel is {what}, the node is {}", s.describe(s.graph.node(id).first))
}

fn check_attention(s: Subject<'_>, shape: &AttentionShape, node: &Node, scale: f64) -> Result<(), String> {
    let size = |operand: usize, axis: usize| s.graph.ty(node.operands[operand]).axes[axis].size;
    let want = [size(0, 0), size(0, 1), size(0, 2), size(1, 2), size(0, 3)];
    let have = [shape.batch, shape.time, shape.heads, shape.kv_heads, shape.dim];
    if want != have || shape.scale.to_bits() != (scale as f32).to_bits() {
        let have_scale = shape.scale;
        return Err(format!("shape {have:?} and scale {have_scale}, the graph has {want:?} and {scale}"));
    }
    Ok(())
}

/// Operands and results that are whole contiguous buffers.
fn check_args(
    s: Subject<'_>,
    node: &Node,
    roles: &Roles,
    reads: &[usize],
    writes: &[usize],
) -> Result<(), String> {
    for (i, &arg) in reads.iter().enumerate() {
        let (operand, Some(held)) = (node.operands[i], roles.reads[arg]) else { continue };
        for at in points::elements(&s.graph.ty(operand).shape(), 4) {
            if through(s, operand, at, held)? != at {
                return Err(format!("operand {i} does not lie in argument {arg} in order"));
            }
        }
    }
    for (result, &arg) in s.graph.results(node).zip(writes) {
        let held = roles.writes[arg];
        if held.is_none_or(|held| held != result && !is_rounded(s, held, result)) {
            return Err(format!("argument {arg} is not its result {}", s.describe(result)));
        }
    }
    Ok(())
}

/// Whether a value is another one, rounded as a kernel rounds what it writes.
pub(super) fn is_rounded(s: Subject<'_>, value: ValueId, of: ValueId) -> bool {
    let node = s.graph.producer(value);
    node.op == Op::Cast(DType::BF16) && node.operands[0] == of
}

/// The element of `held` that an element of a view of it is.
fn through(s: Subject<'_>, value: ValueId, element: usize, held: ValueId) -> Result<usize, String> {
    let (mut value, mut element) = (value, element);
    while value != held {
        match below(s.graph, value, element) {
            Some(Below::At(operand, at)) => (value, element) = (operand, at),
            Some(Below::Outside) => {
                return Err(format!("an element of a view of {} is outside of it", s.describe(held)));
            }
            None => {
                let (want, have) = (s.describe(value), s.describe(held));
                return Err(format!("it reads {have}, the graph has {want} there"));
            }
        }
    }
    Ok(element)
}

/// A contraction, its axes in three groups.
struct Dot<'a> {
    node: &'a Node,
    /// Axes of a and of b: batch, free, contracted.
    axes: [[Vec<usize>; 3]; 2],
    /// Sizes of batch, free axes of a, free axes of b, contracted.
    sizes: [Vec<usize>; 4],
}

impl<'a> Dot<'a> {
    fn new(s: Subject<'a>, node: &'a Node, dims: &DotDims) -> Dot<'a> {
        let types = [0, 1].map(|i| s.graph.ty(node.operands[i]));
        let lhs = |pairs: &[(usize, usize)]| pairs.iter().map(|p| p.0).collect::<Vec<_>>();
        let rhs = |pairs: &[(usize, usize)]| pairs.iter().map(|p| p.1).collect::<Vec<_>>();
        let (rank_a, rank_b) = (types[0].rank(), types[1].rank());
        let a = [lhs(&dims.batch), dims.lhs_free(rank_a), lhs(&dims.contract)];
        let b = [rhs(&dims.batch), dims.rhs_free(rank_b), rhs(&dims.contract)];
        let sizes =
            |i: usize, axes: &[usize]| axes.iter().map(|&x| types[i].axes[x].size).collect::<Vec<_>>();
        let sizes = [sizes(0, &a[0]), sizes(0, &a[1]), sizes(1, &b[1]), sizes(0, &a[2])];
        Dot { node, axes: [a, b], sizes }
    }

    /// Sizes, and the matrices that are multiplied.
    fn check(&self, s: Subject<'_>, m: &Matmul, roles: &Roles, args: &[usize]) -> Result<(), String> {
        let want = [0, 1, 2, 3].map(|i| self.sizes[i].iter().product::<usize>());
        let have = [m.batch, m.m, m.n, m.k];
        if want != have {
            return Err(format!("it multiplies {have:?} (batch, m, n, k), the graph {want:?}"));
        }
        let [batch, rows, cols, inner] = have;
        for (operand, (view, sizes)) in
            [(m.a, [batch, rows, inner]), (m.b, [batch, inner, cols])].into_iter().enumerate()
        {
            let Some(held) = roles.reads[args[operand]] else { continue };
            for at in points::corners(&sizes, 4) {
                let [i, free, k] = if operand == 0 { [at[0], at[1], at[2]] } else { [at[0], at[2], at[1]] };
                let element = self.operand_element(s, operand, [i, free, k]);
                let found = through(s, self.node.operands[operand], element, held)?;
                if found != place(view, at[0], at[1], at[2]) {
                    let (r, c) = (at[1], at[2]);
                    return Err(format!("operand {operand} has another element at row {r}, column {c}"));
                }
            }
        }
        Ok(())
    }

    /// The element of an operand at indices of batch, free and contracted axes, each as one axis.
    fn operand_element(&self, s: Subject<'_>, operand: usize, at: [usize; 3]) -> usize {
        let ty = s.graph.ty(self.node.operands[operand]);
        let sizes = [&self.sizes[0], &self.sizes[1 + operand], &self.sizes[3]];
        let mut coords = unravel(0, &ty.axes);
        for ((axes, sizes), at) in self.axes[operand].iter().zip(sizes).zip(at) {
            axes.iter().zip(split(at, sizes)).for_each(|(&axis, coord)| coords[axis] = coord);
        }
        ravel(&coords, &ty.axes)
    }

    /// Where the result goes: it is what is written, rounded or not, or what is written is a view of it, or the sum of
    /// the old value there with such a view.
    fn check_result(&self, s: Subject<'_>, m: &Matmul, roles: &Roles, arg: usize) -> Result<(), String> {
        let Some(held) = roles.writes[arg] else { return Err("it writes nothing".into()) };
        let ty = s.graph.ty(held);
        for at in points::elements(&ty.shape(), 6) {
            let (mut value, mut element, mut added) = (held, at, false);
            while value != self.node.first {
                let node = s.graph.producer(value);
                let old = roles.reads[arg].filter(|_| m.accumulate && !added);
                match (&node.op, below(s.graph, value, element)) {
                    (_, Some(Below::At(operand, at))) => (value, element) = (operand, at),
                    (Op::Cast(DType::BF16), _) if value == held => value = node.operands[0],
                    (Op::Binary(Binary::Add), _) if old.is_some_and(|old| node.operands.contains(&old)) => {
                        let is_first = Some(node.operands[0]) == old;
                        value = node.operands[usize::from(is_first)];
                        added = true;
                        // The old value is added where it lies.
                        if element != at {
                            return Err("it adds to an old value that lies elsewhere".into());
                        }
                    }
                    _ => return Err(format!("it writes {}, which is more than it", s.describe(held))),
                }
            }
            if added != m.accumulate {
                let adds = if m.accumulate { "adds to an old value" } else { "adds nothing" };
                return Err(format!("it {adds}, unlike {}", s.describe(held)));
            }
            let sizes = [m.batch, m.m, m.n];
            let i = split(element, &sizes);
            if join(&i, &sizes) != element || place(m.c, i[0], i[1], i[2]) != at {
                return Err(format!("element {at} of {} is written elsewhere", s.describe(held)));
            }
        }
        Ok(())
    }
}

fn place(view: MatrixView, batch: usize, row: usize, col: usize) -> usize {
    view.offset + batch * view.batch + row * view.row + col * view.col
}
