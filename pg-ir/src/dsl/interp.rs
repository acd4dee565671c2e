//! The evaluator: runs a model's functions on compile-time values and traces tensor operations into a
//! graph. An error yields [`Value::Poison`], which spreads silently, so that independent errors are all
//! found in one go.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::ast::*;
use super::builtins;
use super::diag::{Diagnostic, nearest};
use super::library::Library;
use super::span::Span;
use super::value::{Closure, Home, Value, Var};
use crate::graph::{Builder, Origin, ValueId};
use crate::model::Init;
use crate::op::Op;
use crate::quant::Grid;
use crate::slot::{Slot, Space};
use crate::ty::Type;

/// Most expressions that one elaboration may evaluate.
const MAX_STEPS: u64 = 5_000_000;
/// Most calls within calls; recursion is an error long before.
const MAX_DEPTH: usize = 64;
/// After this many findings the rest is noise.
const MAX_ERRORS: usize = 24;

/// A constant with where its value was given.
#[derive(Clone, Debug)]
pub(crate) struct ConstValue {
    pub(crate) value: Value,
    pub(crate) span: Span,
    /// `--set`, or the profile or phase, if not the declaration.
    pub(crate) set_by: Option<String>,
}

/// A parameter that the traced functions declare.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) shape: Vec<usize>,
    pub(crate) init: Init,
    pub(crate) span: Span,
    /// The input itself, before any quantiser.
    pub(crate) input: ValueId,
    /// What `param(…)` gives: the input, or its fake quantisation.
    pub(crate) value: ValueId,
}

/// The quantiser in force for a parameter's name, if any.
pub(crate) type GridOf = Box<dyn Fn(&str) -> Option<Grid>>;

/// Where tensor operations go.
pub(crate) struct Tracer {
    pub(crate) builder: Builder,
    pub(crate) params: IndexMap<String, Declared>,
    /// Which parameters are quantised.
    pub(crate) grid: GridOf,
    /// The expression that first gave each value, for messages about shapes.
    pub(crate) born: HashMap<ValueId, Span>,
}

/// A function or closure being run.
struct Frame {
    vars: Vec<Var>,
    home: Home,
    name: Arc<str>,
    /// A closure is named after the variable that holds it, and may call a function of that name.
    closure: bool,
    /// The call, if it is not an entry point.
    call: Option<Span>,
    /// An assertion has failed: what follows in this function would only fail for the same reason.
    given_up: bool,
    /// Variables below this belong to the place that wrote a closure: they cannot be assigned.
    captured: usize,
}

/// What went wrong in an operation, before it has a place.
pub(crate) enum Fault {
    /// An operand stands for something already reported.
    Poisoned,
    /// A message and, if there is one, what to write instead.
    Error(String, Option<String>),
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Fault::Error(message, None)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Fault::Error(message.into(), None)
    }
}

/// Result of an operation.
pub(crate) type Outcome<T = Value> = Result<T, Fault>;

/// The evaluator.
pub(crate) struct Interp<'a> {
    functions: &'a [Arc<Function>],
    library: &'a Library,
    pub(crate) consts: IndexMap<Arc<str>, ConstValue>,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) errors: Vec<Diagnostic>,
    /// Library functions called so far.
    pub(crate) used: IndexSet<Arc<str>>,
    frames: Vec<Frame>,
    /// Path of the scope in force.
    scope: Arc<str>,
    /// Whether a scope in force lets parameters be declared again.
    shared: bool,
    steps: u64,
    halted: bool,
}

impl<'a> Interp<'a> {
    pub(crate) fn new(
        functions: &'a [Arc<Function>],
        library: &'a Library,
        consts: IndexMap<Arc<str>, ConstValue>,
    ) -> Self {
        let top = Frame {
            vars: Vec::new(),
            home: Home::Model,
            name: "".into(),
            closure: false,
            call: None,
            given_up: false,
            captured: 0,
        };
        Interp {
            functions,
            library,
            consts,
            tracer: None,
            errors: Vec::new(),
            used: IndexSet::new(),
            frames: vec![top],
            scope: "".into(),
            shared: false,
            steps: 0,
            halted: false,
        }
    }

