//! Element-wise functions, as pieces of kernels.
//!
//! Each is a few operations that every back end has, so that the Vulkan, Metal and CUDA forms of a kernel
//! compute the same function. Nothing here may be compiled with fast mathematics: CubeCL keeps to exact
//! operations unless a kernel asks, and none does.

use cubecl::prelude::*;
use pg_ir::op::{Binary, Unary};
use pg_ir::quant::{Grid, ScaleRule};

#[cube]
pub(super) fn broadcast<E: Scalar, N: Size>(x: E) -> Vector<E, N> {
    Vector::new(x)
}

#[cube]
pub(super) fn scale(x: f32, by: f32) -> f32 {
    x * by
}

#[cube]
fn sum<E: Numeric, N: Size>(a: Vector<E, N>, b: Vector<E, N>) -> Vector<E, N> {
    a + b
}

#[cube]
fn difference<E: Numeric, N: Size>(a: Vector<E, N>, b: Vector<E, N>) -> Vector<E, N> {
    a - b
}

#[cube]
fn product<E: Numeric, N: Size>(a: Vector<E, N>, b: Vector<E, N>) -> Vector<E, N> {
    a * b
}

#[cube]
fn quotient<E: Numeric, N: Size>(a: Vector<E, N>, b: Vector<E, N>) -> Vector<E, N> {
    a / b
}

#[cube]
fn remainder<N: Size>(a: Vector<i32, N>, b: Vector<i32, N>) -> Vector<i32, N> {
    // The sign is a's, on every back end.
    a - (a / b) * b
}

#[cube]
fn exclusive_or<N: Size>(a: Vector<i32, N>, b: Vector<i32, N>) -> Vector<i32, N> {
    a ^ b
}

#[cube]
fn greater<E: Numeric, N: Size>(a: Vector<E, N>, b: Vector<E, N>) -> Vector<bool, N> {
    a.greater_than(b)
}

#[cube]
fn same<E: Numeric, N: Size>(a: Vector<E, N>, b: Vector<E, N>) -> Vector<bool, N> {
    a.equal(b)
}

/// The greater; NaN if either is, so that a lost run is seen.
#[cube]
pub(super) fn larger<N: Size>(a: Vector<f32, N>, b: Vector<f32, N>) -> Vector<f32, N> {
    let keep = a.greater_than(b).or(Vector::is_nan(a));
    select_many(keep, a, b)
}

#[cube]
fn larger_int<N: Size>(a: Vector<i32, N>, b: Vector<i32, N>) -> Vector<i32, N> {
    select_many(a.greater_than(b), a, b)
}

#[cube]
pub(super) fn choose<E: Scalar, N: Size>(
    condition: Vector<bool, N>,
    a: Vector<E, N>,
    b: Vector<E, N>,
) -> Vector<E, N> {
    select_many(condition, a, b)
}

#[cube]
pub(super) fn convert<From: Scalar, To: Scalar, N: Size>(x: Vector<From, N>) -> Vector<To, N> {
    Vector::cast_from(x)
}

#[cube]
pub(super) fn is_not_zero<E: Numeric, N: Size>(x: Vector<E, N>) -> Vector<bool, N> {
    x.not_equal(Vector::from_int(0))
}

/// To bfloat16 and back, ties to even.
#[cube]
pub(super) fn round_bf16<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let bits = Vector::<u32, N>::reinterpret(x);
    let odd = (bits >> Vector::new(16u32)) & Vector::new(1u32);
    let rounded = (bits + Vector::new(32767u32) + odd) & Vector::new(4294901760u32);
    // Rounding a NaN's payload could carry into infinity.
    select_many(Vector::is_nan(x), x, Vector::<f32, N>::reinterpret(rounded))
}

#[cube]
fn exp<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    Vector::exp(x)
}

#[cube]
fn log<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    Vector::ln(x)
}

/// Near zero a polynomial (coefficients of Cephes, by Moshier): Vulkan's own tanh is a quotient of sums of exponentials,
/// whose error there is that of 1, which is a hundred roundings of logits under a soft cap.
#[cube]
fn tanh<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let z = x * x;
    let p = Vector::new(-5.704_988_7e-3_f32) * z + Vector::new(2.063_909e-2_f32);
    let p = p * z - Vector::new(5.373_971_5e-2_f32);
    let p = p * z + Vector::new(1.333_144_2e-1_f32);
    let p = p * z - Vector::new(3.333_328e-1_f32);
    let near = (p * z) * x + x;
    select_many(Vector::abs(x).less_than(Vector::new(0.625f32)), near, Vector::tanh(x))
}

#[cube]
fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    one / (one + Vector::exp(Vector::new(0.0f32) - x))
}

#[cube]
fn sqrt<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    Vector::sqrt(x)
}

#[cube]
fn rsqrt<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    Vector::new(1.0f32) / Vector::sqrt(x)
}

