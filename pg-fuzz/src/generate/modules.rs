//! Larger pieces: feed-forward layers, scopes, helper functions, closures and blocks, layers that run several times
//! on the same parameters, conditions on constants.

use super::Generator;
use super::context::Context;
use crate::text::{Block, Expr, Node, Size, Stmt, Ty};

/// Helpers within helpers.
const DEEPEST: usize = 2;

impl Generator {
    /// An expression in a scope of its own.
    pub(crate) fn scoped(&mut self, prefix: &str, e: Expr) -> Expr {
        let path = self.fresh(prefix);
        Expr::new(e.ty.clone(), Node::Scope(path, false, Block::of(e)))
    }

    /// A step of a body: a stream of this width.
    pub(crate) fn step(&mut self, cx: &mut Context, width: &Size) -> Expr {
        self.growth = 0.0;
        match self.rng.below(43) {
            40..=42 => self.idiom(cx, width),
            0..=5 => self.sums(cx, width),
            6..=10 => self.gated(cx, width),
            11..=14 => self.activation(cx, width),
            15..=18 => self.normalised(cx, width),
            19..=21 => self.positions_mixed(cx, width),
            22..=24 => {
                let x = self.stream(cx, width);
                let y = self.projected(x, width);
                if self.rng.once_in(2) { self.stream(cx, width).op("+", y) } else { y }
            }
            25..=28 => self.attention(cx, width),
            29..=31 => self.feed_forward(cx, width),
            32..=33 => self.rearranged(cx, width),
            34..=35 => self.product(cx, width),
            36 => self.with_start(cx, width),
            37 => self.helper(cx, width),
            38 => self.nested(cx, width),
            _ => self.repeated(cx, width),
        }
    }

    /// Binds so many steps, and gives something of what they made.
    pub(crate) fn steps(&mut self, cx: &mut Context, width: &Size, count: usize) -> Expr {
        for _ in 0..count {
            let width = if self.rng.once_in(12) { Size::named("NARROW") } else { width.clone() };
            let value = self.step(cx, &width);
            let name = self.fresh("t");
            let growth = self.growth;
            cx.bind(&name, value, growth);
        }
        self.result(cx, width)
    }

    /// The newest stream, and what nothing has read so far.
    fn result(&mut self, cx: &mut Context, width: &Size) -> Expr {
        self.growth = 0.0;
        let shape = self.stream_shape(width);
        let all: Vec<_> = cx.vars.iter().filter(|v| v.shape == shape).cloned().collect();
        let Some((last, earlier)) = all.split_last() else { return self.stream(cx, width) };
        let mut value = self.take(cx, last);
        for var in earlier {
            if !cx.used.contains(&var.name) && !self.rng.once_in(4) {
                value = value.op("+", self.take(cx, var));
            }
        }
        value
    }

    /// A feed-forward layer of some kind.
    fn feed_forward(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let shape = x.shape().clone();
        let h = if self.rng.once_in(2) { x.clone().map("rms_norm") } else { x.clone() };
        let hidden = self.rng.pick(&[
            Size::named("MLP_DIM"),
            Size::named("MLP_DIM"),
            Size::named("NARROW"),
            Size::Exact(1),
        ]);
        self.growth = self.growth * 2.0 + 1.0;
        let y = match self.rng.below(6) {
            0 => {
                let call = Expr::tensor(&shape, "relu_squared_mlp", [h, Expr::text(&hidden)]);
                self.scoped("mlp", call)
            }
            1 => {
                let call = Expr::tensor(&shape, "leaky_relu_squared_mlp", [h, Expr::text(&hidden)]);
                self.scoped("mlp", call)
            }
            2 => {
                let act = match self.rng.below(4) {
                    0 => Expr::text("silu"),
                    1 => {
                        let z = Expr::var("z", Ty::Tensor(self.stream_shape(&hidden)));
                        let body = z.clone().op("*", z.map("sigmoid"));
                        Expr::new(Ty::Fixed, Node::Closure(vec!["z".into()], Box::new(body)))
                    }
                    2 => {
                        let z = Expr::var("z", Ty::Tensor(self.stream_shape(&hidden)));
                        let half = z.clone().op("*", Expr::text("0.5"));
                        let body = Expr::call(z.ty.clone(), "max", [z, half]).map("square");
                        Expr::new(Ty::Fixed, Node::Closure(vec!["z".into()], Box::new(body)))
                    }
                    _ => Expr::text("relu"),
                };
                let call = Expr::tensor(&shape, "feed_forward", [h, Expr::text(&hidden), act]);
                self.scoped("mlp", call)
            }
            3 | 4 => {
                // Gated.
                let h = self.named(cx, h);
                let (up, gate) = (self.projected(h.clone(), &hidden), self.projected(h, &hidden));
                let act = self.rng.pick(&["silu", "sigmoid", "tanh", "relu"]);
                self.projected(up.op("*", gate.map(act)), width)
            }
            _ => {
                // By hand, with something between.
                let up = self.projected(h, &hidden);
                let up = self.named(cx, up);
                let row = self.param("row", &[Size::Exact(1), hidden.clone()]);
                let row = Expr::tensor(&self.stream_shape(&Size::Exact(1)), "linear", [up.clone(), row]);
                self.projected(up.op("*", row).map("tanh"), width)
            }
        };
        if self.rng.once_in(3) { y } else { x.op("+", y) }
    }

