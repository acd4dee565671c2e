//! What the rules of `quant`, `optim`, `export` and `weight_std` say of each parameter.

use indexmap::IndexMap;

use super::lints::Fitted;
use super::{Elaborator, Traces};
use crate::lang::ast::{Named, Rule};
use crate::lang::diag::Diagnostic;
use crate::lang::interp::{ConstValue, Declared};
use crate::lang::limits::{MAX_ERRORS, Resource};
use crate::lang::model::{Export, ExportSettings, Init, Param};
use crate::lang::span::Span;
use crate::lang::trace::PhaseProgram;
use crate::lang::value::{ExportRule, Value};
use crate::optim::{self, AdamW, Optimiser, Packing};
use crate::quant::{Grid, ScaleRule};

/// A rule with its value computed: [`Value::Poison`] if that is wrong and was reported.
pub(super) struct Evaluated<'r> {
    pub(super) rule: &'r Rule,
    pub(super) value: Value,
}

impl<'m> Elaborator<'m> {
    /// The rules of the blocks of one name whose guard holds, in order.
    pub(super) fn rules(&mut self, block: &str, consts: &Named<ConstValue>) -> Vec<Evaluated<'m>> {
        let model = self.model;
        let mut cx = self.interp(consts);
        let mut out = Vec::new();
        for rule in model.blocks.iter().filter(|b| &*b.name.text == block).flat_map(|b| &b.rules) {
            if let Some(guard) = &rule.guard {
                match cx.expr(guard) {
                    Value::Bool(true) => {}
                    Value::Bool(false) => continue,
                    Value::Poison => {
                        out.push(Evaluated { rule, value: Value::Poison });
                        continue;
                    }
                    other => {
                        let message = format!("a condition is a Bool, found {}", other.kind());
                        out.push(Evaluated { rule, value: cx.error(&guard.span, message) });
                        continue;
                    }
                }
            }
            out.push(Evaluated { rule, value: cx.expr(&rule.value) });
        }
        let errors = std::mem::take(&mut cx.errors);
        errors.into_iter().for_each(|d| self.error(d));
        out
    }

    pub(super) fn kind_error<T>(&mut self, rule: &Rule, expected: &str, found: &Value) -> Option<T> {
        let message = format!("expected {expected}, found {}", found.kind());
        self.error(Diagnostic::error(&rule.value.span, message));
        None
    }

    /// An error where a pattern fits no parameter.
    pub(super) fn matched(
        &mut self,
        glob: &str,
        span: &Span,
        hits: usize,
        params: &IndexMap<String, Param>,
        traced: bool,
    ) {
        if hits > 0 || !traced || self.errors.len() >= MAX_ERRORS {
            return;
        }
        let d = Diagnostic::error(span, format!("\"{glob}\" matches no parameter"));
        let score = |name: &&String| (strsim::normalized_damerau_levenshtein(glob, name) * 1e6) as u64;
        // Distances take time quadratic in lengths.
        let known = params.keys().take(1024).filter(|name| name.len().max(glob.len()) <= 128);
        self.error(match known.max_by_key(score) {
            Some(best) => d.help(format!("the most similar parameter is `{best}`")),
            None => d,
        });
    }

    /// Every parameter of every phase, in order of first use, with defaults for what rules decide.
    pub(super) fn parameters(
        &mut self,
        traces: &Traces,
        programs: &[PhaseProgram],
    ) -> IndexMap<String, Param> {
        let mut params: IndexMap<String, Param> = IndexMap::new();
        let mut changed: Option<(&String, Vec<usize>, &Declared, bool)> = None;
        for (index, run) in traces.runs.iter().enumerate() {
            for (name, p) in &run.params {
                if let Some(first) = params.get(name) {
                    if first.shape != p.shape && changed.is_none() {
                        let is_by_length = index >= 2 * programs.len();
                        changed = Some((name, first.shape.clone(), p, is_by_length));
                    }
                    continue;
                }
                let grid = programs.iter().rev().find_map(|program| program.grid(name));
                let optimiser = Optimiser::AdamW(AdamW {
                    lr: 0.0,
                    beta1: 0.9,
                    beta2: 0.95,
                    eps: 1e-8,
                    weight_decay: 0.0,
                });
                let (shape, init, export): (_, Init, _) = (p.shape.clone(), p.init, Export::F16);
                let param = Param {
                    name: name.clone(),
                    shape,
                    init,
                    optimiser,
                    grid,
                    export,
                    in_artifact: traces.scored.contains(name),
                    ttt_frozen: false,
                    weight_std: None,
                };
                params.insert(name.clone(), param);
            }
        }
        if let Some((name, before, after, is_by_length)) = changed {
            let after_shape = &after.shape;
            let message = match is_by_length {
                false => format!("a phase changes the shape of `{name}`: {before:?}, then {after_shape:?}"),
                true => format!(
                    "the shape of `{name}` depends on the length of a sequence: {before:?} in training (train.seq_len), \
                     {after_shape:?} in scoring (eval.seq_len)"
                ),
            };
            self.error(
                Diagnostic::error(&after.span, message)
                    .help("parameters keep their shapes all through a run"),
            );
        }
        params
    }

    /// Reports that a budget is exceeded, if no evaluator has.
    pub(super) fn out_of_budget(&self, at: &Span) {
        if let (Some((message, help)), None) = (self.budget.exceeded(), self.budget.finding()) {
            self.budget.found(&Diagnostic::error(at, message).help(help));
        }
    }

    /// Optimisers, export and declared deviations; the last rule that fits a parameter decides.
    pub(super) fn apply_rules(
        &mut self,
        params: &mut IndexMap<String, Param>,
        last: &PhaseProgram,
        settings: &ExportSettings,
        traced: bool,
    ) {
        for p in params.values_mut() {
            p.export = match p.grid {
                Some(grid) => Export::TrainingGrid(grid),
                None if p.len() <= settings.f16_up_to => Export::F16,
                None => Export::QuantileRows(Grid { clip: 127, rule: settings.rule }),
            };
        }
        let mut updated = vec![false; params.len()];
        for block in ["quant", "optim", "export", "weight_std"] {
            let mut fitted = Vec::new();
            for Evaluated { rule, value } in self.rules(block, &last.consts) {
                let glob = &rule.pattern;
                self.budget.charge(Resource::Steps, params.keys().map(|name| glob.cost(name)).sum());
                // What stopped the evaluator says so.
                if self.budget.exceeded().is_some() {
                    return self.out_of_budget(&rule.glob.span);
                }
                let hits: Vec<usize> = (0..params.len()).filter(|&i| glob.matches(&params[i].name)).collect();
                for &i in &hits {
                    updated[i] |= block == "optim";
                    if let Err(d) = apply(block, rule, &value, &mut params[i], settings.rule) {
                        self.error(*d);
                        break;
                    }
                }
                self.matched(&rule.glob.text, &rule.glob.span, hits.len(), params, traced);
                fitted.push(Fitted { rule, value, hits });
            }
            self.decided_by_others(&fitted);
            if block == "quant" {
                self.passed_by(&fitted, params);
            }
        }
        let missed: Vec<&str> =
            params.keys().zip(&updated).filter(|(_, done)| !**done).map(|(n, _)| n.as_str()).collect();
        if traced && let Some(first) = missed.first() {
            let at = self.model.blocks.iter().rev().find(|b| &*b.name.text == "optim");
            let span = at.map_or(&self.model.name.span, |b| &b.name.span).clone();
            let rest = if missed.len() > 1 {
                format!(" and {} more parameters", missed.len() - 1)
            } else {
                String::new()
            };
            let d = Diagnostic::error(&span, format!("no optimiser for `{first}`{rest}"));
            self.error(d.help("a first rule for everything: \"*\" => adamw(lr = SCALAR_LR)"));
        }
    }
}

