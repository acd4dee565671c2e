//! Zones: sets of integer points given by bounds on differences of their coordinates (difference-bound matrices).
//!
//! A zone is kept closed, so that each bound is the tightest that follows from all, and a coordinate is projected
//! away by leaving its row and column out. Coordinate 0 is always 0: a bound against it is a bound on the other alone.

use smallvec::SmallVec;

/// A coordinate of a zone. That of index 0 is the constant 0.
pub(crate) type Coordinate = usize;

/// The constant 0, as a coordinate.
pub(crate) const ORIGIN: Coordinate = 0;

/// All integer points x with `x[a] − x[b] ≤ bound(a, b)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Zone {
    coordinates: usize,
    /// By row-major (a, b). Every coordinate has a range, so every bound is finite.
    bounds: SmallVec<[i64; 36]>,
}

impl Zone {
    /// The points whose coordinate i is at least 0 and below `sizes[i − 1]`.
    pub(crate) fn of(sizes: impl IntoIterator<Item = usize>) -> Zone {
        let last: SmallVec<[i64; 8]> =
            std::iter::once(0).chain(sizes.into_iter().map(|n| n as i64 - 1)).collect();
        let n = last.len();
        let bound = |at: usize| if at / n == at % n { 0 } else { last[at / n] };
        Zone { coordinates: n, bounds: (0..n * n).map(bound).collect() }
    }

    /// Number of coordinates, the origin among them.
    pub(crate) fn coordinates(&self) -> usize {
        self.coordinates
    }

    /// The largest `a − b` of any point.
    pub(crate) fn bound(&self, a: Coordinate, b: Coordinate) -> i64 {
        self.bounds[a * self.coordinates + b]
    }

    /// Whether there is no point.
    pub(crate) fn is_empty(&self) -> bool {
        (0..self.coordinates).any(|a| self.bound(a, a) < 0)
    }

    /// Leaves the points with `a − b ≤ most`.
    pub(crate) fn limit(&mut self, a: Coordinate, b: Coordinate, most: i64) {
        let n = self.coordinates;
        // Bounds of no points would fall without end.
        if self.bound(a, b) <= most || self.is_empty() {
            return;
        }
        // Closed before, so only paths through the new bound can be shorter.
        let (to, from): (SmallVec<[i64; 12]>, SmallVec<[i64; 12]>) =
            (0..n).map(|i| (self.bound(i, a), self.bound(b, i))).unzip();
        for i in 0..n {
            for j in 0..n {
                let slot = &mut self.bounds[i * n + j];
                *slot = (*slot).min(to[i] + most + from[j]);
            }
        }
    }

    /// Leaves the points that are in `other`, too, whose coordinates are `at` of this zone's.
    pub(crate) fn intersect(&mut self, other: &Zone, at: impl Fn(Coordinate) -> Coordinate) {
        for a in 0..other.coordinates {
            for b in (0..other.coordinates).filter(|b| *b != a) {
                self.limit(at(a), at(b), other.bound(a, b));
            }
        }
    }

    /// Whether every point of `other` is in this zone.
    pub(crate) fn includes(&self, other: &Zone) -> bool {
        self.bounds.iter().zip(&other.bounds).all(|(own, other)| own >= other)
    }

    /// Adds the points of `other`, and what lies between.
    pub(crate) fn join(&mut self, other: &Zone) {
        self.bounds.iter_mut().zip(&other.bounds).for_each(|(own, other)| *own = (*own).max(*other));
    }

    /// The points without some coordinates: of the new zone, coordinate i is `kept[i]`, and `kept[0]` the origin.
    pub(crate) fn project(&self, kept: &[Coordinate]) -> Zone {
        let bounds = kept.iter().flat_map(|&a| kept.iter().map(move |&b| self.bound(a, b))).collect();
        Zone { coordinates: kept.len(), bounds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of a zone of two coordinates, by trying all.
    fn points(zone: &Zone, sizes: [i64; 2]) -> Vec<[i64; 2]> {
        let all = (0..sizes[0]).flat_map(|x| (0..sizes[1]).map(move |y| [x, y]));
        let inside = |p: &[i64; 2]| {
            let x = [0, p[0], p[1]];
            (0..3).all(|a| (0..3).all(|b| x[a] - x[b] <= zone.bound(a, b)))
        };
        all.filter(inside).collect()
    }

    #[test]
    fn bounds_are_the_tightest_and_operations_are_those_of_sets() {
        for most in -6..=6 {
            let mut zone = Zone::of([5, 4]);
            zone.limit(2, 1, most);
            let want: Vec<_> =
                points(&Zone::of([5, 4]), [5, 4]).into_iter().filter(|[x, y]| y - x <= most).collect();
            assert_eq!(points(&zone, [5, 4]), want);
            assert_eq!(zone.is_empty(), want.is_empty(), "{most}");
            for (a, b) in [(1, 0), (0, 1), (2, 0), (0, 2), (1, 2), (2, 1)] {
                let of = |p: &[i64; 2]| [0, p[0], p[1]][a] - [0, p[0], p[1]][b];
                let tightest = want.iter().map(of).max();
                assert!(tightest.is_none_or(|t| t == zone.bound(a, b)), "{most}: {a} − {b}");
            }
            let ys: Vec<i64> = want.iter().map(|p| p[1]).collect();
            let projected = zone.project(&[0, 2]);
            if let (Some(least), Some(most)) = (ys.iter().min(), ys.iter().max()) {
                assert_eq!((-projected.bound(0, 1), projected.bound(1, 0)), (*least, *most));
            }
        }
    }

    #[test]
    fn a_join_holds_both_and_an_intersection_only_what_both_hold() {
        let cut = |most: i64| {
            let mut zone = Zone::of([5, 5]);
            zone.limit(1, 2, most);
            zone
        };
        let (mut narrow, wide) = (cut(-1), cut(2));
        assert!(wide.includes(&narrow) && !narrow.includes(&wide));
        let mut both = wide.clone();
        both.intersect(&narrow, |c| c);
        assert_eq!(both, narrow);
        both.intersect(&narrow, |c| [0, 2, 1][c]);
        assert!(both.is_empty(), "x < y and y < x");
        narrow.join(&wide);
        assert_eq!(narrow, wide);
    }
}
