//! From a parsed source to a checked model: constants, a trace of every phase, settings, and what the
//! rules say of each parameter.

use std::sync::Arc;

use indexmap::IndexMap;

use super::ast::{Expr, ModelAst, Rule, Setting};
use super::diag::{Diagnostic, Diagnostics, Severity, nearest};
use super::glob::Glob;
use super::interp::{ConstValue, Interp};
use super::library::Library;
use super::settings::{self, Reader, Settings, Written};
use super::source::detached;
use super::span::Span;
use super::trace::{self, Head, PhaseProgram, Run, Trace};
use super::value::{ExportRule, Value};
use super::{Program, Source, builtins, parse};
use crate::model::{Export, ExportSettings, Init, Model, Optimiser, Param, Phase, SourceText, Trigger};
use crate::quant::{Grid, ScaleRule};

/// What the command line adds to a source.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--set NAME=VALUE`, in order: constants (`LAYERS`, `6`) and settings (`train.seed`, `7`).
    pub overrides: Vec<(String, String)>,
    /// `--profile NAME`; none takes the file as it stands, and so does `full` where no profile has that name.
    pub profile: Option<String>,
}

/// Checks a source and makes the model of it.
pub fn elaborate(source: &Source, options: &Options) -> Result<Model, Diagnostics> {
    let mut e = Elaborator { model: &source.ast, errors: Vec::new(), notes: Vec::new(), extra: Vec::new() };
    let model = e.run(source, options);
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

struct Elaborator<'a> {
    model: &'a ModelAst,
    errors: Vec<Diagnostic>,
    notes: Vec<Diagnostic>,
    /// Command line arguments as texts, so that errors can show them.
    extra: Vec<SourceText>,
}

/// A rule with its pattern compiled and its value computed.
struct Evaluated<'r> {
    rule: &'r Rule,
    glob: Glob,
    value: Value,
}

impl<'m> Elaborator<'m> {
    fn error(&mut self, d: Diagnostic) {
        if !self.errors.iter().any(|e| e.span == d.span) {
            self.errors.push(d);
        }
    }

    fn run(&mut self, source: &Source, options: &Options) -> Option<Model> {
        let model = self.model;
        self.shadowed();
        let mut settings = settings::collect(model);
        let given = self.given(options, &mut settings);

        // Constants of each phase; a phase keeps what the phases before it changed.
        let mut switched: Given = given.clone();
        let mut consts = vec![self.constants(&switched)];
        for phase in &model.phases {
            self.switch(&phase.settings, &format!("phase {}", phase.name.text), &mut switched);
            consts.push(self.constants(&switched));
        }
        if !self.errors.is_empty() {
            return None;
        }

        let (train, eval, freeze, export, f16_up_to) = {
            let mut cx = Interp::new(&model.functions, Library::std(), consts[0].clone());
            let has_ttt = model.blocks.iter().flat_map(|b| &b.groups).any(|g| &*g.text == "ttt");
            let mut reader = Reader::new(&mut cx, &settings);
            let train = reader.train();
            let eval = reader.eval(&train, has_ttt);
            let freeze = reader.ttt_freeze();
            let (export, f16_up_to) = reader.export();
            reader.unknown_keys();
            self.errors.append(&mut cx.errors);
            (train, eval, freeze, export, f16_up_to)
        };
        let phases = self.phases(&consts[0]);

        let programs: Vec<PhaseProgram> = consts
            .into_iter()
            .map(|consts| {
                let rules = self.rules("quant", &consts);
                let grid = |e: Evaluated<'_>| match e.value {
                    Value::Grid(g) => Some((e.glob, g)),
                    Value::None => Some((e.glob, None)),
                    other => self.kind_error(e.rule, "a quantiser such as int(clip = 7), or none", &other),
                };
                PhaseProgram { consts, grids: rules.into_iter().filter_map(grid).collect() }
            })
            .collect();

        // Two sequences, so that a mistaken batch axis of 1 does not broadcast.
        let request = |phase, head| Trace { phase, batch: 2, seq: train.seq_len, qat: true, head };
        let mut runs = Vec::new();
        for (i, program) in programs.iter().enumerate() {
            for head in [Head::Loss, Head::Logits] {
                let run = trace::run(model, program, &request(i, head));
                run.errors.iter().for_each(|d| self.error(d.clone()));
                runs.push(run);
            }
        }
        let traced = runs.iter().all(|r| r.value.is_some());
        let mut params = self.parameters(&runs, &programs);
        self.apply_rules(&mut params, programs.last()?, &export, f16_up_to, traced);
        for frozen in &freeze {
            match Glob::new(&frozen.text) {
                Ok(glob) => {
                    let hits = params.values_mut().filter(|p| glob.matches(&p.name));
                    let hits = hits.map(|p| p.ttt_frozen = true).count();
                    self.matched(&frozen.text, &frozen.span, hits, &params, traced);
                }
                Err(e) => self.error(Diagnostic::error(&frozen.span, e)),
            }
        }
        if !self.errors.is_empty() {
            return None;
        }

