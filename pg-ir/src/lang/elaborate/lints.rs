//! What is well formed and likely a mistake, as warnings: names that nothing uses, rules that decide nothing, matrices that
//! a quantiser passes by, phases that cannot begin. Only of the model's own file: a base may hold what a derived model does
//! not use.
//!
//! It must never change the model, nor refuse one.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::Elaborator;
use crate::graph::{Graph, ValueId};
use crate::lang::ast::{Named, Rule};
use crate::lang::builtins;
use crate::lang::diag::{Diagnostic, Severity};
use crate::lang::interp::{ConstValue, Declared};
use crate::lang::library::Library;
use crate::lang::limits::MAX_ERRORS;
use crate::lang::model::{Param, Phase, Train, Trigger};
use crate::lang::names::{self, Names};
use crate::lang::span::Span;
use crate::lang::trace::TraceOutcome;
use crate::lang::value::Value;

/// Functions that a program begins with.
const ENTRIES: [&str; 2] = ["forward", "loss"];

/// A rule of one block and what it fits.
pub(super) struct Fitted<'r> {
    pub(super) rule: &'r Rule,
    pub(super) value: Value,
    /// Indices of parameters.
    pub(super) hits: Vec<usize>,
}

impl<'m> Elaborator<'m> {
    pub(super) fn warn(&mut self, mut d: Diagnostic) {
        if self.notes.len() < MAX_ERRORS {
            d.severity = Severity::Warning;
            self.notes.push(d);
        }
    }

    fn is_own(&self, span: &Span) -> bool {
        span.file == self.model.name.span.file
    }

    /// Functions that have the name of another one.
    pub(super) fn shadowed(&mut self) {
        for f in self.model.functions.values() {
            let name = &f.name.text;
            let library = Library::std().function(name);
            if library.is_some() || builtins::find(name).is_some() {
                let what = if library.is_some() { "library's" } else { "built-in" };
                let mut d = Diagnostic::error(&f.name.span, format!("`{name}` shadows the {what} `{name}`"));
                if let Some(f) = library {
                    d = d.label(&f.name.span, "library functions go on using this one");
                }
                self.warn(d);
            }
        }
    }

    /// Constants and functions that nothing mentions.
    pub(super) fn unused_names(&mut self) {
        let mut mentioned: Names = self.model.names_outside_functions();
        mentioned.extend(ENTRIES.map(Arc::from));
        names::through_functions(self.model, &mut mentioned);
        for c in self.model.consts.values().filter(|c| !mentioned.contains(&c.name.text)) {
            if self.is_own(&c.name.span) {
                self.warn(Diagnostic::error(&c.name.span, format!("`{}` is never used", c.name.text)));
            }
        }
        for f in self.model.functions.values().filter(|f| !mentioned.contains(&f.name.text)) {
            if self.is_own(&f.name.span) {
                let message = format!("`{}` is never called, and nothing in it is checked", f.name.text);
                self.warn(Diagnostic::error(&f.name.span, message));
            }
        }
    }

    /// Parameters that are declared and that no score and no loss depends on.
    pub(super) fn unreached(&mut self, runs: &[TraceOutcome], reached: &IndexSet<String>) {
        let all = runs.iter().flat_map(|run| &run.params).filter(|(name, _)| !reached.contains(*name));
        let lost: IndexMap<&String, &Span> = all.map(|(name, declared)| (name, &declared.span)).collect();
        let mut lost = lost.into_iter();
        let Some((name, span)) = lost.next() else { return };
        let more = others(lost.count());
        let message = format!("nothing depends on parameter `{name}`{more}: it keeps its initial value");
        self.warn(Diagnostic::error(span, message).help("use it, or remove it: it is not in the artifact"));
    }

    /// A note of the parameters that only training uses.
    pub(super) fn left_out(
        &mut self,
        runs: &[TraceOutcome],
        reached: &IndexSet<String>,
        params: &IndexMap<String, Param>,
    ) {
        let only_trained = |p: &&Param| !p.in_artifact && reached.contains(&p.name);
        let mut all = params.values().filter(only_trained);
        let Some(first) = all.next() else { return };
        let place = runs.iter().find_map(|run| run.params.get(&first.name));
        let (more, elements) = all.fold((0, first.len()), |(n, sum), p| (n + 1, sum + p.len()));
        let message = format!(
            "no score depends on parameter `{}`{}: {elements} elements that are trained and not in the artifact",
            first.name,
            others(more)
        );
        if let Some(declared) = place
            && self.notes.len() < MAX_ERRORS
        {
            let d = Diagnostic::error(&declared.span, message);
            self.notes.push(Diagnostic { severity: Severity::Note, ..d });
        }
    }

    /// Logits of another width than the constant that is named after it.
    pub(super) fn odd_vocabulary(&mut self, consts: &Named<ConstValue>, width: usize) {
        let Some(ConstValue { value: Value::Int(vocab), span, .. }) = consts.get("VOCAB") else { return };
        if usize::try_from(*vocab) != Ok(width)
            && let Some(forward) = self.model.functions.get("forward")
        {
            let message = format!("the logits are {width} wide, and VOCAB is {vocab}");
            self.warn(Diagnostic::error(&forward.name.span, message).label(span, "declared here"));
        }
    }

