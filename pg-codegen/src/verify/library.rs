//! Kernels of a family of their own against the nodes that they compute: attention and scatters, whose operands are
//! whole buffers, here, and products in [`super::dot`]; and constants against what they are constants of.
//!
//! Which element of which operand a kernel reads is compared through the graph's views one by one, at
//! [`points`]: all of them for the first launch of a kernel, two for its others.

use pg_ir::graph::{Node, NodeId, ValueId};
use pg_ir::op::Op;
use pg_ir::ty::DType;

use super::access::products;
use super::dot::Dot;
use super::element::{Below, Coords, below, join};
use super::known::bits;
use super::{Check, Finding, Subject, points};
use crate::plan::witness::Roles;
use crate::plan::{AttentionShape, Kernel, Launch, Place};

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let mut tables = vec![false; s.plan.buffers.len()];
    let mut seen = vec![false; s.plan.kernels.len()];
    for (i, launch, roles) in s.launches() {
        let fault = |message: String| Finding::at(Check::Meaning, i, message);
        let recurs = std::mem::replace(&mut seen[launch.kernel.0 as usize], true);
        let points = if recurs { points::ends } else { |sizes: &[usize]| points::corners(sizes, 3) };
        Pair { s, roles, points }.check(launch).map_err(fault)?;
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
    let shape = ty.shape();
    for at in points::corners(&shape, 12).iter().map(|at| join(at, &shape)) {
        let want = s.known.element(value, at).map(|number| bits(number, ty.dtype));
        if want.is_some_and(|want| want != table[at]) {
            return Err(format!("element {at} of the constant {} is another number", s.describe(value)));
        }
    }
    Ok(())
}

/// A launch beside the nodes that it computes.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) s: Subject<'a>,
    pub(super) roles: &'a Roles,
    /// The points of a domain at which index maps are compared.
    pub(super) points: fn(&[usize]) -> Vec<Coords>,
}

impl<'a> Pair<'a> {
    fn check(self, launch: &Launch) -> Result<(), String> {
        let Pair { s, roles, .. } = self;
        let kernel = s.kernel(launch);
        for (product, &id) in products(kernel).iter().zip(&roles.library) {
            let node = s.graph.node(id);
            let Op::Dot(dims) = &node.op else { return Err(self.not(id, "a product")) };
            let checked = Dot::new(self, node, dims).check(product);
            checked.map_err(|e| format!("as {}, {e}", s.describe(node.first)))?;
        }
        match kernel {
            Kernel::Attention(shape) => {
                let node = s.graph.node(roles.library[0]);
                let Op::Attention { scale } = node.op else {
                    return Err(self.not(roles.library[0], "attention"));
                };
                self.attention(shape, node, scale.get())?;
                self.whole(node, 3)
            }
            Kernel::AttentionGrad(shape) => {
                let node = s.graph.node(roles.library[0]);
                let Op::AttentionGrad { scale } = node.op else {
                    return Err(self.not(roles.library[0], "attention's gradient"));
                };
                self.attention(shape, node, scale.get())?;
                self.whole(node, 6)
            }
            &Kernel::ScatterAdd { rows, width, count } => {
                let node = s.graph.node(roles.library[0]);
                let Op::ScatterAdd { rows: want } = node.op else {
                    return Err(self.not(roles.library[0], "a scatter"));
                };
                let (ids, values) = (s.graph.ty(node.operands[0]).len(), s.graph.ty(node.operands[1]).len());
                if (rows, count, count * width) != (want, ids, values) {
                    return Err(format!("{count} × {width} into {rows} rows, the graph has {want} rows"));
                }
                self.whole(node, 2)
            }
            Kernel::Region(_) | Kernel::Contraction(_) | Kernel::Copy { .. } => Ok(()),
        }
    }

    fn not(self, id: NodeId, what: &str) -> String {
        format!("the kernel is {what}, the node is {}", self.s.describe(self.s.graph.node(id).first))
    }

    fn attention(self, shape: &AttentionShape, node: &Node, scale: f64) -> Result<(), String> {
        let size = |operand: usize, axis: usize| self.s.graph.ty(node.operands[operand]).axes[axis].size;
        let want = [size(0, 0), size(0, 1), size(0, 2), size(1, 2), size(0, 3)];
        let have = [shape.batch, shape.time, shape.heads, shape.kv_heads, shape.dim];
        if want != have || shape.scale.to_bits() != (scale as f32).to_bits() {
            let have_scale = shape.scale;
            return Err(format!("shape {have:?} and scale {have_scale}, the graph has {want:?} and {scale}"));
        }
        Ok(())
    }

    /// Operands, then results, that are whole buffers in order.
    fn whole(self, node: &Node, operands: usize) -> Result<(), String> {
        let Pair { s, roles, .. } = self;
        for (i, &operand) in node.operands.iter().enumerate().take(operands) {
            let Some(held) = roles.reads[i] else { continue };
            let shape = s.graph.ty(operand).shape();
            for at in (self.points)(&shape).iter().map(|at| join(at, &shape)) {
                if self.through(operand, at, held)? != at {
                    return Err(format!("operand {i} does not lie in its argument in order"));
                }
            }
        }
        for (result, held) in s.graph.results(node).zip(&roles.writes[operands..]) {
            let is_it = |held: ValueId| {
                let node = s.graph.producer(held);
                held == result || node.op == Op::Cast(DType::BF16) && node.operands[0] == result
            };
            if !held.is_some_and(is_it) {
                return Err(format!("it does not write its result {}", s.describe(result)));
            }
        }
        Ok(())
    }

    /// The element of `held` that an element of a view of it is.
    pub(super) fn through(self, value: ValueId, element: usize, held: ValueId) -> Result<usize, String> {
        let s = self.s;
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
}
