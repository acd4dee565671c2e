//! The values that an affine index map takes over a domain, guards considered.
//!
//! Bounds are never too narrow. They are exact where guards bound single axes, and where the map is a multiple of what
//! is guarded plus a map of other axes, which is how views compose; elsewhere they may be too wide.

use crate::region::{Affine, Guard};

/// A guard, or an index map, over a box: Σ strides[i] · x[i] + offset with each x[i] between bounds.
#[derive(Clone)]
struct Form {
    offset: i128,
    strides: Vec<i128>,
}

impl Form {
    fn of(at: &Affine) -> Form {
        Form { offset: i128::from(at.offset), strides: at.strides.iter().map(|&s| i128::from(s)).collect() }
    }

    fn negated(&self) -> Form {
        Form { offset: -self.offset, strides: self.strides.iter().map(|s| -s).collect() }
    }

    /// Least and greatest value over a box.
    fn over(&self, bounds: &[(i128, i128)]) -> (i128, i128) {
        self.strides.iter().zip(bounds).fold((self.offset, self.offset), |(low, high), (&s, &(from, to))| {
            let (x, y) = (s * from, s * to);
            (low + x.min(y), high + x.max(y))
        })
    }

    fn minus(&self, factor: i128, other: &Form) -> Form {
        let strides = self.strides.iter().zip(&other.strides).map(|(s, o)| s - factor * o);
        Form { offset: self.offset - factor * other.offset, strides: strides.collect() }
    }
}

/// Least and greatest value of `at` where all guards hold; `None` if they never do. Sizes are at least 1.
pub(super) fn range(at: &Affine, guards: &[Guard], sizes: &[usize]) -> Option<(i128, i128)> {
    let mut bounds: Vec<(i128, i128)> = sizes.iter().map(|&n| (0, n as i128 - 1)).collect();
    let guards: Vec<(Form, i128)> = guards.iter().map(|g| (Form::of(&g.expr), i128::from(g.size))).collect();
    if !tighten(&guards, &mut bounds) {
        return None;
    }
    let form = Form::of(at);
    let every: Vec<usize> = (0..guards.len()).collect();
    let high = greatest(&form, &guards, &every, &bounds);
    let low = -greatest(&form.negated(), &guards, &every, &bounds);
    Some((low, high))
}

/// Narrows a box to where guards may hold; says no if they nowhere do.
fn tighten(guards: &[(Form, i128)], bounds: &mut [(i128, i128)]) -> bool {
    // Each round may narrow what the next one starts from; views do not nest deeper than this where it matters.
    for _ in 0..1 + guards.len().min(3) {
        for (expr, size) in guards {
            let (low, high) = expr.over(bounds);
            if high < 0 || low >= *size {
                return false;
            }
            for axis in 0..bounds.len() {
                let s = expr.strides[axis];
                if s == 0 {
                    continue;
                }
                let (from, to) = bounds[axis];
                let (low, high) = expr.over(bounds);
                // What the other axes add at least and at most.
                let rest = (low - (s * from).min(s * to), high - (s * from).max(s * to));
                let (least, most) = (-rest.1, size - 1 - rest.0);
                // least ≤ s · x ≤ most
                let (a, b) = if s > 0 {
                    (div_ceil(least, s), most.div_euclid(s))
                } else {
                    (div_ceil(-most, -s), (-least).div_euclid(-s))
                };
                bounds[axis] = (from.max(a), to.min(b));
                if bounds[axis].0 > bounds[axis].1 {
                    return false;
                }
            }
        }
    }
    true
}

fn div_ceil(a: i128, b: i128) -> i128 {
    -(-a).div_euclid(b)
}

