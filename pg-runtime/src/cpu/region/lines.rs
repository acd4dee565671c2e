//! The element-wise loops. Each is a [`Kernel`], so compiled for every instruction set; the innermost
//! loops run over slices of equal length or one slice and a constant, which is what vectorises.

use pg_ir::op::{Binary, Reduction};

use super::super::aligned::Element;
use super::super::math;
use super::super::simd::Kernel;
use super::compile::Class;

/// A row of a register: its columns, or one value for all of them.
#[derive(Clone, Copy)]
pub(super) enum Line<'a, T> {
    Many(&'a [T]),
    One(T),
}

/// A register of a block.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) bits: &'a [u32],
    pub(super) class: Class,
}

impl<'a> View<'a> {
    /// Row `row` of a block with `columns` columns.
    #[inline(always)]
    pub(super) fn line<T: Element>(self, row: usize, columns: usize) -> Line<'a, T> {
        let bits: &'a [T] = bytemuck::cast_slice(self.bits);
        match (self.class.row, self.class.column) {
            (true, true) => Line::Many(&bits[row * columns..][..columns]),
            (false, true) => Line::Many(&bits[..columns]),
            (true, false) => Line::One(bits[row]),
            (false, false) => Line::One(bits[0]),
        }
    }

    /// A row, or the whole register as one line.
    #[inline(always)]
    pub(super) fn piece<T: Element>(self, row: usize, cut: Cut) -> Line<'a, T> {
        if cut.flat && !self.is_uniform() {
            Line::Many(bytemuck::cast_slice(&self.bits[..cut.step]))
        } else {
            self.line(row, cut.columns)
        }
    }

    #[inline(always)]
    fn is_uniform(self) -> bool {
        self.class == Class::default()
    }
}

/// How an element-wise step is cut into loops.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// One loop serves for all rows, because all operands are laid out as the result is.
    flat: bool,
    /// Length of a loop: everything, or a row.
    pub(super) step: usize,
    columns: usize,
}

/// The result of an element-wise step: its class and the block's size.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) class: Class,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Shape {
    pub(super) fn len(self) -> usize {
        self.class.len(self.rows, self.columns)
    }

    #[inline(always)]
    pub(super) fn pieces<const N: usize>(self, operands: [View<'_>; N]) -> Cut {
        let flat = operands.iter().all(|v| v.class == self.class || v.is_uniform());
        Cut { flat, step: if flat { self.len() } else { self.columns }, columns: self.columns }
    }

    #[inline(always)]
    pub(super) fn cut<O: Element>(self, out: &mut [u32]) -> &mut [O] {
        bytemuck::cast_slice_mut(&mut out[..self.len()])
    }
}

// The loops below are plain `for` loops inside functions that are always inlined: a closure with a large
// body would stay a function of its own, compiled for the base instruction set.

