//! Contraction: the one op that becomes a matmul.

use smallvec::SmallVec;

use super::check_float;
use crate::autodiff::Adjoint;
use crate::causality::known::Known;
use crate::causality::{Access, Case, Index, Indices, Meeting};
use crate::graph::ValueId;
use crate::interp::{Tensor, flat, for_each_index, strides};
use crate::op::{DotDims, Op, Record, RuleError};
use crate::ty::{DType, Type};

fn dims(op: &Op) -> &DotDims {
    match op {
        Op::Dot(dims) => dims,
        _ => unreachable!("record of another op"),
    }
}

/// Operands in pairs: each pair is multiplied, and the products are added.
fn pairs<T: Copy>(operands: &[T]) -> impl Iterator<Item = [T; 2]> + '_ {
    operands.chunks_exact(2).map(|pair| [pair[0], pair[1]])
}

fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>, RuleError> {
    if operands.is_empty() || !operands.len().is_multiple_of(2) {
        return Err(format!("takes pairs of operands, {} were given", operands.len()));
    }
    let mut products = pairs(operands).map(|pair| infer_pair(op, pair));
    let first = products.next().expect("a pair")?;
    for other in products {
        let other = other?;
        if other != first {
            return Err(format!("products of different types: {first} and {other}"));
        }
    }
    Ok(vec![first])
}

fn infer_pair(op: &Op, [a, b]: [&Type; 2]) -> Result<Type, RuleError> {
    check_float(a)?;
    check_float(b)?;
    let d = dims(op);
    for (what, pairs) in [("batch", &d.batch), ("contracted", &d.contract)] {
        for &(l, r) in pairs {
            let (Some(x), Some(y)) = (a.axes.get(l), b.axes.get(r)) else {
                return Err(format!("{what} axes {l} and {r} do not exist in {a} and {b}"));
            };
            if x.size != y.size {
                return Err(format!("{what} axes differ: axis {l} of {a} against axis {r} of {b}"));
            }
        }
    }
    let batch = d.batch.iter().map(|&(l, _)| a.axes[l]);
    let lhs = d.lhs_free(a.rank()).into_iter().map(|i| a.axes[i]);
    let rhs = d.rhs_free(b.rank()).into_iter().map(|i| b.axes[i]);
    Ok(Type::new(DType::F32, batch.chain(lhs).chain(rhs)))
}

/// Batch axes come first in the result, then free ones; contracted axes are summed over.
fn access(op: &Op, operands: &[&Type], result: &Type) -> Access {
    let d = dims(op);
    let side = |x: &Type, own: fn(&(usize, usize)) -> usize, free: Vec<usize>, start: usize| -> Indices {
        let at = |axis: usize| {
            let batch = d.batch.iter().position(|pair| own(pair) == axis);
            let contracted = d.contract.iter().position(|pair| own(pair) == axis);
            let free = free.iter().position(|f| *f == axis).map(|i| start + i);
            batch.or(free).or(contracted.map(|i| result.rank() + i)).expect("an axis is one of the three")
        };
        (0..x.rank()).map(|axis| Index::along(at(axis))).collect()
    };
    let both = pairs(operands).flat_map(|[a, b]| {
        let (left, right) = (d.lhs_free(a.rank()), d.rhs_free(b.rank()));
        let start = d.batch.len() + left.len();
        [side(a, |p| p.0, left, d.batch.len()), side(b, |p| p.1, right, start)]
    });
    let summed = d.contract.iter().map(|&(l, _)| operands[0].axes[l].size).collect();
    Access { summed, together: 2, ..Access::of(both) }
}

/// A product with zero says nothing of the other factor, if that is finite. It may be −0, which a sum loses.
fn cases(op: &Op, at: &Meeting<'_>) -> SmallVec<[Case; 3]> {
    let mut case = at.case(at.zone.clone(), Known::any(at.dtype));
    let sums = dims(op).contract.iter().any(|&(l, _)| at.operands[0].axes[l].size > 1);
    // A factor that is zero for some tokens alone is read: it is not what leaves the other one out.
    let hides = |zero: usize, other: usize| (at.whatever)(zero).is_zero() && (at.whatever)(other).is_finite();
    if sums && hides(0, 1) {
        case.reads[1] = false;
    } else if sums && hides(1, 0) {
        case.reads[0] = false;
    }
    SmallVec::from_iter([case])
}

/// One operand of a contraction as its gradient sees it. Pairs are (own axis, other axis).
struct Side<'a> {
    ty: Type,
    batch: &'a [(usize, usize)],
    contract: &'a [(usize, usize)],
    free: &'a [usize],
    other: ValueId,
    other_free: &'a [usize],
    /// First of the other side's free axes in the result.
    other_start: usize,
}

