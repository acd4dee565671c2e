//! Element-wise functions as branch-free code that vectorises. No fused multiply-add: the bits are the
//! same on every machine. Errors are below 2 ulp against float64, as the tests assert.
//!
//! Range reductions and coefficients of `exp`, `log` and `tanh` are those of Cephes (Moshier).

/// 1.5 · 2^23: adding it and taking it away rounds to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these the result is 0 or infinity; clamping keeps the exponent arithmetic in range.
    // The comparisons are written so that NaN passes through.
    let c = if x > 89.0 { 89.0 } else { x };
    let c = if c < -104.0 { -104.0 } else { c };
    let shifted = c * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (c - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let y = (p * (r * r) + r) + 1.0;
    // 2^n in two factors: n can be −150, below the least normal exponent.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    y * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 2^n for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

#[inline(always)]
pub(crate) fn log(x: f32) -> f32 {
    // Subnormals are brought into the normal range first.
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits();
    // The mantissa in √½ … √2, and the exponent that goes with it.
    let e = (bits.wrapping_sub(0x3f35_04f3) as i32) >> 23;
    let m = f32::from_bits(bits.wrapping_sub((e as u32) << 23)) - 1.0;
    let e = e as f32 - if tiny { 23.0 } else { 0.0 };
    let p = 7.037_683_6e-2;
    let p = p * m - 1.151_461e-1;
    let p = p * m + 1.167_699_9e-1;
    let p = p * m - 1.242_014_1e-1;
    let p = p * m + 1.424_932_3e-1;
    let p = p * m - 1.666_805_8e-1;
    let p = p * m + 2.000_071_5e-1;
    let p = p * m - 2.499_999_4e-1;
    let p = p * m + 3.333_333e-1;
    let z = m * m;
    let y = (p * m) * z + e * -2.121_944_4e-4;
    let y = (m + (y - 0.5 * z)) + e * 0.693_359_4;
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = -5.704_988_7e-3;
    let p = p * z + 2.063_909e-2;
    let p = p * z - 5.373_971_5e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let near = (p * z) * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * a) + 1.0)).copysign(x);
    // NaN goes through the polynomial.
    if a >= 0.625 { far } else { near }
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(crate) fn rsqrt(x: f32) -> f32 {
    1.0 / x.sqrt()
}

#[inline(always)]
pub(crate) fn sin(x: f32) -> f32 {
    sin_quarter(f64::from(x), 0)
}

#[inline(always)]
pub(crate) fn cos(x: f32) -> f32 {
    sin_quarter(f64::from(x), 1)
}

/// sin(x + quarter · π/2), in float64: positions times frequencies reach tens of thousands, where a
/// float32 reduction would lose the fraction.
#[inline(always)]
fn sin_quarter(x: f64, quarter: i32) -> f32 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 · 2^52
    let shifted = x * std::f64::consts::FRAC_2_PI + ROUND;
    let n = shifted - ROUND;
    // π/2 in two parts, the first with 33 bits, so that n · HIGH is exact up to n = 2^20.
    const HIGH: f64 = f64::from_bits(0x3ff9_21fb_5440_0000);
    const LOW: f64 = 6.077_100_506_506_192e-11;
    let r = (x - n * HIGH) - n * LOW;
    let z = r * r;
    let s = -2.505_210_838_544_172e-8;
    let s = s * z + 2.755_731_922_398_589e-6;
    let s = s * z - 1.984_126_984_126_984e-4;
    let s = s * z + 8.333_333_333_333_333e-3;
    let s = s * z - 1.666_666_666_666_666_6e-1;
    let s = (s * z) * r + r;
    let c = 2.087_675_698_786_81e-9;
    let c = c * z - 2.755_731_922_398_589e-7;
    let c = c * z + 2.480_158_730_158_73e-5;
    let c = c * z - 1.388_888_888_888_889e-3;
    let c = c * z + 4.166_666_666_666_666_4e-2;
    let c = (c * z) * z - 0.5 * z + 1.0;
    let q = (shifted.to_bits() as i32).wrapping_add(quarter);
    let y = if q & 1 == 0 { s } else { c };
    (if q & 2 == 0 { y } else { -y }) as f32
}

/// The greater; NaN if either is, so that a lost run is seen.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// To bfloat16 and back, ties to even.
#[inline(always)]
pub(crate) fn round_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    // Rounding a NaN's payload could carry into infinity.
    f32::from_bits(if x.is_nan() { bits | 0x0040_0000 } else { rounded } & 0xffff_0000)
}

/// The bits of the nearest bfloat16.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> u16 {
    (round_bf16(x).to_bits() >> 16) as u16
}

/// bfloat16 from its bits.
#[inline(always)]
pub(crate) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worst error in units of the last place of the exact result over a sweep of float bits.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let steps = 200_000;
        let mut worst = 0.0f64;
        for i in 0..=steps {
            let x = from + (to - from) * (i as f32 / steps as f32);
            let want = exact(f64::from(x));
            let ulp = f64::from((want as f32).abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
            worst = worst.max((f64::from(f(x)) - want).abs() / ulp);
        }
        worst
    }

    #[test]
    fn errors_are_below_two_ulp() {
        assert!(worst(exp, f64::exp, -87.0, 88.7) < 2.0);
        assert!(worst(exp, f64::exp, -1.0, 1.0) < 2.0);
        assert!(worst(log, f64::ln, 1e-30, 1e-20) < 2.0);
        assert!(worst(log, f64::ln, 0.3, 3.0) < 2.0);
        assert!(worst(log, f64::ln, 3.0, 1e9) < 2.0);
        assert!(worst(tanh, f64::tanh, -10.0, 10.0) < 2.0);
        assert!(worst(tanh, f64::tanh, -0.7, 0.7) < 2.0);
        assert!(worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0) < 2.5);
        assert!(worst(sin, f64::sin, -8192.0, 8192.0) < 1.0);
        assert!(worst(cos, f64::cos, -1e5, 1e5) < 1.0);
    }

    #[test]
    fn edges_are_the_functions_own() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan() && log(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert!((exp(-100.0) - (-100.0f32).exp()).abs() <= f32::from_bits(1));
        assert_eq!(log(1.0), 0.0);
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert!(log(-1.0).is_nan());
        assert!((log(1e-40) - (1e-40f32).ln()).abs() < 1e-5);
        assert_eq!((tanh(40.0), tanh(-40.0)), (1.0, -1.0));
        assert!(max(f32::NAN, 1.0).is_nan() && max(1.0, f32::NAN).is_nan());
    }

    #[test]
    fn bfloat16_rounds_ties_to_even() {
        assert_eq!(round_bf16(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(round_bf16(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0);
        assert_eq!(round_bf16(-1.003), -1.0);
        assert_eq!(round_bf16(f32::MAX), f32::INFINITY);
        assert!(round_bf16(f32::from_bits(0x7f80_0001)).is_nan());
    }
}
