//! What the language has built in: arithmetic, lists, settings, and one function per primitive op. No
//! function here is named after a module of a model; those are library text.

mod numbers;
mod operators;
mod settings;
mod tensors;

use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;

use super::ast::BinOp;
use super::interp::{Fault, Interp, Outcome};
use super::span::Span;
use super::value::Value;
use crate::lang::model::Init;
use crate::ty::{MAX_ELEMENTS, MAX_RANK};

pub(crate) use numbers::{MAX_LIST, long_list};
pub(crate) use operators::{index, negate};

/// Runs a builtin on arguments in the order of its parameters.
pub(crate) type Call = dyn Fn(&mut Interp<'_>, &Args, &Span) -> Outcome + Send + Sync;

/// [`Call`] of a builtin that is a row of a table.
pub(crate) type BuiltinFn = fn(&mut Interp<'_>, &Args, &Span) -> Outcome;

/// Arguments in the order of the parameters; `None` where an optional one is left out.
pub(crate) type Args = [Option<Value>];

/// A function of the language.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    /// Parameters with whether they may be left out.
    pub(crate) params: Vec<(Arc<str>, bool)>,
    /// One line: what it gives.
    pub(crate) doc: &'static str,
    pub(crate) run: Box<Call>,
}

impl Builtin {
    fn new(&(name, params, doc, run): &'static Row) -> Builtin {
        let params = params.split_whitespace().map(|p| match p.strip_suffix('?') {
            Some(p) => (p.into(), true),
            None => (p.into(), false),
        });
        Builtin { name, params: params.collect(), doc, run: Box::new(run) }
    }

    /// `name(a, b = …)`
    pub(crate) fn signature(&self) -> String {
        let params: Vec<String> = self
            .params
            .iter()
            .map(|(n, opt)| if *opt { format!("{n} = …") } else { n.to_string() })
            .collect();
        format!("{}({})", self.name, params.join(", "))
    }
}

/// A row of a table of builtins: name, parameters (`?` marks an optional one), doc, function.
pub(crate) type Row = (&'static str, &'static str, &'static str, BuiltinFn);

fn table() -> &'static IndexMap<&'static str, Builtin> {
    static TABLE: OnceLock<IndexMap<&'static str, Builtin>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let of_rows = |rows: &'static [Row]| rows.iter().map(Builtin::new);
        let others = of_rows(numbers::ROWS).chain(of_rows(settings::ROWS));
        let all =
            others.chain(settings::optimisers()).chain(tensors::functions()).chain(of_rows(tensors::ROWS));
        all.map(|builtin| (builtin.name, builtin)).collect()
    })
}

/// The builtin of this name.
pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    table().get(name)
}

/// All builtins, in the order of their tables.
pub(crate) fn all() -> impl Iterator<Item = &'static Builtin> {
    table().values()
}

/// Names of builtin functions and constants.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CONSTANTS.into_iter().chain(table().keys().copied())
}

const CONSTANTS: [&str; 6] = ["none", "zeros", "ones", "orthogonal", "f16", "training_grid"];

/// Values that have a name of their own.
pub(crate) fn constant(name: &str) -> Option<Value> {
    use super::value::ExportRule;
    Some(match name {
        "none" => Value::None,
        "zeros" => Value::Init(Init::Constant(0.0)),
        "ones" => Value::Init(Init::Constant(1.0)),
        "orthogonal" => Value::Init(Init::Orthogonal),
        "f16" => Value::Export(ExportRule::F16),
        "training_grid" => Value::Export(ExportRule::TrainingGrid),
        _ => return None,
    })
}

/// An operator on two values.
pub(crate) fn binary(cx: &mut Interp<'_>, op: BinOp, a: &Value, b: &Value) -> Outcome {
    match (a, b) {
        (Value::Poison, _) | (_, Value::Poison) => Err(Fault::Poisoned),
        (Value::Tensor(_), _) | (_, Value::Tensor(_)) => operators::operator(cx, op, a, b),
        _ => numbers::operator(op, a, b, cx.budget),
    }
}

// ---------------------------------------------------------------- reading arguments

fn wrong(what: &str, expected: &str, found: &Value) -> Fault {
    let found = match found {
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => format!("{} {found}", found.kind()),
        Value::Text(_) => format!("\"{found}\""),
        other => other.kind().to_string(),
    };
    format!("{what} is {expected}, found {found}").into()
}

/// A required argument.
fn get(args: &Args, i: usize) -> Outcome<&Value> {
    args.get(i).and_then(Option::as_ref).ok_or(Fault::Poisoned)
}

fn int(value: &Value, what: &str) -> Outcome<i64> {
    match value {
        Value::Int(i) => Ok(*i),
        other => Err(wrong(what, "an Int", other)),
    }
}

/// A count or size: an Int from 0.
pub(crate) fn size(value: &Value, what: &str) -> Outcome<usize> {
    match usize::try_from(int(value, what)?) {
        Ok(n) if n <= MAX_ELEMENTS => Ok(n),
        Ok(n) => Err(format!("{what} is at most {MAX_ELEMENTS}, found {n}").into()),
        Err(_) => Err(wrong(what, "an Int from 0", value)),
    }
}

/// A size from 1.
pub(crate) fn positive(value: &Value, what: &str) -> Outcome<usize> {
    match size(value, what)? {
        0 => Err(format!("{what} is at least 1, found 0").into()),
        n => Ok(n),
    }
}

/// A Float; an Int will do.
pub(crate) fn float(value: &Value, what: &str) -> Outcome<f64> {
    match value {
        Value::Float(f) => Ok(*f),
        Value::Int(i) => Ok(*i as f64),
        other => Err(wrong(what, "a Float", other)),
    }
}

/// A Bool.
pub(crate) fn boolean(value: &Value, what: &str) -> Outcome<bool> {
    match value {
        Value::Bool(b) => Ok(*b),
        other => Err(wrong(what, "a Bool", other)),
    }
}

/// A Str.
pub(crate) fn text(value: &Value, what: &str) -> Outcome<Arc<str>> {
    match value {
        Value::Text(t) => Ok(t.clone()),
        other => Err(wrong(what, "a Str", other)),
    }
}

/// A List of so few items that they can be axes.
fn short_list<'a>(value: &'a Value, what: &str) -> Outcome<&'a [Value]> {
    let items = list(value, what)?;
    match items.len() {
        0..=MAX_RANK => Ok(items),
        n => Err(format!("{what}: at most {MAX_RANK} axes, found {n}").into()),
    }
}

fn list<'a>(value: &'a Value, what: &str) -> Outcome<&'a [Value]> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(wrong(what, "a List", other)),
    }
}