impl Side<'_> {
    /// The cotangent contracted with the other operand over its free axes, in this operand's axis order.
    fn gradient(&self, cx: &mut Adjoint<'_>, g: ValueId) -> ValueId {
        let mut d = DotDims::default();
        d.batch.extend(self.batch.iter().enumerate().map(|(i, &(_, o))| (i, o)));
        d.contract.extend(self.other_free.iter().enumerate().map(|(j, &o)| (self.other_start + j, o)));
        let product = cx.b.dot(d, g, self.other);
        // Axes of the product: batch, own free axes, then the contracted axes in the other's order.
        let mut contracted: Vec<(usize, usize)> = self.contract.iter().map(|&(own, o)| (o, own)).collect();
        contracted.sort_unstable();
        let order = self.batch.iter().map(|p| p.0).chain(self.free.iter().copied());
        let order = order.chain(contracted.iter().map(|p| p.1));
        let mut perm: SmallVec<[usize; 4]> = SmallVec::from_elem(0, self.ty.rank());
        order.enumerate().for_each(|(at, own)| perm[own] = at);
        let identity = perm.iter().enumerate().all(|(i, &p)| i == p);
        let moved = if identity { product } else { cx.b.op(Op::Transpose(perm), &[product]) };
        cx.b.reshape(moved, self.ty.axes.clone())
    }
}

fn swap(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    pairs.iter().map(|&(l, r)| (r, l)).collect()
}

/// Gradients of a pair.
fn gradients(cx: &mut Adjoint<'_>, d: &DotDims, g: ValueId, [a, b]: [ValueId; 2]) -> [ValueId; 2] {
    let (ta, tb) = (cx.b.ty(a).clone(), cx.b.ty(b).clone());
    let (free_a, free_b) = (d.lhs_free(ta.rank()), d.rhs_free(tb.rank()));
    let (swapped_batch, swapped_contract) = (swap(&d.batch), swap(&d.contract));
    let lhs = Side {
        ty: ta,
        batch: &d.batch,
        contract: &d.contract,
        free: &free_a,
        other: b,
        other_free: &free_b,
        other_start: d.batch.len() + free_a.len(),
    };
    let rhs = Side {
        ty: tb,
        batch: &swapped_batch,
        contract: &swapped_contract,
        free: &free_b,
        other: a,
        other_free: &free_a,
        other_start: d.batch.len(),
    };
    [lhs.gradient(cx, g), rhs.gradient(cx, g)]
}

/// Calls `give` with the sum of each element of a pair's product, in order.
fn multiply(d: &DotDims, x: [&Tensor; 2], types: [&Type; 2], result: &Type, mut give: impl FnMut(f64)) {
    let (sa, sb) = (strides(&types[0].shape()), strides(&types[1].shape()));
    let (free_a, free_b) = (d.lhs_free(types[0].rank()), d.rhs_free(types[1].rank()));
    let summed: Vec<usize> = d.contract.iter().map(|&(l, _)| types[0].axes[l].size).collect();
    let step_a: Vec<usize> = d.contract.iter().map(|&(l, _)| sa[l]).collect();
    let step_b: Vec<usize> = d.contract.iter().map(|&(_, r)| sb[r]).collect();
    for_each_index(&result.shape(), |index| {
        let (batch, rest) = index.split_at(d.batch.len());
        let (ia, ib) = rest.split_at(free_a.len());
        let mut base = (0, 0);
        for (&i, &(l, r)) in batch.iter().zip(&d.batch) {
            base = (base.0 + i * sa[l], base.1 + i * sb[r]);
        }
        base.0 += ia.iter().zip(&free_a).map(|(i, &l)| i * sa[l]).sum::<usize>();
        base.1 += ib.iter().zip(&free_b).map(|(i, &r)| i * sb[r]).sum::<usize>();
        let mut sum = 0.0;
        for_each_index(&summed, |k| sum += x[0][base.0 + flat(k, &step_a)] * x[1][base.1 + flat(k, &step_b)]);
        give(sum);
    });
}

pub(super) static DOT: Record = Record {
    name: "dot",
    signature: "a, b, … -> y",
    maths: "y = Σ a·b over the contracted axes; axes are batch, then free of a, then free of b. Of several pairs, the sum.",
    infer,
    access,
    cases,
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None; cx.node.operands.len()] };
        let (d, operands) = (dims(&cx.node.op).clone(), cx.node.operands.clone());
        pairs(&operands).flat_map(|pair| gradients(cx, &d, g, pair)).map(Some).collect()
    },
    flops: |op, operands, results| {
        let k =
            |[a, _]: [&Type; 2]| dims(op).contract.iter().map(|&(l, _)| a.axes[l].size).product::<usize>();
        2.0 * pairs(operands).map(k).sum::<usize>() as f64 * results[0].len() as f64
    },
    eval: |op, x, types, results| {
        let mut out = vec![0.0; results[0].len()];
        for (x, types) in pairs(x).zip(pairs(types)) {
            let mut at = 0;
            multiply(dims(op), x, types, &results[0], |sum| {
                out[at] += sum;
                at += 1;
            });
        }
        vec![out]
    },
};
