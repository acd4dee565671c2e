//! Running a model's functions once, at fixed batch and sequence length, to get their graph.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::ast::Named;
use super::diag::{Diagnostic, Diagnostics};
use super::glob::Glob;
use super::interp::{ConstValue, Declared, Interp, Tracer};
use super::library::Library;
use super::limits::{Budget, Resource};
use super::value::{Home, Value};
use super::{ParsedModel, ast};
use crate::graph::{Builder, ValueId};
use crate::lang::model::Model;
use crate::op::Op;
use crate::quant::Grid;
use crate::slot::{Slot, Space};
use crate::ty::{Axis, DType, Role, Type};

/// What a trace gives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Head {
    /// `forward(tokens)`: float32 [batch, time, vocabulary].
    Logits,
    /// Negative log-likelihood of each target in nats: float32 [batch, time]. Scores are always
    /// `cross_entropy(forward(tokens), targets)`, whatever the model trains on.
    Nll,
    /// The mean of the above: what test-time training minimises, which has nothing but the artifact.
    MeanNll,
    /// What training minimises: `loss(tokens, targets)` if the model defines it, else the mean of the scores.
    Loss,
}

/// Which program to trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Trace {
    /// Index of the phase whose constants and quantisers hold.
    pub phase: usize,
    /// Number of sequences.
    pub batch: usize,
    /// Length of each.
    pub seq: usize,
    /// Whether the `quant` block's quantisers are in the graph.
    pub qat: bool,
    /// What to compute.
    pub head: Head,
}

/// A traced program.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Holds the graph, for passes to append to.
    pub builder: Builder,
    /// The value asked for.
    pub value: ValueId,
    /// The logits that it comes from; `None` for a loss of the model's own, which makes what it likes of them.
    pub logits: Option<ValueId>,
    /// Negative log-likelihood of each target, where the value comes from it.
    pub nll: Option<ValueId>,
    /// The inputs of the parameters that the model declares, before any quantiser.
    pub params: IndexMap<String, ValueId>,
}

/// Constants and quantisers of one phase.
#[derive(Clone, Debug)]
pub(crate) struct PhaseProgram {
    pub(crate) consts: Named<ConstValue>,
    pub(crate) grids: Vec<(Arc<Glob>, Option<Grid>)>,
}

impl PhaseProgram {
    /// The quantiser of a parameter: the last rule that matches decides.
    pub(crate) fn grid(&self, name: &str) -> Option<Grid> {
        self.grids.iter().rev().find(|(glob, _)| glob.matches(name)).and_then(|(_, grid)| *grid)
    }

    /// How much work it is to find the quantiser of a parameter, in steps of the evaluator.
    fn cost(&self, name: &str) -> usize {
        self.grids.iter().map(|(glob, _)| glob.cost(name)).sum()
    }
}

/// Where a trace ends: the value asked for and what it passed on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) value: ValueId,
    pub(crate) logits: Option<ValueId>,
    pub(crate) nll: Option<ValueId>,
}

/// All that one trace finds.
pub(crate) struct TraceOutcome {
    pub(crate) builder: Builder,
    /// The value, if there were no errors.
    pub(crate) value: Option<Ends>,
    pub(crate) params: IndexMap<String, Declared>,
    pub(crate) used: IndexSet<Arc<str>>,
    pub(crate) errors: Vec<Diagnostic>,
    /// Whether it ended before its end: another trace would end there, too.
    pub(crate) halted: bool,
}

impl Model {
    /// The parameters that a phase trains through a quantiser, with their grids.
    pub fn quantised_in(&self, phase: usize) -> Vec<(&str, Grid)> {
        let Some(program) = self.program.phases.get(phase) else { return Vec::new() };
        self.params.keys().filter_map(|name| Some((name.as_str(), program.grid(name)?))).collect()
    }

    /// Whether a phase trains any parameter through a quantiser.
    pub fn is_quantised(&self, phase: usize) -> bool {
        !self.quantised_in(phase).is_empty()
    }

    /// The graph of one program. Elaboration has traced every phase once, so an error here means that the
    /// model does not fit the batch or sequence length.
    pub fn trace(&self, request: &Trace) -> Result<Traced, Diagnostics> {
        let program = &self.program;
        let fail = |list| Diagnostics { list, sources: program.all_texts() };
        let span = &program.ast.name.span;
        if request.batch == 0 || request.seq == 0 {
            return Err(fail(vec![Diagnostic::error(
                span,
                "a batch and a sequence have at least one element",
            )]));
        }
        let Some(phase) = program.phases.get(request.phase) else {
            let message = format!("phase {} of a model with {}", request.phase, program.phases.len());
            return Err(fail(vec![Diagnostic::error(span, message)]));
        };
        let run = run(&program.ast, phase, request, &Budget::default());
        match run.value {
            Some(Ends { value, logits, nll }) => {
                let params = run.params.into_iter().map(|(name, p)| (name, p.input)).collect();
                Ok(Traced { builder: run.builder, value, logits, nll, params })
            }
            None => Err(fail(run.errors)),
        }
    }
}

impl ParsedModel {
    /// Every text that a finding can be about.
    pub(crate) fn all_texts(&self) -> Vec<crate::lang::model::SourceText> {
        self.texts.iter().chain(Library::std().texts()).cloned().collect()
    }
}

