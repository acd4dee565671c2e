//! Statements and expressions.

use std::sync::Arc;

use super::{Interp, Operands, Outcome};
use crate::graph::Origin;
use crate::lang::ast::*;
use crate::lang::builtins::{self, MAX_LIST};
use crate::lang::diag::Diagnostic;
use crate::lang::limits::{MAX_DEPTH, Resource};
use crate::lang::span::Span;
use crate::lang::value::{Closure, Value, Var};

impl Interp<'_> {
    // ------------------------------------------------------------ statements

    /// A block in a scope of its own for local names.
    pub(super) fn body(&mut self, body: &Body) -> Value {
        let mark = self.frame().vars.len();
        for stmt in &body.stmts {
            self.stmt(stmt);
            if self.stopped() {
                break;
            }
        }
        let value = match &body.value {
            _ if self.stopped() => Value::Poison,
            Some(e) => self.expr(e),
            None => Value::None,
        };
        self.frame().vars.truncate(mark);
        value
    }

    pub(super) fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Expr(e) => {
                self.expr(e);
            }
            Stmt::Let { pattern, value } => {
                let v = self.expr(value);
                self.bind(pattern, v, &value.span);
            }
            Stmt::Assign { name, op, value } => {
                let mut v = self.expr(value);
                if let Some(op) = op {
                    let old = self.name(&name.text, &name.span);
                    let span = name.span.to(&value.span);
                    v = self.binary(*op, old, v, &span, (&[value], &[]));
                }
                self.assign(name, v);
            }
            Stmt::For { pattern, items, body } => self.for_loop(pattern, items, body),
        }
    }

    fn for_loop(&mut self, pattern: &Pattern, items: &Expr, body: &Body) {
        let list = match self.expr(items) {
            Value::List(list) => list,
            Value::Poison => return,
            other => {
                let message = format!("`for` walks a list or a range `a..b`, found {}", other.kind());
                self.error(&items.span, message);
                return;
            }
        };
        for item in list.iter() {
            self.budget.charge(Resource::Steps, 1);
            let mark = self.frame().vars.len();
            self.bind(pattern, item.clone(), &items.span);
            self.body(body);
            self.frame().vars.truncate(mark);
            if self.stopped() || self.over_budget(&items.span) {
                break;
            }
        }
    }

    pub(super) fn bind(&mut self, pattern: &Pattern, value: Value, span: &Span) {
        match pattern {
            Pattern::Ignore => {}
            Pattern::Bind { name, mutable } => {
                self.frame().vars.push(Var { name: name.text.clone(), value, mutable: *mutable });
            }
            Pattern::List(patterns, at) => match value {
                Value::List(items) if items.len() == patterns.len() => {
                    patterns.iter().zip(items.iter()).for_each(|(p, v)| self.bind(p, v.clone(), span));
                }
                Value::Poison => patterns.iter().for_each(|p| self.bind(p, Value::Poison, span)),
                other => {
                    let found = match &other {
                        Value::List(items) => format!("a list of {}", items.len()),
                        other => other.kind().to_string(),
                    };
                    let message = format!("expected a list of {}, found {found}", patterns.len());
                    let d = Diagnostic::error(at, message).label(span, "this value");
                    self.report(d);
                    patterns.iter().for_each(|p| self.bind(p, Value::Poison, span));
                }
            },
        }
    }

    pub(super) fn assign(&mut self, name: &Name, value: Value) {
        if let Some(var) = self.assignable(name) {
            var.value = value;
        }
    }

    /// The variable of this name, if it can be assigned.
    pub(super) fn assignable(&mut self, name: &Name) -> Option<&mut Var> {
        let is_constant = self.consts.contains_key(&name.text);
        let frame = self.frame();
        let found = frame.vars.iter().rposition(|v| v.name == name.text);
        let (message, help) = match found {
            Some(i) if i < frame.captured => (
                format!("a closure cannot assign `{}`", name.text),
                "closures see copies: return the new value instead".into(),
            ),
            Some(i) if frame.vars[i].mutable => {
                let searched = (frame.vars.len() - i) / super::SEARCHED;
                self.budget.charge(Resource::Steps, searched);
                return self.frame().vars.get_mut(i);
            }
            Some(_) => (
                format!("`{}` is not mutable", name.text),
                format!("declare it with `let mut {}`", name.text),
            ),
            None if is_constant => (
                format!("`{}` is a constant", name.text),
                "a constant is changed by `--set`, a profile or a phase; a function has variables: `let mut`"
                    .into(),
            ),
            None => {
                let known = frame.vars.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
                let d = Diagnostic::error(&name.span, format!("unknown variable `{}`", name.text));
                let d = d.nearest(&name.text, known.iter().map(|n| &**n));
                let help =
                    d.help.clone().unwrap_or_else(|| format!("declare it with `let mut {}`", name.text));
                self.report(d.help(help));
                // What reads it would only fail for the same reason.
                let var = Var { name: name.text.clone(), value: Value::Poison, mutable: true };
                self.frame().vars.push(var);
                return None;
            }
        };
        self.report(Diagnostic::error(&name.span, message).help(help));
        None
    }

    // ------------------------------------------------------------ expressions

    /// Evaluates an expression; tensors are traced.
    pub(crate) fn expr(&mut self, e: &Expr) -> Value {
        self.budget.charge(Resource::Steps, 1);
        if self.over_budget(&e.span) {
            return Value::Poison;
        }
        if self.depth >= MAX_DEPTH {
            let message =
                format!("expressions and calls are evaluated more than {MAX_DEPTH} deep within each other");
            return self.stop(
                &e.span,
                message,
                "name parts with `let`, and call fewer functions within each other",
            );
        }
        self.depth += 1;
        let value = self.evaluate(e);
        self.depth -= 1;
        value
    }

    fn evaluate(&mut self, e: &Expr) -> Value {
        match &e.kind {
            ExprKind::Poison => Value::Poison,
            ExprKind::Int(v) => Value::Int(*v),
            ExprKind::Float(v) => Value::Float(*v),
            ExprKind::Bool(v) => Value::Bool(*v),
            ExprKind::Text(parts) => self.text(parts, &e.span),
            ExprKind::Name(name) => self.name(name, &e.span),
            ExprKind::List(items) => self.items(items, &e.span),
            ExprKind::Range(a, b) => self.range(a, b, &e.span),
            ExprKind::Unary(op, x) => self.unary(*op, x, &e.span),
            ExprKind::Chain(first, links) => self.chain(first, links),
            ExprKind::Logic(and, all) => self.logic(*and, all),
            ExprKind::If { arms, otherwise } => self.conditional(arms, otherwise.as_ref()),
            ExprKind::Block(body) => self.body(body),
            ExprKind::Scope { args, body } => self.scoped(args, body, &e.span),
            ExprKind::Closure { params, body } => self.closure(params, body, &e.span),
            ExprKind::Call { callee, args } => self.call(callee, None, args, &e.span),
            ExprKind::Method { receiver, method, args } => {
                if let Some(value) = self.list_method(receiver, method, args) {
                    return value;
                }
                self.call(method, Some(receiver), args, &e.span)
            }
            ExprKind::Index(x, i) => self.indexed(x, i, &e.span),
        }
    }

    fn items(&mut self, items: &[Expr], span: &Span) -> Value {
        self.budget.charge(Resource::Elements, items.len());
        let items: Vec<Value> = items.iter().map(|e| self.expr(e)).collect();
        if items.iter().any(|v| matches!(v, Value::Poison)) {
            return Value::Poison;
        }
        self.holding(Value::list(items), span)
    }

    fn unary(&mut self, op: UnOp, x: &Expr, span: &Span) -> Value {
        let value = self.expr(x);
        let result = self.at(span, |this| match op {
            UnOp::Neg => builtins::negate(this, &value),
            UnOp::Not => match &value {
                Value::Bool(b) => Ok(Value::Bool(!b)),
                other => Err(format!("`!` takes a Bool, found {}", other.kind()).into()),
            },
        });
        self.settle(result, span, (&[x], &[]), &[&value])
    }

    fn chain(&mut self, first: &Expr, links: &[Link]) -> Value {
        let mut value = self.expr(first);
        for (i, link) in links.iter().enumerate() {
            let right = self.expr(&link.value);
            value = self.binary(link.op, value, right, &link.span, (&[first], &links[..=i]));
        }
        value
    }

    fn logic(&mut self, and: bool, all: &[Expr]) -> Value {
        for e in all {
            match self.condition(e) {
                Some(value) if value == and => {}
                Some(value) => return Value::Bool(value),
                None => return Value::Poison,
            }
        }
        Value::Bool(and)
    }

    fn conditional(&mut self, arms: &[(Expr, Body)], otherwise: Option<&Body>) -> Value {
        for (cond, then) in arms {
            match self.condition(cond) {
                Some(true) => return self.body(then),
                Some(false) => {}
                None => return Value::Poison,
            }
        }
        otherwise.map_or(Value::None, |body| self.body(body))
    }

    fn closure(&mut self, params: &Arc<[Pattern]>, body: &Arc<Expr>, span: &Span) -> Value {
        let (captured, home) = (self.frame().vars.clone(), self.home());
        self.budget.charge(Resource::Elements, captured.len());
        let depth = 1 + captured.iter().map(|var| var.value.depth()).max().unwrap_or(0);
        let (params, body) = (params.clone(), body.clone());
        self.holding(Value::Closure(Arc::new(Closure { params, body, captured, home, depth })), span)
    }

    fn indexed(&mut self, x: &Expr, i: &Expr, span: &Span) -> Value {
        let (x_value, i_value) = (self.expr(x), self.expr(i));
        let result = self.at(span, |this| builtins::index(this, &x_value, &i_value));
        self.settle(result, span, (&[x, i], &[]), &[&x_value])
    }

    pub(super) fn text(&mut self, parts: &[TextPart], span: &Span) -> Value {
        let mut out = String::new();
        for part in parts {
            match part {
                TextPart::Lit(text) => {
                    self.budget.charge(Resource::Bytes, text.len());
                    out.push_str(text);
                }
                TextPart::Expr(e) => match self.expr(e) {
                    Value::Poison => return Value::Poison,
                    Value::Tensor(_) => {
                        return self.error(span, "a tensor has no text before the program runs");
                    }
                    value => out.push_str(&value.text_within(self.budget)),
                },
            }
        }
        if self.over_budget(span) { Value::Poison } else { Value::text(out) }
    }

    pub(super) fn range(&mut self, a: &Expr, b: &Expr, span: &Span) -> Value {
        match (self.expr(a), self.expr(b)) {
            (Value::Int(a), Value::Int(b)) if b.saturating_sub(a) <= MAX_LIST as i64 => {
                self.budget.charge(Resource::Elements, b.saturating_sub(a).max(0) as usize);
                if self.over_budget(span) {
                    return Value::Poison;
                }
                Value::list((a..b).map(Value::Int).collect())
            }
            (Value::Int(_), Value::Int(_)) => self.error(span, "this range is too long"),
            (Value::Poison, _) | (_, Value::Poison) => Value::Poison,
            (a, b) => {
                self.error(span, format!("a range takes two Ints, found {} and {}", a.kind(), b.kind()))
            }
        }
    }

    pub(super) fn condition(&mut self, e: &Expr) -> Option<bool> {
        match self.expr(e) {
            Value::Bool(b) => Some(b),
            Value::Poison => None,
            Value::Tensor(_) => {
                let d = Diagnostic::error(&e.span, "a condition on a tensor: its values are not known yet");
                self.report(d.help("choose element by element with select(cond, a, b)"));
                None
            }
            other => {
                self.error(&e.span, format!("a condition is a Bool, found {}", other.kind()));
                None
            }
        }
    }

    pub(super) fn binary(
        &mut self,
        op: BinOp,
        a: Value,
        b: Value,
        span: &Span,
        exprs: Operands<'_>,
    ) -> Value {
        let result = self.at(span, |this| builtins::binary(this, op, &a, &b));
        self.settle(result, span, exprs, &[&a, &b])
    }

    /// Runs an operation whose graph nodes come from `span`.
    pub(super) fn at<T>(&mut self, span: &Span, run: impl FnOnce(&mut Self) -> T) -> T {
        let (loc, call, scope) = (span.loc(), self.model_call(span).map(Span::loc), self.scope.clone());
        if let Some(t) = &mut self.tracer {
            t.builder.set_origin(Origin { loc, call, scope, backward: false });
        }
        run(self)
    }

    /// The value of an operation, or its error with where the operands come from.
    pub(super) fn settle(
        &mut self,
        result: Outcome,
        span: &Span,
        exprs: Operands<'_>,
        operands: &[&Value],
    ) -> Value {
        if self.over_budget(span) || self.over_nodes(span) {
            return Value::Poison;
        }
        match result {
            Ok(value) => {
                if let (Value::Tensor(id), Some(t)) = (&value, &mut self.tracer) {
                    t.born.entry(*id).or_insert_with(|| span.clone());
                }
                value
            }
            Err(_) if operands.iter().any(|v| matches!(v, Value::Poison)) => Value::Poison,
            Err(fault) => self.fault(span, fault, exprs, operands),
        }
    }
}