#[inline(always)]
fn zip<A: Element, O: Element>(
    shape: Shape,
    out: &mut [u32],
    [a, b]: [View<'_>; 2],
    f: impl Fn(A, A) -> O + Copy,
) {
    let cut = shape.pieces([a, b]);
    for (row, out) in shape.cut::<O>(out).chunks_exact_mut(cut.step).enumerate() {
        match (a.piece(row, cut), b.piece(row, cut)) {
            (Line::Many(a), Line::Many(b)) => {
                for (o, (&a, &b)) in out.iter_mut().zip(a.iter().zip(b)) {
                    *o = f(a, b);
                }
            }
            (Line::Many(a), Line::One(b)) => {
                for (o, &a) in out.iter_mut().zip(a) {
                    *o = f(a, b);
                }
            }
            (Line::One(a), Line::Many(b)) => {
                for (o, &b) in out.iter_mut().zip(b) {
                    *o = f(a, b);
                }
            }
            (Line::One(a), Line::One(b)) => out.fill(f(a, b)),
        }
    }
}

/// All ones or all zeros.
#[inline(always)]
pub(super) fn mask(condition: bool) -> u32 {
    u32::from(condition).wrapping_neg()
}

/// A function of two registers of one type.
pub(super) struct BinaryKernel<'a> {
    pub(super) f: Binary,
    pub(super) float: bool,
    pub(super) shape: Shape,
    pub(super) out: &'a mut [u32],
    pub(super) operands: [View<'a>; 2],
}

impl Kernel for BinaryKernel<'_> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let BinaryKernel { f, float, shape, out, operands } = self;
        match (f, float) {
            (Binary::Add, true) => zip(shape, out, operands, |a: f32, b: f32| a + b),
            (Binary::Sub, true) => zip(shape, out, operands, |a: f32, b: f32| a - b),
            (Binary::Mul, true) => zip(shape, out, operands, |a: f32, b: f32| a * b),
            (Binary::Max, true) => zip(shape, out, operands, math::max),
            (Binary::Gt, true) => zip(shape, out, operands, |a: f32, b: f32| mask(a > b)),
            (Binary::Eq, true) => zip(shape, out, operands, |a: f32, b: f32| mask(a == b)),
            (Binary::Div, _) => zip(shape, out, operands, |a: f32, b: f32| a / b),
            // int32 arithmetic wraps, as on every device.
            (Binary::Add, false) => zip(shape, out, operands, i32::wrapping_add),
            (Binary::Sub, false) => zip(shape, out, operands, i32::wrapping_sub),
            (Binary::Mul, false) => zip(shape, out, operands, i32::wrapping_mul),
            (Binary::Max, false) => zip(shape, out, operands, |a: i32, b: i32| if a > b { a } else { b }),
            (Binary::Gt, false) => zip(shape, out, operands, |a: i32, b: i32| mask(a > b)),
            (Binary::Eq, false) => zip(shape, out, operands, |a: i32, b: i32| mask(a == b)),
            (Binary::Xor, _) => zip(shape, out, operands, |a: i32, b: i32| a ^ b),
            (Binary::Rem, _) => {
                let rem = |a: i32, b: i32| if b == 0 { 0 } else { a.wrapping_rem(b) };
                zip(shape, out, operands, rem);
            }
        }
    }
}

/// cond ? a : b on bits.
pub(super) struct SelectKernel<'a> {
    pub(super) shape: Shape,
    pub(super) out: &'a mut [u32],
    pub(super) operands: [View<'a>; 3],
}

impl Kernel for SelectKernel<'_> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let SelectKernel { shape, out, operands } = self;
        #[inline(always)]
        fn pick(c: u32, a: u32, b: u32) -> u32 {
            (c & a) | (!c & b)
        }
        let [c, a, b] = operands;
        let cut = shape.pieces(operands);
        for (row, out) in shape.cut::<u32>(out).chunks_exact_mut(cut.step).enumerate() {
            let [c, a, b] = [c, a, b].map(|v| v.piece::<u32>(row, cut));
            match (c, a, b) {
                (Line::Many(c), Line::Many(a), Line::Many(b)) => {
                    for (o, (&c, (&a, &b))) in out.iter_mut().zip(c.iter().zip(a.iter().zip(b))) {
                        *o = pick(c, a, b);
                    }
                }
                (Line::Many(c), Line::Many(a), Line::One(b)) => {
                    for (o, (&c, &a)) in out.iter_mut().zip(c.iter().zip(a)) {
                        *o = pick(c, a, b);
                    }
                }
                (Line::Many(c), Line::One(a), Line::Many(b)) => {
                    for (o, (&c, &b)) in out.iter_mut().zip(c.iter().zip(b)) {
                        *o = pick(c, a, b);
                    }
                }
                (Line::Many(c), Line::One(a), Line::One(b)) => {
                    for (o, &c) in out.iter_mut().zip(c) {
                        *o = pick(c, a, b);
                    }
                }
                (Line::One(c), a, b) => match if c != 0 { a } else { b } {
                    Line::Many(x) => out.copy_from_slice(x),
                    Line::One(x) => out.fill(x),
                },
            }
        }
    }
}

/// Conversions that change the bits of a register.
#[derive(Clone, Copy)]
pub(super) enum Convert {
    FloatToInt,
    IntToFloat,
    FloatToBool,
    IntToBool,
    BoolToFloat,
    BoolToInt,
    Copy,
}

pub(super) struct ConvertKernel<'a> {
    pub(super) convert: Convert,
    pub(super) shape: Shape,
    pub(super) out: &'a mut [u32],
    pub(super) x: View<'a>,
}

