//! Element by element: sums in every association, gains and gates, activations, normalisations of the library and by
//! hand, selections, divisions.

use super::Generator;
use super::context::Context;
use crate::text::{Expr, Node, Size, Ty};

impl Generator {
    /// A few streams added, subtracted and weighted.
    pub(crate) fn sums(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let [x, u, v] = [0, 1, 2].map(|_| self.stream(cx, width));
        self.growth *= 0.6;
        match self.rng.below(9) {
            0 => x.op("+", u),
            1 => x.op("+", u).op("+", v),
            2 => x.op("+", u.op("+", v)),
            3 => x.op("-", self.number(-1.0, 1.0).op("*", u)),
            4 => {
                let gain = self.param("k", &[Size::Exact(1)]);
                gain.into_op("*", x).op("+", u).op("+", v)
            }
            5 => {
                // One weight vector for all columns, blended by a softmax.
                let mix = self.param("mix", &[Size::Exact(3)]);
                let mix = if self.rng.once_in(2) { mix.map("softmax") } else { mix };
                let mix = self.named(cx, mix);
                let at = |i: usize| {
                    let ty = Ty::Tensor(vec![]);
                    Expr::new(ty, Node::Index(Box::new(mix.clone()), Box::new(Expr::text(i))))
                };
                at(0).into_op("*", x).op("+", at(1).into_op("*", u)).op("+", at(2).into_op("*", v))
            }
            6 => {
                let half = self.number(0.1, 0.9);
                half.clone().op("*", x).op("+", Expr::text("1.0").op("-", half).into_op("*", u))
            }
            7 => x.op("-", u).op("-", v),
            _ => {
                let minus = Expr::new(x.ty.clone(), Node::Minus(Box::new(x)));
                minus.op("+", u)
            }
        }
    }

    /// One stream times something that opens or closes it.
    pub(crate) fn gated(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let y = self.stream(cx, width);
        match self.rng.below(12) {
            0 => {
                let x = self.stream(cx, width);
                let name = self.fresh("g");
                let ty = Ty::Tensor(vec![width.clone()]);
                let gain = Expr::call(ty, "gain", [x.clone(), Expr::text(format!("\"{name}\""))]);
                x.op("+", gain.into_op("*", y))
            }
            1 => {
                let gate = self.param("s", std::slice::from_ref(width)).map("sigmoid");
                let x = self.stream(cx, width);
                x.op("+", gate.into_op("*", y))
            }
            2 | 3 => {
                // One number a position.
                let x = self.stream(cx, width);
                let row = self.param("h", &[Size::Exact(1), width.clone()]);
                let gate = Expr::tensor(&self.stream_shape(&Size::Exact(1)), "linear", [x, row]);
                let gate = if self.rng.once_in(3) { gate } else { gate.map("sigmoid") };
                if self.rng.once_in(2) { y.op("*", gate) } else { gate.into_op("*", y) }
            }
            4 => {
                let x = self.stream(cx, width);
                let gate = self.projected(x, width).map("sigmoid");
                gate.op("*", y)
            }
            5 => {
                let gain = self.param("k", &[Size::Exact(1)]);
                gain.into_op("*", y)
            }
            6 => {
                let scale = self.param("scale", &[]);
                y.op("*", scale)
            }
            7 => {
                let gate = self.param("e", std::slice::from_ref(width)).map("tanh").map("exp");
                y.op("*", gate)
            }
            8 => {
                let x = self.stream(cx, width);
                let mean = Expr::tensor(&self.stream_shape(&Size::Exact(1)), "mean", [x, Expr::text(-1)]);
                y.op("*", mean)
            }
            9 => {
                let (g, x) = (self.param("c", std::slice::from_ref(width)), self.stream(cx, width));
                let g = self.named(cx, g.map("sigmoid"));
                let rest = Expr::text("1.0").into_op("-", g.clone());
                rest.into_op("*", x).op("+", g.into_op("*", y))
            }
            10 => {
                let x = self.stream(cx, width);
                y.op("*", x)
            }
            _ => {
                let blocked = y.clone().map("stop_gradient");
                let x = self.stream(cx, width);
                x.op("*", blocked.map("sigmoid")).op("+", y)
            }
        }
    }