/// Traces one program of a model.
pub(crate) fn run(
    model: &ast::ModelAst,
    phase: &PhaseProgram,
    request: &Trace,
    budget: &Budget,
) -> TraceOutcome {
    let library = Library::std();
    let mut cx = Interp::new(model, budget, phase.consts.clone());
    let qat = request.qat;
    let mut builder = Builder::default();
    let ids =
        Type::new(DType::I32, [Axis::new(request.batch, Role::Batch), Axis::new(request.seq, Role::Time)]);
    let mut input = |name: &str| builder.try_op(Op::Input(Slot::new(Space::Data, name), ids.clone()), &[]);
    let tokens = input("tokens").map_or(Value::Poison, Value::Tensor);
    let targets = match request.head {
        Head::Logits => Value::None,
        _ => input("targets").map_or(Value::Poison, Value::Tensor),
    };
    cx.tracer = Some(Tracer {
        builder,
        params: IndexMap::new(),
        grid: Box::new(move |name| {
            budget.charge(Resource::Steps, phase.cost(name));
            if qat { phase.grid(name) } else { None }
        }),
        born: HashMap::new(),
    });
    let value = head(&mut cx, model, library, request, tokens, targets);
    let (errors, used) = (std::mem::take(&mut cx.errors), std::mem::take(&mut cx.used));
    let (tracer, halted) = (cx.tracer.take(), cx.halted());
    let (builder, params) = tracer.map(|t| (t.builder, t.params)).unwrap_or_default();
    let value = if errors.is_empty() { value } else { None };
    TraceOutcome { builder, value, params, used, errors, halted }
}

fn head(
    cx: &mut Interp<'_>,
    model: &ast::ModelAst,
    library: &Library,
    request: &Trace,
    tokens: Value,
    targets: Value,
) -> Option<Ends> {
    let own = |name: &str| model.functions.get(name);
    for (name, params) in [("forward", &["tokens"][..]), ("loss", &["tokens", "targets"])] {
        own(name).map_or(Some(()), |f| takes(cx, f, params))?;
    }
    if let (Head::Loss, Some(loss)) = (request.head, own("loss")) {
        let value = cx.enter_function(loss, Home::Model, vec![tokens, targets]);
        let value = expect(cx, loss, value, "the loss is a float32 scalar", |ty| ty.rank() == 0)?;
        return Some(Ends { value, logits: None, nll: None });
    }
    let Some(forward) = own("forward") else {
        let d = Diagnostic::error(&model.name.span, "the model has no `fn forward(tokens)`");
        cx.report(d.help("it takes token ids [batch, time] and gives logits [batch, time, vocabulary]"));
        return None;
    };
    let logits = cx.enter_function(forward, Home::Model, vec![tokens]);
    let (batch, seq) = (request.batch, request.seq);
    // Roles, not sizes alone: with as many words as positions a transposition has the same shape.
    let fits = move |ty: &Type| match ty.axes[..] {
        [b, t, c] => {
            b == Axis::new(batch, Role::Batch) && t == Axis::new(seq, Role::Time) && c.role == Role::Channel
        }
        _ => false,
    };
    let logits = expect(cx, forward, logits, "logits are float32 [batch, time, vocabulary]", fits)?;
    // Scores are cross entropy by definition; the library says what that is.
    let mut then = |name: &str, args: Vec<Value>| {
        let f = library.function(name)?;
        match cx.enter_function(f, Home::Library, args) {
            Value::Tensor(id) => Some(id),
            _ => None,
        }
    };
    let ends = Ends { value: logits, logits: Some(logits), nll: None };
    if request.head == Head::Logits {
        return Some(ends);
    }
    let nll = then("cross_entropy", vec![Value::Tensor(logits), targets])?;
    let value = match request.head {
        Head::MeanNll | Head::Loss => then("mean", vec![Value::Tensor(nll)])?,
        Head::Nll | Head::Logits => nll,
    };
    Some(Ends { value, nll: Some(nll), ..ends })
}

/// An error where an entry function takes more or less than it is given.
fn takes(cx: &mut Interp<'_>, f: &ast::Function, given: &[&str]) -> Option<()> {
    let needed = f.params.iter().filter(|p| p.default.is_none()).count();
    if needed <= given.len() && given.len() <= f.params.len() {
        return Some(());
    }
    let name = &f.name.text;
    let message = format!("`{name}` takes {} and nothing else", given.join(" and "));
    cx.report(
        Diagnostic::error(&f.name.span, message).help(format!("fn {name}({}) {{ … }}", given.join(", "))),
    );
    None
}

/// The tensor that an entry function gives, if it has the right shape.
fn expect(
    cx: &mut Interp<'_>,
    f: &ast::Function,
    value: Value,
    what: &str,
    fits: impl Fn(&Type) -> bool,
) -> Option<ValueId> {
    let last = match f.body.stmts.last() {
        Some(ast::Stmt::Expr(e)) => Some(&e.span),
        _ => None,
    };
    let is_dropped = f.body.value.is_none() && last.is_some();
    let span = f.body.value.as_ref().map(|e| &e.span).or(last).unwrap_or(&f.name.span);
    let found = match &value {
        Value::Poison => return None,
        Value::Tensor(id) => {
            let ty = cx.tracer.as_ref()?.builder.ty(*id);
            if ty.dtype == DType::F32 && fits(ty) {
                return Some(*id);
            }
            ty.to_string()
        }
        other => other.kind().to_string(),
    };
    let d = Diagnostic::error(span, format!("{what}; `{}` gives {found}", f.name.text));
    cx.report(if is_dropped { d.help("the last expression is the value if no `;` follows it") } else { d });
    None
}
