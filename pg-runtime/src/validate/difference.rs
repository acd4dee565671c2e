//! A difference in words: what is wrong, by how much, and where it began.

use std::fmt;

/// Where a program went wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blame {
    /// The first launch that differs, or what else went wrong first, in words.
    pub first: String,
    /// Its lines of the model.
    pub lines: Vec<String>,
}

/// What a program computes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The program, with its shape.
    pub program: String,
    /// The output that is furthest off.
    pub output: String,
    /// Outputs that are off.
    pub wrong: usize,
    /// Its largest error.
    pub error: f64,
    /// What rounding explains of it.
    pub bound: f64,
    /// What is there.
    pub got: f64,
    /// What should be.
    pub want: f64,
    /// The same output's error without fusion, where that was asked.
    pub unfused: Option<f64>,
    /// Whether a comparison of the model lay within rounding of a tie, on all inputs that were tried.
    pub undecided: bool,
    /// Where it began.
    pub blame: Blame,
}

impl std::error::Error for Difference {}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { program, output, wrong, error, bound, got, want, unfused, blame, undecided } = self;
        write!(f, "`{program}` is miscompiled: {output} is ")?;
        match got.is_finite() {
            true => write!(
                f,
                "{got:.4e} where float64 gives {want:.4e}, off by {error:.1e}, of which rounding explains {bound:.1e}"
            )?,
            // Memory that is only written held no number before.
            false => write!(f, "no number, or not written at all; float64 gives {want:.4e}")?,
        }
        match wrong {
            0 | 1 => {}
            2 => f.write_str("; one more output is off")?,
            n => write!(f, "; {} more outputs are off", n - 1)?,
        }
        write!(f, "\n  {}", blame.first)?;
        if !blame.lines.is_empty() {
            write!(f, "\n  model lines: {}", blame.lines.join(", "))?;
        }
        match unfused {
            Some(off) if off <= bound => f.write_str("\n  without fusion it is right")?,
            Some(off) if off.is_finite() => write!(f, "\n  without fusion it is off by {off:.1e}")?,
            Some(_) => f.write_str("\n  without fusion it is no number either")?,
            None => {}
        }
        if *undecided {
            f.write_str("\n  a comparison in the model lies within rounding of a tie, whatever the inputs")?;
        }
        f.write_str(
            "\n  nothing was trained. This is a fault of pg, not of the model: please report it with the model's text",
        )
    }
}
