//! What mixes earlier positions in: shifts, smears and causal convolutions with taps of every kind.

use super::Generator;
use super::context::Context;
use crate::text::{Block, Expr, Node, Size, Stmt, Ty};

impl Generator {
    fn shifted(x: Expr, by: usize) -> Expr {
        Expr::call(x.ty.clone(), "shift", [x, Expr::text(by)])
    }

    /// A stream blended with what was before.
    pub(crate) fn positions_mixed(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        match self.rng.below(8) {
            0 | 1 => {
                let y = self.stream(cx, width);
                let by = self.rng.pick(&[1, 1, 2, 3]);
                let half = self.number(0.1, 0.9);
                half.clone().op("*", x).op("+", half.op("*", Self::shifted(y, by)))
            }
            2 => {
                let call = x.map("smear_gate");
                self.scoped("smear", call)
            }
            3 => {
                // Written out.
                let taps = self.param("taps", &[Size::Exact(3), width.clone()]);
                let taps = self.named(cx, taps);
                let tap = |i: usize| {
                    let ty = Ty::Tensor(vec![width.clone()]);
                    Expr::new(ty, Node::Index(Box::new(taps.clone()), Box::new(Expr::text(i))))
                };
                let x = self.named(cx, x);
                let y = tap(0).into_op("*", x.clone());
                let y = y.op("+", tap(1).into_op("*", Self::shifted(x.clone(), 1)));
                y.op("+", tap(2).into_op("*", Self::shifted(x, 2)))
            }
            4 => self.convolution(cx, x, width),
            5 => {
                // The difference to the position before, gated by features.
                let x = self.named(cx, x);
                let gate = self.param("d", std::slice::from_ref(width)).map("sigmoid");
                x.clone().op("+", gate.into_op("*", Self::shifted(x.clone(), 1).op("-", x)))
            }
            6 => {
                // Along features.
                let mut call = Self::shifted(x, self.rng.pick(&[1, 1, 2]));
                if let Node::Call(_, args) = &mut call.node {
                    args.push((Some("axis"), Expr::text(-1)));
                }
                let y = self.stream(cx, width);
                y.op("+", call)
            }
            _ => {
                // Now a projection of the position before.
                let before = self.projected(Self::shifted(x, 1), width);
                let y = self.stream(cx, width);
                y.op("+", before)
            }
        }
    }

    /// A causal convolution as a loop over its taps.
    fn convolution(&mut self, cx: &mut Context, x: Expr, width: &Size) -> Expr {
        let count = self.rng.pick(&[2, 3, 4]);
        let taps = self.param("taps", &[Size::Exact(count), width.clone()]);
        let (x, taps) = (self.named(cx, x), self.named(cx, taps));
        let (sum, k) = (self.fresh("y"), self.fresh("k"));
        let tap = |i: Expr| {
            Expr::new(Ty::Tensor(vec![width.clone()]), Node::Index(Box::new(taps.clone()), Box::new(i)))
        };
        let first = tap(Expr::text(0)).into_op("*", x.clone());
        let shape = x.shape().clone();
        cx.stmts.push(Stmt::bind_mut(&sum, first));
        let k_var = Expr::var(&k, Ty::Fixed);
        let moved = Expr::call(x.ty.clone(), "shift", [x, k_var.clone()]);
        let body = Block {
            stmts: vec![Stmt::Assign(sum.clone(), "+=", tap(k_var).into_op("*", moved))],
            value: None,
        };
        cx.stmts.push(Stmt::For(k, Expr::text(format!("1..{count}")), body));
        Expr::var(&sum, Ty::Tensor(shape))
    }
}
