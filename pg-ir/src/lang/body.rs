//! Bodies: syn's expressions lowered to ours. What the language does not have is one clear error each.

use std::sync::Arc;

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;

use super::ast::*;
use super::diag::Diagnostic;
use super::parse::syn_errors;
use super::span::Span;

/// Rewrites `scope(…) { … }` to `while scope(…) { … }`, at any depth. syn would take the braces for a
/// statement of their own; `while` is the one form with a parenthesised head that it reads as a
/// block-like expression everywhere, and the language has no `while` of its own.
fn mark_scopes(tokens: TokenStream) -> TokenStream {
    let mut out: Vec<TokenTree> = Vec::new();
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    for (i, tree) in trees.iter().enumerate() {
        let brace_follows = matches!(trees.get(i + 2), Some(TokenTree::Group(g)) if g.delimiter() == proc_macro2::Delimiter::Brace);
        match tree {
            TokenTree::Ident(ident) if ident == "scope" && brace_follows => {
                out.push(TokenTree::Ident(Ident::new("while", ident.span())));
                out.push(tree.clone());
            }
            TokenTree::Group(group) => out.push(TokenTree::Group(mark_group(group))),
            _ => out.push(tree.clone()),
        }
    }
    out.into_iter().collect()
}

fn mark_group(group: &Group) -> Group {
    let mut marked = Group::new(group.delimiter(), mark_scopes(group.stream()));
    marked.set_span(group.span());
    marked
}

/// Lowers expressions of one file and collects what it cannot lower.
pub(crate) struct Lower {
    file: Arc<str>,
    /// Where everything is, when lowering the inside of a string.
    fixed: Option<Span>,
    pub(crate) errors: Vec<Diagnostic>,
}

impl Lower {
    pub(crate) fn new(file: &Arc<str>) -> Self {
        Lower { file: file.clone(), fixed: None, errors: Vec::new() }
    }

    /// From the first to the last token: inside a macro on stable Rust, spans do not join.
    fn span(&self, node: &impl ToTokens) -> Span {
        if let Some(fixed) = &self.fixed {
            return fixed.clone();
        }
        let mut tokens = node.to_token_stream().into_iter();
        let Some(first) = tokens.next() else { return Span::whole(self.file.clone()) };
        let start = Span::new(&self.file, first.span());
        match tokens.last() {
            Some(last) => start.to(&Span::new(&self.file, last.span())),
            None => start,
        }
    }

    fn poison(&mut self, span: Span, message: impl Into<String>, help: &str) -> Expr {
        let d = Diagnostic::error(&span, message);
        self.errors.push(if help.is_empty() { d } else { d.help(help) });
        Expr { kind: ExprKind::Poison, span }
    }

    /// A braced group of statements.
    pub(crate) fn group(&mut self, group: Group) -> Body {
        let span = Span::new(&self.file, group.span());
        let marked: TokenStream = TokenTree::Group(mark_group(&group)).into();
        match syn::parse2::<syn::Block>(marked) {
            // Rebuilt groups have one span for both braces; the body's own is the group's.
            Ok(block) => Body { span, ..self.block(&block) },
            Err(e) => {
                self.errors.extend(syn_errors(&self.file, e));
                let value = Some(Box::new(Expr { kind: ExprKind::Poison, span: span.clone() }));
                Body { stmts: Vec::new(), value, span }
            }
        }
    }

    fn block(&mut self, block: &syn::Block) -> Body {
        let mut stmts = Vec::new();
        let mut value = None;
        for (i, stmt) in block.stmts.iter().enumerate() {
            let last = i + 1 == block.stmts.len();
            match stmt {
                syn::Stmt::Expr(e, None)
                    if last && !matches!(e, syn::Expr::ForLoop(_) | syn::Expr::Assign(_)) =>
                {
                    value = Some(Box::new(self.expr(e)));
                }
                _ => stmts.push(self.stmt(stmt)),
            }
        }
        Body { stmts, value, span: self.span(block) }
    }

