//! What single models have: experts under a gate, matrices stacked in one parameter, sums of all before in a few
//! shifts, low-rank additions, weights of tokens, all earlier outputs kept and weighted.

use super::Generator;
use super::context::Context;
use crate::text::{Block, Expr, Node, Size, Stmt, Ty};

impl Generator {
    /// A step of one of these kinds.
    pub(crate) fn idiom(&mut self, cx: &mut Context, width: &Size) -> Expr {
        match self.rng.below(8) {
            0 => self.experts(cx, width),
            1 | 2 => self.stacked(cx, width),
            3 => self.prefix_sums(cx, width),
            4 => self.low_rank(cx, width),
            5 if cx.tokens => self.token_weights(cx, width),
            6 => self.dense(cx, width),
            _ => self.same_thrice(cx, width),
        }
    }

    fn row(x: &Expr, index: Expr, shape: &[Size]) -> Expr {
        Expr::new(Ty::Tensor(shape.to_vec()), Node::Index(Box::new(x.clone()), Box::new(index)))
    }

    /// Two or three small layers, each times its share.
    fn experts(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let count = 2 + self.rng.below(2);
        let gates =
            self.projected(x.clone(), &Size::Exact(count)).map(self.rng.pick(&["softmax", "sigmoid"]));
        let gates = self.named(cx, gates);
        let one = self.stream_shape(&Size::Exact(1));
        let mut sum: Option<Expr> = None;
        for e in 0..count {
            let inner = self
                .projected(x.clone(), &Size::named("NARROW"))
                .map(self.rng.pick(&["relu", "tanh", "silu"]));
            let out = self.projected(inner, width);
            let args = [gates.clone(), Expr::text(-1), Expr::text(e), Expr::text(1)];
            let part = Expr::tensor(&one, "slice", args).into_op("*", out);
            sum = Some(match sum {
                Some(sum) => sum.op("+", part),
                None => part,
            });
        }
        let y = sum.unwrap_or_else(|| x.clone());
        if self.rng.once_in(2) { x.op("+", y) } else { y }
    }

    /// Matrices of one parameter with three axes, one after the other, in a loop or not.
    fn stacked(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let count = 2 + self.rng.below(2);
        let square = [width.clone(), width.clone()];
        let bank = self.param("bank", &[Size::Exact(count), width.clone(), width.clone()]);
        let bank = self.named(cx, bank);
        let shape = x.shape().clone();
        if self.rng.once_in(2) {
            let (y, i) = (self.fresh("y"), self.fresh("i"));
            cx.stmts.push(Stmt::bind_mut(&y, x));
            let y_var = Expr::var(&y, Ty::Tensor(shape.clone()));
            let matrix = Self::row(&bank, Expr::var(&i, Ty::Fixed), &square);
            let next = Expr::tensor(&shape, "linear", [y_var.clone(), matrix]);
            let act = self.rng.pick(&["tanh", "rms_norm", "silu"]);
            let assign = Stmt::Assign(y, "=", next.map(act));
            cx.stmts.push(Stmt::For(
                i,
                Expr::text(format!("0..{count}")),
                Block { stmts: vec![assign], value: None },
            ));
            self.growth = 1.0;
            return y_var;
        }
        let first = Expr::tensor(&shape, "linear", [x.clone(), Self::row(&bank, Expr::text(0), &square)]);
        let turned = Expr::tensor(
            &square,
            "transpose",
            [Self::row(&bank, Expr::text(-1), &square), Expr::list([1, 0].map(Expr::text))],
        );
        let second = Expr::tensor(&shape, "linear", [first.map("tanh"), turned]);
        x.op("+", second)
    }

    /// Sums over all earlier positions, in shifts of 1, 2 and 4.
    fn prefix_sums(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let shape = x.shape().clone();
        let (y, k) = (self.fresh("y"), self.fresh("k"));
        cx.stmts.push(Stmt::bind_mut(&y, x));
        let y_var = Expr::var(&y, Ty::Tensor(shape.clone()));
        let moved = Expr::tensor(&shape, "shift", [y_var.clone(), Expr::var(&k, Ty::Fixed)]);
        let body = Block { stmts: vec![Stmt::Assign(y, "+=", moved)], value: None };
        cx.stmts.push(Stmt::For(k, Expr::text(self.rng.pick(&["[1, 2, 4]", "[1, 2]"])), body));
        self.growth += 2.0;
        y_var.map("rms_norm")
    }

    /// A matrix plus a narrow one.
    fn low_rank(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let narrow = self.projected(x.clone(), &Size::named("NARROW"));
        let back = self.projected(narrow, width);
        let scale = self.number(0.2, 2.0);
        self.projected(x, width).op("+", scale.into_op("*", back))
    }