/// sin(x + quarter · π/2). Positions times frequencies reach tens of thousands, far beyond where GPUs'
/// own sines are good: x is first reduced by multiples of π/2, whose three parts have so few bits that
/// the products are exact for |x| up to 100,000 (coefficients of Cephes, by Moshier).
#[cube]
fn sin_quarter<N: Size>(x: Vector<f32, N>, #[comptime] quarter: i32) -> Vector<f32, N> {
    let n = Vector::round(x * Vector::new(std::f32::consts::FRAC_2_PI));
    let r = x - n * Vector::new(1.570_312_5f32);
    let r = r - n * Vector::new(4.837_513e-4_f32);
    let r = r - n * Vector::new(7.549_79e-8_f32);
    let z = r * r;
    let s = Vector::new(-1.951_529_6e-4_f32) * z + Vector::new(8.332_161e-3_f32);
    let s = s * z + Vector::new(-1.666_665_5e-1_f32);
    let s = (s * z) * r + r;
    let c = Vector::new(2.443_315_7e-5_f32) * z + Vector::new(-1.388_731_6e-3_f32);
    let c = c * z + Vector::new(4.166_664_6e-2_f32);
    let one = Vector::new(1.0f32);
    let c = (c * z) * z - Vector::new(0.5f32) * z + one;
    let q = Vector::<i32, N>::cast_from(n) + Vector::new(quarter);
    let zero = Vector::<i32, N>::new(0i32);
    let y = select_many((q & Vector::new(1i32)).equal(zero), s, c);
    select_many((q & Vector::new(2i32)).equal(zero), y, Vector::new(0.0f32) - y)
}

/// |x| for the scale of a quantised row, which skips NaN.
#[cube]
pub(super) fn magnitude<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    select_many(Vector::is_nan(x), Vector::new(0.0f32), Vector::abs(x))
}

/// `Grid::scale_of`, in its order of operations.
#[cube]
fn grid_scale<N: Size>(
    amax: Vector<f32, N>,
    #[comptime] clip: f32,
    #[comptime] floor: Option<f32>,
) -> Vector<f32, N> {
    let scale = amax / Vector::new(clip);
    let other = Vector::new(comptime!(floor.unwrap_or(1.0)));
    let threshold = Vector::new(comptime!(floor.unwrap_or(0.0)));
    select_many(scale.greater_than(threshold), scale, other)
}

/// `pg_ir::quant::code` times the scale, in their order of operations.
#[cube]
pub(super) fn grid_value<N: Size>(
    x: Vector<f32, N>,
    scale: Vector<f32, N>,
    #[comptime] clip: f32,
) -> Vector<f32, N> {
    let least = Vector::<f32, N>::new(-clip);
    let most = Vector::<f32, N>::new(clip);
    let ratio = x / scale;
    let bounded = select_many(ratio.less_than(least), least, ratio);
    let bounded = select_many(bounded.greater_than(most), most, bounded);
    let code = Vector::<i32, N>::cast_from(Vector::round(bounded));
    let code = select_many(Vector::is_nan(x), Vector::new(0i32), code);
    Vector::<f32, N>::cast_from(code) * scale
}

/// Emits a function of a float.
pub(super) fn unary<N: Size>(
    scope: &mut Scope,
    f: Unary,
    x: NativeExpand<Vector<f32, N>>,
) -> NativeExpand<Vector<f32, N>> {
    match f {
        Unary::Exp => exp::expand(scope, x),
        Unary::Log => log::expand(scope, x),
        Unary::Tanh => tanh::expand(scope, x),
        Unary::Sigmoid => sigmoid::expand(scope, x),
        Unary::Sqrt => sqrt::expand(scope, x),
        Unary::Rsqrt => rsqrt::expand(scope, x),
        Unary::Sin => sin_quarter::expand(scope, x, 0),
        Unary::Cos => sin_quarter::expand(scope, x, 1),
    }
}

/// Emits a function of two floats.
pub(super) fn binary_float<N: Size>(
    scope: &mut Scope,
    f: Binary,
    a: NativeExpand<Vector<f32, N>>,
    b: NativeExpand<Vector<f32, N>>,
) -> cubecl::ir::ManagedVariable {
    match f {
        Binary::Add => sum::expand(scope, a, b).into(),
        Binary::Sub => difference::expand(scope, a, b).into(),
        Binary::Mul => product::expand(scope, a, b).into(),
        Binary::Div => quotient::expand(scope, a, b).into(),
        Binary::Max => larger::expand(scope, a, b).into(),
        Binary::Gt => greater::expand(scope, a, b).into(),
        Binary::Eq => same::expand(scope, a, b).into(),
        Binary::Rem | Binary::Xor => unreachable!("a verified region has these of integers only"),
    }
}

/// Emits a function of two integers.
pub(super) fn binary_int<N: Size>(
    scope: &mut Scope,
    f: Binary,
    a: NativeExpand<Vector<i32, N>>,
    b: NativeExpand<Vector<i32, N>>,
) -> cubecl::ir::ManagedVariable {
    match f {
        Binary::Add => sum::expand(scope, a, b).into(),
        Binary::Sub => difference::expand(scope, a, b).into(),
        Binary::Mul => product::expand(scope, a, b).into(),
        Binary::Div => unreachable!("a verified region divides floats only"),
        Binary::Max => larger_int::expand(scope, a, b).into(),
        Binary::Gt => greater::expand(scope, a, b).into(),
        Binary::Eq => same::expand(scope, a, b).into(),
        Binary::Rem => remainder::expand(scope, a, b).into(),
        Binary::Xor => exclusive_or::expand(scope, a, b).into(),
    }
}

/// Emits the scale of a row from its largest magnitude.
pub(super) fn scale_of<N: Size>(
    scope: &mut Scope,
    grid: Grid,
    amax: NativeExpand<Vector<f32, N>>,
) -> NativeExpand<Vector<f32, N>> {
    let clip = f32::from(grid.clip);
    let floor = match grid.rule {
        ScaleRule::Amax => None,
        ScaleRule::Floored => Some(1.0 / clip),
    };
    grid_scale::expand(scope, amax, clip, floor)
}
