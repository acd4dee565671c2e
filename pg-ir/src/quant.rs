//! Placeholder until the quantiser lands: the grid type that ops carry.

use std::fmt;
use std::str::FromStr;

/// Scale rule of a grid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ScaleRule {
    /// scale = rowmax / clip
    Amax,
    /// scale = max(rowmax, 1) / clip
    Floored,
}

impl fmt::Display for ScaleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScaleRule::Amax => "amax",
            ScaleRule::Floored => "floored",
        })
    }
}

impl FromStr for ScaleRule {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "amax" => Ok(ScaleRule::Amax),
            "floored" => Ok(ScaleRule::Floored),
            _ => Err(format!("unknown scale rule `{s}`: the rules are `amax` and `floored`")),
        }
    }
}

/// A signed per-row grid of levels −clip…clip.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Grid {
    /// Largest code.
    pub clip: u16,
    /// Scale rule.
    pub rule: ScaleRule,
}

impl Grid {
    /// Placeholder.
    pub fn fake_quantize_row(&self, src: &[f32], dst: &mut [f32]) {
        let amax = src.iter().fold(0f32, |m, w| m.max(w.abs()));
        let clip = f32::from(self.clip);
        let s = match self.rule {
            ScaleRule::Amax if amax == 0.0 => 1.0,
            ScaleRule::Amax => amax / clip,
            ScaleRule::Floored => (amax / clip).max(1.0 / clip),
        };
        for (d, w) in dst.iter_mut().zip(src) {
            *d = (w / s).round_ties_even().clamp(-clip, clip) * s;
        }
    }
}