    fn stmt(&mut self, stmt: &syn::Stmt) -> Stmt {
        match stmt {
            syn::Stmt::Local(local) => {
                let pattern = self.pattern(&local.pat);
                let value = match &local.init {
                    Some(syn::LocalInit { expr, diverge: None, .. }) => self.expr(expr),
                    _ => self.poison(self.span(local), "`let` needs a value", ""),
                };
                Stmt::Let { pattern, value }
            }
            syn::Stmt::Expr(syn::Expr::ForLoop(f), _) => Stmt::For {
                pattern: self.pattern(&f.pat),
                items: self.expr(&f.expr),
                body: self.block(&f.body),
            },
            syn::Stmt::Expr(syn::Expr::Assign(a), _) => self.assign(&a.left, None, &a.right),
            syn::Stmt::Expr(syn::Expr::Binary(b), _) if compound(&b.op).is_some() => {
                self.assign(&b.left, compound(&b.op), &b.right)
            }
            syn::Stmt::Expr(e, _) => Stmt::Expr(self.expr(e)),
            syn::Stmt::Item(item) => {
                let help = "functions and constants stand beside `fn forward`, not inside a body";
                Stmt::Expr(self.poison(self.span(item), "an item inside a function body", help))
            }
            syn::Stmt::Macro(m) => Stmt::Expr(self.poison(
                self.span(m),
                "the language has no macros",
                "strings interpolate by themselves: \"blocks.{i}\"",
            )),
        }
    }

    fn assign(&mut self, left: &syn::Expr, op: Option<BinOp>, right: &syn::Expr) -> Stmt {
        let value = self.expr(right);
        match self.expr(left) {
            Expr { kind: ExprKind::Name(text), span } => {
                Stmt::Assign { name: Name { text, span }, op, value }
            }
            Expr { kind: ExprKind::Poison, span } => Stmt::Expr(Expr { kind: ExprKind::Poison, span }),
            Expr { span, .. } => Stmt::Expr(self.poison(
                span,
                "only a `let mut` name can be assigned",
                "lists are values: push to them",
            )),
        }
    }

    fn pattern(&mut self, pat: &syn::Pat) -> Pattern {
        match pat {
            syn::Pat::Ident(syn::PatIdent { ident, mutability, by_ref: None, subpat: None, .. }) => {
                Pattern::Bind {
                    name: Name { text: ident.to_string().into(), span: self.span(ident) },
                    mutable: mutability.is_some(),
                }
            }
            syn::Pat::Wild(_) => Pattern::Ignore,
            syn::Pat::Paren(p) => self.pattern(&p.pat),
            syn::Pat::Tuple(t) => {
                Pattern::List(t.elems.iter().map(|p| self.pattern(p)).collect(), self.span(t))
            }
            syn::Pat::Slice(s) => {
                Pattern::List(s.elems.iter().map(|p| self.pattern(p)).collect(), self.span(s))
            }
            _ => {
                self.poison(self.span(pat), "expected a name, `_`, or a list of names", "");
                Pattern::Ignore
            }
        }
    }

    fn args(&mut self, args: &syn::punctuated::Punctuated<syn::Expr, syn::Token![,]>) -> Vec<Arg> {
        args.iter()
            .map(|arg| match arg {
                syn::Expr::Assign(a) => match &*a.left {
                    syn::Expr::Path(p) if p.path.get_ident().is_some() => {
                        let text = p.path.get_ident().map(ToString::to_string).unwrap_or_default();
                        let name = Some(Name { text: text.into(), span: self.span(&a.left) });
                        Arg { name, value: self.expr(&a.right) }
                    }
                    left => Arg {
                        name: None,
                        value: self.poison(self.span(left), "expected an argument's name", ""),
                    },
                },
                e => Arg { name: None, value: self.expr(e) },
            })
            .collect()
    }

