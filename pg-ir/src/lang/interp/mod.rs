//! The evaluator: runs a model's functions on compile-time values and traces tensor operations into a
//! graph. An error yields [`Value::Poison`], which spreads silently, so that independent errors are all
//! found in one go.

mod calls;
mod eval;
mod scopes;

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

pub(crate) use self::scopes::is_path;
use crate::graph::{Builder, MAX_NODES, ValueId};
use crate::lang::ast::*;
use crate::lang::builtins;
use crate::lang::diag::Diagnostic;
use crate::lang::library::Library;
use crate::lang::limits::{Budget, MAX_ERRORS, MAX_VALUE_DEPTH, Resource};
use crate::lang::model::Init;
use crate::lang::span::Span;
use crate::lang::value::{Home, Value, Var};
use crate::quant::Grid;

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
pub(crate) type GridOf<'a> = Box<dyn Fn(&str) -> Option<Grid> + 'a>;

/// Where tensor operations go.
pub(crate) struct Tracer<'a> {
    pub(crate) builder: Builder,
    pub(crate) params: IndexMap<String, Declared>,
    /// Which parameters are quantised.
    pub(crate) grid: GridOf<'a>,
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

/// So many variables are searched in a step.
const SEARCHED: usize = 64;

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

/// Expressions of an operation's operands: some, and those of a chain up to here.
type Operands<'e> = (&'e [&'e Expr], &'e [Link]);

/// Result of an operation.
pub(crate) type Outcome<T = Value> = Result<T, Fault>;

/// The evaluator.
pub(crate) struct Interp<'a> {
    functions: &'a Named<Arc<Function>>,
    library: &'a Library,
    pub(crate) budget: &'a Budget,
    pub(crate) consts: Named<ConstValue>,
    pub(crate) tracer: Option<Tracer<'a>>,
    pub(crate) errors: Vec<Diagnostic>,
    /// Names that were looked for and not found.
    unknown: IndexSet<Arc<str>>,
    /// Library functions called so far.
    pub(crate) used: IndexSet<Arc<str>>,
    frames: Vec<Frame>,
    /// Path of the scope in force.
    scope: Arc<str>,
    /// Whether a scope in force lets parameters be declared again.
    shared: bool,
    /// Expressions being evaluated, each within the one before, over all frames.
    depth: usize,
    halted: bool,
}

impl<'a> Interp<'a> {
    pub(crate) fn new(model: &'a ModelAst, budget: &'a Budget, consts: Named<ConstValue>) -> Self {
        // They have been copied.
        budget.charge(Resource::Steps, consts.len());
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
            functions: &model.functions,
            library: Library::std(),
            budget,
            consts,
            tracer: None,
            errors: Vec::new(),
            unknown: IndexSet::new(),
            used: IndexSet::new(),
            frames: vec![top],
            scope: "".into(),
            shared: false,
            depth: 0,
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

    /// Whether there is nothing more to find.
    pub(crate) fn halted(&self) -> bool {
        self.halted
    }

    /// What something evaluates to, with the names that were missing for it.
    pub(crate) fn naming<T>(&mut self, evaluate: impl FnOnce(&mut Self) -> T) -> (T, IndexSet<Arc<str>>) {
        self.unknown.clear();
        let value = evaluate(self);
        (value, std::mem::take(&mut self.unknown))
    }

    /// Takes back all findings but the first ones: what they are about will be evaluated again.
    pub(crate) fn forget_from(&mut self, first: usize) {
        self.errors.truncate(first);
        self.halted = self.budget.exceeded().is_some();
    }

    /// Leaves the function being run, whose result stands for something reported.
    pub(crate) fn give_up(&mut self) {
        self.frame().given_up = true;
    }

    fn home(&self) -> Home {
        self.frames.last().expect("the top frame stays").home
    }

    /// Records a finding once per place, with the calls that lead there. One in the library is about the model's call.
    pub(crate) fn report(&mut self, mut d: Diagnostic) -> Value {
        for frame in self.frames.iter().rev() {
            let Some(call) = &frame.call else { break };
            let this_call = format!("in this call of `{}`", frame.name);
            let is_outside = !is_library(call);
            if is_outside && is_library(&d.span) {
                let inside = std::mem::replace(&mut d.span, call.clone());
                let here = std::mem::replace(&mut d.here, this_call);
                let here = if here.is_empty() { "here, in the library".into() } else { here };
                d.labels.insert(0, (inside, here));
            } else {
                d.labels.push((call.clone(), this_call));
            }
            if is_outside {
                break;
            }
        }
        if self.halted || self.errors.iter().any(|e| e.span == d.span) {
            return Value::Poison;
        }
        self.errors.push(d);
        if self.errors.len() >= MAX_ERRORS {
            self.halted = true;
        }
        Value::Poison
    }

    /// Reports that a budget is exceeded, and stops, if one is.
    fn over_budget(&mut self, span: &Span) -> bool {
        if let Some((message, help)) = self.budget.exceeded() {
            // Of all evaluators that share the budget the first one reports.
            if !self.halted && self.budget.finding().is_none() {
                let (d, before) = (Diagnostic::error(span, message).help(help), self.errors.len());
                self.report(d.clone());
                self.budget.found(self.errors.get(before).unwrap_or(&d));
            }
            self.halted = true;
        }
        self.halted
    }

    /// Reports that the graph is too large, if it is.
    fn over_nodes(&mut self, span: &Span) -> bool {
        let nodes = self.tracer.as_ref().map_or(0, |t| t.builder.graph().node_count());
        if nodes > MAX_NODES && !self.halted {
            let message = format!("the graph has more than {MAX_NODES} nodes");
            self.stop(span, message, "use fewer layers, or shorten the loops that lead here");
        }
        self.halted
    }

    /// Reports that a bound is exceeded, after which nothing else is worth finding.
    fn stop(&mut self, span: &Span, message: String, help: &str) -> Value {
        self.report(Diagnostic::error(span, message).help(help));
        self.halted = true;
        Value::Poison
    }

    /// A value that holds others, unless it is too deep or too much.
    fn holding(&mut self, value: Value, span: &Span) -> Value {
        if value.depth() > MAX_VALUE_DEPTH {
            let message = format!("lists and closures hold each other more than {MAX_VALUE_DEPTH} deep");
            return self.stop(span, message, "join lists with `+`, or push to one");
        }
        if self.over_budget(span) { Value::Poison } else { value }
    }

    /// The call in the model's own text that leads to a place in the library.
    fn model_call(&self, span: &Span) -> Option<&Span> {
        let calls = || self.frames.iter().rev().map_while(|f| f.call.as_ref());
        if is_library(span) { calls().find(|c| !is_library(c)) } else { None }
    }

    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>) -> Value {
        self.report(Diagnostic::error(span, message))
    }

