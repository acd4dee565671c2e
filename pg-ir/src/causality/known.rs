//! What is known of an element before anything runs: between which numbers it lies, and whether it is a whole number
//! that follows from its indices alone.
//!
//! A fact must hold of every executor, in float32 and with results rounded to bfloat16, not of float64 alone: what
//! rounding could change is not known.

use smallvec::{SmallVec, smallvec};

use super::zone::{Coordinate, ORIGIN, Zone};
use crate::ty::DType;

/// Past this, a rounding to bfloat16 could make infinity of a number.
const FINITE: f64 = 1e38;

/// More than rounding moves a number, relative to the largest that it was computed from.
const ROUNDING: f64 = 0.02;

/// `terms[0] + Σ terms[c] · coordinate c`, without rounding on any executor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Affine(SmallVec<[i64; 8]>);

/// A set that holds an element's value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Known {
    low: f64,
    high: f64,
    /// Whether it may also be NaN.
    nan: bool,
    affine: Option<Affine>,
}

impl Affine {
    /// The index along a coordinate, among so many.
    fn index(coordinate: Coordinate, coordinates: usize) -> Affine {
        let mut terms: SmallVec<[i64; 8]> = smallvec![0; coordinates];
        terms[coordinate] = 1;
        Affine(terms)
    }

    /// `self + scale · other`, if that fits.
    fn plus(&self, scale: i64, other: &Affine) -> Option<Affine> {
        let term = |(a, b): (&i64, &i64)| a.checked_add(scale.checked_mul(*b)?);
        self.0.iter().zip(&other.0).map(term).collect::<Option<_>>().map(Affine)
    }

    /// Its least and largest value in a zone.
    fn range(&self, zone: &Zone) -> Option<(i64, i64)> {
        let (mut low, mut high) = (self.0[ORIGIN], self.0[ORIGIN]);
        for (c, &factor) in self.0.iter().enumerate().skip(1) {
            let ends = [-zone.bound(ORIGIN, c), zone.bound(c, ORIGIN)];
            let [a, b] = ends.map(|end| factor.checked_mul(end));
            low = low.checked_add(a?.min(b?))?;
            high = high.checked_add(a?.max(b?))?;
        }
        Some((low, high))
    }