    /// One expression.
    pub(crate) fn expr(&mut self, e: &syn::Expr) -> Expr {
        let span = self.span(e);
        let boxed = |this: &mut Self, e: &syn::Expr| Box::new(this.expr(e));
        let kind = match e {
            syn::Expr::Lit(l) => return self.literal(&l.lit, span),
            syn::Expr::Path(p) => match p.path.get_ident() {
                Some(ident) => ExprKind::Name(ident.to_string().into()),
                None => return self.poison(span, "paths with `::` have no meaning here", ""),
            },
            syn::Expr::Paren(p) => return self.expr(&p.expr),
            syn::Expr::Group(g) => return self.expr(&g.expr),
            syn::Expr::Array(a) => ExprKind::List(a.elems.iter().map(|e| self.expr(e)).collect()),
            syn::Expr::Tuple(t) => ExprKind::List(t.elems.iter().map(|e| self.expr(e)).collect()),
            syn::Expr::Range(r) => match (&r.start, &r.end, &r.limits) {
                (Some(a), Some(b), syn::RangeLimits::HalfOpen(_)) => {
                    ExprKind::Range(boxed(self, a), boxed(self, b))
                }
                _ => return self.poison(span, "ranges are `a..b`", "`b` itself is not in the range"),
            },
            syn::Expr::Unary(u) => match u.op {
                syn::UnOp::Neg(_) => ExprKind::Unary(UnOp::Neg, boxed(self, &u.expr)),
                syn::UnOp::Not(_) => ExprKind::Unary(UnOp::Not, boxed(self, &u.expr)),
                _ => return self.poison(span, "the language has no references", ""),
            },
            syn::Expr::Binary(b) => return self.binary(b, span),
            syn::Expr::If(i) => match &*i.cond {
                syn::Expr::Let(_) => return self.poison(span, "the language has no `if let`", ""),
                cond => ExprKind::If {
                    cond: boxed(self, cond),
                    then: self.block(&i.then_branch),
                    otherwise: i.else_branch.as_ref().map(|(_, e)| boxed(self, e)),
                },
            },
            syn::Expr::Block(b) => ExprKind::Block(self.block(&b.block)),
            syn::Expr::Closure(c) => ExprKind::Closure {
                params: c.inputs.iter().map(|p| self.pattern(p)).collect(),
                body: Arc::new(self.expr(&c.body)),
            },
            syn::Expr::Call(c) => match &*c.func {
                syn::Expr::Path(p) if p.path.get_ident().is_some() => {
                    let text = p.path.get_ident().map(ToString::to_string).unwrap_or_default();
                    ExprKind::Call {
                        callee: Name { text: text.into(), span: self.span(&c.func) },
                        args: self.args(&c.args),
                    }
                }
                f => return self.poison(self.span(f), "only a name can be called", ""),
            },
            syn::Expr::MethodCall(m) => ExprKind::Method {
                receiver: boxed(self, &m.receiver),
                method: Name { text: m.method.to_string().into(), span: self.span(&m.method) },
                args: self.args(&m.args),
            },
            syn::Expr::Index(i) => ExprKind::Index(boxed(self, &i.expr), boxed(self, &i.index)),
            syn::Expr::While(w) => return self.scope(w, span),
            syn::Expr::ForLoop(f) => {
                let body = Body {
                    stmts: vec![self.stmt(&syn::Stmt::Expr(e.clone(), None))],
                    value: None,
                    span: self.span(f),
                };
                ExprKind::Block(body)
            }
            _ => return self.unsupported(e, span),
        };
        Expr { kind, span }
    }

    fn unsupported(&mut self, e: &syn::Expr, span: Span) -> Expr {
        let (what, help) = match e {
            syn::Expr::Return(_) => ("`return`", "the last expression of a body is its value"),
            syn::Expr::Match(_) => ("`match`", "use `if … else if …`"),
            syn::Expr::Loop(_) | syn::Expr::Break(_) | syn::Expr::Continue(_) => {
                ("open-ended loops", "use `for i in a..b`")
            }
            syn::Expr::Cast(_) => {
                ("`as`", "use float(x) for tensors; Int becomes Float where one is expected")
            }
            syn::Expr::Reference(_) => ("references", "values are copied"),
            syn::Expr::Field(_) => ("fields", "call a function: x.mean() is mean(x)"),
            syn::Expr::Macro(_) => ("macros", "strings interpolate by themselves: \"blocks.{i}\""),
            syn::Expr::Assign(_) => ("assignments as values", ""),
            syn::Expr::Struct(_) => ("structures", "return a list: [a, b]"),
            syn::Expr::Try(_) | syn::Expr::Unsafe(_) | syn::Expr::Async(_) | syn::Expr::Await(_) => {
                ("this", "")
            }
            _ => ("this expression", ""),
        };
        self.poison(span, format!("the language does not have {what}"), help)
    }

    /// `while scope(…) { … }`, as [`mark_scopes`] writes it.
    fn scope(&mut self, w: &syn::ExprWhile, span: Span) -> Expr {
        match &*w.cond {
            syn::Expr::Call(c) if self.span(&w.while_token) == self.span(&c.func) => {
                Expr { kind: ExprKind::Scope { args: self.args(&c.args), body: self.block(&w.body) }, span }
            }
            _ => self.poison(span, "the language does not have `while`", "use `for i in a..b`"),
        }
    }

