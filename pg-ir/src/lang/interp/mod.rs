//! The evaluator: runs a model's functions on compile-time values and traces tensor operations into a
//! graph. An error yields [`Value::Poison`], which spreads silently, so that independent errors are all
//! found in one go.

mod calls;
mod eval;

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use crate::graph::{Builder, Loc, ValueId};
use crate::lang::ast::*;
use crate::lang::builtins;
use crate::lang::diag::Diagnostic;
use crate::lang::library::Library;
use crate::lang::model::Init;
use crate::lang::span::Span;
use crate::lang::value::{Home, Value, Var};
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

    /// The call in the model's own text that leads to a place in the library.
    fn model_call(&self, span: &Span) -> Option<Loc> {
        let calls = || self.frames.iter().rev().map_while(|f| f.call.as_ref());
        if is_library(span) { calls().find(|c| !is_library(c)).map(Span::loc) } else { None }
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