    /// The points of a zone where `self ≤ 0`; the whole zone if a bound on a difference cannot say it.
    fn at_most_zero(&self, zone: &Zone) -> Zone {
        let mut limited = zone.clone();
        let gcd = self.0[1..].iter().fold(0, |a, &b| gcd(a, b.unsigned_abs()));
        let Ok(gcd @ 1..) = i64::try_from(gcd) else {
            return if self.0[ORIGIN] <= 0 { limited } else { nowhere(limited) };
        };
        let of = |factor: i64| self.0.iter().enumerate().skip(1).filter(move |(_, f)| **f == factor * gcd);
        let others = self.0[1..].iter().filter(|f| **f != 0).count() - of(1).count() - of(-1).count();
        let (mut ups, mut downs) = (of(1).map(|(c, _)| c), of(-1).map(|(c, _)| c));
        let (up, down) = (ups.next().unwrap_or(ORIGIN), downs.next().unwrap_or(ORIGIN));
        if others == 0 && ups.next().is_none() && downs.next().is_none() {
            // gcd · (up − down) + constant ≤ 0
            limited.limit(up, down, (-self.0[ORIGIN]).div_euclid(gcd));
        }
        limited
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A zone without points.
fn nowhere(mut zone: Zone) -> Zone {
    zone.limit(ORIGIN, ORIGIN, -1);
    zone
}

impl Known {
    /// All that an element type holds.
    pub(crate) fn any(dtype: DType) -> Known {
        let (low, high) = match dtype {
            DType::F32 | DType::BF16 => (f64::NEG_INFINITY, f64::INFINITY),
            DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            DType::Bool => (0.0, 1.0),
        };
        Known { low, high, nan: dtype.is_float(), affine: None }
    }

    /// From `low` to `high`, and no NaN.
    pub(crate) fn between(low: f64, high: f64) -> Known {
        Known { low, high, nan: false, affine: None }
    }

    /// The number `value`, at a point of so many coordinates.
    pub(crate) fn number(value: f64, coordinates: usize) -> Known {
        let whole = value as i64;
        let is_whole = whole as f64 == value && whole.unsigned_abs() < 1 << 53;
        let affine = is_whole.then(|| {
            let mut terms: SmallVec<[i64; 8]> = smallvec![0; coordinates];
            terms[ORIGIN] = whole;
            Affine(terms)
        });
        Known { low: value, high: value, nan: value.is_nan(), affine }
    }

    /// The index along a coordinate.
    pub(crate) fn index(coordinate: Coordinate, zone: &Zone) -> Known {
        let affine = Affine::index(coordinate, zone.coordinates());
        Known { affine: Some(affine), ..Known::between(0.0, zone.bound(coordinate, ORIGIN) as f64) }
    }

    /// Whether the element is zero, or NaN.
    pub(crate) fn is_zero(&self) -> bool {
        (self.low, self.high) == (0.0, 0.0)
    }

    /// Whether zero times the element is zero: it is neither infinite nor NaN.
    pub(crate) fn is_finite(&self) -> bool {
        !self.nan && self.low >= -FINITE && self.high <= FINITE
    }

    /// The same element, if it is neither infinite nor NaN.
    pub(crate) fn if_finite(&self) -> Known {
        let (low, high) = (self.low.max(-FINITE), self.high.min(FINITE));
        Known { low, high, nan: false, affine: self.affine.clone() }
    }

    /// What a condition is, if that is known.
    pub(crate) fn truth(&self) -> Option<bool> {
        (self.low == self.high && !self.nan).then_some(self.low != 0.0)
    }

    /// What is known of an element that is either of two.
    pub(crate) fn or(&self, other: &Known) -> Known {
        let affine = self.affine.clone().filter(|_| self.affine == other.affine);
        let (low, high) = (self.low.min(other.low), self.high.max(other.high));
        Known { low, high, nan: self.nan || other.nan, affine }
    }

    /// The same element where it is above (or below) some number that lies in `than`: no NaN is.
    pub(crate) fn compared(&self, above: bool, than: &Known) -> Known {
        let (low, high) = if above { (than.low, f64::INFINITY) } else { (f64::NEG_INFINITY, than.high) };
        Known { low: self.low.max(low), high: self.high.min(high), nan: false, affine: self.affine.clone() }
    }

    /// The same element where its square is below some number that lies in `than`: no NaN is.
    pub(crate) fn squared_below(&self, than: &Known) -> Known {
        let most = (than.high.max(0.0) * (1.0 + ROUNDING)).sqrt();
        Known { low: self.low.max(-most), high: self.high.min(most), nan: false, affine: self.affine.clone() }
    }

    /// The same element at other indices: `moved(c)` is coordinate c as another of `coordinates` plus a number.
    pub(crate) fn moved(
        self,
        coordinates: usize,
        moved: impl Fn(Coordinate) -> Option<(Coordinate, i64)>,
    ) -> Known {
        let affine = self.affine.as_ref().and_then(|old| {
            let mut terms: SmallVec<[i64; 8]> = smallvec![0; coordinates];
            terms[ORIGIN] = old.0[ORIGIN];
            for (c, &factor) in old.0.iter().enumerate().skip(1).filter(|(_, f)| **f != 0) {
                let (to, by) = moved(c)?;
                terms[ORIGIN] = terms[ORIGIN].checked_add(factor.checked_mul(by)?)?;
                if to != ORIGIN {
                    terms[to] = terms[to].checked_add(factor)?;
                }
            }
            Some(Affine(terms))
        });
        Known { affine, ..self }
    }

    /// The element as another type.
    pub(crate) fn cast(&self, dtype: DType) -> Known {
        // Whole numbers up to this are exact. Floats of some machines are stored in bfloat16.
        let exact = match dtype {
            DType::F32 | DType::BF16 => 256.0,
            DType::I32 => f64::from(i32::MAX),
            DType::Bool => 1.0,
        };
        let fits = self.low >= -exact && self.high <= exact && !(dtype == DType::Bool && self.low < 0.0);
        if self.affine.is_some() && fits {
            return self.clone();
        }
        match dtype {
            DType::F32 | DType::BF16 => self.rounded(),
            DType::I32 | DType::Bool => Known::any(dtype),
        }
    }

    /// Widened by what rounding may do to it. Zero and infinity are exact.
    fn rounded(&self) -> Known {
        let widened = |end: f64, outward: f64| {
            if end == 0.0 || end.is_infinite() { end } else { end + outward * ROUNDING * end.abs() }
        };
        let (low, high) = (widened(self.low, -1.0), widened(self.high, 1.0));
        Known { low, high, nan: self.nan, affine: None }
    }

    /// Without ends that came out as NaN: from there on anything is possible.
    fn ordered(self) -> Known {
        let end = |end: f64, lost: f64| if end.is_nan() { lost } else { end };
        Known { low: end(self.low, f64::NEG_INFINITY), high: end(self.high, f64::INFINITY), ..self }
    }

    /// a + scale · b, with scale 1 or −1.
    pub(crate) fn plus(&self, scale: i64, other: &Known, zone: &Zone, dtype: DType) -> Known {
        if let Some(sum) = Known::whole(self, other, zone, dtype, |a, b| a.plus(scale, b)) {
            return sum;
        }
        if dtype == DType::I32 {
            return Known::any(dtype);
        }
        let (low, high) = if scale < 0 { (-other.high, -other.low) } else { (other.low, other.high) };
        // Of infinity and anything comes that infinity, or NaN.
        for (a, b) in [(self.low, self.high), (low, high)] {
            if a == b && a.is_infinite() {
                return Known { nan: true, ..Known::between(a, a) };
            }
        }
        // Infinities of two signs cancel to NaN.
        let cancels = (self.high == f64::INFINITY && low == f64::NEG_INFINITY)
            || (self.low == f64::NEG_INFINITY && high == f64::INFINITY);
        let nan = self.nan || other.nan || cancels;
        let is_exact = self.is_zero() || other.is_zero();
        // Terms may cancel: what rounding does is relative to them, not to their sum.
        let size = if is_exact { 0.0 } else { ROUNDING * (magnitude(self) + magnitude(other)) };
        Known { low: self.low + low - size, high: self.high + high + size, nan, affine: None }.ordered()
    }

    /// a · b.
    pub(crate) fn times(&self, other: &Known, zone: &Zone, dtype: DType) -> Known {
        let scaled = |a: &Affine, b: &Affine| {
            let constant = |x: &Affine| x.0[1..].iter().all(|f| *f == 0).then_some(x.0[ORIGIN]);
            let zero = Affine(smallvec![0; a.0.len()]);
            match (constant(a), constant(b)) {
                (Some(k), _) => zero.plus(k, b),
                (_, Some(k)) => zero.plus(k, a),
                _ => None,
            }
        };
        if let Some(product) = Known::whole(self, other, zone, dtype, scaled) {
            return product;
        }
        if dtype == DType::I32 {
            return Known::any(dtype);
        }
        let infinite = |x: &Known| x.low == f64::NEG_INFINITY || x.high == f64::INFINITY;
        let holds_zero = |x: &Known| x.low <= 0.0 && x.high >= 0.0;
        let lost = (infinite(self) && holds_zero(other)) || (infinite(other) && holds_zero(self));
        let nan = self.nan || other.nan || lost;
        let corners =
            [(self.low, other.low), (self.low, other.high), (self.high, other.low), (self.high, other.high)];
        // Zero times infinity is NaN, which is counted above.
        let products = corners.map(|(a, b)| if a == 0.0 || b == 0.0 { 0.0 } else { a * b });
        let low = products.iter().copied().fold(f64::INFINITY, f64::min);
        let high = products.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Known { low, high, nan, affine: None }.rounded()
    }

    /// a / b: known only where a is zero.
    pub(crate) fn over(&self, dtype: DType) -> Known {
        if self.is_zero() { Known { nan: true, ..Known::between(0.0, 0.0) } } else { Known::any(dtype) }
    }

    /// The larger of two. Of NaN and a number executors make NaN, and the reference the number.
    pub(crate) fn larger(&self, other: &Known) -> Known {
        let (low, high) = (self.low.max(other.low), self.high.max(other.high));
        let low = if self.nan || other.nan { self.low.min(other.low) } else { low };
        Known { low, high, nan: self.nan || other.nan, affine: None }
    }

    /// e to the element: zero of minus infinity.
    pub(crate) fn exp(&self) -> Known {
        let high = if self.high == f64::NEG_INFINITY { 0.0 } else { f64::INFINITY };
        Known { low: 0.0, high, nan: self.nan, affine: None }
    }

    /// An odd or even function that is zero at zero and nowhere NaN else but at NaN and infinity, within ±`most`.
    pub(crate) fn through_zero(&self, most: f64) -> Known {
        if self.is_zero() {
            return Known { affine: None, ..self.clone() };
        }
        let nan = self.nan || self.low == f64::NEG_INFINITY || self.high == f64::INFINITY;
        Known { nan, ..Known::between(-most, most) }
    }

    /// A function of whole numbers that an executor computes without rounding; `None` if it might round.
    fn whole(
        a: &Known,
        b: &Known,
        zone: &Zone,
        dtype: DType,
        f: impl Fn(&Affine, &Affine) -> Option<Affine>,
    ) -> Option<Known> {
        let affine = f(a.affine.as_ref()?, b.affine.as_ref()?)?;
        let (low, high) = affine.range(zone)?;
        let known = Known { affine: Some(affine), ..Known::between(low as f64, high as f64) };
        Some(known.cast(dtype)).filter(|k| k.affine.is_some())
    }

    /// The zones where a > b and where it is not. A point that may be either is in both.
    pub(crate) fn greater(&self, other: &Known, zone: &Zone) -> [Zone; 2] {
        if let (Some(a), Some(b)) = (&self.affine, &other.affine)
            && let (Some(up), Some(down)) = (a.plus(-1, b), b.plus(-1, a))
        {
            let mut above = down;
            above.0[ORIGIN] += 1;
            return [above.at_most_zero(zone), up.at_most_zero(zone)];
        }
        let gap = ROUNDING * (1.0 + magnitude(self) + magnitude(other));
        let (is, is_not) = if self.nan || other.nan || !gap.is_finite() {
            (false, false)
        } else {
            (self.low > other.high + gap, self.high < other.low - gap)
        };
        let unless = |never: bool| if never { nowhere(zone.clone()) } else { zone.clone() };
        [unless(is_not), unless(is)]
    }

    /// The zones where a = b, where a > b, and where b > a. A point that may be in several is in each.
    pub(crate) fn equal(&self, other: &Known, zone: &Zone) -> [Zone; 3] {
        let [above, not_above] = self.greater(other, zone);
        let [below, not_below] = other.greater(self, zone);
        let mut same = not_above;
        same.intersect(&not_below, |c| c);
        if self.affine.is_some() && other.affine.is_some() {
            return [same, above, below];
        }
        // NaN is neither above nor below, nor equal to anything.
        [same, zone.clone(), nowhere(zone.clone())]
    }
}

/// The largest that |element| can be.
fn magnitude(known: &Known) -> f64 {
    known.low.abs().max(known.high.abs())
}