    fn binary(&mut self, b: &syn::ExprBinary, span: Span) -> Expr {
        use syn::BinOp as S;
        let op = match b.op {
            S::Add(_) => BinOp::Add,
            S::Sub(_) => BinOp::Sub,
            S::Mul(_) => BinOp::Mul,
            S::Div(_) => BinOp::Div,
            S::Rem(_) => BinOp::Rem,
            S::Eq(_) => BinOp::Eq,
            S::Ne(_) => BinOp::Ne,
            S::Lt(_) => BinOp::Lt,
            S::Le(_) => BinOp::Le,
            S::Gt(_) => BinOp::Gt,
            S::Ge(_) => BinOp::Ge,
            S::And(_) | S::Or(_) => {
                let (l, r) = (Box::new(self.expr(&b.left)), Box::new(self.expr(&b.right)));
                return Expr { kind: ExprKind::Logic(matches!(b.op, S::And(_)), l, r), span };
            }
            S::BitXor(_) => {
                return self.poison(
                    span,
                    "the language does not have `^`",
                    "use pow(a, b), or xor(a, b) on integers",
                );
            }
            _ => return self.poison(span, "the language does not have this operator", ""),
        };
        let (l, r) = (Box::new(self.expr(&b.left)), Box::new(self.expr(&b.right)));
        Expr { kind: ExprKind::Binary(op, l, r), span }
    }

    fn literal(&mut self, lit: &syn::Lit, span: Span) -> Expr {
        let kind = match lit {
            syn::Lit::Int(i) => match i.base10_parse() {
                Ok(v) => ExprKind::Int(v),
                Err(e) => return self.poison(span, e.to_string(), ""),
            },
            syn::Lit::Float(f) => match f.base10_parse() {
                Ok(v) => ExprKind::Float(v),
                Err(e) => return self.poison(span, e.to_string(), ""),
            },
            syn::Lit::Bool(b) => ExprKind::Bool(b.value),
            syn::Lit::Str(s) => self.text(&s.value(), &span),
            _ => return self.poison(span, "literals are integers, floats, booleans and strings", ""),
        };
        Expr { kind, span }
    }

    /// Splits a string at its `{expression}` parts; `{{` and `}}` are braces.
    fn text(&mut self, text: &str, span: &Span) -> ExprKind {
        let mut parts = Vec::new();
        let mut lit = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            lit.push_str(&rest[..at]);
            let brace = &rest[at..at + 1];
            let after = &rest[at + 1..];
            if let Some(tail) = after.strip_prefix(brace) {
                lit.push_str(brace);
                rest = tail;
                continue;
            }
            let close = if brace == "{" { after.find('}') } else { None };
            let Some(close) = close else {
                let message = format!("unmatched `{brace}` in a string");
                return self
                    .poison(
                        span.clone(),
                        message,
                        "`{name}` is replaced by its value; write `{{` for a brace",
                    )
                    .kind;
            };
            parts.push(TextPart::Lit(std::mem::take(&mut lit)));
            match syn::parse_str::<syn::Expr>(&after[..close]) {
                Ok(e) => {
                    let before = self.fixed.replace(span.clone());
                    let e = self.expr(&e);
                    self.fixed = before;
                    parts.push(TextPart::Expr(e));
                }
                Err(e) => {
                    let message = format!("`{{{}}}` in a string: {e}", &after[..close]);
                    return self.poison(span.clone(), message, "write `{{` for a brace").kind;
                }
            }
            rest = &after[close + 1..];
        }
        lit.push_str(rest);
        parts.push(TextPart::Lit(lit));
        ExprKind::Text(parts)
    }
}

fn compound(op: &syn::BinOp) -> Option<BinOp> {
    match op {
        syn::BinOp::AddAssign(_) => Some(BinOp::Add),
        syn::BinOp::SubAssign(_) => Some(BinOp::Sub),
        syn::BinOp::MulAssign(_) => Some(BinOp::Mul),
        syn::BinOp::DivAssign(_) => Some(BinOp::Div),
        syn::BinOp::RemAssign(_) => Some(BinOp::Rem),
        _ => None,
    }
}
