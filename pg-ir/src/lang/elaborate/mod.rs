//! From a parsed source to a checked model: constants, a trace of every phase, settings, and what the
//! rules say of each parameter.

mod lints;
mod overrides;
mod rules;

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use self::rules::Evaluated;
use crate::lang::ast::{Expr, ModelAst, Name, Named};
use crate::lang::diag::{Diagnostic, Diagnostics};
use crate::lang::glob::Glob;
use crate::lang::interp::{ConstValue, Interp};
use crate::lang::library::Library;
use crate::lang::limits::{Budget, MAX_ERRORS, MAX_RULES};
use crate::lang::model::{Model, Param, SourceText};
use crate::lang::settings::{self, Reader, Settings};
use crate::lang::trace::{self, Head, PhaseProgram, Trace, TraceOutcome};
use crate::lang::value::Value;
use crate::lang::{ParsedModel, Source};

/// A value that the command line gives to a constant (`LAYERS`) or to a setting (`train.seed`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// Of the constant or the setting.
    pub name: String,
    /// Its value, as an expression of the language.
    pub value: String,
    /// The option that gives it: `--set`, or one such as `--seq-len`, which findings name instead.
    pub option: &'static str,
}

impl Override {
    /// `--set NAME=VALUE`.
    pub fn set(name: impl Into<String>, value: impl Into<String>) -> Override {
        Override { name: name.into(), value: value.into(), option: "--set" }
    }

    /// The option as it is written, up to the value.
    fn before_value(&self) -> String {
        if self.option == "--set" { format!("--set {}=", self.name) } else { format!("{} ", self.option) }
    }
}

impl From<(String, String)> for Override {
    fn from((name, value): (String, String)) -> Override {
        Override::set(name, value)
    }
}

/// What the command line adds to a source.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Constants and settings, in order: the last value of a name holds.
    pub overrides: Vec<Override>,
    /// `--profile NAME`; none takes the file as it stands, and so does `full` where no profile has that name.
    pub profile: Option<String>,
}

/// Checks a source and makes the model of it.
pub fn elaborate(source: &Source, options: &Options) -> Result<Model, Diagnostics> {
    let budget = Budget::default();
    elaborate_within(source, options, &budget)
}

/// [`elaborate`], counting what it takes.
pub(crate) fn elaborate_within(
    source: &Source,
    options: &Options,
    budget: &Budget,
) -> Result<Model, Diagnostics> {
    let (errors, notes, extra) = (Vec::new(), Vec::new(), Vec::new());
    let mut e = Elaborator { model: &source.ast, budget, errors, notes, extra };
    let model = e.run(source, options);
    // It may have been exceeded outside of the evaluator, or where findings do not count.
    e.out_of_budget(&source.ast.name.span);
    budget.finding().into_iter().for_each(|d| e.error(d));
    let sources = || source.texts.iter().chain(Library::std().texts()).chain(&e.extra).cloned().collect();
    match model {
        Some(mut model) if e.errors.is_empty() => {
            model.notes = Diagnostics { list: e.notes, sources: sources() };
            Ok(model)
        }
        _ => Err(Diagnostics { sources: sources(), list: e.errors }),
    }
}

/// A value given from outside the declaration, with who gave it.
type Given = IndexMap<Arc<str>, (Expr, String)>;

/// What one run of every phase's functions gave.
struct Traces {
    /// Two of each phase; then, where scoring has a length of its own, one at that length.
    runs: Vec<TraceOutcome>,
    /// Width of the logits.
    vocab: Option<usize>,
    /// Parameters that a loss or a score depends on.
    reached: IndexSet<String>,
    /// Parameters that a score depends on: those are of the last phase.
    scored: IndexSet<String>,
}

struct Elaborator<'a> {
    model: &'a ModelAst,
    budget: &'a Budget,
    errors: Vec<Diagnostic>,
    notes: Vec<Diagnostic>,
    /// Command line arguments as texts, so that errors can show them.
    extra: Vec<SourceText>,
}

