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
