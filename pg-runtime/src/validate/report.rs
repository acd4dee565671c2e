//! What validation found, for people, for `report.json` and for the cache.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::coverage::Uncovered;

/// What was done about validation.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every program agrees with float64.
    Passed,
    /// `--no-validate`.
    #[default]
    Skipped,
}

/// The result of validating the programs of a run. Field names are a public interface.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ValidationReport {
    /// Whether it was done.
    pub outcome: Outcome,
    /// Whether an earlier run of the same program text, pg and device did it.
    pub cached: bool,
    /// Seconds that it took now.
    pub seconds: f64,
    /// The programs that ran.
    pub programs: Vec<ProgramReport>,
    /// Launches of the run's programs.
    pub launches: usize,
    /// Those of them that a validated launch stands for.
    pub covered: usize,
    /// The others.
    pub uncovered: Vec<Uncovered>,
}

/// One validated program.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ProgramReport {
    /// Its name.
    pub program: String,
    /// Sequences and their tokens, of a program that reads tokens.
    pub shape: Option<(usize, usize)>,
    /// Outputs that were compared: results, and what it wrote of each parameter.
    pub outputs: usize,
    /// Outputs of which the reference is not finite, so that there is nothing to compare.
    pub not_compared: Vec<String>,
    /// The output whose error comes closest to its bound.
    pub worst: String,
    /// That error, relative to the output's largest element.
    pub error: f64,
    /// Its bound, likewise.
    pub bound: f64,
    /// Sets of inputs that it ran on: more than one if a decision of the model lay within rounding of an edge.
    pub inputs: u64,
    /// Launches of the run's programs that it stands for.
    pub launches: usize,
    /// Those of them that it covers.
    pub covered: usize,
}

impl fmt::Display for ValidationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Skipped => f.write_str("skipped"),
            Outcome::Passed => {
                let (programs, covered, launches) = (self.programs.len(), self.covered, self.launches);
                write!(f, "yes ({programs} programs, {covered} of {launches} launches covered")?;
                match self.programs.iter().map(|p| p.not_compared.len()).sum::<usize>() {
                    0 => {}
                    n => write!(f, ", {n} outputs without a finite reference")?,
                }
                f.write_str(if self.cached { ", cached)" } else { ")" })
            }
        }
    }
}
