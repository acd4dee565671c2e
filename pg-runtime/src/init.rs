//! Initial values of parameters.
//!
//! Every parameter has a stream of random numbers of its own, keyed by seed, purpose and name: its values
//! do not change when another parameter is added, when the order of declaration changes, or with the
//! number of threads.

mod orthogonal;

use std::iter::repeat;

use indexmap::IndexMap;
use pg_ir::lang::model::{Init, Param};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal, Uniform};
use rayon::prelude::*;

use crate::memory::{self, TooLarge};
use crate::weights::Weights;

/// Initial value of one parameter, row-major.
///
/// # Errors
/// If memory cannot hold it.
pub fn initialise(param: &Param, seed: u64) -> Result<Vec<f32>, TooLarge> {
    let len = param.len();
    match param.init {
        Init::Constant(value) => memory::collect(len, repeat(value as f32)),
        Init::Normal { std } => memory::collect(len, normals(param, seed).map(|x| (x * std) as f32)),
        Init::Uniform { bound } => uniforms(param, seed, bound),
        Init::FirstRow { first, rest } => {
            let row = len / param.shape.first().copied().unwrap_or(1).max(1);
            memory::collect(len, (0..len).map(|i| if i < row { first as f32 } else { rest as f32 }))
        }
        Init::Orthogonal => {
            let (rows, cols) = param.matrix();
            memory::check(orthogonal::bytes(rows, cols))?;
            let draw: Vec<f64> = memory::collect(len, normals(param, seed))?;
            let drawn = orthogonal::orthogonal(draw, rows, cols);
            memory::collect(len, drawn.into_iter().map(|x| x as f32))
        }
    }
}

/// Initial values of all parameters, several at a time.
///
/// # Errors
/// If memory cannot hold them.
pub fn initialise_all(params: &IndexMap<String, Param>, seed: u64) -> Result<Weights, TooLarge> {
    let values: u64 = params.values().map(|p| p.len() as u64).fold(0, u64::saturating_add);
    memory::check(values.saturating_mul(4))?;
    // One task a parameter: the matrices of a model are many and of similar size.
    let all: Vec<&Param> = params.values().collect();
    let values: Result<Vec<Vec<f32>>, TooLarge> =
        all.par_iter().with_max_len(1).map(|p| initialise(p, seed)).collect();
    Ok(params.keys().cloned().zip(values?).collect())
}

/// A generator for one purpose and name. Used for initial values; other purposes take other words.
pub fn generator(seed: u64, purpose: &str, name: &str) -> ChaCha8Rng {
    let mut hash = blake3::Hasher::new();
    hash.update(&seed.to_le_bytes());
    // Lengths keep ("a", "bc") apart from ("ab", "c").
    for part in [purpose, name] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    ChaCha8Rng::from_seed(hash.finalize().into())
}

fn normals(param: &Param, seed: u64) -> impl Iterator<Item = f64> {
    let rng = generator(seed, "init", &param.name);
    Distribution::<f64>::sample_iter(StandardNormal, rng).take(param.len())
}

fn uniforms(param: &Param, seed: u64, bound: f64) -> Result<Vec<f32>, TooLarge> {
    let rng = generator(seed, "init", &param.name);
    match Uniform::new_inclusive(-bound, bound) {
        Ok(range) => memory::collect(param.len(), range.sample_iter(rng).map(|x| x as f32)),
        // A bound that is negative, infinite or not a number gives no range; the front end rejects it.
        Err(_) => memory::collect(param.len(), repeat(f32::NAN)),
    }
}

#[cfg(test)]
mod tests {
    use pg_ir::lang::model::Export;
    use pg_ir::optim::{AdamW, Optimiser};

    use super::*;

    fn initialise(param: &Param, seed: u64) -> Vec<f32> {
        super::initialise(param, seed).unwrap()
    }

    fn param(name: &str, shape: &[usize], init: Init) -> Param {
        Param {
            name: name.into(),
            shape: shape.to_vec(),
            init,
            optimiser: Optimiser::AdamW(AdamW {
                lr: 0.1,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.0,
            }),
            grid: None,
            export: Export::F16,
            in_artifact: true,
            ttt_frozen: false,
            weight_std: None,
        }
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }

