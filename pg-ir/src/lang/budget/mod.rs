//! The artifact's size, predicted before there are any weights.
//!
//! From names, shapes, grids and the distribution that weights are expected to have, [`predict`] gives
//!
//! - the **raw** size: codes bit-packed, one float16 a row for scales, float16 for the rest. Exact arithmetic;
//! - the **estimate** of the entropy-coded container that `pg_runtime::artifact` writes, within 3 % of it.
//!
//! A code's entropy follows from the grid and the row length alone where the rule is `amax`: the largest of `n`
//! Gaussians sets the step, so longer rows have a wider step and cheaper codes (int4: 3.19 bits at 512
//! columns, 3.06 at 1536). Where the rule is `floored` the step does not follow the weights, so their standard
//! deviation must be declared.

mod entropy;

use std::collections::BTreeSet;
use std::fmt;

use self::entropy::{Cost, Row, Shape};
use crate::quant::{Grid, Method, ScaleRule};

/// How a tensor is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Storage {
    /// Codes on a grid, one float16 scale a row.
    Int {
        /// The grid.
        grid: Grid,
        /// How the exporter finds scales.
        method: Method,
    },
    /// Float16 values.
    F16,
}

/// What values a tensor is expected to have.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Distribution {
    /// Normal with zero mean: trained weights, and normal or orthogonal initialisation.
    Gaussian {
        /// Standard deviation; needed where the scale rule is `floored`.
        std: Option<f64>,
    },
    /// Uniform on `-bound..bound`: PyTorch's default for linear layers.
    Uniform {
        /// Largest magnitude; needed where the scale rule is `floored`.
        bound: Option<f64>,
    },
    /// One value throughout: zeros or ones at initialisation. Costs next to nothing.
    Constant,
}

/// One tensor of the artifact. Tensors of any rank: `cols` is the last axis, `rows` all others.
#[derive(Clone, PartialEq, Debug)]
pub struct TensorFormat {
    /// Canonical name; tensors whose names differ only in numbers are coded together.
    pub name: String,
    /// Rows, one scale each where the storage is integer.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
    /// How the tensor is stored.
    pub storage: Storage,
    /// What it holds.
    pub distribution: Distribution,
}

/// A predicted size in bytes, and where the bytes are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Prediction {
    /// Without entropy coding: packed codes, scales and float16 tensors.
    pub raw_bytes: u64,
    /// Of the entropy-coded container, the sum of the following four.
    pub estimate_bytes: u64,
    /// Codes, with their histograms.
    pub code_bytes: f64,
    /// Row scales.
    pub scale_bytes: f64,
    /// Float16 tensors.
    pub f16_bytes: f64,
    /// Header, manifest and model text.
    pub overhead_bytes: f64,
}

/// Why a size cannot be predicted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BudgetError {
    /// The rule is `floored`, and the tensor's distribution has no size.
    MissingStd {
        /// The tensor.
        name: String,
    },
    /// The tensor has more values than can be counted.
    TooLarge {
        /// The tensor.
        name: String,
    },
}

impl fmt::Display for BudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BudgetError::MissingStd { name } => write!(
                f,
                "the size of `{name}` depends on its weights because its scale rule is `floored`: \
                 declare the standard deviation they are expected to have, or use rule `amax`"
            ),
            BudgetError::TooLarge { name } => write!(f, "`{name}` has too many values to store"),
        }
    }
}

impl std::error::Error for BudgetError {}

