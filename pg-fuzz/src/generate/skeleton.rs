//! The shape of a whole model: one long body, layers in a loop, a U-Net of the library or by hand, several residual
//! streams that exchange, layers that run more than once.

use super::Generator;
use super::context::Context;
use crate::text::{Block, Expr, Node, Size, Stmt, Ty};

impl Generator {
    fn dim() -> Size {
        Size::named("DIM")
    }

    fn stream_ty(&self) -> Ty {
        Ty::Tensor(self.stream_shape(&Self::dim()))
    }

    /// `fn forward(tokens)` and what it calls.
    pub(crate) fn forward(&mut self) {
        let mut cx = Context { tokens: true, ..Context::default() };
        let vocab = Size::named("VOCAB");
        let table_shape = [vocab, Self::dim()];
        let sizes = Expr::list(table_shape.iter().map(Expr::text));
        // Shared, because a loss of the model's own may run the model again.
        let table = Expr::tensor(
            &table_shape,
            "param",
            [Expr::text("\"tok_emb.weight\""), sizes, Expr::text("normal(0.02)")],
        );
        cx.stmts.push(Stmt::bind("table", table));
        let table = Expr::var("table", Ty::Tensor(table_shape.to_vec()));
        let x0 = self.embedded(&mut cx, &table);
        cx.bind("x0", x0, 0.5);
        cx.start = Some("x0".into());
        let x = match self.rng.below(20) {
            0..=5 => {
                let steps = 3 + self.rng.below(12);
                self.steps(&mut cx, &Self::dim(), steps)
            }
            6..=10 => self.layers(&mut cx),
            11..=13 => self.unet(),
            14..=15 => self.skips(&mut cx),
            _ => self.lanes(&mut cx),
        };
        let logits = self.logits(&mut cx, x, &table);
        let params = vec![("tokens".to_string(), Ty::Ints(vec![Size::Batch, Size::Time]))];
        self.function("forward", params, cx, logits);
    }

    /// `fn block(i, x, x0)`, a layer.
    fn block(&mut self) {
        let mut cx = Context { start: Some("x0".into()), layer: Some("i".into()), ..Context::default() };
        let shape = self.stream_shape(&Self::dim());
        cx.know("x", shape.clone(), 1.0);
        cx.know("x0", shape, 0.5);
        let steps = 2 + self.rng.below(5);
        self.depth = 1;
        let value = self.steps(&mut cx, &Self::dim(), steps);
        self.depth = 0;
        // Layers follow each other, and what grows in one would grow in all.
        let value = if self.rng.once_in(2) { value.map("rms_norm") } else { value };
        let params = vec![
            ("i".to_string(), Ty::Fixed),
            ("x".into(), self.stream_ty()),
            ("x0".into(), self.stream_ty()),
        ];
        self.function("block", params, cx, value);
    }

    /// `scope("blocks.{i}") { block(i, x, x0) }`
    fn layer(&self, i: &str, x: Expr, shared: bool) -> Expr {
        let args = [Expr::var(i, Ty::Fixed), x, Expr::var("x0", self.stream_ty())];
        let call = Expr::call(self.stream_ty(), "block", args);
        let path = if shared { "shared".to_string() } else { format!("blocks.{{{i}}}") };
        Expr::new(self.stream_ty(), Node::Scope(path, shared, Block::of(call)))
    }

    /// Layers one after the other.
    fn layers(&mut self, cx: &mut Context) -> Expr {
        self.block();
        let x = Expr::var("x", self.stream_ty());
        cx.stmts.push(Stmt::bind_mut("x", Expr::var("x0", self.stream_ty())));
        // Now and then all of them on the same parameters.
        let shared = self.rng.once_in(5);
        let layer = self.layer("i", x.clone(), shared);
        let assign = Stmt::Assign("x".into(), "=", layer);
        let body = Block { stmts: vec![assign], value: None };
        cx.stmts.push(Stmt::For("i".into(), Expr::text("0..LAYERS"), body));
        x
    }

    /// `unet(x0, order, |i, x| …)`
    fn unet(&mut self) -> Expr {
        self.block();
        let shared = self.rng.once_in(5);
        let order = match (shared, self.rng.below(2)) {
            (true, 0) => Expr::text("[0, 1, 0, 1, 0]"),
            _ => Expr::text("0..LAYERS"),
        };
        let layer = self.layer("i", Expr::var("x", self.stream_ty()), shared);
        let closure = Expr::new(Ty::Fixed, Node::Closure(vec!["i".into(), "x".into()], Box::new(layer)));
        Expr::call(self.stream_ty(), "unet", [Expr::var("x0", self.stream_ty()), order, closure])
    }

