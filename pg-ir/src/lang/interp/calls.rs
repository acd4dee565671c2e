//! Calls: of builtins, functions and closures, and how arguments meet parameters.

use std::sync::Arc;

use super::{Frame, Interp, is_library};
use crate::lang::ast::*;
use crate::lang::builtins::{self, MAX_LIST, long_list};
use crate::lang::diag::{Diagnostic, nearest};
use crate::lang::limits::{MAX_CALLS, Resource};
use crate::lang::span::Span;
use crate::lang::value::{Closure, Home, List, Value, Var};

impl Interp<'_> {
    /// `list.push(x)` and `list.pop()` change a `let mut` variable; anything else is not a list method.
    pub(super) fn list_method(&mut self, receiver: &Expr, method: &Name, args: &[Arg]) -> Option<Value> {
        let ExprKind::Name(name) = &receiver.kind else { return None };
        if !matches!(&*method.text, "push" | "pop") {
            return None;
        }
        let value = self.name(name, &receiver.span);
        let Value::List(list) = value else { return None };
        let result = match (&*method.text, args) {
            ("push", _) if list.len() >= MAX_LIST => return Some(self.error(&method.span, long_list())),
            ("push", [Arg { name: None, value }]) => {
                drop(list);
                let item = self.expr(value);
                self.change(name, receiver, method, |list| {
                    list.push(item);
                    Value::None
                })
            }
            ("pop", []) if list.is_empty() => {
                return Some(self.error(&method.span, format!("`{name}` is empty: nothing to pop")));
            }
            ("pop", []) => {
                drop(list);
                self.change(name, receiver, method, |list| list.pop().unwrap_or(Value::None))
            }
            _ => return Some(self.error(&method.span, "lists have push(x) and pop()")),
        };
        Some(result)
    }

    /// Changes the list that a variable holds: in place, unless somebody shares it.
    fn change(
        &mut self,
        name: &Arc<str>,
        receiver: &Expr,
        method: &Name,
        edit: impl FnOnce(&mut List) -> Value,
    ) -> Value {
        let budget = self.budget;
        let name = Name { text: name.clone(), span: receiver.span.clone() };
        let Some(var) = self.assignable(&name) else { return Value::Poison };
        // The item's own expression may have put something else there.
        let Value::List(list) = &mut var.value else { return Value::Poison };
        budget.charge(Resource::Elements, if Arc::get_mut(list).is_some() { 1 } else { list.len() + 1 });
        let result = edit(Arc::make_mut(list));
        let changed = var.value.clone();
        match self.holding(changed, &method.span) {
            Value::Poison => Value::Poison,
            _ => result,
        }
    }

    pub(super) fn call(
        &mut self,
        callee: &Name,
        receiver: Option<&Expr>,
        args: &[Arg],
        span: &Span,
    ) -> Value {
        let mut values: Vec<(Option<Name>, Value, Span)> = Vec::with_capacity(args.len() + 1);
        if let Some(receiver) = receiver {
            values.push((None, self.expr(receiver), receiver.span.clone()));
        }
        for arg in args {
            values.push((arg.name.clone(), self.expr(&arg.value), arg.value.span.clone()));
        }
        if self.halted {
            return Value::Poison;
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
                            self.settle(result, span, (&exprs, &[]), &operands)
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

    pub(super) fn enter(&mut self, name: &Arc<str>, span: &Span) -> bool {
        if self.frames.len() >= MAX_CALLS {
            self.error(span, format!("calls are nested more than {MAX_CALLS} deep in `{name}`"));
            return false;
        }
        true
    }

    pub(super) fn run_function(
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
        self.budget.charge(Resource::Steps, f.params.len());
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

    pub(super) fn run_closure(
        &mut self,
        c: &Arc<Closure>,
        name: &Arc<str>,
        args: Vec<(Option<Name>, Value, Span)>,
        span: &Span,
    ) -> Value {
        if args.len() != c.params.len() || args.iter().any(|(n, ..)| n.is_some()) {
            let message = format!(
                "closure `{name}` takes {} by position, found {}",
                arguments(c.params.len()),
                args.len()
            );
            return self.error(span, message);
        }
        if !self.enter(name, span) {
            return Value::Poison;
        }
        let captured = c.captured.len();
        self.budget.charge(Resource::Steps, captured);
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

fn arguments(count: usize) -> String {
    if count == 1 { "1 argument".into() } else { format!("{count} arguments") }
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
                let message = format!("`{callee}` takes {}, found more", arguments(params.len()));
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
