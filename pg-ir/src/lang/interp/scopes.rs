//! Scopes, and the parameters that are declared under them.

use super::{Declared, Fault, Interp, Outcome};
use crate::lang::ast::*;
use crate::lang::diag::Diagnostic;
use crate::lang::limits::{MAX_NAME_CHARS, Resource};
use crate::lang::model::Init;
use crate::lang::span::Span;
use crate::lang::value::Value;
use crate::op::Op;
use crate::slot::{Slot, Space};
use crate::ty::Type;

impl Interp<'_> {
    pub(super) fn scoped(&mut self, args: &[Arg], body: &Body, span: &Span) -> Value {
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
        if let Err(fault) = self.named(&path) {
            return self.fault(span, fault, (&[], &[]), &[]);
        }
        let before = (std::mem::replace(&mut self.scope, path.into()), self.shared);
        self.shared |= shared;
        let value = self.body(body);
        (self.scope, self.shared) = before;
        value
    }

    /// Counts a path that has been made, and holds it to its length.
    fn named(&self, path: &str) -> Outcome<()> {
        self.budget.charge(Resource::Bytes, path.len());
        if path.len() <= MAX_NAME_CHARS {
            return Ok(());
        }
        let found = path.len();
        Err(format!(
            "a parameter's full name has at most {MAX_NAME_CHARS} characters, and this one has {found}"
        )
        .into())
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
        self.named(&full)?;
        let shared = shared || self.shared;
        let own = self.model_call(span).unwrap_or(span).clone();
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
            if first.span != own {
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
        t.params.insert(full, Declared { shape, init, span: own, input, value });
        Ok(Value::Tensor(value))
    }
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