    /// Outputs of the first layers kept in a list, and taken back by the last.
    fn skips(&mut self, cx: &mut Context) -> Expr {
        self.block();
        let ty = self.stream_ty();
        let (x, kept) = (Expr::var("x", ty.clone()), "kept");
        cx.stmts.push(Stmt::bind_mut("x", Expr::var("x0", ty.clone())));
        cx.stmts.push(Stmt::bind_mut(kept, Expr::list([])));
        let layer = |g: &Self, i: &str| {
            let mut scope = g.layer(i, x.clone(), false);
            if let Node::Scope(path, ..) = &mut scope.node {
                *path = format!("{}{{{i}}}", if i == "i" { "down" } else { "up" });
            }
            Stmt::Assign("x".into(), "=", scope)
        };
        let list = Expr::var(kept, Ty::Fixed);
        let push = Expr::new(Ty::Fixed, Node::Method(Box::new(list.clone()), "push", vec![x.clone()]));
        let down = Block { stmts: vec![layer(self, "i"), Stmt::Do(push)], value: None };
        cx.stmts.push(Stmt::For("i".into(), Expr::text("0..LAYERS"), down));
        let pop = Expr::new(ty.clone(), Node::Method(Box::new(list), "pop", vec![]));
        let weights = self.param("skip", &[Size::named("LAYERS"), Self::dim()]);
        let name = self.fresh("skips");
        cx.stmts.push(Stmt::bind(&name, weights));
        let at = Expr::new(
            Ty::Tensor(vec![Self::dim()]),
            Node::Index(
                Box::new(Expr::var(&name, Ty::Tensor(vec![Size::named("LAYERS"), Self::dim()]))),
                Box::new(Expr::var("j", Ty::Fixed)),
            ),
        );
        let gate = if self.rng.once_in(2) { at.map("sigmoid") } else { at };
        let join = Stmt::Assign("x".into(), "=", x.clone().op("+", gate.into_op("*", pop)));
        let up = Block { stmts: vec![join, layer(self, "j")], value: None };
        cx.stmts.push(Stmt::For("j".into(), Expr::text("0..LAYERS"), up));
        x
    }

    /// Two or three residual streams that read each other in every layer.
    fn lanes(&mut self, cx: &mut Context) -> Expr {
        let count = 2 + self.rng.below(2);
        let names = ["x", "y", "z"];
        // fn exchange(x, y): reads of all, writes to all.
        let mut inner = Context { start: Some("x0".into()), layer: Some("i".into()), ..Context::default() };
        let shape = self.stream_shape(&Self::dim());
        names[..count].iter().for_each(|n| inner.know(n, shape.clone(), 1.0));
        inner.know("x0", shape.clone(), 0.5);
        let steps = 2 + self.rng.below(3);
        self.depth = 1;
        let _ = self.steps(&mut inner, &Self::dim(), steps);
        self.depth = 0;
        let made: Vec<_> = inner.vars.iter().skip(count + 1).filter(|v| v.shape == shape).cloned().collect();
        let mut lanes = Vec::new();
        for name in &names[..count] {
            let mut lane = Expr::var(name, self.stream_ty());
            if self.rng.once_in(2) {
                let keep = self.param("keep", &[Size::Exact(1)]);
                lane = keep.into_op("*", lane);
            }
            for var in &made {
                if !self.rng.once_in(3) {
                    let value = self.take(&mut inner, var);
                    let value = if self.rng.once_in(4) {
                        let route = self.param("route", &[]);
                        route.into_op("*", value)
                    } else {
                        value
                    };
                    lane = lane.op("+", value);
                }
            }
            lanes.push(if self.rng.once_in(2) { lane.map("rms_norm") } else { lane });
        }
        let list = Ty::List(Box::new(self.stream_ty()), count);
        let value = Expr::new(list.clone(), Node::List(lanes));
        let mut params = vec![("i".to_string(), Ty::Fixed)];
        params.extend(names[..count].iter().chain(&["x0"]).map(|n| (n.to_string(), self.stream_ty())));
        self.function("exchange", params, inner, value);

        let stream = self.stream_ty();
        let lane = |i: usize| {
            let lanes = Expr::var("streams", list.clone());
            Expr::new(stream.clone(), Node::Index(Box::new(lanes), Box::new(Expr::text(i))))
        };
        let x0 = Expr::var("x0", self.stream_ty());
        let first = Expr::new(list.clone(), Node::List(vec![x0.clone(); count]));
        cx.stmts.push(Stmt::bind_mut("streams", first));
        let mut args = vec![Expr::var("i", Ty::Fixed)];
        args.extend((0..count).map(lane));
        args.push(x0);
        let call = Expr::call(list.clone(), "exchange", args);
        let scope = Expr::new(list.clone(), Node::Scope("blocks.{i}".into(), false, Block::of(call)));
        let body = Block { stmts: vec![Stmt::Assign("streams".into(), "=", scope)], value: None };
        cx.stmts.push(Stmt::For("i".into(), Expr::text("0..LAYERS"), body));
        let sum = (1..count).fold(lane(0), |sum, i| sum.op("+", lane(i)));
        match self.rng.below(3) {
            0 => lane(0),
            1 => sum,
            _ => sum.op("*", Expr::text("0.5")),
        }
    }
}
