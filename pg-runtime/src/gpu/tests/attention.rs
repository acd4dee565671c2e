//! Attention and its gradient against the formulas.

use pg_codegen::plan::{AttentionShape, Kernel};

use super::{Arg, close, device, noise, run};

const SHAPES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 1, 1, 1, 1),
    (2, 5, 2, 1, 4),
    (1, 17, 4, 2, 7),
    (1, 33, 2, 2, 64),
    (2, 40, 4, 2, 16),
    (1, 67, 2, 1, 128),
    (1, 9, 1, 1, 200),
];

struct Case {
    s: AttentionShape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_o: Vec<f32>,
    o: Vec<f64>,
    lse: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

fn case((batch, time, heads, kv_heads, dim): (usize, usize, usize, usize, usize)) -> Case {
    let s = AttentionShape { batch, time, heads, kv_heads, dim, scale: 1.0 / (dim as f32).sqrt() };
    let (n, kv) = (batch * time * heads, batch * time * kv_heads);
    let double = |len, seed| noise(len, seed).iter().map(|x| 2.0 * x).collect::<Vec<f32>>();
    let mut c = Case {
        s,
        q: double(n * dim, 1),
        k: double(kv * dim, 2),
        v: noise(kv * dim, 3),
        d_o: noise(n * dim, 4),
        o: vec![0.0; n * dim],
        lse: vec![0.0; n],
        dq: vec![0.0; n * dim],
        dk: vec![0.0; kv * dim],
        dv: vec![0.0; kv * dim],
    };
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let scale = f64::from(s.scale);
    for b in 0..batch {
        for t in 0..time {
            for h in 0..heads {
                let row = (b * time + t) * heads + h;
                let key = |u: usize| ((b * time + u) * kv_heads + h / (heads / kv_heads)) * dim;
                let q = &c.q[row * dim..][..dim];
                let d_o = &c.d_o[row * dim..][..dim];
                let scores: Vec<f64> = (0..=t).map(|u| scale * dot(q, &c.k[key(u)..][..dim])).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let lse = most + scores.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
                let p: Vec<f64> = scores.iter().map(|x| (x - lse).exp()).collect();
                let dp: Vec<f64> = (0..=t).map(|u| dot(d_o, &c.v[key(u)..][..dim])).collect();
                let delta: f64 = p.iter().zip(&dp).map(|(p, d)| p * d).sum();
                c.lse[row] = lse;
                for u in 0..=t {
                    let ds = p[u] * (dp[u] - delta) * scale;
                    for d in 0..dim {
                        c.o[row * dim + d] += p[u] * f64::from(c.v[key(u) + d]);
                        c.dq[row * dim + d] += ds * f64::from(c.k[key(u) + d]);
                        c.dk[key(u) + d] += ds * f64::from(q[d]);
                        c.dv[key(u) + d] += p[u] * f64::from(d_o[d]);
                    }
                }
            }
        }
    }
    c
}

#[test]
fn forward() {
    let Some(device) = device() else { return };
    for shape in SHAPES {
        let c = case(shape);
        let args = [
            Arg::Floats(c.q),
            Arg::Floats(c.k),
            Arg::Floats(c.v),
            Arg::Out(c.o.len()),
            Arg::Out(c.lse.len()),
        ];
        let have = run(&device, &Kernel::Attention(c.s), &args);
        close(&format!("o of {shape:?}"), &have[0], &c.o, 1e-5);
        close(&format!("lse of {shape:?}"), &have[1], &c.lse, 1e-5);
    }
}

#[test]
fn gradient() {
    let Some(device) = device() else { return };
    for shape in SHAPES {
        let c = case(shape);
        let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let args = [
            Arg::Floats(c.q),
            Arg::Floats(c.k),
            Arg::Floats(c.v),
            Arg::Floats(single(&c.o)),
            Arg::Floats(single(&c.lse)),
            Arg::Floats(c.d_o),
            Arg::Out(c.dq.len()),
            Arg::Out(c.dk.len()),
            Arg::Out(c.dv.len()),
        ];
        let have = run(&device, &Kernel::AttentionGrad(c.s), &args);
        for (name, have, want) in [("dq", &have[0], &c.dq), ("dk", &have[1], &c.dk), ("dv", &have[2], &c.dv)]
        {
            close(&format!("{name} of {shape:?}"), have, want, 2e-5);
        }
    }
}