    // ------------------------------------------------------------ findings

    fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the top frame stays")
    }

    /// Whether to leave the function being run.
    fn stopped(&self) -> bool {
        self.halted || self.frames.last().is_some_and(|f| f.given_up)
    }

    /// Leaves the function being run, whose result stands for something reported.
    pub(crate) fn give_up(&mut self) {
        self.frame().given_up = true;
    }

    fn home(&self) -> Home {
        self.frames.last().expect("the top frame stays").home
    }

    /// Records a finding once per place, with the calls that lead there.
    pub(crate) fn report(&mut self, mut d: Diagnostic) -> Value {
        if self.errors.iter().any(|e| e.span == d.span) {
            return Value::Poison;
        }
        for frame in self.frames.iter().rev() {
            let Some(call) = &frame.call else { break };
            d.labels.push((call.clone(), format!("in this call of `{}`", frame.name)));
            if !is_library(call) {
                break;
            }
        }
        self.errors.push(d);
        if self.errors.len() >= MAX_ERRORS {
            self.halted = true;
        }
        Value::Poison
    }

    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>) -> Value {
        self.report(Diagnostic::error(span, message))
    }

    /// Turns a fault into a finding at `span`; constants named in `exprs` show their values.
    fn fault(&mut self, span: &Span, fault: Fault, exprs: &[&Expr], tensors: &[&Value]) -> Value {
        let Fault::Error(message, help) = fault else { return Value::Poison };
        let mut d = Diagnostic::error(span, message);
        d.help = help;
        for value in tensors {
            let (Value::Tensor(id), Some(t)) = (value, &self.tracer) else { continue };
            if let Some(born) = t.born.get(id)
                && born != span
                && !d.labels.iter().any(|(s, _)| s == born)
            {
                d.labels.push((born.clone(), format!("{} comes from here", t.builder.ty(*id))));
            }
        }
        let mut names = Vec::new();
        exprs.iter().for_each(|e| constants_in(e, &mut names));
        for name in names {
            let Some(c) = self.consts.get(&name).filter(|_| self.lookup(&name).is_none()) else { continue };
            if !d.labels.iter().any(|(s, _)| *s == c.span) {
                let by = c.set_by.as_ref().map(|b| format!(" (set by {b})")).unwrap_or_default();
                d.labels.push((c.span.clone(), format!("`{name}` is {}{by}", c.value)));
            }
        }
        self.report(d)
    }

    // ------------------------------------------------------------ names

    fn lookup(&self, name: &str) -> Option<&Var> {
        self.frames.last()?.vars.iter().rev().find(|v| &*v.name == name)
    }

    fn function(&self, name: &str) -> Option<(Arc<Function>, Home)> {
        if self.home() == Home::Model
            && let Some(f) = self.functions.iter().find(|f| &*f.name.text == name)
        {
            return Some((f.clone(), Home::Model));
        }
        self.library.function(name).map(|f| (f.clone(), Home::Library))
    }

    fn name(&mut self, name: &Arc<str>, span: &Span) -> Value {
        if let Some(var) = self.lookup(name) {
            return var.value.clone();
        }
        if self.home() == Home::Model
            && let Some(c) = self.consts.get(name)
        {
            return c.value.clone();
        }
        if let Some((f, home)) = self.function(name) {
            return Value::Function(f, home);
        }
        if let Some(value) = builtins::constant(name) {
            return value;
        }
        let d = Diagnostic::error(span, format!("unknown name `{name}`")).here("not found");
        let d = match builtins::find(name) {
            Some(b) => d.help(format!("`{name}` is a function: {}", b.signature())),
            None => d.nearest(name, self.known_names().iter().map(|n| &**n)),
        };
        self.report(d)
    }

    fn known_names(&self) -> Vec<Arc<str>> {
        let frame = self.frames.last().expect("the top frame stays");
        let mut names: Vec<Arc<str>> = frame.vars.iter().rev().map(|v| v.name.clone()).collect();
        if frame.home == Home::Model {
            names.extend(self.consts.keys().cloned());
            names.extend(self.functions.iter().map(|f| f.name.text.clone()));
        }
        names.extend(self.library.names().cloned());
        names.extend(builtins::names().map(Arc::from));
        names
    }

    // ------------------------------------------------------------ statements

    /// A block in a scope of its own for local names.
    fn body(&mut self, body: &Body) -> Value {
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

    fn stmt(&mut self, stmt: &Stmt) {
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
                    v = self.binary(*op, old, v, &span, &[value]);
                }
                self.assign(name, v);
            }
            Stmt::For { pattern, items, body } => {
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
                    let mark = self.frame().vars.len();
                    self.bind(pattern, item.clone(), &items.span);
                    self.body(body);
                    self.frame().vars.truncate(mark);
                    if self.stopped() {
                        break;
                    }
                }
            }
        }
    }

    fn bind(&mut self, pattern: &Pattern, value: Value, span: &Span) {
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

    fn assign(&mut self, name: &Name, value: Value) {
        let frame = self.frame();
        let captured = frame.captured;
        let found = frame.vars.iter_mut().enumerate().rev().find(|(_, v)| v.name == name.text);
        match found {
            Some((i, var)) if var.mutable && i >= captured => var.value = value,
            Some((i, _)) if i < captured => {
                let d = Diagnostic::error(&name.span, format!("a closure cannot assign `{}`", name.text));
                self.report(d.help("closures see copies: return the new value instead"));
            }
            Some(_) => {
                let d = Diagnostic::error(&name.span, format!("`{}` is not mutable", name.text));
                self.report(d.help(format!("declare it with `let mut {}`", name.text)));
            }
            None => {
                let known = self.frame().vars.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
                let d = Diagnostic::error(&name.span, format!("unknown variable `{}`", name.text));
                self.report(d.nearest(&name.text, known.iter().map(|n| &**n)));
            }
        }
    }

    // ------------------------------------------------------------ expressions

    /// Evaluates an expression; tensors are traced.
    pub(crate) fn expr(&mut self, e: &Expr) -> Value {
        self.steps += 1;
        if self.steps > MAX_STEPS && !self.halted {
            self.halted = true;
            return self.error(&e.span, format!("elaboration takes more than {MAX_STEPS} steps"));
        }
        if self.halted {
            return Value::Poison;
        }
        match &e.kind {
            ExprKind::Poison => Value::Poison,
            ExprKind::Int(v) => Value::Int(*v),
            ExprKind::Float(v) => Value::Float(*v),
            ExprKind::Bool(v) => Value::Bool(*v),
            ExprKind::Text(parts) => self.text(parts, &e.span),
            ExprKind::Name(name) => self.name(name, &e.span),
            ExprKind::List(items) => {
                let items: Vec<Value> = items.iter().map(|e| self.expr(e)).collect();
                if items.iter().any(|v| matches!(v, Value::Poison)) {
                    Value::Poison
                } else {
                    Value::list(items)
                }
            }
            ExprKind::Range(a, b) => self.range(a, b, &e.span),
            ExprKind::Unary(op, x) => {
                let value = self.expr(x);
                let result = self.at(&e.span, |this| match op {
                    UnOp::Neg => builtins::negate(this, &value),
                    UnOp::Not => match &value {
                        Value::Bool(b) => Ok(Value::Bool(!b)),
                        other => Err(format!("`!` takes a Bool, found {}", other.kind()).into()),
                    },
                });
                self.settle(result, &e.span, &[x], &[&value])
            }
            ExprKind::Binary(op, l, r) => {
                let (a, b) = (self.expr(l), self.expr(r));
                self.binary(*op, a, b, &e.span, &[l, r])
            }
            ExprKind::Logic(and, l, r) => match self.condition(l) {
                Some(value) if value == *and => self.condition(r).map_or(Value::Poison, Value::Bool),
                Some(value) => Value::Bool(value),
                None => Value::Poison,
            },
            ExprKind::If { cond, then, otherwise } => match (self.condition(cond), otherwise) {
                (Some(true), _) => self.body(then),
                (Some(false), Some(e)) => self.expr(e),
                (Some(false), None) => Value::None,
                (None, _) => Value::Poison,
            },
            ExprKind::Block(body) => self.body(body),
            ExprKind::Scope { args, body } => self.scoped(args, body, &e.span),
            ExprKind::Closure { params, body } => {
                let (captured, home) = (self.frame().vars.clone(), self.home());
                Value::Closure(Arc::new(Closure {
                    params: params.clone(),
                    body: body.clone(),
                    captured,
                    home,
                }))
            }
            ExprKind::Call { callee, args } => self.call(callee, None, args, &e.span),
            ExprKind::Method { receiver, method, args } => {
                if let Some(value) = self.list_method(receiver, method, args) {
                    return value;
                }
                self.call(method, Some(receiver), args, &e.span)
            }
            ExprKind::Index(x, i) => {
                let (x_value, i_value) = (self.expr(x), self.expr(i));
                let result = self.at(&e.span, |this| builtins::index(this, &x_value, &i_value));
                self.settle(result, &e.span, &[x, i], &[&x_value])
            }
        }
    }

    fn text(&mut self, parts: &[TextPart], span: &Span) -> Value {
        let mut out = String::new();
        for part in parts {
            match part {
                TextPart::Lit(text) => out.push_str(text),
                TextPart::Expr(e) => match self.expr(e) {
                    Value::Poison => return Value::Poison,
                    Value::Tensor(_) => {
                        return self.error(span, "a tensor has no text before the program runs");
                    }
                    value => out.push_str(&value.to_string()),
                },
            }
        }
        Value::text(out)
    }

    fn range(&mut self, a: &Expr, b: &Expr, span: &Span) -> Value {
        match (self.expr(a), self.expr(b)) {
            (Value::Int(a), Value::Int(b)) if b.saturating_sub(a) <= MAX_STEPS as i64 => {
                Value::list((a..b).map(Value::Int).collect())
            }
            (Value::Int(_), Value::Int(_)) => self.error(span, "this range is too long"),
            (Value::Poison, _) | (_, Value::Poison) => Value::Poison,
            (a, b) => {
                self.error(span, format!("a range takes two Ints, found {} and {}", a.kind(), b.kind()))
            }
        }
    }

    fn condition(&mut self, e: &Expr) -> Option<bool> {
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

    fn binary(&mut self, op: BinOp, a: Value, b: Value, span: &Span, exprs: &[&Expr]) -> Value {
        let result = self.at(span, |this| builtins::binary(this, op, &a, &b));
        self.settle(result, span, exprs, &[&a, &b])
    }

    /// Runs an operation whose graph nodes come from `span`.
    fn at<T>(&mut self, span: &Span, run: impl FnOnce(&mut Self) -> T) -> T {
        let (loc, scope) = (span.loc(), self.scope.clone());
        if let Some(t) = &mut self.tracer {
            t.builder.set_origin(Origin { loc, scope, backward: false });
        }
        run(self)
    }

    /// The value of an operation, or its error with where the operands come from.
    fn settle(&mut self, result: Outcome, span: &Span, exprs: &[&Expr], operands: &[&Value]) -> Value {
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

    // ------------------------------------------------------------ scopes

    fn scoped(&mut self, args: &[Arg], body: &Body, span: &Span) -> Value {
        let mut path = None;
        let mut shared = false;
        for arg in args {
            match (arg.name.as_ref().map(|n| &*n.text), self.expr(&arg.value)) {
                (None, Value::Text(text)) if path.is_none() => path = Some(text),
                (Some("shared"), Value::Bool(b)) => shared = b,
                (_, Value::Poison) => return Value::Poison,
                _ => {
                    let d = Diagnostic::error(
                        &arg.value.span,
                        "scope takes a path and, if wanted, `shared = true`",
                    );
                    return self.report(d.help("scope(\"blocks.{i}\") { … }"));
                }
            }
        }
        // A leading slash starts from the top.
        let path = path.as_deref().map(|p| p.strip_prefix('/').map_or((p, false), |p| (p, true)));
        let Some((path, absolute)) = path.filter(|(p, _)| is_path(p)) else {
            return self.error(span, "a scope's path is names joined by dots, as in \"blocks.{i}.mlp\"");
        };
        let path = if absolute { path.to_string() } else { join(&self.scope, path) };
        let before = (std::mem::replace(&mut self.scope, path.into()), self.shared);
        self.shared |= shared;
        let value = self.body(body);
        (self.scope, self.shared) = before;
        value
    }

    /// Declares a parameter, or finds it again where it is shared, and gives its value in this program.
    pub(crate) fn declare(
        &mut self,
        name: &str,
        shape: Vec<usize>,
        init: Init,
        shared: bool,
        span: &Span,
    ) -> Outcome {
        let full = join(&self.scope, name);
        let shared = shared || self.shared;
        let Some(t) = &mut self.tracer else {
            return Err("parameters are declared in functions, not here".into());
        };
        if let Some(first) = t.params.get(&full) {
            let clash = if !shared {
                format!("parameter `{full}` is declared twice")
            } else if first.shape != shape || first.init != init {
                format!("shared parameter `{full}` is declared with another shape or initialiser")
            } else {
                return Ok(Value::Tensor(first.value));
            };
            let mut d = Diagnostic::error(span, clash);
            if first.span != *span {
                d = d.label(&first.span, format!("first declared here, with shape {:?}", first.shape));
            }
            self.report(d.help(
                "give it another scope, or say `shared = true` in `param` or `scope` to mean the same one",
            ));
            return Err(Fault::Poisoned);
        }
        let slot = Slot::new(Space::Param, full.clone());
        let input = t.builder.try_op(Op::Input(slot, Type::channels(&shape)), &[])?;
        let value = match (t.grid)(&full) {
            Some(grid) => t.builder.try_op(Op::FakeQuant(grid), &[input])?,
            None => input,
        };
        t.born.insert(input, span.clone());
        t.params.insert(full, Declared { shape, init, span: span.clone(), input, value });
        Ok(Value::Tensor(value))
    }

    // ------------------------------------------------------------ calls

    /// `list.push(x)` and `list.pop()` change a `let mut` variable; anything else is not a list method.
    fn list_method(&mut self, receiver: &Expr, method: &Name, args: &[Arg]) -> Option<Value> {
        let ExprKind::Name(name) = &receiver.kind else { return None };
        if !matches!(&*method.text, "push" | "pop") {
            return None;
        }
        let value = self.name(name, &receiver.span);
        let Value::List(list) = &value else { return None };
        let mut items = (**list).clone();
        let result = match (&*method.text, args) {
            ("push", [Arg { name: None, value }]) => {
                items.push(self.expr(value));
                Value::None
            }
            ("pop", []) => match items.pop() {
                Some(item) => item,
                None => return Some(self.error(&method.span, format!("`{name}` is empty: nothing to pop"))),
            },
            _ => return Some(self.error(&method.span, "lists have push(x) and pop()")),
        };
        self.assign(&Name { text: name.clone(), span: receiver.span.clone() }, Value::list(items));
        Some(result)
    }

    fn call(&mut self, callee: &Name, receiver: Option<&Expr>, args: &[Arg], span: &Span) -> Value {
        let mut values: Vec<(Option<Name>, Value, Span)> = Vec::with_capacity(args.len() + 1);
        if let Some(receiver) = receiver {
            values.push((None, self.expr(receiver), receiver.span.clone()));
        }
        for arg in args {
            values.push((arg.name.clone(), self.expr(&arg.value), arg.value.span.clone()));
        }
        let name = &callee.text;
        let local = self.lookup(name).map(|v| v.value.clone());
        let known = match local {
            Some(value) => Some(value),
            None => self.function(name).map(|(f, home)| Value::Function(f, home)),
        };
        match known {
            Some(Value::Function(f, home)) => self.run_function(&f, home, values, span),
            Some(Value::Closure(c)) => self.run_closure(&c, name, values, span),
            Some(Value::Poison) => Value::Poison,
            Some(other) => self.error(&callee.span, format!("`{name}` is {}, not a function", other.kind())),
            None => match builtins::find(name) {
                Some(builtin) => {
                    let bound = bind_args(builtin.name, &builtin.params, values, span);
                    let exprs: Vec<&Expr> =
                        receiver.into_iter().chain(args.iter().map(|a| &a.value)).collect();
                    match bound {
                        Err(d) => self.report(*d),
                        Ok(bound) => {
                            if bound.iter().flatten().any(|v| matches!(v, Value::Poison)) {
                                return Value::Poison;
                            }
                            let result = self.at(span, |this| (builtin.run)(this, &bound, span));
                            let operands: Vec<&Value> = bound.iter().flatten().collect();
                            self.settle(result, span, &exprs, &operands)
                        }
                    }
                }
                None => {
                    let d = Diagnostic::error(&callee.span, format!("unknown function `{name}`"))
                        .here("not found");
                    let d = match nearest(name, self.known_names().iter().map(|n| &**n)) {
                        Some(best) => d.help(format!("a similar name exists: `{best}`")),
                        None => d,
                    };
                    self.report(d)
                }
            },
        }
    }

    fn enter(&mut self, name: &Arc<str>, span: &Span) -> bool {
        if self.frames.len() >= MAX_DEPTH {
            self.error(span, format!("calls are nested more than {MAX_DEPTH} deep in `{name}`"));
            return false;
        }
        true
    }

    fn run_function(
        &mut self,
        f: &Arc<Function>,
        home: Home,
        args: Vec<(Option<Name>, Value, Span)>,
        span: &Span,
    ) -> Value {
        let name = &f.name.text;
        if self
            .frames
            .iter()
            .any(|fr| !fr.closure && fr.call.is_some() && fr.home == home && fr.name == *name)
        {
            let d =
                Diagnostic::error(span, format!("`{name}` calls itself, and the language has no recursion"));
            return self.report(d.help("use `for i in a..b`"));
        }
        let params: Vec<(Arc<str>, bool)> =
            f.params.iter().map(|p| (p.name.text.clone(), p.default.is_some())).collect();
        let bound = match bind_args(name, &params, args, span) {
            Ok(bound) => bound,
            Err(d) => return self.report(d.label(&f.name.span, "defined here")),
        };
        if !self.enter(name, span) {
            return Value::Poison;
        }
        if home == Home::Library {
            self.used.insert(name.clone());
        }
        let call = Some(span.clone());
        self.frames.push(Frame {
            vars: Vec::new(),
            home,
            name: name.clone(),
            closure: false,
            call,
            given_up: false,
            captured: 0,
        });
        for (param, value) in f.params.iter().zip(bound) {
            // A default may use the parameters before it.
            let value = match (value, &param.default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.expr(default),
                (None, None) => Value::Poison,
            };
            self.frame().vars.push(Var { name: param.name.text.clone(), value, mutable: false });
        }
        let value = self.body(&f.body);
        self.frames.pop();
        // To a model, a value of the library was born where the model asked for it.
        if let (Home::Library, Home::Model, Value::Tensor(id), Some(t)) =
            (home, self.home(), &value, &mut self.tracer)
            && t.born.get(id).is_some_and(is_library)
        {
            t.born.insert(*id, span.clone());
        }
        value
    }

    fn run_closure(
        &mut self,
        c: &Arc<Closure>,
        name: &Arc<str>,
        args: Vec<(Option<Name>, Value, Span)>,
        span: &Span,
    ) -> Value {
        if args.len() != c.params.len() || args.iter().any(|(n, ..)| n.is_some()) {
            let message = format!(
                "closure `{name}` takes {} arguments by position, found {}",
                c.params.len(),
                args.len()
            );
            return self.error(span, message);
        }
        if !self.enter(name, span) {
            return Value::Poison;
        }
        let captured = c.captured.len();
        let call = Some(span.clone());
        self.frames.push(Frame {
            vars: c.captured.clone(),
            home: c.home,
            name: name.clone(),
            closure: true,
            call,
            given_up: false,
            captured,
        });
        for (pattern, (_, value, at)) in c.params.iter().zip(args) {
            self.bind(pattern, value, &at);
        }
        let value = self.expr(&c.body);
        self.frames.pop();
        value
    }

    /// Calls a function of the model or the library as an entry point of the program.
    pub(crate) fn enter_function(&mut self, f: &Arc<Function>, home: Home, args: Vec<Value>) -> Value {
        let span = f.name.span.clone();
        let args = args.into_iter().map(|v| (None, v, span.clone())).collect();
        let value = self.run_function(f, home, args, &span);
        // The entry point has no caller worth naming.
        for d in &mut self.errors {
            d.labels.retain(|(at, _)| *at != span);
        }
        value
    }
}

fn is_library(span: &Span) -> bool {
    span.file.starts_with("std/")
}

/// `path.name`, or either alone.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// Whether a text is names joined by dots.
pub(crate) fn is_path(text: &str) -> bool {
    text.split('.')
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)))
}

