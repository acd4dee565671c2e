//! Weights to codes and scales at export, and back.

use std::fmt;
use std::str::FromStr;

use half::f16;

use super::{Grid, GridError, MAX_CLIP, code, encode_row, store_scale};

/// The clip points that [`gptq_lite`] tries, in order.
pub const CLIP_QUANTILES: [f32; 5] = [0.9990, 0.9995, 0.9999, 0.99999, 1.0];

/// The clip point of the original's int8 tables.
pub const TABLE_QUANTILE: f32 = 0.999_998_4;

/// Over what [`gptq_lite`] picks one clip quantile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Granularity {
    /// Each row keeps the quantile that is best for itself.
    Row,
    /// One quantile for the whole matrix, as the original.
    Matrix,
}

/// How an export finds the codes and scales of a matrix on a grid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// The grid as training used it. The only choice that keeps what QAT has learnt.
    Grid,
    /// The clip search of [`gptq_lite`].
    GptqLite(Granularity),
    /// The clip point at [`TABLE_QUANTILE`] of each row.
    Table,
}

impl Method {
    /// Every method, for error messages and documentation.
    pub const ALL: [Method; 4] = [
        Method::Grid,
        Method::GptqLite(Granularity::Row),
        Method::GptqLite(Granularity::Matrix),
        Method::Table,
    ];

    /// The method's name in messages and parsers. A model file calls them `training_grid`, `clip_search(…)`,
    /// `clip_search(…, per_matrix = true)` and `quantile_rows(…)`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Grid => "grid",
            Method::GptqLite(Granularity::Row) => "gptq_lite",
            Method::GptqLite(Granularity::Matrix) => "gptq_lite_matrix",
            Method::Table => "table",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = GridError;

    fn from_str(s: &str) -> Result<Self, GridError> {
        Method::ALL.into_iter().find(|m| m.name() == s).ok_or_else(|| GridError::UnknownMethod(s.to_owned()))
    }
}

/// Quantises a `[rows, cols]` matrix, row major: codes `[rows, cols]` and float16 scales `[rows]`.
///
/// # Panics
/// If `w` is not `rows * cols` long, or the clip exceeds [`MAX_CLIP`].
pub fn quantize(w: &[f32], rows: usize, cols: usize, grid: Grid, method: Method) -> (Vec<i8>, Vec<f16>) {
    assert_eq!(w.len(), rows * cols, "a matrix holds rows * cols values");
    let each_row = |f: &dyn Fn(&[f32], &mut [i8]) -> f16| {
        let mut codes = vec![0; w.len()];
        let scales = (0..rows).map(|r| f(&w[r * cols..][..cols], &mut codes[r * cols..][..cols])).collect();
        (codes, scales)
    };
    match method {
        Method::Grid => each_row(&|row, codes| grid.quantize_row_f16(row, codes)),
        Method::Table => each_row(&|row, codes| quantile_row_f16(row, grid, TABLE_QUANTILE, codes)),
        Method::GptqLite(granularity) => gptq_lite(w, rows, cols, grid, granularity),
    }
}

/// GPTQ-lite's clip search, as PR #910 exports: tries each of [`CLIP_QUANTILES`] of `|row|` as the clip point and
/// keeps the smallest mean squared error, the first of equals.
///
/// `w` is `[rows, cols]`, row major. Returns the codes `[rows, cols]` and the float16 scales `[rows]`; unlike
/// on the training grid, codes are computed with the rounded scale.
///
/// # Panics
/// If `w` is not `rows * cols` long, or the clip exceeds [`MAX_CLIP`].
pub fn gptq_lite(
    w: &[f32],
    rows: usize,
    cols: usize,
    grid: Grid,
    granularity: Granularity,
) -> (Vec<i8>, Vec<f16>) {
    assert_eq!(w.len(), rows * cols, "a matrix holds rows * cols values");
    assert!(grid.clip <= MAX_CLIP, "codes of clip {} do not fit an i8", grid.clip);
    const TRIES: usize = CLIP_QUANTILES.len();

    // Scale and error of every candidate first; the codes are computed once, for the winners.
    let mut scales = Vec::with_capacity(rows);
    let mut errors = Vec::with_capacity(rows);
    let mut sorted = Vec::with_capacity(cols);
    for r in 0..rows {
        let row = &w[r * cols..][..cols];
        sort_magnitudes(row, &mut sorted);
        let tried: [f16; TRIES] =
            CLIP_QUANTILES.map(|q| store_scale(grid.scale_of(quantile_of_sorted(&sorted, q))));
        errors.push(tried.map(|s| row_error(row, s.to_f32(), grid.clip)));
        scales.push(tried);
    }
    let overall: [f64; TRIES] = std::array::from_fn(|q| errors.iter().map(|e| e[q]).sum());

    let mut codes = vec![0; rows * cols];
    let mut stored = Vec::with_capacity(rows);
    for r in 0..rows {
        let best = match granularity {
            Granularity::Row => first_smallest(&errors[r]),
            Granularity::Matrix => first_smallest(&overall),
        };
        let s = scales[r][best];
        for (k, &x) in codes[r * cols..][..cols].iter_mut().zip(&w[r * cols..][..cols]) {
            *k = code(x, s.to_f32(), grid.clip) as i8;
        }
        stored.push(s);
    }
    (codes, stored)
}

