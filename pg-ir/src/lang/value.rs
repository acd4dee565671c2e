//! Values of the language. Everything but `Tensor` is known while the model is being elaborated.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::ast::{Expr, Function, Pattern};
use crate::graph::ValueId;
use crate::lang::model::{Init, Trigger};
use crate::optim::Optimiser;
use crate::quant::{Grid, ScaleRule};
use crate::ty::Axis;

/// A value of the language.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(Arc<str>),
    List(Arc<Vec<Value>>),
    /// A size with a role, for reshape and iota.
    Axis(Axis),
    Init(Init),
    /// A quantiser, or none for clip 0.
    Grid(Option<Grid>),
    Optimiser(Optimiser),
    Export(ExportRule),
    Trigger(Trigger),
    Tensor(ValueId),
    Function(Arc<Function>, Home),
    Closure(Arc<Closure>),
    /// Nothing: `none`, or a block without a value.
    None,
    /// Stands for the value of something already reported.
    Poison,
}

/// Whose names a function sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    Model,
    Library,
}

/// `|params| body` with the local variables of the place where it was written.
#[derive(Debug)]
pub(crate) struct Closure {
    pub(crate) params: Vec<Pattern>,
    pub(crate) body: Arc<Expr>,
    pub(crate) captured: Vec<Var>,
    pub(crate) home: Home,
}

/// A local variable.
#[derive(Clone, Debug)]
pub(crate) struct Var {
    pub(crate) name: Arc<str>,
    pub(crate) value: Value,
    pub(crate) mutable: bool,
}

/// What an `export` rule says of a parameter.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum ExportRule {
    F16,
    TrainingGrid,
    ClipSearch { clip: u16, rule: Option<ScaleRule>, per_matrix: bool },
    QuantileRows { clip: u16, rule: Option<ScaleRule> },
}

impl Value {
    pub(crate) fn list(items: Vec<Value>) -> Value {
        Value::List(Arc::new(items))
    }

    pub(crate) fn text(text: impl Into<Arc<str>>) -> Value {
        Value::Text(text.into())
    }

    /// Name of the kind of value, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Int(_) => "Int",
            Value::Float(_) => "Float",
            Value::Bool(_) => "Bool",
            Value::Text(_) => "Str",
            Value::List(_) => "List",
            Value::Axis(_) => "Axis",
            Value::Init(_) => "Init",
            Value::Grid(_) => "Grid",
            Value::Optimiser(_) => "Optimiser",
            Value::Export(_) => "Export",
            Value::Trigger(_) => "Trigger",
            Value::Tensor(_) => "Tensor",
            Value::Function(..) | Value::Closure(_) => "Function",
            Value::None => "none",
            Value::Poison => "?",
        }
    }

    /// Equality of compile-time values; `None` if the two cannot be compared.
    pub(crate) fn equals(&self, other: &Value) -> Option<bool> {
        Some(match (self, other) {
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Init(a), Value::Init(b)) => a == b,
            (Value::Axis(a), Value::Axis(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Some(false);
                }
                for (x, y) in a.iter().zip(b.iter()) {
                    if !x.equals(y)? {
                        return Some(false);
                    }
                }
                true
            }
            (Value::None, Value::None) => true,
            (Value::None, _) | (_, Value::None) => false,
            _ => return None,
        })
    }

    /// Whether a constant with default `self` may be set to `value`, and the value it then has.
    pub(crate) fn accept(&self, value: Value) -> Result<Value, Value> {
        match (self, value) {
            (Value::Float(_), Value::Int(i)) => Ok(Value::Float(i as f64)),
            (Value::List(items), Value::List(new)) => {
                let Some(like) = items.first() else { return Ok(Value::List(new)) };
                let mut out = Vec::with_capacity(new.len());
                for item in new.iter() {
                    match like.accept(item.clone()) {
                        Ok(item) => out.push(item),
                        Err(_) => return Err(Value::List(new)),
                    }
                }
                Ok(Value::list(out))
            }
            (Value::Poison, value) => Ok(value),
            (like, value) if like.kind() == value.kind() => Ok(value),
            (_, value) => Err(value),
        }
    }
}

/// The text of a compile-time value; numbers and lists of numbers read back as the same value.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(v) => write!(f, "{v}"),
            Value::Float(v) => write!(f, "{v:?}"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::Text(v) => f.write_str(v),
            Value::List(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_char(']')
            }
            Value::Axis(a) => write!(f, "{a}"),
            Value::Init(i) => write!(f, "{i:?}"),
            Value::Grid(Some(g)) => write!(f, "int(clip = {}, rule = \"{}\")", g.clip, g.rule),
            Value::Grid(None) | Value::None => f.write_str("none"),
            other => write!(f, "<{}>", other.kind()),
        }
    }
}