/// Puts arguments in the order of parameters. `params` are names with whether they may be left out.
fn bind_args(
    callee: &str,
    params: &[(Arc<str>, bool)],
    args: Vec<(Option<Name>, Value, Span)>,
    span: &Span,
) -> Result<Vec<Option<Value>>, Box<Diagnostic>> {
    let signature = || {
        let list: Vec<String> = params
            .iter()
            .map(|(n, optional)| if *optional { format!("{n} = …") } else { n.to_string() })
            .collect();
        format!("{callee}({})", list.join(", "))
    };
    let mut bound: Vec<Option<Value>> = vec![None; params.len()];
    for (position, (name, value, at)) in args.into_iter().enumerate() {
        let slot = match &name {
            None => position,
            Some(name) => match params.iter().position(|(p, _)| *p == name.text) {
                Some(i) => i,
                None => {
                    let message = format!("`{callee}` has no parameter `{}`", name.text);
                    let d = Diagnostic::error(&name.span, message).help(format!("it is {}", signature()));
                    return Err(Box::new(match nearest(&name.text, params.iter().map(|(n, _)| &**n)) {
                        Some(best) => {
                            d.help(format!("a similar name exists: `{best}`; it is {}", signature()))
                        }
                        None => d,
                    }));
                }
            },
        };
        match bound.get_mut(slot) {
            Some(free @ None) => *free = Some(value),
            Some(Some(_)) => {
                let message = format!("`{}` of `{callee}` is given twice", params[slot].0);
                return Err(Box::new(Diagnostic::error(&at, message)));
            }
            None => {
                let message = format!("`{callee}` takes {} arguments, found more", params.len());
                return Err(Box::new(Diagnostic::error(&at, message).help(format!("it is {}", signature()))));
            }
        }
    }
    for ((name, optional), value) in params.iter().zip(&bound) {
        if value.is_none() && !optional {
            let d = Diagnostic::error(span, format!("missing argument `{name}` of `{}`", signature()));
            return Err(Box::new(d));
        }
    }
    Ok(bound)
}

/// Names in an expression that could be constants, for showing their values.
fn constants_in(e: &Expr, out: &mut Vec<Arc<str>>) {
    match &e.kind {
        ExprKind::Name(name) => out.push(name.clone()),
        ExprKind::Unary(_, x) => constants_in(x, out),
        ExprKind::Binary(_, a, b)
        | ExprKind::Logic(_, a, b)
        | ExprKind::Range(a, b)
        | ExprKind::Index(a, b) => {
            constants_in(a, out);
            constants_in(b, out);
        }
        ExprKind::List(items) => items.iter().for_each(|e| constants_in(e, out)),
        ExprKind::Call { args, .. } => args.iter().for_each(|a| constants_in(&a.value, out)),
        ExprKind::Method { receiver, args, .. } => {
            constants_in(receiver, out);
            args.iter().for_each(|a| constants_in(&a.value, out));
        }
        _ => {}
    }
}
