//! From the last stream to logits, tied to the embedding or not, and losses of a model's own.

use super::Generator;
use super::context::Context;
use crate::text::{Block, Expr, Function, Node, Size, Stmt, Ty};

impl Generator {
    /// Logits of a stream.
    pub(crate) fn logits(&mut self, cx: &mut Context, x: Expr, table: &Expr) -> Expr {
        let (dim, vocab) = (Size::named("DIM"), Size::named("VOCAB"));
        let shape = self.stream_shape(&vocab);
        match self.rng.below(8) {
            0..=2 => {
                let cap = self.rng.pick(&["30.0", "8.0", "2.0"]);
                Expr::tensor(&shape, "tied_logits", [x, table.clone(), Expr::text(cap)])
            }
            3 => Expr::tensor(&shape, "linear", [x.map("rms_norm"), table.clone()]),
            4 => {
                let head = self.param("head", &[vocab, dim]);
                Expr::tensor(&shape, "linear", [x.map("rms_norm"), head])
            }
            5 => {
                let x = self.projected(x.map("rms_norm"), &vocab);
                let bias = self.param("bias", std::slice::from_ref(&vocab));
                Expr::tensor(&shape, "softcap", [x.op("+", bias), Expr::text("15.0")])
            }
            6 => {
                // Twice the same head on two parts of the work.
                let x = self.named(cx, x);
                let a = Expr::tensor(&shape, "linear", [x.clone().map("rms_norm"), table.clone()]);
                let b = self.projected(x.map("tanh"), &vocab);
                a.op("+", Expr::text("0.5").into_op("*", b))
            }
            _ => {
                // Turned the other way round.
                let head = self.param("head", &[dim, vocab]);
                let mut e = Expr::tensor(&shape, "dot", [x.map("rms_norm"), head]);
                if let Node::Call(_, args) = &mut e.node {
                    args.push((Some("contract"), Expr::text("[[-1, 0]]")));
                }
                e
            }
        }
    }

    /// `fn loss(tokens, targets)`: cross entropy with something added.
    pub(crate) fn loss(&mut self) {
        let vocab = Size::named("VOCAB");
        let pair = Ty::Ints(vec![Size::Batch, Size::Time]);
        let (tokens, targets) = (Expr::var("tokens", pair.clone()), Expr::var("targets", pair.clone()));
        let (logits, ce, total) = (self.fresh("logits"), self.fresh("ce"), self.fresh("total"));
        let logits_ty = Ty::Tensor(self.stream_shape(&vocab));
        let rows = Ty::Tensor(vec![Size::Batch, Size::Time]);
        let scalar = Ty::Tensor(vec![]);
        let logits_var = Expr::var(&logits, logits_ty.clone());
        let ce_var = Expr::var(&ce, rows.clone());
        let mean = |x: Expr| Expr::call(scalar.clone(), "mean", [x]);
        let mut stmts = vec![
            Stmt::bind(&logits, Expr::call(logits_ty.clone(), "forward", [tokens])),
            Stmt::bind(&ce, Expr::call(rows.clone(), "cross_entropy", [logits_var.clone(), targets.clone()])),
            Stmt::bind_mut(&total, mean(ce_var.clone())),
        ];
        let mut add = |x: Expr| stmts.push(Stmt::Assign(total.clone(), "+=", x));
        let small = Expr::text("0.01");
        match self.rng.below(5) {
            0 => add(small.into_op("*", mean(logits_var.map("square")))),
            1 => {
                // The squared logarithm of the partition sum.
                let sums =
                    Expr::call(rows.clone(), "sum", [logits_var.map("tanh").map("exp"), Expr::text(-1)]);
                add(small.into_op("*", mean(sums.map("log").map("square"))));
            }
            2 => {
                // Predicts the targets again from the position before.
                let before = Expr::call(logits_ty, "shift", [logits_var.map("tanh"), Expr::text(1)]);
                let again = Expr::call(rows.clone(), "cross_entropy", [before, targets.clone()]);
                let positions = Expr::call(Ty::Fixed, "positions", [targets]);
                let valid = Expr::call(Ty::Fixed, "lt", [positions, Expr::text(1)]);
                let valid = Expr::call(Ty::Fixed, "select", [valid, Expr::text("0.0"), Expr::text("1.0")]);
                add(Expr::text("0.3").into_op("*", mean(again.op("*", valid))));
            }
            3 => {
                // Hard targets count more.
                let weight = ce_var.clone().map("stop_gradient").map("tanh");
                add(Expr::text("0.5").into_op("*", mean(ce_var.op("*", weight))));
            }
            _ => {
                // A head that only training has.
                let head = self.projected(logits_var, &vocab);
                let again = Expr::call(rows, "cross_entropy", [head.map("tanh"), targets]);
                add(Expr::text("0.2").into_op("*", mean(again)));
            }
        }
        let value = Some(Box::new(Expr::var(&total, scalar)));
        let params = ["tokens", "targets"].map(|n| (n.to_string(), pair.clone())).to_vec();
        self.text.functions.push(Function { name: "loss".into(), params, body: Block { stmts, value } });
    }
}
