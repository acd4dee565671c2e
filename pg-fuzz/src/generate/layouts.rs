//! The same numbers under other axes: slices, joins by padding, transposes, groups of features, permuted columns.

use super::Generator;
use super::context::Context;
use crate::text::{Expr, Shape, Size, Ty};

impl Generator {
    fn slice(x: Expr, shape: &Shape, start: usize, len: usize) -> Expr {
        Expr::tensor(shape, "slice", [x, Expr::text(-1), Expr::text(start), Expr::text(len)])
    }

    fn pad(x: Expr, shape: &Shape, before: usize, after: usize) -> Expr {
        Expr::tensor(shape, "pad", [x, Expr::text(-1), Expr::text(before), Expr::text(after)])
    }

    /// A stream taken apart and put together.
    pub(crate) fn rearranged(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let x = self.named(cx, x);
        let n = self.value(width);
        let shape = x.shape().clone();
        match self.rng.below(10) {
            0 | 1 if n > 1 => {
                // Two parts, each through something of its own; sometimes of permuted columns.
                let x = match self.rng.below(3) {
                    0 => self.permuted(x, n),
                    _ => x,
                };
                let cut = 1 + self.rng.below(n - 1);
                let part = |g: &mut Self, start: usize, len: usize| {
                    let size = Size::Exact(len);
                    let part = Self::slice(x.clone(), &g.stream_shape(&size), start, len);
                    match g.rng.below(4) {
                        0 => part.map("tanh"),
                        1 => part.map("rms_norm"),
                        2 => g.projected(part, &size),
                        _ => part,
                    }
                };
                let (a, b) = (part(self, 0, cut), part(self, cut, n - cut));
                Self::pad(a, &shape, 0, n - cut).op("+", Self::pad(b, &shape, cut, 0))
            }
            2 => {
                // Two streams side by side, and back by a matrix.
                let y = self.stream(cx, width);
                let wide = self.stream_shape(&Size::Exact(2 * n));
                let both = Self::pad(x, &wide, 0, n).op("+", Self::pad(y, &wide, n, 0));
                self.projected(both, width)
            }
            3 if n > 1 => {
                let moved = self.permuted(x.clone(), n);
                if self.rng.once_in(2) { moved } else { x.op("*", Expr::text(0.5)).op("+", moved) }
            }
            4 => {
                // Batch and time change places on the way.
                let turned: Shape = vec![shape[1].clone(), shape[0].clone(), shape[2].clone()];
                let perm = || Expr::list([1, 0, 2].map(Expr::text));
                let y = Expr::tensor(&turned, "transpose", [x, perm()]);
                let y = match self.rng.below(3) {
                    0 => y.map("rms_norm"),
                    1 => {
                        let bias = self.param("b", std::slice::from_ref(width));
                        y.op("+", bias)
                    }
                    _ => y.map("tanh"),
                };
                Expr::tensor(&shape, "transpose", [y, perm()])
            }
            5 | 6 => self.grouped(cx, x, width),
            7 => {
                // The width between batch and time.
                let turned: Shape = vec![shape[0].clone(), shape[2].clone(), shape[1].clone()];
                let perm = || Expr::list([0, 2, 1].map(Expr::text));
                let y = Expr::tensor(&turned, "transpose", [x, perm()]);
                let column = self.param("col", &[width.clone(), Size::Exact(1)]);
                let y = y.op("*", column).map("tanh");
                Expr::tensor(&shape, "transpose", [y, perm()])
            }
            8 => self.regrouped(cx, x, width),
            _ => {
                // A row of parameters repeated to the whole stream.
                let row = self.param("row", std::slice::from_ref(width));
                let sizes = Expr::call(Ty::Fixed, "shape", [x.clone()]);
                let row = Expr::tensor(&shape, "broadcast", [row, sizes]);
                if self.rng.once_in(2) { x.op("*", row) } else { x.op("+", row) }
            }
        }
    }

    /// Features in another order.
    fn permuted(&mut self, x: Expr, n: usize) -> Expr {
        let mut perm: Vec<usize> = (0..n).collect();
        match self.rng.below(3) {
            0 => perm.reverse(),
            1 if n > 1 => perm.rotate_left(1 + self.rng.below(n - 1)),
            _ => (1..n).rev().for_each(|i| perm.swap(i, self.rng.below(i + 1))),
        }
        let shape = x.shape().clone();
        Expr::tensor(&shape, "permute_columns", [x, Expr::list(perm.into_iter().map(Expr::text))])
    }

    /// Features in groups of one size, then of another, of which only the first few are left.
    fn regrouped(&mut self, cx: &mut Context, x: Expr, width: &Size) -> Expr {
        let n = self.value(width);
        let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
        let [one, other] = [0, 1].map(|_| self.rng.pick(&divisors));
        let grouped = |g: &Self, x: Expr, groups: usize| {
            let (count, each) = (Size::Exact(groups), Size::Exact(n / groups));
            let split = g.lead(&x, [Expr::text(&count), Expr::text(&each)]);
            Expr::tensor(&[Size::Batch, Size::Time, count, each], "reshape", [x, split])
        };
        let y = grouped(self, x.clone(), one);
        let gains = self.param("gg", &[Size::Exact(one), Size::Exact(1)]);
        let y = y.op("*", gains);
        let y = if self.rng.once_in(2) { y.map("rms_norm") } else { y };
        let y = self.named(cx, y);
        let y = grouped(self, y, other);
        let (shape, each) = (y.shape().clone(), n / other);
        let kept = 1 + self.rng.below(each);
        let some: Shape = vec![Size::Batch, Size::Time, Size::Exact(other), Size::Exact(kept)];
        let y = Self::pad(Self::slice(y, &some, 0, kept), &shape, 0, each - kept);
        let whole = self.lead(&x, [Expr::text(width)]);
        x.clone().op("+", Expr::tensor(x.shape(), "reshape", [y, whole]))
    }

    /// Features in groups.
    fn grouped(&mut self, cx: &mut Context, x: Expr, width: &Size) -> Expr {
        let n = self.value(width);
        let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
        let groups = self.rng.pick(&divisors);
        let (g, each) = (Size::Exact(groups), Size::Exact(n / groups));
        let shape = vec![Size::Batch, Size::Time, g.clone(), each.clone()];
        let split = self.lead(&x, [Expr::text(&g), Expr::text(&each)]);
        let y = Expr::tensor(&shape, "reshape", [x.clone(), split]);
        let y = match self.rng.below(5) {
            0 => y.map("rms_norm"),
            1 => y.map("softmax"),
            2 => {
                // Less the groups' mean.
                let y = self.named(cx, y);
                let mean = Expr::call(Ty::Fixed, "mean", [y.clone(), Expr::text(-2)]);
                y.op("-", mean)
            }
            3 => {
                let gains = self.param("gg", &[g.clone(), Size::Exact(1)]);
                y.op("*", gains)
            }
            _ => {
                // Turned inside out: column i of group j becomes column j of group i.
                let turned = vec![Size::Batch, Size::Time, each, g];
                Expr::tensor(&turned, "transpose", [y, Expr::list([0, 1, 3, 2].map(Expr::text))])
            }
        };
        let whole = self.lead(&x, [Expr::text(width)]);
        Expr::tensor(x.shape(), "reshape", [y, whole])
    }
}
