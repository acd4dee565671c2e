//! Causal attention with grouped key/value heads, and its gradient from the log-sum-exp alone.

use super::{anywhere, arity, check_float, unknown};
use crate::causality::{Access, Index};
use crate::interp::Tensor;
use crate::op::{Op, Record, RuleError};
use crate::ty::{DType, Role, Type};

fn scale(op: &Op) -> f64 {
    match op {
        Op::Attention { scale } | Op::AttentionGrad { scale } => scale.get(),
        _ => unreachable!("record of another op"),
    }
}

fn check_qkv(q: &Type, k: &Type, v: &Type) -> Result<(), RuleError> {
    for t in [q, k, v] {
        check_float(t)?;
        if t.rank() != 4 || t.axes[0].role != Role::Batch || t.axes[1].role != Role::Time {
            return Err(format!("q, k and v are [batch, time, heads, width], found {t}"));
        }
    }
    let sizes = |t: &Type| (t.axes[0].size, t.axes[1].size, t.axes[3].size);
    if sizes(q) != sizes(k) || k.shape() != v.shape() {
        return Err(format!("q, k and v do not fit together: {q}, {k}, {v}"));
    }
    if !q.axes[2].size.is_multiple_of(k.axes[2].size) {
        return Err(format!(
            "{} query heads do not divide among {} key/value heads",
            q.axes[2].size, k.axes[2].size
        ));
    }
    Ok(())
}

/// Multiply-adds count two; position t attends to t + 1 positions.
fn pair_flops(q: &Type) -> f64 {
    let [b, t, h, d] = [0, 1, 2, 3].map(|i| q.axes[i].size as f64);
    2.0 * b * h * d * t * (t + 1.0) / 2.0
}

/// Index arithmetic of one problem.
struct Shape {
    batch: usize,
    time: usize,
    heads: usize,
    kv_heads: usize,
    width: usize,
}

impl Shape {
    fn of(q: &Type, k: &Type) -> Self {
        let [batch, time, heads, width] = [0, 1, 2, 3].map(|i| q.axes[i].size);
        Shape { batch, time, heads, kv_heads: k.axes[2].size, width }
    }

    /// Row of a query-side tensor.
    fn q<'a>(&self, x: &'a [f64], b: usize, t: usize, h: usize) -> &'a [f64] {
        &x[((b * self.time + t) * self.heads + h) * self.width..][..self.width]
    }

    /// Start of a key-side row for query head `h`.
    fn kv_at(&self, b: usize, t: usize, h: usize) -> usize {
        let g = h / (self.heads / self.kv_heads);
        ((b * self.time + t) * self.kv_heads + g) * self.width
    }

    fn rows(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let (batch, time, heads) = (self.batch, self.time, self.heads);
        (0..batch).flat_map(move |b| (0..time).flat_map(move |t| (0..heads).map(move |h| (b, t, h))))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(super) static ATTENTION: Record = Record {
    name: "attention",
    signature: "q [B,T,H,D], k [B,T,K,D], v [B,T,K,D] -> o [B,T,H,D], lse [B,T,H]",
    maths: "o_t = Σ_{u≤t} softmax_u(scale·q_t·k_u) v_u; query head h reads key/value head h/(H/K).",
    infer: |_, operands| {
        let [q, k, v] = arity(operands)?;
        check_qkv(q, k, v)?;
        Ok(vec![q.with_dtype(DType::F32), Type::new(DType::F32, q.axes[..3].iter().copied())])
    },
    access: |_, operands, _| {
        let any = |x: &Type, axis: usize| Index::any(x.axes[axis].size);
        let earlier = |x: &Type| Index { axis: Some(1), low: 1 - x.axes[1].size as i64, high: 0 };
        let [q, k, v] = [0, 1, 2].map(|i| operands[i]);
        let query = [Index::along(0), Index::along(1), Index::along(2), any(q, 3)];
        let others = [k, v].map(|x| [Index::along(0), earlier(x), any(x, 2), any(x, 3)]);
        Access::of([query].into_iter().chain(others).map(|indices| indices.into_iter().collect()))
    },
    cases: unknown,
    vjp: |cx| {
        let Some(g) = cx.cotangents[0] else { return vec![None; 3] };
        assert!(cx.cotangents[1].is_none(), "internal error: the log-sum-exp is not differentiable");
        let Op::Attention { scale } = cx.node.op else { unreachable!("record of another op") };
        let [q, k, v] = [0, 1, 2].map(|i| cx.node.operands[i]);
        let (o, lse) = (cx.node.first, crate::graph::ValueId(cx.node.first.0 + 1));
        let grads = cx.b.push(Op::AttentionGrad { scale }, &[q, k, v, o, lse, g]);
        let grads = grads.unwrap_or_else(|e| panic!("internal error: attention_grad: {e}"));
        grads.into_iter().map(Some).collect()
    },
    flops: |_, operands, _| 2.0 * pair_flops(operands[0]),
    eval: |op, x, types, results| {
        let s = Shape::of(types[0], types[1]);
        let (mut o, mut lse) = (vec![0.0; results[0].len()], Vec::with_capacity(results[1].len()));
        for (b, t, h) in s.rows() {
            let q = s.q(x[0], b, t, h);
            let score = |u: usize| scale(op) * dot(q, &x[1][s.kv_at(b, u, h)..][..s.width]);
            let scores: Vec<f64> = (0..=t).map(score).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|z| (z - top).exp()).sum();
            lse.push(top + total.ln());
            let out = &mut o[((b * s.time + t) * s.heads + h) * s.width..][..s.width];
            for (u, z) in scores.iter().enumerate() {
                let p = (z - top).exp() / total;
                let v = &x[2][s.kv_at(b, u, h)..][..s.width];
                out.iter_mut().zip(v).for_each(|(o, v)| *o += p * v);
            }
        }
        vec![o, lse]
    },
};

