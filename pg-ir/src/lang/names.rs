//! The names that parts of a syntax tree mention: variables, constants and functions alike. It resolves nothing.

use std::sync::Arc;

use indexmap::IndexSet;

use super::ast::*;

/// Names, each once, in order of first mention.
pub(crate) type Names = IndexSet<Arc<str>>;

/// Collects the names in an expression.
pub(crate) fn in_expr(e: &Expr, out: &mut Names) {
    let all = |exprs: &[Expr], out: &mut Names| exprs.iter().for_each(|e| in_expr(e, out));
    let args = |args: &[Arg], out: &mut Names| args.iter().for_each(|a| in_expr(&a.value, out));
    match &e.kind {
        ExprKind::Int(_) | ExprKind::Float(_) | ExprKind::Bool(_) | ExprKind::Poison => {}
        ExprKind::Name(name) => _ = out.insert(name.clone()),
        ExprKind::Text(parts) => {
            for part in parts {
                if let TextPart::Expr(e) = part {
                    in_expr(e, out);
                }
            }
        }
        ExprKind::List(items) | ExprKind::Logic(_, items) => all(items, out),
        ExprKind::Unary(_, x) => in_expr(x, out),
        ExprKind::Range(a, b) | ExprKind::Index(a, b) => {
            in_expr(a, out);
            in_expr(b, out);
        }
        ExprKind::Chain(first, links) => {
            in_expr(first, out);
            links.iter().for_each(|link| in_expr(&link.value, out));
        }
        ExprKind::If { arms, otherwise } => {
            for (condition, then) in arms {
                in_expr(condition, out);
                in_body(then, out);
            }
            otherwise.iter().for_each(|body| in_body(body, out));
        }
        ExprKind::Block(body) => in_body(body, out),
        ExprKind::Scope { args: list, body } => {
            args(list, out);
            in_body(body, out);
        }
        ExprKind::Closure { body, .. } => in_expr(body, out),
        ExprKind::Call { callee, args: list } => {
            out.insert(callee.text.clone());
            args(list, out);
        }
        ExprKind::Method { receiver, method, args: list } => {
            out.insert(method.text.clone());
            in_expr(receiver, out);
            args(list, out);
        }
    }
}

/// Collects the names in a body.
pub(crate) fn in_body(body: &Body, out: &mut Names) {
    for stmt in &body.stmts {
        match stmt {
            Stmt::Let { value, .. } | Stmt::Assign { value, .. } | Stmt::Expr(value) => in_expr(value, out),
            Stmt::For { items, body, .. } => {
                in_expr(items, out);
                in_body(body, out);
            }
        }
    }
    body.value.iter().for_each(|e| in_expr(e, out));
}

/// Collects the names in a function.
pub(crate) fn in_function(f: &Function, out: &mut Names) {
    f.params.iter().filter_map(|p| p.default.as_ref()).for_each(|e| in_expr(e, out));
    in_body(&f.body, out);
}

/// Adds what the functions of a model mention, of those that are mentioned, in turn.
pub(crate) fn through_functions(model: &ModelAst, mentioned: &mut Names) {
    let mut at = 0;
    while let Some(name) = mentioned.get_index(at) {
        if let Some(f) = model.functions.get(name) {
            in_function(f, mentioned);
        }
        at += 1;
    }
}

impl ModelAst {
    /// Names that are mentioned outside of functions: in constants, blocks, phases and profiles.
    pub(crate) fn names_outside_functions(&self) -> Names {
        let mut out = Names::new();
        self.consts.values().for_each(|c| in_expr(&c.value, &mut out));
        for block in &self.blocks {
            for rule in &block.rules {
                rule.guard.iter().for_each(|e| in_expr(e, &mut out));
                in_expr(&rule.value, &mut out);
            }
            block.settings.iter().for_each(|s| in_expr(&s.value, &mut out));
        }
        for phase in self.phases.values() {
            in_expr(&phase.trigger, &mut out);
            phase.settings.iter().for_each(|s| in_expr(&s.value, &mut out));
        }
        self.profiles.values().flat_map(|p| &p.settings).for_each(|s| in_expr(&s.value, &mut out));
        out
    }
}