impl Kernel for ConvertKernel<'_> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let ConvertKernel { convert, shape, out, x } = self;
        #[inline(always)]
        fn each<A: Element, O: Element>(shape: Shape, out: &mut [u32], x: View<'_>, f: impl Fn(A) -> O) {
            let cut = shape.pieces([x]);
            for (row, out) in shape.cut::<O>(out).chunks_exact_mut(cut.step).enumerate() {
                match x.piece(row, cut) {
                    Line::Many(x) => {
                        for (o, &x) in out.iter_mut().zip(x) {
                            *o = f(x);
                        }
                    }
                    Line::One(x) => out.fill(f(x)),
                }
            }
        }
        match convert {
            Convert::FloatToInt => each(shape, out, x, |x: f32| x as i32),
            Convert::IntToFloat => each(shape, out, x, |x: i32| x as f32),
            Convert::FloatToBool => each(shape, out, x, |x: f32| mask(x != 0.0)),
            Convert::IntToBool => each(shape, out, x, |x: i32| mask(x != 0)),
            Convert::BoolToFloat => each(shape, out, x, |x: u32| x & 1.0f32.to_bits()),
            Convert::BoolToInt => each(shape, out, x, |x: u32| x & 1),
            Convert::Copy => each(shape, out, x, |x: u32| x),
        }
    }
}

/// Independent partial results of a reduction: enough to keep the adders busy, and always this many, so
/// that the order of additions is one on all machines.
const PARTIAL: usize = 32;

/// Σ or max of a slice, in a fixed order.
#[inline(always)]
pub(crate) fn reduce(kind: Reduction, x: &[f32]) -> f32 {
    #[inline(always)]
    fn fold(x: &[f32], identity: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut partial = [identity; PARTIAL];
        let mut chunks = x.chunks_exact(PARTIAL);
        for chunk in &mut chunks {
            for (p, &x) in partial.iter_mut().zip(chunk) {
                *p = f(*p, x);
            }
        }
        for (p, &x) in partial.iter_mut().zip(chunks.remainder()) {
            *p = f(*p, x);
        }
        let mut half = PARTIAL / 2;
        while half > 0 {
            for i in 0..half {
                partial[i] = f(partial[i], partial[i + half]);
            }
            half /= 2;
        }
        partial[0]
    }
    match kind {
        Reduction::Sum => fold(x, 0.0, |a, b| a + b),
        Reduction::Max => fold(x, f32::NEG_INFINITY, math::max),
    }
}

/// What a reduction starts from.
pub(super) fn identity(kind: Reduction) -> f32 {
    match kind {
        Reduction::Sum => 0.0,
        Reduction::Max => f32::NEG_INFINITY,
    }
}

/// One value for each row of `x`.
pub(super) struct ReduceKernel<'a> {
    pub(super) kind: Reduction,
    pub(super) columns: usize,
    pub(super) out: &'a mut [f32],
    pub(super) x: View<'a>,
}

impl Kernel for ReduceKernel<'_> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let ReduceKernel { kind, columns, out, x } = self;
        for (row, out) in out.iter_mut().enumerate() {
            *out = match (x.line(row, columns), kind) {
                (Line::Many(x), _) => reduce(kind, x),
                (Line::One(x), Reduction::Sum) => x * columns as f32,
                (Line::One(x), Reduction::Max) => x,
            };
        }
    }
}

/// Combines the rows of `x` into `into`, one row after the other.
pub(super) struct AccumulateKernel<'a> {
    pub(super) kind: Reduction,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) into: &'a mut [f32],
    pub(super) x: View<'a>,
}

impl Kernel for AccumulateKernel<'_> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let AccumulateKernel { kind, rows, columns, into, x } = self;
        #[inline(always)]
        fn add(into: &mut [f32], x: Line<'_, f32>, f: impl Fn(f32, f32) -> f32) {
            match x {
                Line::Many(x) => {
                    for (a, &x) in into.iter_mut().zip(x) {
                        *a = f(*a, x);
                    }
                }
                Line::One(x) => {
                    for a in into {
                        *a = f(*a, x);
                    }
                }
            }
        }
        for row in 0..rows {
            match kind {
                Reduction::Sum => add(into, x.line(row, columns), |a, b| a + b),
                Reduction::Max => add(into, x.line(row, columns), math::max),
            }
        }
    }
}
