//! What is in scope while a body is being written, and how a body takes what it needs of it: streams of a width,
//! tamed where they could grow beyond float32.

use std::collections::HashSet;

use super::Generator;
use crate::text::{Block, Expr, Node, Shape, Size, Stmt, Ty};

/// From here on a value is normalised before anything else happens to it.
const LARGE: f64 = 5.0;

/// A variable that holds a tensor.
#[derive(Clone, Debug)]
pub(crate) struct Var {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) growth: f64,
}

/// A body being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) vars: Vec<Var>,
    pub(crate) stmts: Vec<Stmt>,
    /// Whether `tokens` is in scope.
    pub(crate) tokens: bool,
    /// The stream's start, if it is in scope.
    pub(crate) start: Option<String>,
    /// The layer's number, if it is in scope.
    pub(crate) layer: Option<String>,
    /// Variables that something reads.
    pub(crate) used: HashSet<String>,
}

impl Context {
    /// A body inside of this one, which sees what is in scope here.
    pub(crate) fn inner(&self) -> Context {
        Context { stmts: Vec::new(), ..self.clone() }
    }

    /// The statements with a value.
    pub(crate) fn into_block(self, value: Expr) -> Block {
        Block { stmts: self.stmts, value: Some(Box::new(value)) }
    }

    /// Makes a variable known that a statement elsewhere binds.
    pub(crate) fn know(&mut self, name: &str, shape: Shape, growth: f64) {
        self.vars.push(Var { name: name.into(), shape, growth });
    }

    /// Binds an expression to a name.
    pub(crate) fn bind(&mut self, name: &str, value: Expr, growth: f64) {
        self.know(name, value.shape().clone(), growth);
        self.stmts.push(Stmt::bind(name, value));
    }
}

impl Generator {
    /// The expression as a variable, so that it can be named twice.
    pub(crate) fn named(&mut self, cx: &mut Context, e: Expr) -> Expr {
        if matches!(e.node, Node::Var(_)) {
            return e;
        }
        let name = self.fresh("u");
        let ty = e.ty.clone();
        match ty {
            Ty::Tensor(_) => cx.bind(&name, e, self.growth),
            _ => cx.stmts.push(Stmt::bind(&name, e)),
        }
        Expr::var(&name, ty)
    }

    /// A variable of a shape, the newer the likelier.
    fn pick_var(&mut self, cx: &Context, fits: impl Fn(&Var) -> bool) -> Option<Var> {
        let all: Vec<&Var> = cx.vars.iter().filter(|v| fits(v)).collect();
        if all.is_empty() {
            return None;
        }
        let from = if self.rng.once_in(2) { all.len().saturating_sub(3) } else { 0 };
        Some(all[from + self.rng.below(all.len() - from)].clone())
    }

    /// A variable as an operand.
    pub(crate) fn take(&mut self, cx: &mut Context, var: &Var) -> Expr {
        cx.used.insert(var.name.clone());
        let e = Expr::var(&var.name, Ty::Tensor(var.shape.clone()));
        if var.growth > LARGE {
            return e.map("rms_norm");
        }
        self.growth += var.growth;
        e
    }

    /// A stream [batch, time, width]: one that is there, or one that is made of another.
    pub(crate) fn stream(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let shape = self.stream_shape(width);
        if let Some(var) = self.pick_var(cx, |v| v.shape == shape) {
            return self.take(cx, &var);
        }
        let other = self.any_stream(cx);
        let made = self.projected(other, width);
        // Whoever takes it may name it twice, and its matrix exists once.
        self.named(cx, made)
    }

    /// A stream of any width.
    pub(crate) fn any_stream(&mut self, cx: &mut Context) -> Expr {
        let is_stream = |v: &Var| matches!(v.shape[..], [Size::Batch, Size::Time, _]);
        let var = self.pick_var(cx, is_stream).expect("a body has a stream");
        self.take(cx, &var)
    }

    /// A stream of this width, by a matrix of its own.
    pub(crate) fn projected(&mut self, x: Expr, width: &Size) -> Expr {
        self.growth += 0.3;
        let name = self.fresh("w");
        let shape = self.stream_shape(width);
        let args = [x, Expr::text(format!("\"{name}\"")), Expr::text(width)];
        let mut e = Expr::tensor(&shape, "project", args);
        if self.rng.once_in(3)
            && let Node::Call(_, args) = &mut e.node
        {
            args.push((None, Expr::text(self.rng.pick(&["zeros", "normal(0.05)", "uniform(0.2)"]))));
        }
        e
    }

    /// `[dim(x, 0), dim(x, 1), …]` with what follows the positions.
    pub(crate) fn lead(&self, x: &Expr, rest: impl IntoIterator<Item = Expr>) -> Expr {
        let dim = |i: usize| Expr::call(Ty::Fixed, "dim", [x.clone(), Expr::text(i)]);
        Expr::list([dim(0), dim(1)].into_iter().chain(rest))
    }
}