/// An upper bound: the least of those that the box gives and that multiples of guards give, for what is left of the
/// form after each.
fn greatest(form: &Form, guards: &[(Form, i128)], left: &[usize], bounds: &[(i128, i128)]) -> i128 {
    let mut best = form.over(bounds).1;
    for (at, &i) in left.iter().enumerate() {
        let (expr, size) = &guards[i];
        // Few guards are tried in every order, many only in theirs.
        let others: Vec<usize> = if left.len() <= 3 {
            left.iter().copied().filter(|&j| j != i).collect()
        } else {
            left[at + 1..].to_vec()
        };
        let mut tried: Vec<i128> = Vec::new();
        for (&f, &g) in form.strides.iter().zip(&expr.strides) {
            if f == 0 || g == 0 || f % g != 0 || tried.contains(&(f / g)) {
                continue;
            }
            let factor = f / g;
            tried.push(factor);
            let (low, high) = expr.over(bounds);
            let guarded = if factor > 0 { high.min(size - 1) } else { low.max(0) };
            let rest = greatest(&form.minus(factor, expr), guards, &others, bounds);
            best = best.min(factor * guarded + rest);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affine(offset: i64, strides: &[i64]) -> Affine {
        Affine { offset, strides: strides.into() }
    }

    fn guard(offset: i64, strides: &[i64], size: i64) -> Guard {
        Guard { expr: affine(offset, strides), size }
    }

    /// The range by walking the whole domain.
    fn walked(at: &Affine, guards: &[Guard], sizes: &[usize]) -> Option<(i128, i128)> {
        let value = |a: &Affine, index: &[usize]| {
            a.offset + a.strides.iter().zip(index).map(|(s, i)| s * *i as i64).sum::<i64>()
        };
        let mut found: Option<(i128, i128)> = None;
        for i in 0..sizes.iter().product::<usize>() {
            let mut rest = i;
            let mut index = vec![0; sizes.len()];
            for (x, n) in index.iter_mut().zip(sizes).rev() {
                (*x, rest) = (rest % n, rest / n);
            }
            if guards.iter().all(|g| (0..g.size).contains(&value(&g.expr, &index))) {
                let v = i128::from(value(at, &index));
                found = Some(found.map_or((v, v), |(low, high)| (low.min(v), high.max(v))));
            }
        }
        found
    }

    #[test]
    fn composed_views_are_exact() {
        let cases: [(Affine, Vec<Guard>, &[usize]); 7] = [
            (affine(3, &[-4, 1]), vec![], &[5, 3]),
            // A shift by one along an axis that rows and columns share.
            (affine(-4, &[20, 4, 1]), vec![guard(-1, &[0, 1, 0], 5)], &[3, 5, 4]),
            // A pad of a pad.
            (affine(-3, &[1]), vec![guard(-3, &[1], 4), guard(-2, &[1], 6)], &[11]),
            // A guard on a merged axis, read in parts: 6 of 12 columns as 3 × 2, transposed.
            (affine(-3, &[1, 3]), vec![guard(-6, &[2, 1], 6)], &[6, 2]),
            // Two guarded axes.
            (affine(-9, &[8, 1]), vec![guard(-1, &[1, 0], 4), guard(-1, &[0, 1], 8)], &[7, 9]),
            // A guarded sum of axes in one multiple.
            (affine(-6, &[6, 6]), vec![guard(-1, &[1, 1], 4)], &[4, 3]),
            // A guard that never holds.
            (affine(0, &[1]), vec![guard(5, &[1], 5)], &[4]),
        ];
        for (at, guards, sizes) in cases {
            assert_eq!(range(&at, &guards, sizes), walked(&at, &guards, sizes), "{at} {guards:?}");
        }
    }

    #[test]
    fn bounds_are_never_too_narrow() {
        let mut seed = 1u64;
        let mut draw = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for _ in 0..3000 {
            let sizes: Vec<usize> = (0..3).map(|_| 1 + draw(5) as usize).collect();
            let mut form = || affine(draw(9) as i64 - 4, &[0; 3].map(|_: i64| draw(7) as i64 - 3));
            let at = form();
            let guards: Vec<Guard> = (0..2).map(|_| Guard { expr: form(), size: 3 }).collect();
            if let Some((low, high)) = walked(&at, &guards, &sizes) {
                let (from, to) = range(&at, &guards, &sizes).unwrap();
                assert!(from <= low && high <= to, "{at} {guards:?} {sizes:?}: {from}..{to}");
            }
        }
    }
}