    /// Rules whose every parameter a later rule takes.
    pub(super) fn decided_by_others(&mut self, rules: &[Fitted<'_>]) {
        let fits =
            rules.iter().enumerate().flat_map(|(rule, fitted)| fitted.hits.iter().map(move |&i| (i, rule)));
        // Of the rules that fit a parameter the last one stays.
        let decider: HashMap<usize, usize> = fits.collect();
        for (at, Fitted { rule, hits, .. }) in rules.iter().enumerate() {
            // "*" first, then what differs: the usual way to have a default.
            let is_default = at == 0 && &*rule.glob.text == "*";
            let others = hits.iter().map(|i| decider[i]).filter(|&other| other != at);
            if let Some(other) = others.clone().next()
                && others.count() == hits.len()
                && !is_default
                && self.is_own(&rule.glob.span)
            {
                let message =
                    format!("this rule decides nothing: later ones fit all that \"{}\" fits", rule.glob.text);
                let d = Diagnostic::error(&rule.glob.span, message);
                let help =
                    "of the rules that fit a parameter the last one decides: put the general ones first";
                self.warn(d.label(&rules[other].rule.glob.span, "such as this one").help(help));
            }
        }
    }

    /// Quantisers that meet vectors alone, and matrices that none fits beside quantised ones.
    pub(super) fn passed_by(&mut self, rules: &[Fitted<'_>], params: &IndexMap<String, Param>) {
        let is_matrix = |param: &Param| param.shape.len() >= 2;
        for Fitted { rule, value, hits } in rules {
            let quantises = matches!(value, Value::Grid(Some(_)));
            if quantises && !hits.is_empty() && hits.iter().all(|&i| !is_matrix(&params[i])) {
                let name = &params[hits[0]].name;
                let message =
                    format!("this quantiser fits no matrix, only `{name}`{}", others(hits.len() - 1));
                self.warn(Diagnostic::error(&rule.glob.span, message));
            }
        }
        let meant: IndexSet<usize> = rules.iter().flat_map(|fitted| fitted.hits.iter().copied()).collect();
        let quantised: IndexMap<String, &str> =
            (params.values().filter(|p| p.grid.is_some() && is_matrix(p)))
                .flat_map(|p| families(&p.name).into_iter().flatten().map(|family| (family, &*p.name)))
                .collect();
        let beside = |(i, p): (usize, &Param)| {
            let is_passed_by = is_matrix(p) && p.grid.is_none() && !meant.contains(&i);
            let sibling =
                families(&p.name).into_iter().flatten().find_map(|family| quantised.get(&family).copied());
            sibling.filter(|_| is_passed_by).map(|sibling| (p.name.clone(), sibling.to_string()))
        };
        let mut found = params.values().enumerate().filter_map(beside);
        let Some((name, sibling)) = found.next() else { return };
        let more = others(found.count());
        let Some(block) = self.model.blocks.iter().rev().find(|b| &*b.name.text == "quant") else { return };
        let message =
            format!("no quantiser fits the matrix `{name}`{more}, and one fits `{sibling}` beside it");
        let help = format!("say that it is meant: \"{name}\" => none");
        self.warn(Diagnostic::error(&block.name.span, message).help(help));
    }

    /// Phases whose trigger no step of the training can meet.
    pub(super) fn never_begin(&mut self, phases: &[Phase], train: &Train) {
        // A shorter run scales what is counted in steps, unless there is nothing to scale it by.
        let is_scaled =
            train.warmdown_steps > 0 || train.momentum_warmup_steps > 0 || train.seconds.is_some();
        for (ast, phase) in self.model.phases.values().zip(&phases[1..]) {
            let why = match phase.trigger {
                Trigger::Step(step) => {
                    let last = train.steps.filter(|&steps| step >= steps && !is_scaled);
                    last.map(|steps| format!("the training has {steps} steps, from 0 on"))
                }
                Trigger::LrScaleBelow(_) if train.warmdown_steps == 0 => {
                    Some("the learning rate never falls: train.warmdown_steps is 0".into())
                }
                _ => None,
            };
            if let Some(why) = why {
                let d = Diagnostic::error(&ast.trigger.span, format!("phase `{}` never begins", phase.name));
                self.warn(d.here(why));
            }
        }
    }
}

/// " and 3 more", or nothing.
fn others(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" and {count} more") }
}

/// What a parameter belongs with: the same in other layers, and the others of its module; of one at the top, nothing.
fn families(name: &str) -> [Option<String>; 2] {
    let layers =
        name.split('.').map(|part| if part.bytes().all(|b| b.is_ascii_digit()) { "#" } else { part });
    let same: Vec<&str> = layers.collect();
    let has_layers = same.contains(&"#");
    let module = name.rsplitn(3, '.').nth(2);
    [has_layers.then(|| same.join(".")), module.map(|module| format!("{module}/"))]
}

/// Parameters that a value depends on.
pub(super) fn reached_from(
    graph: &Graph,
    value: ValueId,
    params: &IndexMap<String, Declared>,
) -> IndexSet<String> {
    let mut seen = vec![false; graph.value_count()];
    let mut stack = vec![value];
    while let Some(value) = stack.pop() {
        if !std::mem::replace(&mut seen[value.index()], true) {
            stack.extend(graph.producer(value).operands.iter().copied());
        }
    }
    params.iter().filter(|(_, p)| seen[p.input.index()]).map(|(name, _)| name.clone()).collect()
}