/// A name with every run of digits replaced by `#`: `blocks.3.mlp.fc.weight` has the role
/// `blocks.#.mlp.fc.weight`. Tensors of one role, row length and storage share a stream of the container.
pub fn role(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

/// Most values a tensor may have: far above any artifact, and low enough that no sum overflows.
const MAX_VALUES: u64 = 1 << 40;
/// Bytes of one row's scale after coding: the low byte of a float16 does not compress, the high one does.
const SCALE_BYTES: f64 = 1.25;
/// Bytes of one float16 Gaussian after coding: 8 bits of low byte, and 5.5 of sign, exponent and high mantissa.
const F16_BYTES: f64 = 1.70;
/// Fixed header, empty manifest, and the smallest streams.
const FIXED_BYTES: f64 = 300.0;
/// Compressed manifest bytes of one tensor's entry.
const ENTRY_BYTES: f64 = 5.0;
/// Manifest entry and header of one coded stream.
const STREAM_BYTES: f64 = 12.0;
/// Compressed size of a byte of model text.
const TEXT_RATIO: f64 = 0.30;

/// Predicts the artifact of `tensors` with a manifest that holds `text_bytes` of model text and settings.
///
/// # Errors
/// [`BudgetError::MissingStd`] for a tensor on a `floored` grid whose distribution has no declared size;
/// [`BudgetError::TooLarge`] where sizes overflow.
pub fn predict(tensors: &[TensorFormat], text_bytes: usize) -> Result<Prediction, BudgetError> {
    let mut raw = 0u64;
    let (mut code, mut scale, mut half) = (0.0, 0.0, 0.0);
    // (role, row length, clip or 0 for float16): what the container codes together.
    let mut streams = BTreeSet::new();
    let mut rows_costed = Vec::<(Row, Cost)>::new();
    for t in tensors {
        let values = (t.rows as u64).checked_mul(t.cols as u64).filter(|v| *v <= MAX_VALUES);
        let values = match values {
            Some(v) if t.rows as u64 <= MAX_VALUES => v,
            _ => return Err(BudgetError::TooLarge { name: t.name.clone() }),
        };
        match t.storage {
            Storage::F16 => {
                raw += 2 * values;
                half +=
                    if t.distribution == Distribution::Constant { 0.0 } else { F16_BYTES * values as f64 };
                streams.insert((role(&t.name), t.cols, 0));
            }
            Storage::Int { grid, method } => {
                raw += (values * u64::from(grid.bits())).div_ceil(8) + 2 * t.rows as u64;
                if let Some(row) = row_model(t, grid, method)? {
                    let cost = match rows_costed.iter().find(|(known, _)| *known == row) {
                        Some((_, cost)) => *cost,
                        None => {
                            rows_costed.push((row, row.cost()));
                            rows_costed[rows_costed.len() - 1].1
                        }
                    };
                    code += cost.bits / 8.0 * values as f64;
                    scale += cost.varying * SCALE_BYTES * t.rows as f64;
                }
                streams.insert((role(&t.name), t.cols, grid.clip));
            }
        }
    }
    for (_, _, clip) in &streams {
        match clip {
            0 => half += 2.0 * STREAM_BYTES,
            // Two bytes of histogram a level; one stream of codes and two of scale bytes.
            clip => code += 4.0 * f64::from(*clip) + 3.0 * STREAM_BYTES,
        }
    }
    let overhead = FIXED_BYTES + ENTRY_BYTES * tensors.len() as f64 + TEXT_RATIO * text_bytes as f64;
    Ok(Prediction {
        raw_bytes: raw,
        estimate_bytes: (code + scale + half + overhead).round() as u64,
        code_bytes: code,
        scale_bytes: scale,
        f16_bytes: half,
        overhead_bytes: overhead,
    })
}

/// The entropy model of a tensor's rows; none for a constant tensor, whose codes and scales are all equal.
fn row_model(t: &TensorFormat, grid: Grid, method: Method) -> Result<Option<Row>, BudgetError> {
    let (shape, size) = match t.distribution {
        Distribution::Gaussian { std } => (Shape::Normal, std),
        Distribution::Uniform { bound } => (Shape::Uniform, bound),
        Distribution::Constant => return Ok(None),
    };
    let floor = match (grid.rule, size) {
        (ScaleRule::Amax, _) => 0.0,
        (ScaleRule::Floored, Some(size)) if size > 0.0 => 1.0 / size,
        (ScaleRule::Floored, _) => return Err(BudgetError::MissingStd { name: t.name.clone() }),
    };
    let search = matches!(method, Method::GptqLite(_));
    Ok(Some(Row { cols: t.cols, clip: grid.clip, shape, floor, search }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Granularity;

    fn tensor(name: &str, rows: usize, cols: usize, clip: u16) -> TensorFormat {
        let grid = Grid { clip, rule: ScaleRule::Amax };
        let storage = if clip == 0 { Storage::F16 } else { Storage::Int { grid, method: Method::Grid } };
        TensorFormat {
            name: name.into(),
            rows,
            cols,
            storage,
            distribution: Distribution::Gaussian { std: None },
        }
    }

    /// int4mlp_12l's tensors, as its artifact stores them.
    fn int4mlp_12l() -> Vec<TensorFormat> {
        let mut all = vec![
            tensor("tok_emb.weight", 1024, 512, 127),
            tensor("bigram.embed.weight", 2048, 128, 127),
            tensor("ve_shared.embed.weight", 1024, 128, 127),
            tensor("bigram.proj.weight", 512, 128, 0),
            tensor("ve_shared.proj.weight", 256, 128, 0),
            tensor("skip_weights", 6, 512, 0),
            tensor("smear.gate", 1, 512, 0),
            tensor("bigram.scale", 1, 1, 0),
            tensor("ve_shared.scale", 1, 1, 0),
            tensor("ve_layer_scales.0", 1, 1, 0),
            tensor("ve_layer_scales.1", 1, 1, 0),
        ];
        for i in 0..12 {
            let t = |name: &str, rows, cols, clip| tensor(&format!("blocks.{i}.{name}"), rows, cols, clip);
            all.extend([
                t("attn.c_q.weight", 512, 512, 31),
                t("attn.c_k.weight", 256, 512, 31),
                t("attn.c_v.weight", 256, 512, 31),
                t("attn.proj.weight", 512, 512, 31),
                t("mlp.fc.weight", 1536, 512, 7),
                t("mlp.proj.weight", 512, 1536, 7),
                t("attn.q_gain", 1, 8, 0),
                t("attn_scale", 1, 512, 0),
                t("mlp_scale", 1, 512, 0),
                t("resid_mix", 2, 512, 0),
            ]);
        }
        all
    }

    #[test]
    fn int4mlp_12l_is_as_measured() {
        let tensors = int4mlp_12l();
        assert_eq!(tensors.iter().map(|t| t.rows * t.cols).sum::<usize>(), 29_355_620);
        let p = predict(&tensors, 0).unwrap();
        assert_eq!(p.raw_bytes, 17_779_912);
        assert!((14.70e6..14.90e6).contains(&(p.estimate_bytes as f64)), "{p:?}");
    }

    #[test]
    fn a_floored_rule_needs_a_declared_size() {
        let mut t = tensor("w", 512, 512, 31);
        let grid = Grid { clip: 31, rule: ScaleRule::Floored };
        t.storage = Storage::Int { grid, method: Method::GptqLite(Granularity::Matrix) };
        assert_eq!(predict(&[t.clone()], 0), Err(BudgetError::MissingStd { name: "w".into() }));
        t.distribution = Distribution::Gaussian { std: Some(0.08) };
        let floored = predict(&[t], 0).unwrap();
        let amax = predict(&[tensor("w", 512, 512, 31)], 0).unwrap();
        assert!(floored.estimate_bytes < amax.estimate_bytes);
    }

    #[test]
    fn constants_are_nearly_free() {
        let mut t = tensor("w", 512, 512, 7);
        t.distribution = Distribution::Constant;
        let p = predict(&[t], 0).unwrap();
        assert_eq!(p.raw_bytes, 512 * 512 / 2 + 2 * 512);
        assert!(p.estimate_bytes < 1000, "{p:?}");
    }

    #[test]
    fn hostile_sizes_are_errors() {
        for (rows, cols) in [(usize::MAX, 2), (usize::MAX, 0), (1 << 40, 1 << 20)] {
            let e = predict(&[tensor("w", rows, cols, 7)], 0);
            assert_eq!(e, Err(BudgetError::TooLarge { name: "w".into() }));
        }
        let empty = predict(&[tensor("w", 0, 0, 7)], 0).unwrap();
        assert_eq!(empty.raw_bytes, 0);
    }

    #[test]
    fn roles_forget_numbers() {
        assert_eq!(role("blocks.11.mlp.fc.weight"), "blocks.#.mlp.fc.weight");
        assert_eq!(role("tok_emb"), "tok_emb");
    }
}
