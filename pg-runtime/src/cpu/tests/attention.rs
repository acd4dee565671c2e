//! Attention against its definition.

use pg_codegen::plan::{AttentionShape, Kernel};
use pg_ir::ty::DType;

use super::super::error::Problem;
use super::{Data, Random, assert_close, launch, launch_all};

fn inputs(s: &AttentionShape, random: &mut Random) -> Vec<Data> {
    let positions = s.batch * s.time;
    let (q, kv) = (positions * s.heads * s.dim, positions * s.kv_heads * s.dim);
    let mut args: Vec<Data> = [q, kv, kv].map(|n| random.floats(n)).into();
    args.extend([Data::zeros(DType::F32, q), Data::zeros(DType::F32, positions * s.heads)]);
    args
}

/// Outputs, log-sum-exps and gradients by the definition, in float64.
fn naive(s: &AttentionShape, q: &[f64], k: &[f64], v: &[f64], d_o: &[f64]) -> [Vec<f64>; 5] {
    let (scale, dim) = (f64::from(s.scale), s.dim);
    let mut lse = vec![0.0; s.batch * s.time * s.heads];
    let (mut o, mut dq) = (vec![0.0; q.len()], vec![0.0; q.len()]);
    let (mut dk, mut dv) = (vec![0.0; k.len()], vec![0.0; k.len()]);
    for b in 0..s.batch {
        for h in 0..s.heads {
            let at = |t: usize| ((b * s.time + t) * s.heads + h) * dim;
            let kv = |t: usize| ((b * s.time + t) * s.kv_heads + h / (s.heads / s.kv_heads)) * dim;
            let dot = |x: &[f64], i: usize, y: &[f64], j: usize| -> f64 {
                (0..dim).map(|d| x[i + d] * y[j + d]).sum()
            };
            for t in 0..s.time {
                let scores: Vec<f64> = (0..=t).map(|u| scale * dot(q, at(t), k, kv(u))).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let l = max + scores.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
                lse[at(t) / dim] = l;
                let p: Vec<f64> = scores.iter().map(|x| (x - l).exp()).collect();
                for (u, p) in p.iter().enumerate() {
                    (0..dim).for_each(|d| o[at(t) + d] += p * v[kv(u) + d]);
                }
                let delta = dot(&o, at(t), d_o, at(t));
                for (u, p) in p.iter().enumerate() {
                    let ds = p * (dot(d_o, at(t), v, kv(u)) - delta) * scale;
                    for d in 0..dim {
                        dq[at(t) + d] += ds * k[kv(u) + d];
                        dk[kv(u) + d] += ds * q[at(t) + d];
                        dv[kv(u) + d] += p * d_o[at(t) + d];
                    }
                }
            }
        }
    }
    [o, lse, dq, dk, dv]
}

#[test]
fn attention_agrees_forward_and_backward() {
    let mut random = Random::new(1);
    for (batch, time, heads, kv_heads, dim) in [
        (1, 1, 1, 1, 1),
        (2, 7, 4, 2, 8),
        (1, 64, 2, 1, 16),
        (3, 67, 2, 2, 5),
        (1, 257, 6, 2, 16),
        (20, 130, 2, 1, 4),
        (1, 600, 2, 1, 4),
    ] {
        let s = AttentionShape { batch, time, heads, kv_heads, dim, scale: 1.7 / (dim as f32).sqrt() };
        let forward = launch_all(&Kernel::Attention(s), &inputs(&s, &mut random));
        let d_o = random.floats(forward[3].f32().len());
        let [q, k, v] = [0, 1, 2].map(|i| forward[i].f64());
        let want = naive(&s, &q, &k, &v, &d_o.f64());
        assert_close(forward[3].f32(), &want[0], 2e-6);
        assert_close(forward[4].f32(), &want[1], 2e-6);
        let mut args = forward.clone();
        args.push(d_o);
        args.extend([q.len(), k.len(), v.len()].map(|n| Data::F32(vec![f32::NAN; n])));
        let backward = launch_all(&Kernel::AttentionGrad(s), &args);
        for (have, want) in backward[6..].iter().zip(&want[2..]) {
            assert_close(have.f32(), want, 1e-5);
        }
    }
}

#[test]
fn later_tokens_change_no_bit_of_earlier_positions() {
    let mut random = Random::new(2);
    let s = AttentionShape { batch: 1, time: 131, heads: 4, kv_heads: 2, dim: 16, scale: 0.25 };
    let args = inputs(&s, &mut random);
    let before = launch_all(&Kernel::Attention(s), &args);
    for t in [1, 63, 64, 100, 130] {
        let mut changed = args.clone();
        for (arg, heads) in [(0, s.heads), (1, s.kv_heads), (2, s.kv_heads)] {
            let Data::F32(x) = &mut changed[arg] else { unreachable!() };
            x[t * heads * s.dim..].iter_mut().for_each(|x| *x = -37.0 * *x - 1e3);
        }
        let after = launch_all(&Kernel::Attention(s), &changed);
        let (o, lse) = (t * s.heads * s.dim, t * s.heads);
        assert_eq!(before[3].f32()[..o], after[3].f32()[..o]);
        assert_eq!(before[4].f32()[..lse], after[4].f32()[..lse]);
        assert_ne!(before[3].f32()[o..], after[3].f32()[o..]);
    }
}

#[test]
fn attention_rejects_what_does_not_fit() {
    let s = AttentionShape { batch: 1, time: 5, heads: 3, kv_heads: 2, dim: 4, scale: 1.0 };
    let mut random = Random::new(3);
    let run = |s: AttentionShape, args: &mut [Data]| launch(&Kernel::Attention(s), args, 1);
    assert!(matches!(run(s, &mut inputs(&s, &mut random)), Err(Problem::Shape(_))));
    let s = AttentionShape { kv_heads: 3, ..s };
    let args = inputs(&s, &mut random);
    assert_eq!(run(s, &mut args.clone()), Ok(true));
    assert!(matches!(run(s, &mut args.clone()[..4]), Err(Problem::ArgCount { .. })));
    let s = AttentionShape { time: 6, ..s };
    assert!(matches!(run(s, &mut args.clone()), Err(Problem::ArgLength { arg: 0, .. })));
}