    /// A number for each token, or a vector.
    fn token_weights(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let size = if self.rng.once_in(2) { Size::Exact(1) } else { width.clone() };
        let rows = self.param("tw", &[Size::named("VOCAB"), size.clone()]);
        let tokens = Expr::var("tokens", Ty::Ints(vec![Size::Batch, Size::Time]));
        let ids = if self.rng.once_in(2) {
            // Three tokens by hand.
            let before = |by: usize| Expr::call(tokens.ty.clone(), "shift", [tokens.clone(), Expr::text(by)]);
            let pair =
                Expr::call(tokens.ty.clone(), "xor", [tokens.clone().op("*", Expr::text(7)), before(1)]);
            Expr::call(tokens.ty.clone(), "xor", [pair, before(2).op("*", Expr::text(3))])
                .op("%", Expr::text("VOCAB"))
        } else {
            tokens
        };
        let weights = Expr::tensor(&self.stream_shape(&size), "gather", [rows, ids]);
        if self.rng.once_in(2) { x.op("*", weights) } else { x.op("*", weights.map("sigmoid")) }
    }

    /// Every output so far in a list, and their sum under weights for each new layer.
    fn dense(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let shape = x.shape().clone();
        let ty = Ty::Tensor(shape.clone());
        let (outs, h, i, j, path) =
            (self.fresh("outs"), self.fresh("h"), self.fresh("i"), self.fresh("j"), self.fresh("dense"));
        let mut kept = Stmt::bind_mut(&outs, Expr::list([x]));
        if let Stmt::Let { value, .. } = &mut kept {
            value.ty = Ty::List(Box::new(ty.clone()), 1);
        }
        cx.stmts.push(kept);
        let list = Expr::var(&outs, Ty::Fixed);
        let mix = self.param("mix", &[Size::Exact(3), Size::Exact(3)]);
        let mix = self.named(cx, mix);
        // h = Σ_j mix[i][j] · outs[j]
        let weight = Self::row(
            &Self::row(&mix, Expr::var(&i, Ty::Fixed), &[Size::Exact(3)]),
            Expr::var(&j, Ty::Fixed),
            &[],
        );
        let at = |index: Expr| Expr::new(ty.clone(), Node::Index(Box::new(list.clone()), Box::new(index)));
        let term = weight.into_op("*", at(Expr::var(&j, Ty::Fixed)));
        let zero = at(Expr::text(0)).op("*", Expr::text("0.5"));
        let add = Block { stmts: vec![Stmt::Assign(h.clone(), "+=", term)], value: None };
        let h_var = Expr::var(&h, ty.clone());
        let layer = self.projected(h_var.clone(), width).map("tanh");
        let layer = Expr::new(ty.clone(), Node::Scope(format!("{path}.{{{i}}}"), false, Block::of(layer)));
        let push = Expr::new(Ty::Fixed, Node::Method(Box::new(list.clone()), "push", vec![layer]));
        let len = Expr::new(Ty::Fixed, Node::Call("len".into(), vec![(None, list.clone())]));
        let upto = Expr::new(Ty::Fixed, Node::Binary("..", Box::new(Expr::text(0)), Box::new(len)));
        let body = vec![Stmt::bind_mut(&h, zero), Stmt::For(j, upto, add), Stmt::Do(push)];
        cx.stmts.push(Stmt::For(i, Expr::text("0..2"), Block { stmts: body, value: None }));
        self.growth += 1.0;
        at(Expr::text(-1)).op("+", at(Expr::text(1)))
    }

    /// One stream as query, key and value, or in all places of a product.
    fn same_thrice(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let shape = x.shape().clone();
        let (heads, each) = self.groups_of(width);
        let split = [Size::Batch, Size::Time, heads.clone(), each];
        let cut = Expr::tensor(&split, "split_heads", [x.clone(), Expr::text(&heads)]);
        let h = self.named(cx, cut);
        let h = if self.rng.once_in(2) { self.named(cx, h.map("rms_norm")) } else { h };
        let mut call = Expr::tensor(&split, "causal_attention", [h.clone(), h.clone(), h.clone()]);
        if let Node::Call(_, args) = &mut call.node {
            args.push((Some("scale"), Expr::text("0.5")));
        }
        let y = match self.rng.below(3) {
            0 => call.op("+", h),
            1 => {
                let total = Expr::call(Ty::Fixed, "sum", [h.clone(), Expr::list([-1, -2].map(Expr::text))]);
                call.op("*", total.map("tanh"))
            }
            _ => call,
        };
        let merged = Expr::tensor(&shape, "merge_heads", [y]);
        self.growth += 0.5;
        if self.rng.once_in(2) { x.op("+", merged) } else { merged }
    }
}
