//! Contraction: the one op that becomes a matmul.

use smallvec::SmallVec;

use super::{arity, check_float};
use crate::graph::ValueId;
use crate::interp::{flat, for_each_index, strides};
use crate::op::{DotDims, Op, Record, RuleError, Time};
use crate::ty::{DType, Role, Type};

fn dims(op: &Op) -> &DotDims {
    match op {
        Op::Dot(dims) => dims,
        _ => unreachable!("record of another op"),
    }
}

fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>, RuleError> {
    let [a, b] = arity(operands)?;
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
    Ok(vec![Type::new(DType::F32, batch.chain(lhs).chain(rhs))])
}

fn time(op: &Op, operands: &[&Type]) -> Time {
    let d = dims(op);
    let is_time = |ty: &Type, i: usize| ty.axes[i].role == Role::Time;
    let contracted = d.contract.iter().any(|&(l, r)| is_time(operands[0], l) || is_time(operands[1], r));
    let lhs_free = d.lhs_free(operands[0].rank()).into_iter().any(|i| is_time(operands[0], i));
    let rhs_free = d.rhs_free(operands[1].rank()).into_iter().any(|i| is_time(operands[1], i));
    let in_step = d.batch.iter().any(|&(l, r)| is_time(operands[0], l) || is_time(operands[1], r));
    // With a second free time axis, an element of the result sits at two positions at once.
    let crosses = (lhs_free && rhs_free) || (in_step && (lhs_free || rhs_free));
    if contracted || crosses { Time::All } else { Time::Point }
}

/// Gradient of one side: the cotangent contracted with the other side over that side's free axes, put
/// back into the operand's axis order.
fn side(
    cx: &mut crate::autodiff::Adjoint<'_>,
    g: ValueId,
    other: ValueId,
    // (own axis, other axis) pairs
    batch: &[(usize, usize)],
    contract: &[(usize, usize)],
    own_free: &[usize],
    other_free: &[usize],
    (own_start, other_start): (usize, usize),
    target: &Type,
) -> ValueId {
    let mut d = DotDims::default();
    d.batch.extend(batch.iter().enumerate().map(|(i, &(_, o))| (i, o)));
    d.contract.extend(other_free.iter().enumerate().map(|(j, &o)| (other_start + j, o)));
    debug_assert!(own_start >= batch.len());
    let product = cx.b.dot(d, g, other);
    // Axes of the product: batch, own free axes, then the other side's contracted axes in its order.
    let mut order: Vec<usize> = batch.iter().map(|&(own, _)| own).collect();
    order.extend(own_free);
    let mut contracted: Vec<(usize, usize)> = contract.iter().map(|&(own, o)| (o, own)).collect();
    contracted.sort_unstable();
    order.extend(contracted.iter().map(|&(_, own)| own));
    let mut perm: SmallVec<[usize; 4]> = SmallVec::from_elem(0, order.len());
    order.iter().enumerate().for_each(|(at, &own)| perm[own] = at);
    let identity = perm.iter().enumerate().all(|(i, &p)| i == p);
    let moved = if identity { product } else { cx.b.op(Op::Transpose(perm), &[product]) };
    cx.b.reshape(moved, target.axes.clone())
}

fn swap(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    pairs.iter().map(|&(l, r)| (r, l)).collect()
}

pub(super) static DOT: Record = Record {
    name: "dot",
    signature: "a, b -> y",
    maths: "y = Σ a·b over the contracted axes; axes are batch, then free of a, then free of b.",
    infer,
    time,
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None, None] };
        let d = dims(&cx.node.op).clone();
        let (a, b) = (cx.node.operands[0], cx.node.operands[1]);
        let (ta, tb) = (cx.b.ty(a).clone(), cx.b.ty(b).clone());
        let (free_a, free_b) = (d.lhs_free(ta.rank()), d.rhs_free(tb.rank()));
        let (at_a, at_b) = (d.batch.len(), d.batch.len() + free_a.len());
        let da = side(cx, g, b, &d.batch, &d.contract, &free_a, &free_b, (at_a, at_b), &ta);
        let (batch, contract) = (swap(&d.batch), swap(&d.contract));
        let db = side(cx, g, a, &batch, &contract, &free_b, &free_a, (at_b, at_a), &tb);
        vec![Some(da), Some(db)]
    },
    flops: |op, operands, results| {
        let k: usize = dims(op).contract.iter().map(|&(l, _)| operands[0].axes[l].size).product();
        2.0 * k as f64 * results[0].len() as f64
    },
    eval: |op, x, types, results| {
        let d = dims(op);
        let (sa, sb) = (strides(&types[0].shape()), strides(&types[1].shape()));
        let (free_a, free_b) = (d.lhs_free(types[0].rank()), d.rhs_free(types[1].rank()));
        let summed: Vec<usize> = d.contract.iter().map(|&(l, _)| types[0].axes[l].size).collect();
        let mut out = Vec::with_capacity(results[0].len());
        for_each_index(&results[0].shape(), |index| {
            let (batch, rest) = index.split_at(d.batch.len());
            let (ia, ib) = rest.split_at(free_a.len());
            let mut base = (0, 0);
            for (&i, &(l, r)) in batch.iter().zip(&d.batch) {
                base = (base.0 + i * sa[l], base.1 + i * sb[r]);
            }
            base.0 += ia.iter().zip(&free_a).map(|(i, &l)| i * sa[l]).sum::<usize>();
            base.1 += ib.iter().zip(&free_b).map(|(i, &r)| i * sb[r]).sum::<usize>();
            let step_a: Vec<usize> = d.contract.iter().map(|&(l, _)| sa[l]).collect();
            let step_b: Vec<usize> = d.contract.iter().map(|&(_, r)| sb[r]).collect();
            let mut sum = 0.0;
            for_each_index(&summed, |k| {
                sum += x[0][base.0 + flat(k, &step_a)] * x[1][base.1 + flat(k, &step_b)]
            });
            out.push(sum);
        });
        vec![out]
    },
};
