//! The one quantiser: the grids of quantisation-aware training and of the exported artifact.
//!
//! A [`Grid`] is a value of the IR. The straight-through op, the exporter and every device lower the same
//! few float32 operations in the same order, so that a weight cannot be trained on one grid and exported on
//! another. Per row `w` (the last axis of a tensor) with clip `c`:
//!
//! ```text
//! amax  = max |w_j|
//! scale = amax / c, or 1 where amax = 0        rule `amax`
//!         max(amax / c, 1 / c)                 rule `floored` (the original's export)
//! code  = clamp(round_half_even(w_j / scale), -c, c)
//! value = code * scale
//! ```
//!
//! Stored scales are float16. How codes and scales are found at export is a [`Method`], each with a name:
//!
//! | method | function | scale | codes computed with | for |
//! |---|---|---|---|---|
//! | `grid` | [`Grid::quantize_row_f16`] | the training grid's | the float32 scale | tensors trained under QAT |
//! | `gptq_lite`, `gptq_lite_matrix` | [`gptq_lite`] | best of five clip quantiles | the stored scale | tensors without QAT |
//! | `table` | [`quantile_row_f16`] | one fixed clip quantile | the float32 scale | embedding tables |

mod export;

use std::fmt;
use std::str::FromStr;

use half::f16;

pub use self::export::{
    CLIP_QUANTILES, Granularity, Method, TABLE_QUANTILE, dequantize, gptq_lite, quantile_row_f16, quantize,
};

/// Largest clip whose codes `-clip..=clip` fit the `i8` of an artifact.
pub const MAX_CLIP: u16 = 127;

/// How the scale of a row follows from its largest magnitude.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScaleRule {
    /// `amax / clip`, and 1 for a row of zeros. Invariant to the size of the weights.
    Amax,
    /// `max(amax, 1) / clip`: what #910 and #549 export with. Rows below 1 all share the scale `1 / clip`.
    Floored,
}

impl ScaleRule {
    /// Every rule, for error messages and documentation.
    pub const ALL: [ScaleRule; 2] = [ScaleRule::Amax, ScaleRule::Floored];

    /// The rule's name in the DSL.
    pub fn name(self) -> &'static str {
        match self {
            ScaleRule::Amax => "amax",
            ScaleRule::Floored => "floored",
        }
    }
}

impl fmt::Display for ScaleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ScaleRule {
    type Err = GridError;

    fn from_str(s: &str) -> Result<Self, GridError> {
        ScaleRule::ALL.into_iter().find(|r| r.name() == s).ok_or_else(|| GridError::UnknownRule(s.to_owned()))
    }
}

/// A symmetric integer grid with one scale a row: `2 * clip + 1` levels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Grid {
    /// Largest code: 7 is int4, 31 is int6, 127 is int8. 1 to [`MAX_CLIP`].
    pub clip: u16,
    /// How a row's scale is found.
    pub rule: ScaleRule,
}

/// Why a grid is not one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GridError {
    /// The clip is 0 or does not fit an `i8` code.
    Clip(u32),
    /// No scale rule has this name.
    UnknownRule(String),
    /// No export method has this name.
    UnknownMethod(String),
    /// The text is not of the form `int(clip=7, rule=amax)`.
    Syntax(String),
}

impl fmt::Display for GridError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GridError::Clip(c) => write!(f, "clip {c} is out of range: a grid's clip is 1 to {MAX_CLIP}"),
            GridError::UnknownRule(r) => write!(f, "unknown scale rule `{r}`: expected `amax` or `floored`"),
            GridError::UnknownMethod(m) => {
                write!(f, "unknown export method `{m}`: expected ")?;
                let names: Vec<_> = Method::ALL.iter().map(|m| format!("`{m}`")).collect();
                f.write_str(&names.join(", "))
            }
            GridError::Syntax(s) => write!(f, "`{s}` is not a grid: expected `int(clip=7, rule=amax)`"),
        }
    }
}

impl std::error::Error for GridError {}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "int(clip={}, rule={})", self.clip, self.rule)
    }
}

impl FromStr for Grid {
    type Err = GridError;

    fn from_str(s: &str) -> Result<Self, GridError> {
        let syntax = || GridError::Syntax(s.to_owned());
        let body = s.strip_prefix("int(clip=").and_then(|r| r.strip_suffix(')')).ok_or_else(syntax)?;
        let (clip, rule) = body.split_once(", rule=").ok_or_else(syntax)?;
        Grid::new(clip.parse().map_err(|_| syntax())?, rule.parse()?)
    }
}