pub(super) static ATTENTION_GRAD: Record = Record {
    name: "attention_grad",
    signature: "q, k, v, o, lse, do -> dq, dk, dv",
    maths: "p = exp(scale·q·kᵀ − lse), ds = p ∘ (do·vᵀ − Σ do∘o); dq = scale·ds·k, dk = scale·dsᵀ·q, dv = pᵀ·do.",
    infer: |_, operands| {
        let [q, k, v, o, lse, grad] = arity(operands)?;
        check_qkv(q, k, v)?;
        if o.axes != q.axes || grad.axes != q.axes || lse.axes[..] != q.axes[..3] {
            return Err(format!("o, lse and do do not fit q: {q}, {o}, {lse}, {grad}"));
        }
        Ok([q, k, v].map(|t| t.with_dtype(DType::F32)).to_vec())
    },
    access: anywhere,
    cases: unknown,
    vjp: |cx| {
        assert!(
            cx.cotangents.iter().all(Option::is_none),
            "internal error: second derivatives of attention are not defined"
        );
        vec![None; 6]
    },
    flops: |_, operands, _| 5.0 * pair_flops(operands[0]),
    eval: eval_grad,
};

fn eval_grad(op: &Op, x: &[&Tensor], types: &[&Type], results: &[Type]) -> Vec<Tensor> {
    let s = Shape::of(types[0], types[1]);
    let [mut dq, mut dk, mut dv] = [0, 1, 2].map(|i| vec![0.0; results[i].len()]);
    let scale = scale(op);
    for (row, (b, t, h)) in s.rows().enumerate() {
        let (q, o, g) = (s.q(x[0], b, t, h), s.q(x[3], b, t, h), s.q(x[5], b, t, h));
        let delta = dot(o, g);
        for u in 0..=t {
            let at = s.kv_at(b, u, h);
            let (k, v) = (&x[1][at..][..s.width], &x[2][at..][..s.width]);
            let p = (scale * dot(q, k) - x[4][row]).exp();
            let ds = scale * p * (dot(g, v) - delta);
            for j in 0..s.width {
                dq[row * s.width + j] += ds * k[j];
                dk[at + j] += ds * q[j];
                dv[at + j] += p * g[j];
            }
        }
    }
    vec![dq, dk, dv]
}
