//! Expected entropy of a row's codes, from the distribution of its values alone.

use crate::quant::CLIP_QUANTILES;

/// Which distribution a row's values have, at unit size (standard deviation or bound 1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Shape {
    Normal,
    Uniform,
}

/// What decides the entropy of a row of codes. Lengths are in units of the values' size.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Row {
    pub(super) cols: usize,
    pub(super) clip: u16,
    pub(super) shape: Shape,
    /// Smallest clip point: 0 for rule `amax`, 1 / std for rule `floored`.
    pub(super) floor: f64,
    /// Whether the exporter searches for the clip point.
    pub(super) search: bool,
}

/// What a row is expected to cost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Cost {
    /// Bits a code, under one histogram for all rows.
    pub(super) bits: f64,
    /// Share of rows whose scale is not the floor's.
    pub(super) varying: f64,
}

/// Quantiles of the row maximum over which the histogram is averaged.
const NODES: usize = 32;

impl Row {
    pub(super) fn cost(&self) -> Cost {
        if self.cols == 0 {
            return Cost { bits: 0.0, varying: 0.0 };
        }
        let mut histogram = vec![0.0; usize::from(self.clip) + 1];
        let searched = if self.search { self.searched_clip() } else { None };
        let mut varying = 0.0;
        for node in 0..NODES {
            let amax = self.max_quantile((node as f64 + 0.5) / NODES as f64);
            let point = searched.map_or(amax, |q| q.min(amax));
            varying += f64::from(u8::from(point > self.floor)) / NODES as f64;
            self.add_row(amax, point.max(self.floor), &mut histogram);
        }
        // Signs are equally likely, so a nonzero magnitude costs one bit more than the magnitude.
        let entropy: f64 = histogram.iter().filter(|p| **p > 0.0).map(|p| -p * p.log2()).sum();
        Cost { bits: entropy + 1.0 - histogram[0], varying }
    }

    /// Adds the distribution of |code| in a row with largest magnitude `amax` and the given clip point.
    fn add_row(&self, amax: f64, point: f64, histogram: &mut [f64]) {
        let clip = histogram.len() - 1;
        let step = point / clip as f64;
        let n = self.cols as f64;
        // All values but the largest lie below it.
        let others = (n - 1.0) / n / self.shape.below(amax) / NODES as f64;
        let mut lower = 0.0;
        for (k, p) in histogram.iter_mut().enumerate() {
            let edge = if k == clip { amax } else { ((k as f64 + 0.5) * step).min(amax) };
            let upper = self.shape.below(edge);
            *p += others * (upper - lower);
            lower = upper;
        }
        let largest = (amax / step).round_ties_even().min(clip as f64) as usize;
        histogram[largest] += 1.0 / n / NODES as f64;
    }

    /// The `p`-quantile of the largest of `cols` magnitudes.
    fn max_quantile(&self, p: f64) -> f64 {
        self.shape.quantile(p.powf(1.0 / self.cols as f64))
    }

    /// The clip point that a search keeps, or none where that is the maximum: expected squared error at each
    /// candidate, with Blom's approximation of the order statistics.
    fn searched_clip(&self) -> Option<f64> {
        let n = self.cols as f64;
        let error = |point: f64| {
            let step = point.max(self.floor) / f64::from(self.clip);
            step * step / 12.0 * self.shape.below(point) + self.shape.clipping_error(point)
        };
        // A row's own maximum clips nothing.
        let largest = self.max_quantile(0.5).max(self.floor) / f64::from(self.clip);
        let mut best = (largest * largest / 12.0, None);
        for q in CLIP_QUANTILES.into_iter().filter(|q| *q < 1.0) {
            let rank = f64::from(q) * (n - 1.0);
            let point = self.shape.quantile(((rank + 1.0 - 0.375) / (n + 0.25)).clamp(0.0, 1.0 - 1e-12));
            if error(point) < best.0 {
                best = (error(point), Some(point));
            }
        }
        best.1
    }
}

impl Shape {
    /// Probability that a magnitude is below `x`.
    fn below(self, x: f64) -> f64 {
        match self {
            Shape::Normal => 1.0 - erfc(x * std::f64::consts::FRAC_1_SQRT_2),
            Shape::Uniform => x.clamp(0.0, 1.0),
        }
    }

    /// The magnitude below which a share `p` lies, by bisection.
    fn quantile(self, p: f64) -> f64 {
        let (mut low, mut high) = (0.0, 40.0);
        for _ in 0..60 {
            let mid = 0.5 * (low + high);
            if self.below(mid) < p { low = mid } else { high = mid }
        }
        0.5 * (low + high)
    }

    /// Expected squared distance to `-x..x`.
    fn clipping_error(self, x: f64) -> f64 {
        match self {
            Shape::Normal => {
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                (1.0 + x * x) * erfc(x * std::f64::consts::FRAC_1_SQRT_2) - 2.0 * x * density
            }
            Shape::Uniform => (1.0 - x).max(0.0).powi(3) / 3.0,
        }
    }
}

/// Complementary error function for `x >= 0`: the Chebyshev fit of Numerical Recipes (`erfcc`), relative error
/// below 1.2e-7.
fn erfc(x: f64) -> f64 {
    const FIT: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial = FIT.iter().rev().fold(0.0, |sum, c| sum * t + c);
    t * (-x * x + polynomial).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(cols: usize, clip: u16) -> f64 {
        Row { cols, clip, shape: Shape::Normal, floor: 0.0, search: false }.cost().bits
    }

    #[test]
    fn agrees_with_what_was_measured() {
        for (cols, clip, want) in [(512, 7, 3.19), (1536, 7, 3.06), (512, 31, 5.32)] {
            assert!((bits(cols, clip) - want).abs() < 0.02, "{cols} {clip}: {}", bits(cols, clip));
        }
        assert!((7.3..7.7).contains(&bits(512, 127)) && (7.3..7.7).contains(&bits(128, 127)));
    }

    #[test]
    fn erfc_is_accurate() {
        for (x, want) in [(0.0, 1.0), (0.5, 0.479500122), (2.0, 0.004677735), (4.0, 1.541726e-8)] {
            assert!((erfc(x) / want - 1.0).abs() < 1e-6, "{x}: {}", erfc(x));
        }
    }

    #[test]
    fn uniform_codes_fill_their_range() {
        let row = Row { cols: 512, clip: 127, shape: Shape::Uniform, floor: 0.0, search: false };
        let bits = row.cost().bits;
        assert!((bits - 255f64.log2()).abs() < 0.02, "{bits}");
    }

    #[test]
    fn a_high_floor_makes_codes_cheap() {
        let row = |floor| Row { cols: 512, clip: 31, shape: Shape::Normal, floor, search: false }.cost();
        assert_eq!(row(0.0).varying, 1.0);
        let floored = row(1.0 / 0.1);
        assert_eq!(floored.varying, 0.0);
        // Step 1/31 at std 0.1: the entropy of a Gaussian at 3.1 steps a deviation.
        assert!((floored.bits - (2.047 + 3.1f64.log2())).abs() < 0.01, "{}", floored.bits);
    }

    #[test]
    fn degenerate_rows_are_finite() {
        for (cols, clip) in [(0, 7), (1, 1), (1, 127), (2, 7)] {
            for (shape, search) in [(Shape::Normal, true), (Shape::Uniform, true), (Shape::Normal, false)] {
                let cost = Row { cols, clip, shape, floor: 0.0, search }.cost();
                assert!(cost.bits.is_finite() && cost.bits >= 0.0, "{cols} {clip}: {cost:?}");
            }
        }
    }
}
