//! Values of the language. Everything but `Tensor` is known while the model is being elaborated.
//!
//! Lists and closures hold each other to a bounded depth, so that dropping and walking a value may recurse. They
//! share what they hold, so that walking may take exponential time all the same: it is charged to the budget.

use std::fmt::{self, Write};
use std::sync::Arc;

use super::ast::{Expr, Function, Pattern};
use super::limits::{Budget, Resource};
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
    List(Arc<List>),
    /// A size with a role, for reshape and iota.
    Axis(Axis),
    Init(Init),
    /// A quantiser, or none for clip 0.
    Grid(Option<Grid>),
    Optimiser(Arc<Optimiser>),
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

/// The items of a list.
#[derive(Clone, Debug)]
pub(crate) struct List {
    items: Vec<Value>,
    /// An upper bound of [`Value::depth`].
    depth: usize,
}

impl std::ops::Deref for List {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.items
    }
}

impl List {
    pub(crate) fn push(&mut self, item: Value) {
        self.depth = self.depth.max(1 + item.depth());
        self.items.push(item);
    }

    pub(crate) fn pop(&mut self) -> Option<Value> {
        self.items.pop()
    }
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
    pub(crate) params: Arc<[Pattern]>,
    pub(crate) body: Arc<Expr>,
    pub(crate) captured: Vec<Var>,
    pub(crate) home: Home,
    /// See [`Value::depth`].
    pub(crate) depth: usize,
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
        let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
        Value::List(Arc::new(List { items, depth }))
    }

    /// How deep lists and closures hold each other here: 0 for what holds nothing.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Value::List(list) => list.depth,
            Value::Closure(closure) => closure.depth,
            _ => 0,
        }
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

    /// Equality of compile-time values; `None` if the two cannot be compared, or the budget is exceeded.
    pub(crate) fn equals(&self, other: &Value, budget: &Budget) -> Option<bool> {
        budget.charge(Resource::Steps, 1);
        Some(match (self, other) {
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => {
                budget.charge(Resource::Steps, a.len().min(b.len()) / 256);
                a == b
            }
            (Value::Init(a), Value::Init(b)) => a == b,
            (Value::Axis(a), Value::Axis(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Some(false);
                }
                for (x, y) in a.iter().zip(b.iter()) {
                    if budget.exceeded().is_some() {
                        return None;
                    }
                    if !x.equals(y, budget)? {
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

    /// The whole text, charged to the budget as it grows; what is over budget is missing. Numbers and lists of
    /// numbers read back as the same value.
    pub(crate) fn text_within(&self, budget: &Budget) -> String {
        let mut out = Limited { text: String::new(), left: budget.left(Resource::Bytes) as usize };
        let finished = self.write_to(&mut out).is_ok();
        budget.charge(Resource::Bytes, out.text.len() + usize::from(!finished));
        out.text
    }

    /// Whether a constant with default `self` may be set to `value`, and the value it then has.
    pub(crate) fn accept(&self, value: Value, budget: &Budget) -> Result<Value, Value> {
        match (self, value) {
            (Value::Float(_), Value::Int(i)) => Ok(Value::Float(i as f64)),
            (Value::List(items), Value::List(new)) => {
                let Some(like) = items.first() else { return Ok(Value::List(new)) };
                budget.charge(Resource::Elements, new.len());
                let mut out = Vec::new();
                for item in new.iter() {
                    let accepted = if budget.exceeded().is_some() {
                        None
                    } else {
                        like.accept(item.clone(), budget).ok()
                    };
                    let Some(item) = accepted else { return Err(Value::List(new)) };
                    out.push(item);
                }
                Ok(Value::list(out))
            }
            (Value::Poison, value) => Ok(value),
            (like, value) if like.kind() == value.kind() => Ok(value),
            (_, value) => Err(value),
        }
    }
}

/// A text that takes no more than so many bytes.
struct Limited {
    text: String,
    left: usize,
}

impl Write for Limited {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let fits = s.floor_char_boundary(self.left.min(s.len()));
        self.text.push_str(&s[..fits]);
        self.left -= fits;
        if fits == s.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The text of a compile-time value for messages: at most its start.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 200;
        let mut out = Limited { text: String::new(), left: MOST };
        let finished = self.write_to(&mut out).is_ok();
        f.write_str(&out.text)?;
        if finished { Ok(()) } else { f.write_char('…') }
    }
}

impl Value {
    /// Writes the whole text, until the writer has enough.
    fn write_to(&self, f: &mut Limited) -> fmt::Result {
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
                    item.write_to(f)?;
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
