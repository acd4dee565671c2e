//! Causal attention and its gradient by their definitions, position by position: written a second time, so that the op's
//! own definition is not held to itself.

use pg_codegen::plan::AttentionShape;
use pg_ir::interp::Tensor;

struct Heads<'a>(&'a AttentionShape);

impl Heads<'_> {
    /// The first element of a query head's row, and of the row of the key and value head that it reads.
    fn rows(&self, batch: usize, time: usize, head: usize) -> (usize, usize) {
        let s = self.0;
        let position = batch * s.time + time;
        let shared = head / (s.heads / s.kv_heads);
        ((position * s.heads + head) * s.dim, (position * s.kv_heads + shared) * s.dim)
    }

    fn dot(&self, a: &[f64], i: usize, b: &[f64], j: usize) -> f64 {
        (0..self.0.dim).map(|d| a[i + d] * b[j + d]).sum()
    }

    /// Every batch, head and position.
    fn each(&self, mut f: impl FnMut(usize, usize, usize)) {
        let s = self.0;
        for batch in 0..s.batch {
            for head in 0..s.heads {
                (0..s.time).for_each(|time| f(batch, head, time));
            }
        }
    }
}

/// o and lse of q, k and v.
pub fn forward(s: &AttentionShape, [q, k, v]: [&Tensor; 3]) -> [Tensor; 2] {
    let (mut o, mut lse) = (vec![0.0; q.len()], vec![0.0; q.len() / s.dim]);
    let heads = Heads(s);
    heads.each(|b, h, t| {
        let (row, _) = heads.rows(b, t, h);
        let score = |u| f64::from(s.scale) * heads.dot(q, row, k, heads.rows(b, u, h).1);
        let scores: Vec<f64> = (0..=t).map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
        lse[row / s.dim] = max + sum.ln();
        for (u, score) in scores.iter().enumerate() {
            let (p, from) = ((score - max).exp() / sum, heads.rows(b, u, h).1);
            (0..s.dim).for_each(|d| o[row + d] += p * v[from + d]);
        }
    });
    [o, lse]
}

/// dq, dk and dv of q, k, v, o, lse and do.
pub fn backward(s: &AttentionShape, [q, k, v, o, lse, d_o]: [&Tensor; 6]) -> [Tensor; 3] {
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.len()]);
    let (heads, scale) = (Heads(s), f64::from(s.scale));
    heads.each(|b, h, t| {
        let (row, _) = heads.rows(b, t, h);
        let delta = heads.dot(o, row, d_o, row);
        for u in 0..=t {
            let from = heads.rows(b, u, h).1;
            let p = (scale * heads.dot(q, row, k, from) - lse[row / s.dim]).exp();
            let ds = p * (heads.dot(d_o, row, v, from) - delta) * scale;
            for d in 0..s.dim {
                dq[row + d] += ds * k[from + d];
                dk[from + d] += ds * q[row + d];
                dv[from + d] += p * d_o[row + d];
            }
        }
    });
    [dq, dk, dv]
}