    /// A blend with what the stream was at the start.
    fn with_start(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        match cx.start.clone() {
            Some(start) if *width == Size::named("DIM") => {
                let start = Expr::var(&start, x.ty.clone());
                if self.rng.once_in(2) {
                    let call = Expr::call(x.ty.clone(), "residual_mix", [x, start]);
                    self.scoped("mix", call)
                } else {
                    let weight = self.number(0.1, 0.5);
                    x.op("+", weight.into_op("*", start))
                }
            }
            _ => x.map("rms_norm"),
        }
    }

    /// A call of a function of the model's own, perhaps of one that is there already.
    fn helper(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let ty = Ty::Tensor(self.stream_shape(width));
        let fits = |f: &&crate::text::Function| {
            f.name.starts_with("helper") && f.params.iter().all(|(_, t)| *t == ty)
        };
        let known = self.text.functions.iter().rfind(fits).map(|f| (f.name.clone(), f.params.len()));
        let (name, count) = match known {
            Some(known) if self.rng.once_in(2) && self.depth == 0 => known,
            _ if self.depth >= DEEPEST => return self.sums(cx, width),
            _ => {
                let (name, count) = (self.fresh("helper"), 1 + self.rng.below(2));
                let mut inner = Context::default();
                let params: Vec<(String, Ty)> =
                    ["x", "y"][..count].iter().map(|p| (p.to_string(), ty.clone())).collect();
                params.iter().for_each(|(p, _)| inner.know(p, self.stream_shape(width), 1.0));
                self.depth += 1;
                let steps = 1 + self.rng.below(3);
                let value = self.steps(&mut inner, width, steps);
                self.depth -= 1;
                self.function(&name, params, inner, value);
                (name, count)
            }
        };
        self.growth = 0.0;
        let args: Vec<Expr> = (0..count).map(|_| self.stream(cx, width)).collect();
        self.growth += 1.0;
        let call = Expr::call(ty, &name, args);
        self.scoped("m", call)
    }

    /// Statements inside of a scope, a block or a condition.
    fn nested(&mut self, cx: &mut Context, width: &Size) -> Expr {
        if self.depth >= DEEPEST {
            return self.gated(cx, width);
        }
        self.depth += 1;
        let ty = Ty::Tensor(self.stream_shape(width));
        let body = |g: &mut Self, cx: &mut Context| {
            let mut inner = cx.inner();
            let steps = 1 + g.rng.below(2);
            let value = g.steps(&mut inner, width, steps);
            cx.used.extend(inner.used.iter().cloned());
            inner.into_block(value)
        };
        let e = match (self.rng.below(3), cx.layer.clone()) {
            (0, Some(layer)) => {
                let (then, otherwise) = (body(self, cx), body(self, cx));
                let test = self.rng.pick(&["% 2 == 0", "> 0", "== LAYERS - 1"]);
                let cond = Expr::text(format!("{layer} {test}"));
                Expr::new(ty, Node::If(Box::new(cond), then, otherwise))
            }
            (1, _) => {
                let block = body(self, cx);
                Expr::new(ty, Node::Block(block))
            }
            _ => {
                let path = self.fresh("s");
                let block = body(self, cx);
                Expr::new(ty, Node::Scope(path, false, block))
            }
        };
        self.depth -= 1;
        e
    }

    /// The same layer several times on the same parameters.
    fn repeated(&mut self, cx: &mut Context, width: &Size) -> Expr {
        if self.depth >= DEEPEST {
            return self.gated(cx, width);
        }
        self.depth += 1;
        let x = self.stream(cx, width);
        let shape = x.shape().clone();
        let (name, pass, path) = (self.fresh("r"), self.fresh("pass"), self.fresh("loop"));
        let mut inner = Context { vars: Vec::new(), ..cx.inner() };
        inner.know(&name, shape.clone(), 1.0);
        let steps = 1 + self.rng.below(2);
        let value = self.steps(&mut inner, width, steps).map("rms_norm");
        cx.used.extend(inner.used.iter().cloned());
        let block = inner.into_block(value);
        self.depth -= 1;
        let ty = Ty::Tensor(shape);
        let scope = Expr::new(ty.clone(), Node::Scope(path, true, block));
        cx.stmts.push(Stmt::bind_mut(&name, x));
        let times = self.rng.pick(&["0..2", "0..3"]);
        let assign = Stmt::Assign(name.clone(), "=", scope);
        cx.stmts.push(Stmt::For(pass, Expr::text(times), Block { stmts: vec![assign], value: None }));
        self.growth = 0.5;
        Expr::var(&name, ty)
    }
}