/// Quantises a row with its clip point at `quantile` of `|row|` (int8 tables at
/// [`TABLE_QUANTILE`], which for rows below 640,000 values interpolates just under the maximum).
///
/// Values are clamped to the clip point first: under rule `floored` a code of `clip` can lie beyond it.
///
/// # Panics
/// If the lengths differ, or the clip exceeds [`MAX_CLIP`].
pub fn quantile_row_f16(row: &[f32], grid: Grid, quantile: f32, codes: &mut [i8]) -> f16 {
    let mut sorted = Vec::with_capacity(row.len());
    sort_magnitudes(row, &mut sorted);
    let point = quantile_of_sorted(&sorted, quantile);
    let clamped: Vec<f32> = row.iter().map(|w| w.max(-point).min(point)).collect();
    encode_row(&clamped, grid.scale_of(point), grid.clip, codes)
}

/// `codes * scale` in float32, row by row: how an artifact's codes become weights again.
///
/// `codes` is `[scales.len(), cols]`. `cols` of 0 gives nothing.
pub fn dequantize(codes: &[i8], scales: &[f16], cols: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(codes.len());
    for (row, s) in codes.chunks(cols.max(1)).zip(scales) {
        let s = s.to_f32();
        out.extend(row.iter().map(|&k| f32::from(k) * s));
    }
    out
}

fn sort_magnitudes(row: &[f32], sorted: &mut Vec<f32>) {
    sorted.clear();
    sorted.extend(row.iter().map(|w| w.abs()));
    sorted.sort_unstable_by(f32::total_cmp);
}

/// The `q`-quantile of ascending values, linear between order statistics, in torch's float32 arithmetic
/// (`rank = q * (n - 1)`, then `lerp`, which works from the nearer end). 0 for no values.
fn quantile_of_sorted(sorted: &[f32], q: f32) -> f32 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = q * last as f32;
    let below = (rank.floor() as usize).min(last);
    let (a, b) = (sorted[below], sorted[(below + 1).min(last)]);
    let t = rank - rank.floor();
    if t < 0.5 { a + t * (b - a) } else { b - (b - a) * (1.0 - t) }
}

/// Mean squared error of a row at one scale: float32 differences, summed in float64.
fn row_error(row: &[f32], s: f32, clip: u16) -> f64 {
    let sum: f64 = row
        .iter()
        .map(|&w| {
            let d = w - code(w, s, clip) as f32 * s;
            f64::from(d * d)
        })
        .sum();
    sum / row.len().max(1) as f64
}

fn first_smallest(errors: &[f64]) -> usize {
    let mut best = 0;
    for (i, e) in errors.iter().enumerate() {
        if *e < errors[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::ScaleRule;

    #[test]
    fn tables_clip_just_under_their_maximum() {
        let grid = Grid { clip: 127, rule: ScaleRule::Amax };
        let row: Vec<f32> = (0..=1000).map(|i| i as f32 / 1000.0).collect();
        let mut codes = vec![0; row.len()];
        let scale = quantile_row_f16(&row, grid, TABLE_QUANTILE, &mut codes);
        assert_eq!(codes[1000], 127);
        assert!(scale.to_f32() <= 1.0 / 127.0 && scale.to_f32() > 0.999 / 127.0);
        assert_eq!(dequantize(&codes, &[scale], row.len())[1000], 127.0 * scale.to_f32());
    }

    /// With a floored scale the clip point is inside the grid.
    #[test]
    fn tables_clamp_before_they_round() {
        let grid = Grid { clip: 7, rule: ScaleRule::Floored };
        let mut codes = [0; 5];
        let scale = quantile_row_f16(&[0.1, 0.1, 0.1, 0.1, -0.5], grid, 0.5, &mut codes);
        assert_eq!((scale, codes), (f16::from_f32(1.0 / 7.0), [1, 1, 1, 1, -1]));
    }

    #[test]
    fn quantiles_interpolate_and_survive_short_rows() {
        assert_eq!(quantile_of_sorted(&[0.0, 1.0, 2.0], 0.25), 0.5);
        assert_eq!(quantile_of_sorted(&[0.0, 1.0, 2.0], 0.875), 1.75);
        assert_eq!(quantile_of_sorted(&[3.0], 0.999), 3.0);
        assert_eq!(quantile_of_sorted(&[], 0.999), 0.0);
        let grid = Grid { clip: 7, rule: ScaleRule::Amax };
        for method in Method::ALL {
            assert_eq!(quantize(&[], 2, 0, grid, method), (vec![], vec![f16::ONE; 2]));
            assert_eq!(quantize(&[], 0, 3, grid, method), (vec![], vec![]));
            assert_eq!(quantize(&[7.0], 1, 1, grid, method), (vec![7], vec![f16::ONE]));
        }
    }
}