impl Grid {
    /// A grid whose codes fit an `i8`.
    ///
    /// # Errors
    /// [`GridError::Clip`] unless `clip` is 1 to [`MAX_CLIP`].
    pub fn new(clip: u32, rule: ScaleRule) -> Result<Grid, GridError> {
        match u16::try_from(clip) {
            Ok(c @ 1..=MAX_CLIP) => Ok(Grid { clip: c, rule }),
            _ => Err(GridError::Clip(clip)),
        }
    }

    /// Levels of the grid, `2 * clip + 1`.
    pub fn levels(self) -> usize {
        2 * usize::from(self.clip) + 1
    }

    /// Bits of one code without entropy coding, `ceil(log2(levels))`.
    pub fn bits(self) -> u32 {
        usize::BITS - (self.levels() - 1).leading_zeros()
    }

    /// The scale of a row whose largest magnitude is `amax`. Never 0 for a finite `amax`.
    pub fn scale_of(self, amax: f32) -> f32 {
        let clip = f32::from(self.clip);
        match self.rule {
            ScaleRule::Floored => (amax / clip).max(1.0 / clip),
            // A subnormal amax may divide to 0; such a row is a row of zeros.
            ScaleRule::Amax => match amax / clip {
                s if s > 0.0 => s,
                _ => 1.0,
            },
        }
    }

    /// The float32 scale that training uses for `row`.
    pub fn row_scale(&self, row: &[f32]) -> f32 {
        self.scale_of(amax(row))
    }

    /// Writes `src` rounded to this grid into `dst` (one row, same length): the forward value of the
    /// straight-through quantiser.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn fake_quantize_row(&self, src: &[f32], dst: &mut [f32]) {
        assert_eq!(src.len(), dst.len(), "a row and its quantised copy have one length");
        let scale = self.row_scale(src);
        for (d, &w) in dst.iter_mut().zip(src) {
            *d = code(w, scale, self.clip) as f32 * scale;
        }
    }

    /// Exports a row on the grid it was trained on: writes the codes and returns the scale in float16.
    ///
    /// The codes are those of training exactly, computed with the float32 scale. Recomputing them with the
    /// rounded scale would move those next to a rounding boundary (0.1 to 0.5 %) by a whole step, which is
    /// far more than the 2^-12 by which the rounded scale itself differs.
    ///
    /// # Panics
    /// If the lengths differ, or the clip exceeds [`MAX_CLIP`].
    pub fn quantize_row_f16(&self, row: &[f32], codes: &mut [i8]) -> f16 {
        encode_row(row, self.row_scale(row), self.clip, codes)
    }
}

/// Largest magnitude of a row; 0 for an empty one. NaN is skipped, as `f32::max` does.
pub fn amax(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |m, w| m.max(w.abs()))
}

/// The code of `w` at scale `s`: `clamp(round_half_even(w / s), -clip, clip)`. NaN becomes 0.
#[inline]
pub fn code(w: f32, s: f32, clip: u16) -> i32 {
    // Clamping first gives the same, as the bounds are integers, and leaves at most 16 bits: adding and
    // subtracting 1.5 * 2^23 then rounds half to even, in two instructions that every target vectorises.
    const ROUND: f32 = 12_582_912.0;
    let c = f32::from(clip);
    (((w / s).clamp(-c, c) + ROUND) - ROUND) as i32
}

/// `scale` in float16: 0 becomes 1 (the row is a row of zeros), infinity the largest finite value.
fn store_scale(scale: f32) -> f16 {
    match f16::from_f32(scale) {
        s if s == f16::ZERO => f16::ONE,
        s if s.is_infinite() => f16::MAX,
        s => s,
    }
}