    /// Largest deviation of the shorter side's Gram matrix from the identity.
    fn deviation(values: &[f32], rows: usize, cols: usize) -> f64 {
        let at = |i: usize, j: usize| {
            f64::from(if rows >= cols { values[j * cols + i] } else { values[i * cols + j] })
        };
        let (short, long) = (rows.min(cols), rows.max(cols));
        let mut worst = 0.0f64;
        for a in 0..short {
            for b in 0..short {
                let dot: f64 = (0..long).map(|j| at(a, j) * at(b, j)).sum();
                worst = worst.max((dot - f64::from(u8::from(a == b))).abs());
            }
        }
        worst
    }

    #[test]
    fn orthogonal_matrices_are_orthonormal_on_their_shorter_side() {
        for (rows, cols) in [(1, 1), (1, 7), (7, 1), (32, 32), (96, 32), (32, 96), (65, 33), (130, 257)] {
            let p = param("w", &[rows, cols], Init::Orthogonal);
            let found = deviation(&initialise(&p, 3), rows, cols);
            assert!(found < 3e-7, "{rows}x{cols}: {found:e}");
        }
    }

    #[test]
    fn values_depend_on_seed_and_name_alone() {
        let (a, b) = (param("a", &[40, 24], Init::Orthogonal), param("b", &[40, 24], Init::Orthogonal));
        assert_eq!(initialise(&a, 1), initialise(&a, 1));
        assert_ne!(initialise(&a, 1), initialise(&b, 1));
        assert_ne!(initialise(&a, 1), initialise(&a, 2));

        let model =
            |list: &[&Param]| list.iter().map(|p| (p.name.clone(), (*p).clone())).collect::<IndexMap<_, _>>();
        let (forward, backward) =
            (initialise_all(&model(&[&a, &b]), 1).unwrap(), initialise_all(&model(&[&b, &a]), 1).unwrap());
        assert_eq!(forward["a"], backward["a"]);
        assert_eq!(forward["b"], backward["b"]);
        assert_eq!(forward["a"], initialise(&a, 1));
        assert_eq!(backward.keys().collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn purposes_and_names_are_kept_apart() {
        let first = |purpose, name| StandardNormal.sample(&mut generator(0, purpose, name));
        let (ab, a): (f64, f64) = (first("ab", "c"), first("a", "bc"));
        assert_ne!(ab, a);
    }

    #[test]
    fn distributions_have_their_moments() {
        let (mean, std) = moments(&initialise(&param("n", &[1000, 400], Init::Normal { std: 0.005 }), 0));
        assert!(mean.abs() < 5e-5 && (std - 0.005).abs() < 5e-5, "{mean} {std}");

        let uniform = initialise(&param("u", &[400_000], Init::Uniform { bound: 0.25 }), 0);
        let (mean, std) = moments(&uniform);
        assert!(mean.abs() < 1e-3 && (std - 0.25 / 3f64.sqrt()).abs() < 1e-3, "{mean} {std}");
        assert!(uniform.iter().all(|x| x.abs() <= 0.25));

        assert_eq!(initialise(&param("c", &[], Init::Constant(0.5)), 0), [0.5]);
        let mix = param("m", &[3, 2], Init::FirstRow { first: 1.0, rest: -2.0 });
        assert_eq!(initialise(&mix, 0), [1.0, 1.0, -2.0, -2.0, -2.0, -2.0]);
        // An orthogonal matrix has Frobenius norm² = its shorter side.
        let (mean, std) = moments(&initialise(&param("o", &[256, 64], Init::Orthogonal), 0));
        assert!(mean.abs() < 2e-3 && (std - (64.0f64 / (256.0 * 64.0)).sqrt()).abs() < 1e-4, "{mean} {std}");
    }

    #[test]
    fn what_memory_cannot_hold_is_refused() {
        let normal = Init::Normal { std: 1.0 };
        for init in [Init::Constant(0.0), normal, Init::Uniform { bound: 1.0 }, Init::Orthogonal] {
            super::initialise(&param("w", &[1 << 30, 1 << 20], init), 0).unwrap_err();
        }
        // Its values would fit, what making them takes would not.
        let Some(total) = memory::total() else { return };
        let side = (total as f64 / 16.0).sqrt() as usize;
        let error = super::initialise(&param("w", &[side, side], Init::Orthogonal), 0).unwrap_err();
        assert!(error.needed > total && 4 * (side * side) as u64 <= total / 2, "{error}");
        let (a, b) = (param("a", &[total as usize / 6], normal), param("b", &[total as usize / 6], normal));
        let both = [a, b].map(|p| (p.name.clone(), p)).into_iter().collect();
        initialise_all(&both, 0).unwrap_err();
    }
}