    /// Turns a fault into a finding at `span`; constants named in `exprs` show their values.
    fn fault(&mut self, span: &Span, fault: Fault, exprs: Operands<'_>, tensors: &[&Value]) -> Value {
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
        exprs.0.iter().for_each(|e| constants_in(e, &mut names));
        exprs.1.iter().for_each(|link| constants_in(&link.value, &mut names));
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
        let vars = &self.frames.last()?.vars;
        let found = vars.iter().rposition(|v| &*v.name == name);
        self.budget.charge(Resource::Steps, (vars.len() - found.unwrap_or(0)) / SEARCHED);
        found.map(|i| &vars[i])
    }

    fn function(&self, name: &str) -> Option<(Arc<Function>, Home)> {
        if self.home() == Home::Model
            && let Some(f) = self.functions.get(name)
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
        self.unknown.insert(name.clone());
        self.report(match builtins::find(name) {
            Some(b) => Diagnostic::error(span, format!("`{name}` is a function, and is not called"))
                .help(format!("it is {}", b.signature())),
            None => Diagnostic::error(span, format!("unknown name `{name}`"))
                .here("not found")
                .nearest(name, self.known_names().iter().map(|n| &**n)),
        })
    }

    fn known_names(&self) -> Vec<Arc<str>> {
        let frame = self.frames.last().expect("the top frame stays");
        let mut names: Vec<Arc<str>> = frame.vars.iter().rev().map(|v| v.name.clone()).collect();
        if frame.home == Home::Model {
            names.extend(self.consts.keys().cloned());
            names.extend(self.functions.keys().cloned());
        }
        names.extend(self.library.names().cloned());
        names.extend(builtins::names().map(Arc::from));
        names
    }
}

fn is_library(span: &Span) -> bool {
    span.file.starts_with("std/")
}

/// Names in an expression that could be constants, for showing their values.
fn constants_in(e: &Expr, out: &mut Vec<Arc<str>>) {
    match &e.kind {
        ExprKind::Name(name) => out.push(name.clone()),
        ExprKind::Unary(_, x) => constants_in(x, out),
        ExprKind::Range(a, b) | ExprKind::Index(a, b) => {
            constants_in(a, out);
            constants_in(b, out);
        }
        ExprKind::Chain(first, links) => {
            constants_in(first, out);
            links.iter().for_each(|link| constants_in(&link.value, out));
        }
        ExprKind::List(items) | ExprKind::Logic(_, items) => items.iter().for_each(|e| constants_in(e, out)),
        ExprKind::Call { args, .. } => args.iter().for_each(|a| constants_in(&a.value, out)),
        ExprKind::Method { receiver, args, .. } => {
            constants_in(receiver, out);
            args.iter().for_each(|a| constants_in(&a.value, out));
        }
        _ => {}
    }
}