/// Codes of `row` at the float32 `scale`; returns the scale to store beside them.
fn encode_row(row: &[f32], scale: f32, clip: u16, codes: &mut [i8]) -> f16 {
    assert_eq!(row.len(), codes.len(), "a row and its codes have one length");
    assert!(clip <= MAX_CLIP, "codes of clip {clip} do not fit an i8");
    let stored = store_scale(scale);
    // Where float16 cannot hold the scale, code with the one that will be read back.
    let held = f16::from_f32(scale) == stored;
    let scale = if held { scale } else { stored.to_f32() };
    for (k, &w) in codes.iter_mut().zip(row) {
        *k = code(w, scale, clip) as i8;
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT4: Grid = Grid { clip: 7, rule: ScaleRule::Amax };

    #[test]
    fn names_round_trip() {
        for rule in ScaleRule::ALL {
            let grid = Grid { clip: 31, rule };
            assert_eq!(grid.to_string().parse(), Ok(grid));
        }
        assert_eq!(INT4.to_string(), "int(clip=7, rule=amax)");
        for method in Method::ALL {
            assert_eq!(method.name().parse(), Ok(method));
        }
        assert!("gptq".parse::<Method>().unwrap_err().to_string().contains("`gptq_lite_matrix`"));
        assert_eq!("int(clip=7)".parse::<Grid>(), Err(GridError::Syntax("int(clip=7)".into())));
        assert_eq!("int(clip=0, rule=amax)".parse::<Grid>(), Err(GridError::Clip(0)));
        assert_eq!(Grid::new(128, ScaleRule::Amax), Err(GridError::Clip(128)));
        assert_eq!("int(clip=7, rule=max)".parse::<Grid>(), Err(GridError::UnknownRule("max".into())));
    }

    #[test]
    fn bits_hold_every_level() {
        for (clip, bits) in [(1, 2), (3, 3), (7, 4), (15, 5), (31, 6), (63, 7), (127, 8)] {
            assert_eq!(Grid { clip, rule: ScaleRule::Amax }.bits(), bits);
        }
    }

    #[test]
    fn scales_follow_their_rule() {
        let floored = Grid { clip: 7, rule: ScaleRule::Floored };
        assert_eq!(INT4.row_scale(&[0.5, -3.5]), 0.5);
        assert_eq!(INT4.row_scale(&[0.0, 0.0]), 1.0);
        assert_eq!(INT4.row_scale(&[]), 1.0);
        assert_eq!(INT4.row_scale(&[f32::from_bits(1)]), 1.0, "a scale must not underflow to 0");
        assert_eq!(floored.row_scale(&[0.5]), 1.0 / 7.0);
        assert_eq!(floored.row_scale(&[14.0]), 2.0);
    }

    #[test]
    fn ties_round_to_even_and_codes_clamp() {
        let codes: Vec<i32> = [0.5, 1.5, 2.5, -0.5, -1.5, 9.0, -9.0].map(|w| code(w, 1.0, 7)).to_vec();
        assert_eq!(codes, [0, 2, 2, 0, -2, 7, -7]);
        for clip in [7, 31, 127, u16::MAX] {
            let bound = f32::from(clip);
            for i in -4000..4000 {
                for w in [i as f32 / 8.0, i as f32 * 0.013, i as f32 * 1e30, f32::NAN] {
                    let want = (w / 0.37).round_ties_even().clamp(-bound, bound) as i32;
                    assert_eq!(code(w, 0.37, clip), want, "{w} {clip}");
                    assert_eq!(code(w, 1.0, clip), w.round_ties_even().clamp(-bound, bound) as i32);
                }
            }
        }
    }

    #[test]
    fn export_keeps_the_codes_of_training() {
        let row: Vec<f32> = (0..512).map(|i| ((i * 7919) % 1021) as f32 / 1021.0 - 0.49).collect();
        for clip in [7, 31, 127] {
            let grid = Grid { clip, rule: ScaleRule::Amax };
            let (mut trained, mut codes) = (vec![0.0; row.len()], vec![0; row.len()]);
            grid.fake_quantize_row(&row, &mut trained);
            let scale = grid.quantize_row_f16(&row, &mut codes);
            let (exact, stored) = (grid.row_scale(&row), scale.to_f32());
            assert!((stored / exact - 1.0).abs() <= 1.0 / 2048.0);
            for (k, t) in codes.iter().zip(&trained) {
                assert_eq!(f32::from(*k) * exact, *t);
            }
        }
    }

    #[test]
    fn scales_outside_float16_stay_finite_and_nonzero() {
        let mut codes = [0; 2];
        assert_eq!(INT4.quantize_row_f16(&[1e-9, -2e-9], &mut codes), f16::ONE);
        assert_eq!(codes, [0, 0]);
        assert_eq!(INT4.quantize_row_f16(&[1e9, 1.0], &mut codes), f16::MAX);
        assert_eq!(codes, [7, 0]);
    }
}