/// Applies one rule to one parameter that it matches.
fn apply(
    block: &str,
    rule: &Rule,
    value: &Value,
    p: &mut Param,
    default: ScaleRule,
) -> Result<(), Box<Diagnostic>> {
    let error = |message: String| Err(Box::new(Diagnostic::error(&rule.value.span, message)));
    match (block, value) {
        (_, Value::Poison) | ("quant", _) => {}
        ("optim", Value::Optimiser(o)) => {
            if o.packing() == Packing::Matrices && p.shape.len() != 2 {
                return error(format!("{} is for matrices; `{}` has shape {:?}", o.name(), p.name, p.shape));
            }
            p.optimiser = **o;
        }
        ("export", Value::Export(e)) => {
            let grid = |clip: u16, rule: Option<ScaleRule>| Grid { clip, rule: rule.unwrap_or(default) };
            p.export = match *e {
                ExportRule::F16 => Export::F16,
                ExportRule::TrainingGrid => match p.grid {
                    Some(grid) => Export::TrainingGrid(grid),
                    None => {
                        return error(format!(
                            "`{}` is not trained on a grid: no `quant` rule fits it",
                            p.name
                        ));
                    }
                },
                ExportRule::ClipSearch { clip, rule, per_matrix } => {
                    Export::ClipSearch { grid: grid(clip, rule), per_matrix }
                }
                ExportRule::QuantileRows { clip, rule } => Export::QuantileRows(grid(clip, rule)),
            };
        }
        ("weight_std", Value::Float(std)) if *std > 0.0 => p.weight_std = Some(*std),
        ("weight_std", other) => {
            return error(format!("a standard deviation is a Float above 0, found {other}"));
        }
        ("optim", other) => return error(format!("expected {}, found {}", optim::names(), other.kind())),
        (_, other) => {
            return error(format!(
                "expected f16, training_grid, clip_search(…) or quantile_rows(…), found {}",
                other.kind()
            ));
        }
    }
    Ok(())
}
