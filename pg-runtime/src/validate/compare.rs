//! How far what a device wrote may be from float64, and how far it is.
//!
//! Errors are measured against the largest element of an output, since that is what sums of its elements see. An output
//! is accepted at once within a few roundings of its precision. One that is further off is held to what the *same
//! program without fusion* is off in the same precision, and to what rounding every value of the graph does to the
//! reference (Monte Carlo arithmetic: Parker, *Monte Carlo Arithmetic*, 1997); see [`super::check`]. A tolerance must
//! never come from the run that it judges.

use std::ops::Range;

use pg_ir::graph::Graph;
use pg_ir::lang::layout::Layout;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

/// An error may be this many times the yardstick's: one run's largest error of a few elements is a small sample.
const FACTOR: f64 = 8.0;

/// The unfused run is believed up to this many [floors](Precision::floor): beyond, it may share the fault.
const BELIEVED: f64 = 32.0;

/// Beyond float32's useful range there is nothing to compare.
const LARGEST: f64 = 1e30;

/// Below it a float32 may be zero.
const SMALLEST: f64 = 1e-30;

/// What rounding does in a storage type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precision {
    /// Error of an output that is never looked into, relative to its largest element.
    pub(super) floor: f64,
}

impl Precision {
    pub(super) fn of(storage: DType) -> Precision {
        // Half an ulp is 2⁻²⁴ in float32 and 2⁻⁹ in bfloat16. Of float32 roundings each output sums dozens; in
        // bfloat16 one value that rounds the other way is two halves.
        let floor = if storage == DType::BF16 { 4.0 * 2f64.powi(-9) } else { 64.0 * 2f64.powi(-24) };
        Precision { floor }
    }

    /// The error of an unfused run as a yardstick for an output of this scale.
    pub(super) fn believed(self, error: f64, scale: f64) -> f64 {
        error.min(BELIEVED * self.floor * scale)
    }

    /// The bound on an error given its yardstick.
    pub(super) fn bound(self, yardstick: f64, scale: f64) -> f64 {
        self.floor * scale + FACTOR * yardstick + SMALLEST
    }
}

/// A parameter's or result's part of what a program writes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The program's output.
    pub(super) slot: Slot,
    /// Which elements of it.
    pub(super) range: Range<usize>,
    /// The parameter, or the result.
    pub(super) name: String,
}

impl Part {
    /// What it is, for a sentence.
    pub(super) fn words(&self) -> String {
        let name = &self.name;
        match self.slot.space {
            Space::Result => format!("result `{name}`"),
            Space::Grad => format!("the gradient of `{name}`"),
            Space::Param => format!("`{name}` after the step"),
            space => format!("the {space} of `{name}` after the step"),
        }
    }
}

/// Everything that a program writes, by parameter.
pub(super) fn parts(graph: &Graph, layout: &Layout) -> Vec<Part> {
    let mut parts = Vec::new();
    for output in &graph.outputs {
        let slot = &output.slot;
        match layout.banks.iter().find(|b| slot.space.is_state() && b.name == slot.name) {
            Some(bank) => parts.extend(bank.members.iter().filter_map(|name| {
                let at = layout.position(name)?;
                Some(Part { slot: slot.clone(), range: at.offset..at.offset + at.len, name: name.clone() })
            })),
            None => {
                let range = 0..graph.ty(output.value).len();
                parts.push(Part { slot: slot.clone(), range, name: slot.name.clone() });
            }
        }
    }
    parts
}

/// An output beside its reference.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Measure {
    /// Largest error.
    pub(super) error: f64,
    /// Where it is.
    pub(super) at: usize,
    /// Largest element of the reference.
    pub(super) scale: f64,
    /// Elements whose reference is a number within float32's range.
    pub(super) compared: usize,
    /// Whether all elements are zero, though the reference is not.
    pub(super) is_lost: bool,
}

impl Measure {
    pub(super) fn of(want: &[f64], got: impl IntoIterator<Item = f64>) -> Measure {
        let mut m = Measure { is_lost: true, ..Measure::default() };
        for (at, (&want, got)) in want.iter().zip(got).enumerate() {
            m.is_lost &= got == 0.0;
            if want.is_nan() || want.abs() > LARGEST {
                continue;
            }
            m.compared += 1;
            m.scale = m.scale.max(want.abs());
            let error = (got - want).abs();
            // What is no number is as wrong as can be.
            let error = if error.is_nan() { f64::INFINITY } else { error };
            if error > m.error {
                (m.error, m.at) = (error, at);
            }
        }
        m.is_lost &= m.scale > SMALLEST;
        m
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_where_they_are() {
        let m = Measure::of(&[1.0, -4.0, 2.0], [1.0, -4.5, 2.25]);
        assert_eq!((m.error, m.at, m.scale, m.compared, m.is_lost), (0.5, 1, 4.0, 3, false));
        assert_eq!(Measure::of(&[1.0, 2.0], [1.0, f64::NAN]).error, f64::INFINITY);
        assert_eq!(Measure::of(&[1.0, 2.0], [f64::INFINITY, 2.0]).error, f64::INFINITY);
        let m = Measure::of(&[f64::NAN, f64::INFINITY, 1e31, 3.0], [0.0, 1.0, 2.0, 3.0]);
        assert_eq!((m.error, m.compared), (0.0, 1));
        assert!(Measure::of(&[1e-9, 0.0], [0.0, 0.0]).is_lost);
        assert!(!Measure::of(&[0.0, 0.0], [0.0, 0.0]).is_lost);
        assert!(!Measure::of(&[1e-40], [0.0]).is_lost, "float32 has no such number");
    }

    #[test]
    fn an_unfused_run_that_is_as_wrong_is_not_believed() {
        let float = Precision::of(DType::F32);
        assert!(float.bound(float.believed(0.5, 1.0), 1.0) < 1.1e-3);
        assert!(float.bound(float.believed(1e-6, 1.0), 1.0) < 1.3e-5);
        assert!(Precision::of(DType::BF16).bound(0.0, 2.0) < 0.02);
    }
}
