//! The loops of element-wise functions of one float: a line for each function, and one loop for all.

use pg_ir::op::Unary;

use super::super::math;
use super::super::simd::Kernel;
use super::lines::{Line, Shape, View};

/// A function of one float. A type rather than a closure, because only a method can be inlined always.
trait Function {
    fn of(x: f32) -> f32;
}

struct RoundBf16;

impl Function for RoundBf16 {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        math::round_bf16(x)
    }
}

/// A function of one float register; `None` rounds to bfloat16.
pub(super) struct UnaryKernel<'a> {
    pub(super) f: Option<Unary>,
    pub(super) shape: Shape,
    pub(super) out: &'a mut [u32],
    pub(super) x: View<'a>,
}

macro_rules! functions {
    ($($name:ident = $f:expr),* $(,)?) => {
        $(
            struct $name;
            impl Function for $name {
                #[inline(always)]
                fn of(x: f32) -> f32 {
                    $f(x)
                }
            }
        )*

        impl Kernel for UnaryKernel<'_> {
            type Output = ();
            #[inline(always)]
            fn call(self) {
                let UnaryKernel { f, shape, out, x } = self;
                match f {
                    $(Some(Unary::$name) => map::<$name>(shape, out, x),)*
                    None => map::<RoundBf16>(shape, out, x),
                }
            }
        }
    };
}

functions! {
    Exp = math::exp,
    Log = math::log,
    Tanh = math::tanh,
    Sigmoid = math::sigmoid,
    Sqrt = f32::sqrt,
    Rsqrt = math::rsqrt,
    Sin = math::sin,
    Cos = math::cos,
}

// A plain `for` loop inside a function that is always inlined: a closure with a large body would stay a function of
// its own, compiled for the base instruction set.
#[inline(always)]
fn map<F: Function>(shape: Shape, out: &mut [u32], x: View<'_>) {
    let cut = shape.pieces([x]);
    for (row, out) in shape.cut::<f32>(out).chunks_exact_mut(cut.step).enumerate() {
        match x.piece(row, cut) {
            Line::Many(x) => {
                for (o, &x) in out.iter_mut().zip(x) {
                    *o = F::of(x);
                }
            }
            Line::One(x) => out.fill(F::of(x)),
        }
    }
}
