//! What was found against what is right: element by element, within a bound that belongs to the tensor. A gradient
//! that is zero where the reference is not is wrong whatever the bound.

/// How a tensor is wrong.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// Position of the worst element.
    pub at: usize,
    /// What was found there.
    pub found: f64,
    /// What is right.
    pub want: f64,
    /// What it may be off by.
    pub bound: f64,
    /// Whether all of it is zero, and should not be.
    pub is_lost: bool,
}

impl Difference {
    /// How far off it is.
    pub fn error(&self) -> f64 {
        (self.found - self.want).abs()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { at, found, want, bound, is_lost } = self;
        let lost = if *is_lost { "; all of it is zero" } else { "" };
        write!(f, "element {at} is {found:e}, should be {want:e} ± {bound:.1e}{lost}")
    }
}

/// The worst element that is out of bounds.
pub fn difference(found: &[f64], want: &[f64], bound: f64) -> Option<Difference> {
    if found.len() != want.len() {
        let (found, want) = (found.len() as f64, want.len() as f64);
        return Some(Difference { at: 0, found, want, bound: f64::NAN, is_lost: false });
    }
    let largest = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
    // Smaller than the smallest float32 is nothing.
    let is_lost = largest > (bound / 4.0).max(1e-30) && found.iter().all(|f| *f == 0.0);
    let mut worst: Option<Difference> = None;
    for (at, (&found, &want)) in found.iter().zip(want).enumerate() {
        let error = (found - want).abs();
        let is_worse = worst.as_ref().is_none_or(|w| error > (w.found - w.want).abs() || error.is_nan());
        if (error > bound || error.is_nan() || (is_lost && want.abs() == largest)) && is_worse {
            worst = Some(Difference { at, found, want, bound, is_lost });
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_is_found() {
        assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.1], 0.2), None);
        assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.1], 0.05).map(|d| d.at), Some(1));
        assert!(difference(&[f64::NAN], &[0.0], 1.0).is_some());
        assert!(difference(&[0.0], &[0.0, 1.0], 1.0).is_some());
        assert_eq!(difference(&[0.0; 2], &[0.1, 0.2], 0.3).map(|d| d.is_lost), Some(true));
        assert_eq!(difference(&[0.0; 2], &[0.0, 1e-40], 0.0).map(|d| d.is_lost), Some(false));
    }
}