    /// A function of each element.
    pub(crate) fn activation(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let x = if self.rng.once_in(3) { self.projected(x, width) } else { x };
        let ty = x.ty.clone();
        let call = |name: &str, args: Vec<Expr>| Expr::call(ty.clone(), name, args);
        match self.rng.below(18) {
            0 => x.map("relu"),
            1 => x.map("silu"),
            2 => x.map("tanh"),
            3 => x.map("sin"),
            4 => x.map("cos"),
            5 => x.map("abs"),
            6 => {
                self.growth *= 2.0;
                x.map("square")
            }
            7 => {
                self.growth *= 2.0;
                let slope = self.number(0.1, 0.9);
                let leaky = call("leaky_relu", vec![x, slope]);
                let squared = Expr::new(ty.clone(), Node::Method(Box::new(leaky), "square", vec![]));
                squared.op("*", Expr::text(0.3))
            }
            8 => {
                let x = self.named(cx, x);
                let slope = self.number(0.1, 0.9);
                call("max", vec![x.clone(), x.op("*", slope)])
            }
            9 => {
                let low = self.number(-1.0, 1.0);
                call(self.rng.pick(&["max", "min"]), vec![x, low])
            }
            10 => {
                let y = self.stream(cx, width);
                call(self.rng.pick(&["max", "min"]), vec![x, y])
            }
            // log(1 + eˣ) of something bounded.
            11 => Expr::text("1.0").into_op("+", x.map("tanh").map("exp")).map("log"),
            12 => {
                self.growth = 0.0;
                let minus = Expr::new(ty.clone(), Node::Minus(Box::new(x.map("square"))));
                minus.map("exp")
            }
            13 => {
                x.map("square").op("+", self.number(0.2, 1.0)).map(self.rng.pick(&["sqrt", "rsqrt", "log"]))
            }
            14 => {
                // x · σ(1.7 x)
                let x = self.named(cx, x);
                x.clone().op("*", x.op("*", Expr::text(1.7)).map("sigmoid"))
            }
            15 => {
                // The tanh form of GELU.
                let x = self.named(cx, x);
                let cube = x.clone().op("*", x.clone()).op("*", x.clone()).op("*", Expr::text(0.044));
                let inner = x.clone().op("+", cube).op("*", Expr::text(0.8)).map("tanh");
                x.op("*", Expr::text(0.5)).op("*", Expr::text("1.0").into_op("+", inner))
            }
            16 => call("softcap", vec![x, self.number(1.0, 8.0)]),
            _ => {
                let y = self.stream(cx, width);
                self.selection(cx, x, y)
            }
        }
    }

    /// One of two streams, element by element.
    fn selection(&mut self, cx: &mut Context, x: Expr, y: Expr) -> Expr {
        let x = self.named(cx, x);
        let (shape, mask) = (x.shape().clone(), Ty::Mask(x.shape().clone()));
        let cond = match self.rng.below(4) {
            0 => Expr::call(mask, "gt", [x.clone(), y.clone()]),
            1 => {
                let at = self.number(-1.0, 1.0);
                Expr::call(mask, "lt", [x.clone(), at])
            }
            2 => {
                // By position.
                let positions = Expr::call(Ty::Ints(vec![Size::Time]), "positions", [x.clone()]);
                let column = Expr::list([Expr::call(Ty::Fixed, "seq_len", [x.clone()]), Expr::text(1)]);
                let column = Expr::call(Ty::Ints(vec![]), "reshape", [positions, column]);
                Expr::call(
                    mask,
                    self.rng.pick(&["lt", "gt", "eq"]),
                    [column, Expr::text(self.rng.pick(&[1, 2, 3]))],
                )
            }
            _ => {
                // By feature.
                let column = Expr::call(Ty::Ints(vec![]), "iota", [Expr::text(&shape[2])]);
                Expr::call(mask, "lt", [column, Expr::text(self.rng.pick(&[1, 2, 3]))])
            }
        };
        let other = if self.rng.once_in(3) { y.op("*", Expr::text(0.5)) } else { y };
        Expr::tensor(&shape, "select", [cond, x, other])
    }

    /// A stream brought to a known size.
    pub(crate) fn normalised(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        self.growth = 0.3;
        let ty = x.ty.clone();
        let row = Ty::Tensor(self.stream_shape(&Size::Exact(1)));
        let over = |name: &str, x: Expr| Expr::call(row.clone(), name, [x, Expr::text(-1)]);
        match self.rng.below(9) {
            0 => x.map("rms_norm"),
            1 => {
                let eps = self.rng.pick(&["1e-5", "1e-3"]);
                let mut e = x.map("rms_norm");
                if let Node::Call(_, args) = &mut e.node {
                    args.push((Some("eps"), Expr::text(eps)));
                }
                e
            }
            2 => x.map("unit"),
            3 => x.map("softmax"),
            4 => {
                // Layer norm by hand.
                let x = self.named(cx, x);
                let mean = over("mean", x.clone());
                let d = self.named(cx, x.op("-", mean));
                let var = over("mean", d.clone().map("square"));
                let y = d.op("*", var.op("+", Expr::text("1e-5")).map("rsqrt"));
                let (w, b) = (
                    self.param("w", std::slice::from_ref(width)),
                    self.param("b", std::slice::from_ref(width)),
                );
                if self.rng.once_in(2) { y.op("*", w).op("+", b) } else { w.into_op("*", y) }
            }
            5 => {
                let x = self.named(cx, x);
                x.clone().op("/", Expr::text("1.0").into_op("+", x.map("abs")))
            }
            6 => {
                let x = self.named(cx, x);
                let squares = over("sum", x.clone().map("square"));
                x.op("/", squares.op("+", Expr::text("0.01")).map("sqrt"))
            }
            7 => {
                // Shifted by its largest element.
                let x = self.named(cx, x);
                let top = over("reduce_max", x.clone());
                let top = if self.rng.once_in(2) { top.map("stop_gradient") } else { top };
                let e = self.named(cx, x.op("-", top).map("exp"));
                e.clone().op("/", over("sum", e))
            }
            _ => {
                let y = self.stream(cx, width);
                let scale = over("sum", y.map("abs"));
                Expr::new(ty, x.op("/", scale.op("+", Expr::text("0.5"))).node)
            }
        }
    }
}