        let logits = runs.get(1)?;
        let vocab = logits.builder.ty(logits.value?).axes.last()?.size;
        let used = |name: &str| runs.iter().any(|r| r.used.contains(name));
        let consts = &programs.first()?.consts;
        Some(Model {
            name: model.name.text.to_string(),
            doc: model.doc.clone(),
            consts: consts.iter().map(|(name, c)| (name.to_string(), c.value.to_string())).collect(),
            params,
            vocab,
            phases,
            train,
            eval,
            export,
            profiles: model.profiles.iter().map(|p| p.name.text.to_string()).collect(),
            sources: source.texts.iter().cloned().chain(Library::std().excerpt(used)).collect(),
            notes: Diagnostics::default(),
            program: Arc::new(Program {
                ast: source.ast.clone(),
                phases: programs,
                texts: source.texts.clone(),
            }),
        })
    }

    fn shadowed(&mut self) {
        for f in &self.model.functions {
            let name = &f.name.text;
            let library = Library::std().function(name);
            if library.is_some() || builtins::find(name).is_some() {
                let what = if library.is_some() { "library's" } else { "built-in" };
                let mut d = Diagnostic::error(&f.name.span, format!("`{name}` shadows the {what} `{name}`"));
                d.severity = Severity::Note;
                if let Some(f) = library {
                    d = d.label(&f.name.span, "library functions go on using this one");
                }
                self.notes.push(d);
            }
        }
    }

    // ------------------------------------------------------------ overrides

    /// Constants given by the profile and by `--set`; settings go straight into `settings`.
    fn given(&mut self, options: &Options, settings: &mut Settings) -> Given {
        let mut given = Given::new();
        if let Some(name) = &options.profile {
            let profiles = &self.model.profiles;
            match profiles.iter().find(|p| *p.name.text == **name) {
                Some(profile) => {
                    let by = format!("profile {name}");
                    for s in &profile.settings {
                        self.give(&s.path.text, s.value.clone(), &s.path.span, &by, &mut given, settings);
                    }
                }
                None if name == "full" => {}
                None => {
                    let known: Vec<&str> = profiles.iter().map(|p| &*p.name.text).collect();
                    let d = Diagnostic::error(&self.model.name.span, format!("there is no profile `{name}`"));
                    self.error(match nearest(name, known.iter().copied()) {
                        Some(best) => d.help(format!("a similar name exists: `{best}`")),
                        None => d.help(format!("this model's profiles: {}", known.join(", "))),
                    });
                }
            }
        }
        for (i, (name, text)) in options.overrides.iter().enumerate() {
            let file: Arc<str> = if i == 0 { "--set".into() } else { format!("--set #{}", i + 1).into() };
            self.extra.push(SourceText { file: file.clone(), text: format!("{name}={text}").into() });
            let width = |s: &str| s.chars().count() as u32;
            let key = Span { file: file.clone(), start: (1, 1), end: (1, 1 + width(name)) };
            let start = 2 + width(name);
            let span = Span { file: file.clone(), start: (1, start), end: (1, start + width(text).max(1)) };
            let (expr, errors) = detached(|| match text.parse() {
                Ok(tokens) => parse::expression(&file, tokens),
                Err(_) => (None, Vec::new()),
            });
            match expr {
                Some(mut expr) if errors.is_empty() => {
                    expr.span = span;
                    self.give(name, expr, &key, &format!("--set {name}={text}"), &mut given, settings);
                }
                _ => self.error(
                    Diagnostic::error(&span, format!("`{text}` is not a value"))
                        .help("--set LAYERS=6 --set 'VE_LAYERS=[4, 5]' --set SCALE_RULE=floored"),
                ),
            }
        }
        given
    }

    fn give(
        &mut self,
        name: &str,
        value: Expr,
        key: &Span,
        by: &str,
        given: &mut Given,
        settings: &mut Settings,
    ) {
        if name.contains('.') {
            settings.insert(name.into(), Written { value, key: key.clone() });
        } else if self.model.consts.iter().any(|c| *c.name.text == *name) {
            given.insert(name.into(), (value, by.to_string()));
        } else {
            self.unknown_constant(name, key);
        }
    }

    fn unknown_constant(&mut self, name: &str, key: &Span) {
        let known = self.model.consts.iter().map(|c| &*c.name.text);
        let d = Diagnostic::error(key, format!("`{}` has no constant `{name}`", self.model.name.text));
        let d = d.nearest(name, known.clone());
        let d = if d.help.is_none() {
            d.help(format!("its constants: {}", known.collect::<Vec<_>>().join(", ")))
        } else {
            d
        };
        self.error(d);
    }

    fn switch(&mut self, settings: &[Setting], by: &str, given: &mut Given) {
        for s in settings {
            if self.model.consts.iter().any(|c| c.name.text == s.path.text) {
                given.insert(s.path.text.clone(), (s.value.clone(), by.to_string()));
            } else {
                self.unknown_constant(&s.path.text, &s.path.span);
            }
        }
    }

    /// Evaluates constants in order of declaration; each may use those before it.
    fn constants(&mut self, given: &Given) -> IndexMap<Arc<str>, ConstValue> {
        let mut cx = Interp::new(&self.model.functions, Library::std(), IndexMap::new());
        for c in &self.model.consts {
            let name = &c.name.text;
            let span = c.name.span.to(&c.value.span);
            let value = match given.get(name) {
                None => ConstValue { value: cx.expr(&c.value), span, set_by: None },
                Some((expr, by)) => {
                    // The default only says what kind of value to expect, so its own errors do not count.
                    let before = cx.errors.len();
                    let default = cx.expr(&c.value);
                    cx.errors.truncate(before);
                    let value = match override_value(&mut cx, &default, expr) {
                        Ok(value) => value,
                        Err(found) => {
                            let message =
                                format!("`{name}` is {} by default, found {}", kind(&default), kind(&found));
                            let d = Diagnostic::error(&expr.span, message);
                            cx.report(d.label(&span, format!("its default is {default}")))
                        }
                    };
                    ConstValue { value, span, set_by: Some(by.clone()) }
                }
            };
            cx.consts.insert(name.clone(), value);
        }
        let (consts, errors) = (std::mem::take(&mut cx.consts), std::mem::take(&mut cx.errors));
        errors.into_iter().for_each(|d| self.error(d));
        consts
    }

    fn phases(&mut self, consts: &IndexMap<Arc<str>, ConstValue>) -> Vec<Phase> {
        let mut cx = Interp::new(&self.model.functions, Library::std(), consts.clone());
        let mut phases =
            vec![Phase { name: "start".into(), trigger: Trigger::Step(0), overrides: Vec::new() }];
        for phase in &self.model.phases {
            let trigger = match cx.expr(&phase.trigger) {
                Value::Trigger(t) => t,
                Value::Poison => Trigger::Step(0),
                other => {
                    let message = format!("a phase begins at a trigger, found {}", other.kind());
                    let d = Diagnostic::error(&phase.trigger.span, message);
                    cx.report(d.help("step(100), fraction(0.5) or lr_scale_below(0.15)"));
                    Trigger::Step(0)
                }
            };
            let overrides = phase.settings.iter().map(|s| {
                let value = cx.expr(&s.value);
                (s.path.text.to_string(), value.to_string())
            });
            phases.push(Phase { name: phase.name.text.to_string(), trigger, overrides: overrides.collect() });
        }
        let errors = std::mem::take(&mut cx.errors);
        errors.into_iter().for_each(|d| self.error(d));
        phases
    }

    // ------------------------------------------------------------ rules

    /// The rules of the blocks of one name whose guard holds, in order.
    fn rules(&mut self, block: &str, consts: &IndexMap<Arc<str>, ConstValue>) -> Vec<Evaluated<'m>> {
        let model = self.model;
        let mut cx = Interp::new(&model.functions, Library::std(), consts.clone());
        let mut out = Vec::new();
        for rule in model.blocks.iter().filter(|b| &*b.name.text == block).flat_map(|b| &b.rules) {
            let glob = match Glob::new(&rule.glob.text) {
                Ok(glob) => glob,
                Err(e) => {
                    cx.error(&rule.glob.span, e);
                    continue;
                }
            };
            if let Some(guard) = &rule.guard {
                match cx.expr(guard) {
                    Value::Bool(true) => {}
                    Value::Bool(false) | Value::Poison => continue,
                    other => {
                        cx.error(&guard.span, format!("a condition is a Bool, found {}", other.kind()));
                        continue;
                    }
                }
            }
            let value = cx.expr(&rule.value);
            if !matches!(value, Value::Poison) {
                out.push(Evaluated { rule, glob, value });
            }
        }
        let errors = std::mem::take(&mut cx.errors);
        errors.into_iter().for_each(|d| self.error(d));
        out
    }

    fn kind_error<T>(&mut self, rule: &Rule, expected: &str, found: &Value) -> Option<T> {
        let message = format!("expected {expected}, found {}", found.kind());
        self.error(Diagnostic::error(&rule.value.span, message));
        None
    }

    /// An error where a pattern fits no parameter.
    fn matched(
        &mut self,
        glob: &str,
        span: &Span,
        hits: usize,
        params: &IndexMap<String, Param>,
        traced: bool,
    ) {
        if hits > 0 || !traced {
            return;
        }
        let d = Diagnostic::error(span, format!("\"{glob}\" matches no parameter"));
        let score = |name: &&String| (strsim::normalized_damerau_levenshtein(glob, name) * 1e6) as u64;
        self.error(match params.keys().max_by_key(score) {
            Some(best) => d.help(format!("the most similar parameter is `{best}`")),
            None => d,
        });
    }

    /// Every parameter of every phase, in order of first use, with defaults for what rules decide.
    fn parameters(&mut self, runs: &[Run], programs: &[PhaseProgram]) -> IndexMap<String, Param> {
        let mut params: IndexMap<String, Param> = IndexMap::new();
        for run in runs {
            for (name, p) in &run.params {
                if let Some(first) = params.get(name) {
                    if first.shape != p.shape {
                        let message =
                            format!("`{name}` is {:?} here and {:?} in another phase", p.shape, first.shape);
                        self.error(Diagnostic::error(&p.span, message));
                    }
                    continue;
                }
                let grid = programs.iter().rev().find_map(|program| PhaseProgram::grid(&program.grids, name));
                let optimiser = Optimiser::AdamW(crate::model::AdamW {
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
                    ttt_frozen: false,
                    weight_std: None,
                };
                params.insert(name.clone(), param);
            }
        }
        params
    }

    /// Optimisers, export and declared deviations; the last rule that fits a parameter decides.
    fn apply_rules(
        &mut self,
        params: &mut IndexMap<String, Param>,
        last: &PhaseProgram,
        settings: &ExportSettings,
        f16_up_to: usize,
        traced: bool,
    ) {
        for p in params.values_mut() {
            p.export = match p.grid {
                Some(grid) => Export::TrainingGrid(grid),
                None if p.len() <= f16_up_to => Export::F16,
                None => Export::QuantileRows(Grid { clip: 127, rule: settings.rule }),
            };
        }
        let mut updated = vec![false; params.len()];
        for block in ["quant", "optim", "export", "weight_std"] {
            for Evaluated { rule, glob, value } in self.rules(block, &last.consts) {
                let hits: Vec<usize> = (0..params.len()).filter(|&i| glob.matches(&params[i].name)).collect();
                for &i in &hits {
                    updated[i] |= block == "optim";
                    if let Err(d) = apply(block, rule, &value, &mut params[i], settings.rule) {
                        self.error(*d);
                        break;
                    }
                }
                self.matched(&rule.glob.text, &rule.glob.span, hits.len(), params, traced);
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
        ("quant", _) => {}
        ("optim", Value::Optimiser(o)) => {
            if matches!(o, Optimiser::Muon(_)) && p.shape.len() != 2 {
                return error(format!("Muon is for matrices; `{}` has shape {:?}", p.name, p.shape));
            }
            p.optimiser = *o;
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
        ("optim", other) => return error(format!("expected muon(…) or adamw(…), found {}", other.kind())),
        (_, other) => {
            return error(format!(
                "expected f16, training_grid, clip_search(…) or quantile_rows(…), found {}",
                other.kind()
            ));
        }
    }
    Ok(())
}

/// The value of an override, checked against the default. A bare word will do for a Str.
fn override_value(cx: &mut Interp<'_>, default: &Value, expr: &Expr) -> Result<Value, Value> {
    if let (Value::Text(_), super::ast::ExprKind::Name(word)) = (default, &expr.kind)
        && !cx.consts.contains_key(word)
    {
        return Ok(Value::text(word.clone()));
    }
    match cx.expr(expr) {
        Value::Poison => Ok(Value::Poison),
        value => default.accept(value),
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::List(items) => match items.first() {
            Some(first) => format!("a List of {}", first.kind()),
            None => "a List".into(),
        },
        other => format!("{} {other}", other.kind()),
    }
}
