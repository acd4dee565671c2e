//! Element-wise functions of one float. The list below is all that the compiler knows of them: the enum, records,
//! text form and the functions of the language come from it. Executors have a line for each.

use super::{arity, check_float, one_per_element, pointwise};
use crate::autodiff::Adjoint;
use crate::causality::known::Known;
use crate::graph::ValueId;
use crate::op::{Op, Record, RuleError};
use crate::ty::{DType, Type};

/// For each: what it is in words, variant, name, formula; `of` the function in float64; `grad` from (adjoint, x, y)
/// its derivative times the adjoint.
macro_rules! functions {
    ($(
        #[doc = $doc:literal]
        $variant:ident $name:literal $maths:literal, of $of:expr, grad $grad:expr;
    )*) => {
        /// Element-wise functions of one float operand.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Unary {
            $(#[doc = $doc] $variant,)*
        }

        impl Unary {
            /// Every function, in the order of the op reference.
            pub const ALL: &[Unary] = &[$(Unary::$variant),*];

            /// What it gives, in words.
            pub(crate) fn doc(self) -> &'static str {
                match self {
                    $(Unary::$variant => $doc.trim_ascii(),)*
                }
            }

            /// The function in float64.
            pub(crate) fn of(self, x: f64) -> f64 {
                let of: fn(f64) -> f64 = match self {
                    $(Unary::$variant => $of,)*
                };
                of(x)
            }

            pub(super) fn record(self) -> &'static Record {
                match self {
                    $(Unary::$variant => {
                        static RECORD: Record = Record {
                            name: $name,
                            signature: "x -> y",
                            maths: $maths,
                            infer,
                            access: pointwise,
                            cases: |_, at| at.always(Unary::$variant.known(at.known[0])),
                            vjp: |cx| {
                                let Some(g) = cx.cotangents[0] else { return vec![None] };
                                let (x, y) = (cx.node.operands[0], cx.node.first);
                                let grad: fn(&mut Adjoint<'_>, ValueId, ValueId, ValueId) -> ValueId = $grad;
                                vec![Some(grad(cx, g, x, y))]
                            },
                            flops: one_per_element,
                            eval: |_, x, _, _| vec![x[0].iter().map(|&x| Unary::$variant.of(x)).collect()],
                        };
                        &RECORD
                    })*
                }
            }
        }
    };
}

functions! {
    /// e to the x
    Exp "exp" "y = eˣ.", of f64::exp, grad |cx, g, _, y| cx.b.mul(g, y);
    /// natural logarithm
    Log "log" "y = ln x.", of f64::ln, grad |cx, g, x, _| cx.b.div(g, x);
    /// hyperbolic tangent
    Tanh "tanh" "y = tanh x.", of f64::tanh, grad |cx, g, _, y| {
        let one = cx.b.constant_like(1.0, y);
        let y2 = cx.b.mul(y, y);
        let d = cx.b.sub(one, y2);
        cx.b.mul(g, d)
    };
    /// 1 / (1 + exp(-x))
    Sigmoid "sigmoid" "y = 1 / (1 + e⁻ˣ).", of |x| 1.0 / (1.0 + (-x).exp()), grad |cx, g, _, y| {
        let one = cx.b.constant_like(1.0, y);
        let rest = cx.b.sub(one, y);
        let d = cx.b.mul(y, rest);
        cx.b.mul(g, d)
    };
    /// square root
    Sqrt "sqrt" "y = √x.", of f64::sqrt, grad |cx, g, _, y| {
        let half = cx.b.scale(0.5, g);
        cx.b.div(half, y)
    };
    /// 1 / sqrt(x)
    Rsqrt "rsqrt" "y = 1 / √x.", of |x| 1.0 / x.sqrt(), grad |cx, g, _, y| {
        let y2 = cx.b.mul(y, y);
        let y3 = cx.b.mul(y2, y);
        let d = cx.b.scale(-0.5, y3);
        cx.b.mul(g, d)
    };
    /// sine
    Sin "sin" "y = sin x.", of f64::sin, grad |cx, g, x, _| {
        let d = cx.b.unary(Unary::Cos, x);
        cx.b.mul(g, d)
    };
    /// cosine
    Cos "cos" "y = cos x.", of f64::cos, grad |cx, g, x, _| {
        let s = cx.b.unary(Unary::Sin, x);
        let d = cx.b.scale(-1.0, s);
        cx.b.mul(g, d)
    };
}

impl Unary {
    /// What is known of the function of a number of which something is known.
    fn known(self, x: &Known) -> Known {
        match self {
            Unary::Exp => x.exp(),
            Unary::Tanh | Unary::Sin => x.through_zero(1.0),
            Unary::Sqrt if x.is_zero() => x.clone(),
            Unary::Log | Unary::Sigmoid | Unary::Sqrt | Unary::Rsqrt | Unary::Cos => Known::any(DType::F32),
        }
    }
}

pub(super) fn infer(_: &Op, operands: &[&Type]) -> Result<Vec<Type>, RuleError> {
    let [x] = arity(operands)?;
    check_float(x)?;
    Ok(vec![x.with_dtype(DType::F32)])
}