impl<'m> Elaborator<'m> {
    fn error(&mut self, d: Diagnostic) {
        if self.errors.len() < MAX_ERRORS && !self.errors.iter().any(|e| e.span == d.span) {
            self.errors.push(d);
        }
    }

    /// An evaluator with these constants.
    fn interp(&self, consts: &Named<ConstValue>) -> Interp<'m> {
        Interp::new(self.model, self.budget, consts.clone())
    }

    fn run(&mut self, source: &Source, options: &Options) -> Option<Model> {
        let model = self.model;
        self.few_rules()?;
        self.shadowed();
        self.unused_names();
        let mut settings = settings::collect(model);
        let given = self.given(options, &mut settings);

        let consts = self.constants_of_phases(given, &settings)?;

        let (train, eval, freeze, export) = {
            let mut cx = self.interp(&consts[0]);
            let mut reader = Reader::new(&mut cx, &settings, &model.name.span);
            let train = reader.train();
            let eval = reader.eval(&train, settings::has_ttt(model));
            let freeze = reader.ttt_freeze(&eval);
            let export = reader.export();
            reader.unknown_keys();
            settings::misplaced(model, &settings).into_iter().for_each(|d| _ = cx.report(d));
            self.errors.append(&mut cx.errors);
            (train, eval, freeze, export)
        };
        let phases = self.phases(&consts);

        let programs: Vec<PhaseProgram> =
            consts.into_iter().map(|consts| self.with_quantisers(consts)).collect();

        let traces = self.traces(&programs, [train.seq_len, eval.seq_len])?;
        let traced = traces.runs.iter().all(|r| r.value.is_some());
        let mut params = self.parameters(&traces, &programs);
        let Traces { runs, vocab, reached, .. } = traces;
        self.apply_rules(&mut params, programs.last()?, &export, traced);
        self.freeze(&freeze, &mut params, traced);
        let start = &programs.first()?.consts;
        self.unreached(&runs, &reached);
        self.left_out(&runs, &reached, &params);
        self.odd_vocabulary(start, vocab?);
        self.never_begin(&phases, &train);
        let consts = self.texts(start.iter());
        if !self.errors.is_empty() || self.budget.exceeded().is_some() {
            return None;
        }

        let used = |name: &str| runs.iter().any(|r| r.used.contains(name));
        Some(Model {
            name: model.name.text.to_string(),
            doc: model.doc.clone(),
            consts: consts.into_iter().collect(),
            params,
            vocab: vocab?,
            phases,
            train,
            eval,
            export,
            profiles: model.profiles.keys().map(|name| name.to_string()).collect(),
            sources: source.texts.iter().cloned().chain(Library::std().excerpt(used)).collect(),
            notes: Diagnostics::default(),
            program: Arc::new(ParsedModel {
                ast: source.ast.clone(),
                phases: programs,
                texts: source.texts.clone(),
            }),
        })
    }

    /// The constants of each phase, which keeps what the phases before it changed.
    fn constants_of_phases(&mut self, given: Given, settings: &Settings) -> Option<Vec<Named<ConstValue>>> {
        let mut switched = given;
        let mut consts = vec![self.constants(&switched)];
        for phase in self.model.phases.values() {
            let by = format!("phase {}", phase.name.text);
            let mut before = self.fixed(&switched, settings);
            for setting in &phase.settings {
                if self.budget.exceeded().is_some() {
                    return None;
                }
                self.switch(setting, &by, &mut switched);
                before = self.keeps_what_is_fixed(setting, settings, before, &switched);
            }
            consts.push(self.constants(&switched));
            if self.budget.exceeded().is_some() {
                return None;
            }
        }
        (self.errors.is_empty() && self.budget.exceeded().is_none()).then_some(consts)
    }

    /// A phase's constants with the quantisers that its rules give.
    fn with_quantisers(&mut self, consts: Named<ConstValue>) -> PhaseProgram {
        let rules = self.rules("quant", &consts);
        let grid = |e: Evaluated<'_>| match e.value {
            Value::Grid(g) => Some((e.rule.pattern.clone(), g)),
            Value::None => Some((e.rule.pattern.clone(), None)),
            Value::Poison => None,
            other => self.kind_error(e.rule, "a quantiser such as int(clip = 7), or none", &other),
        };
        PhaseProgram { grids: rules.into_iter().filter_map(grid).collect(), consts }
    }

    /// Marks what test-time training leaves alone.
    fn freeze(&mut self, patterns: &[Name], params: &mut IndexMap<String, Param>, traced: bool) {
        for frozen in patterns {
            match Glob::new(&frozen.text) {
                Ok(glob) => {
                    let hits = params.values_mut().filter(|p| glob.matches(&p.name));
                    let hits = hits.map(|p| p.ttt_frozen = true).count();
                    self.matched(&frozen.text, &frozen.span, hits, params, traced);
                }
                Err(e) => self.error(Diagnostic::error(&frozen.span, e)),
            }
        }
    }

    /// Runs every phase's functions once, at the length of training.
    fn traces(&mut self, programs: &[PhaseProgram], [seq, scored_seq]: [usize; 2]) -> Option<Traces> {
        // Two sequences, so that a mistaken batch axis of 1 does not broadcast.
        let request = |phase, head| Trace { phase, batch: 2, seq, qat: true, head };
        let mut all =
            Traces { runs: Vec::new(), vocab: None, reached: IndexSet::new(), scored: IndexSet::new() };
        let last = programs.len() - 1;
        for (i, program) in programs.iter().enumerate() {
            for head in [Head::Loss, Head::Logits] {
                let mut run = trace::run(self.model, program, &request(i, head), self.budget);
                run.errors.iter().for_each(|d| self.error(d.clone()));
                if run.halted {
                    return None;
                }
                // The graphs of all phases together may be large, and nobody needs them.
                let graph = std::mem::take(&mut run.builder).finish();
                if let Some(ends) = &run.value {
                    let reached = lints::reached_from(&graph, ends.value, &run.params);
                    if head == Head::Logits {
                        if i == last {
                            all.scored.extend(reached.iter().cloned());
                        }
                        all.vocab = all.vocab.or(graph.ty(ends.value).axes.last().map(|a| a.size));
                    }
                    all.reached.extend(reached);
                }
                all.runs.push(run);
            }
        }
        // A model may read other parameters at another length. What is wrong with it there is found by its proofs.
        if scored_seq != seq && self.errors.is_empty() {
            let request = Trace { seq: scored_seq, ..request(last, Head::Logits) };
            let mut run = trace::run(self.model, &programs[last], &request, self.budget);
            let graph = std::mem::take(&mut run.builder).finish();
            if let Some(ends) = &run.value {
                let reached = lints::reached_from(&graph, ends.value, &run.params);
                all.scored.extend(reached.iter().cloned());
                all.reached.extend(reached);
                all.runs.push(run);
            }
        }
        Some(all)
    }

    /// An error where there are too many rules.
    fn few_rules(&mut self) -> Option<()> {
        let first_over = self.model.blocks.iter().flat_map(|b| &b.rules).nth(MAX_RULES);
        let Some(rule) = first_over else { return Some(()) };
        let message =
            format!("a model has at most {MAX_RULES} rules in all its blocks, and this one is too many");
        let d = Diagnostic::error(&rule.glob.span, message);
        self.error(d.help("a pattern stands for many parameters: \"blocks.*.{q,k}.weight\""));
        None
    }

    /// Constants as texts, which count as the model's own.
    fn texts<'v>(
        &self,
        consts: impl Iterator<Item = (&'v Arc<str>, &'v ConstValue)>,
    ) -> Vec<(String, String)> {
        let text = |(name, c): (&Arc<str>, &ConstValue)| {
            let text = c.value.text_within(self.budget);
            self.out_of_budget(&c.span);
            (name.to_string(), text)
        };
        consts.map(text).collect()
    }
}
