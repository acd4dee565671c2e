//! Constants and phases: declarations, and what profiles, `--set` and phases put in their place.

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::{Elaborator, Given, Options, Override};
use crate::lang::ast::{Const, Expr, ExprKind, Named, Setting};
use crate::lang::diag::{Diagnostic, nearest};
use crate::lang::interp::{ConstValue, Interp};
use crate::lang::limits::Resource;
use crate::lang::model::{ExportSettings, Phase, SourceText, Train, Trigger};
use crate::lang::parse::{self, shortened};
use crate::lang::settings::{Reader, Settings, Written};
use crate::lang::span::Span;
use crate::lang::value::{ExportRule, Value};
use crate::optim::Optimiser;

/// What holds for the whole run: the rules whose guards hold, by their places, with their values; and settings.
#[derive(PartialEq)]
pub(super) struct Fixed {
    optimisers: Vec<(Span, Option<Optimiser>)>,
    exports: Vec<(Span, Option<ExportRule>)>,
    train: Train,
    export: ExportSettings,
}

impl<'m> Elaborator<'m> {
    /// Constants given by the profile and by `--set`; settings go straight into `settings`.
    pub(super) fn given(&mut self, options: &Options, settings: &mut Settings) -> Given {
        let mut given = Given::new();
        if let Some(name) = &options.profile {
            let profiles = &self.model.profiles;
            match profiles.get(name.as_str()) {
                Some(profile) => {
                    let by = format!("profile {name}");
                    for s in &profile.settings {
                        self.give(&s.path.text, s.value.clone(), &s.path.span, &by, &mut given, settings);
                    }
                }
                None if name == "full" => {}
                None => {
                    let known: Vec<&str> = profiles.keys().map(|name| &**name).collect();
                    let d = Diagnostic::error(&self.model.name.span, format!("there is no profile `{name}`"));
                    self.error(match nearest(name, known.iter().copied()) {
                        Some(best) => d.help(format!("a similar name exists: `{best}`")),
                        None if known.is_empty() => d.help("this model has none: leave `--profile` out"),
                        None => d.help(format!("this model's profiles: {}", known.join(", "))),
                    });
                }
            }
        }
        self.arguments(&options.overrides, &mut given, settings);
        given
    }

    /// Values from the command line, which is a text with a line for each of them.
    fn arguments(&mut self, overrides: &[Override], given: &mut Given, settings: &mut Settings) {
        let file: Arc<str> = "command line".into();
        let mut lines = String::new();
        for argument in overrides {
            let (name, text, before) = (&argument.name, &argument.value, argument.before_value());
            let line = 1 + lines.matches('\n').count() as u32;
            let width = |s: &str| s.chars().count() as u32;
            let start = (line, 1 + width(&before));
            lines += &format!("{before}{text}\n");
            let key = match before.strip_suffix('=') {
                Some(_) => Span { file: file.clone(), start: (line, 7), end: (line, start.1 - 1) },
                None => Span { file: file.clone(), start: (line, 1), end: (line, start.1 - 1) },
            };
            let (expr, errors) = parse::expression(&file, text, start);
            match (expr, errors.into_iter().next()) {
                (Some(expr), _) => {
                    let by = format!("{before}{}", shortened(text));
                    self.give(name, expr, &key, &by, given, settings);
                }
                (None, why) => {
                    let span = Span { file: file.clone(), start, end: (line, start.1 + width(text).max(1)) };
                    let why = why.map(|d| format!(": {}", d.message)).unwrap_or_default();
                    let message = format!("`{}` is not a value{why}", shortened(text));
                    self.error(
                        Diagnostic::error(&span, message)
                            .help("--set LAYERS=6 --set 'VE_LAYERS=[4, 5]' --set SCALE_RULE=floored"),
                    );
                }
            }
        }
        self.extra.push(SourceText { file, text: lines.into() });
    }

    pub(super) fn give(
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
        } else if self.model.consts.contains_key(name) {
            given.insert(name.into(), (value, by.to_string()));
        } else {
            self.unknown_constant(name, key);
        }
    }

    pub(super) fn unknown_constant(&mut self, name: &str, key: &Span) {
        let known = self.model.consts.keys().map(|name| &**name);
        let d = Diagnostic::error(key, format!("`{}` has no constant `{name}`", self.model.name.text));
        let d = d.nearest(name, known.clone());
        let d = if d.help.is_none() {
            d.help(format!("its constants: {}", known.collect::<Vec<_>>().join(", ")))
        } else {
            d
        };
        self.error(d);
    }

    /// What a phase puts in a constant's place. The command line wins over that too.
    pub(super) fn switch(&mut self, s: &Setting, by: &str, given: &mut Given) {
        let name = &s.path.text;
        if !self.model.consts.contains_key(name) {
            self.unknown_constant(name, &s.path.span);
        } else if !given.get(name).is_some_and(|(_, by)| by.starts_with("--set ")) {
            given.insert(name.clone(), (s.value.clone(), by.to_string()));
        }
    }

    /// An error where a phase's setting reaches what one run has only one of: optimisers, export, `train`. Gives what
    /// is fixed now.
    pub(super) fn keeps_what_is_fixed(
        &mut self,
        s: &Setting,
        settings: &Settings,
        before: Fixed,
        after: &Given,
    ) -> Fixed {
        let after = self.fixed(after, settings);
        let changed = [
            (before.optimisers != after.optimisers, "optimisers are"),
            (before.exports != after.exports, "export rules are"),
            (before.train != after.train, "`train` settings are"),
            (before.export != after.export, "`export` settings are"),
        ];
        // An evaluator without budget left finds nothing, which is no change.
        if let Some((_, what)) =
            changed.iter().find(|(changed, _)| *changed && self.budget.exceeded().is_none())
        {
            let message = format!("a phase cannot change {}: {what} fixed for the run", s.path.text);
            self.error(Diagnostic::error(&s.path.span, message));
        }
        after
    }

    /// What the rules and settings that hold for the whole run come to, to be compared. What is wrong with
    /// them is reported elsewhere.
    pub(super) fn fixed(&mut self, given: &Given, settings: &Settings) -> Fixed {
        let before = self.errors.len();
        let consts = self.constants(given);
        let optimisers = self.rules("optim", &consts).into_iter().map(|e| match e.value {
            Value::Optimiser(o) => (e.rule.glob.span.clone(), Some(*o)),
            _ => (e.rule.glob.span.clone(), None),
        });
        let optimisers = optimisers.collect();
        let exports = self.rules("export", &consts).into_iter().map(|e| match e.value {
            Value::Export(rule) => (e.rule.glob.span.clone(), Some(rule)),
            _ => (e.rule.glob.span.clone(), None),
        });
        let exports = exports.collect();
        self.errors.truncate(before);
        let mut cx = self.interp(&consts);
        let mut reader = Reader::new(&mut cx, settings, &self.model.name.span);
        Fixed { optimisers, exports, train: reader.train(), export: reader.export() }
    }

    /// The constants in order of declaration. A declared value may use the constants before it, a given one any: what it
    /// names is evaluated first.
    pub(super) fn constants(&mut self, given: &Given) -> Named<ConstValue> {
        // What a constant is by default says what kind of value it takes.
        let defaults = if given.is_empty() { Named::new() } else { self.defaults() };
        let mut cx = self.interp(&Named::new());
        // Each phase keeps its own, with their places.
        self.budget.charge(Resource::Elements, 4 * self.model.consts.len());
        for c in self.model.consts.values() {
            // Constants that wait for the one after them.
            let mut open: IndexMap<&str, &Const> = IndexMap::from([(&*c.name.text, c)]);
            while let Some((_, &c)) = open.last() {
                let name = &c.name.text;
                if cx.consts.contains_key(name) || self.budget.exceeded().is_some() {
                    open.pop();
                    continue;
                }
                let findings = cx.errors.len();
                let by = given.get(name).zip(defaults.get(name).map(|c| &c.value));
                let (value, unknown) = cx.naming(|cx| constant(cx, &self.model.consts, c, by));
                let value = match self.needed(c, by.is_some(), &cx, &unknown) {
                    None => value,
                    Some(needed) => {
                        cx.forget_from(findings);
                        if !open.contains_key(&*needed.name.text) {
                            open.insert(&needed.name.text, needed);
                            continue;
                        }
                        let message =
                            format!("`{}` is given a value that needs `{0}` itself", needed.name.text);
                        let at = by.map_or(&c.value.span, |((value, _), _)| &value.span);
                        ConstValue { value: cx.error(at, message), span: c.name.span.clone(), set_by: None }
                    }
                };
                cx.consts.insert(name.clone(), value);
            }
        }
        let (mut consts, errors) = (std::mem::take(&mut cx.consts), std::mem::take(&mut cx.errors));
        for d in errors {
            let later = self.model.consts.keys().find(|name| d.message == format!("unknown name `{name}`"));
            self.error(match later {
                Some(name) => d.help(format!("constants use those before them: declare `{name}` first")),
                None => d,
            });
        }
        consts.sort_by_cached_key(|name, _| self.model.consts.get_index_of(name));
        consts
    }

    /// The constants as they are declared; what is wrong with them is found where they are used.
    fn defaults(&self) -> Named<ConstValue> {
        let mut cx = self.interp(&Named::new());
        for c in self.model.consts.values() {
            let value = constant(&mut cx, &self.model.consts, c, None);
            cx.consts.insert(c.name.text.clone(), value);
        }
        cx.consts
    }

    /// A constant to be evaluated before `c`, for whose value names were missing. What is given may name any constant, a
    /// declaration those before it.
    fn needed(
        &self,
        c: &Const,
        is_given: bool,
        cx: &Interp<'_>,
        unknown: &IndexSet<Arc<str>>,
    ) -> Option<&'m Const> {
        let all = &self.model.consts;
        let end = if is_given { all.len() } else { all.get_index_of(&c.name.text)? };
        let missing = unknown.iter().filter(|name| !cx.consts.contains_key(*name));
        let mut known = missing.filter_map(|name| all.get_full(name));
        known.find(|(i, ..)| *i < end).map(|(.., needed)| needed)
    }

    /// The phases, from the constants of each.
    pub(super) fn phases(&mut self, consts: &[Named<ConstValue>]) -> Vec<Phase> {
        let mut cx = self.interp(&consts[0]);
        let mut phases =
            vec![Phase { name: "start".into(), trigger: Trigger::Step(0), overrides: Vec::new() }];
        for (phase, consts) in self.model.phases.values().zip(&consts[1..]) {
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
            let set = phase.settings.iter();
            let set = set.filter_map(|s| consts.get_key_value(&s.path.text));
            phases.push(Phase { name: phase.name.text.to_string(), trigger, overrides: self.texts(set) });
        }
        let errors = std::mem::take(&mut cx.errors);
        errors.into_iter().for_each(|d| self.error(d));
        phases
    }
}

/// A constant's value: as declared, or as it is given in the place of a default.
fn constant(
    cx: &mut Interp<'_>,
    declared: &Named<Const>,
    c: &Const,
    given: Option<(&(Expr, String), &Value)>,
) -> ConstValue {
    let span = c.name.span.to(&c.value.span);
    let Some(((expr, by), default)) = given else {
        return ConstValue { value: cx.expr(&c.value), span, set_by: None };
    };
    let value = override_value(cx, declared, default, expr).unwrap_or_else(|found| {
        let message = format!("`{}` is {} by default, found {}", c.name.text, kind(default), kind(&found));
        let d = Diagnostic::error(&expr.span, message);
        cx.report(d.label(&span, format!("its default is {default}")))
    });
    ConstValue { value, span, set_by: Some(by.clone()) }
}

/// The value of an override, checked against the default. A bare word will do for a Str.
fn override_value(
    cx: &mut Interp<'_>,
    declared: &Named<Const>,
    default: &Value,
    expr: &Expr,
) -> Result<Value, Value> {
    if let (Value::Text(_), ExprKind::Name(word)) = (default, &expr.kind)
        && !declared.contains_key(word)
    {
        return Ok(Value::text(word.clone()));
    }
    match cx.expr(expr) {
        Value::Poison => Ok(Value::Poison),
        value => default.accept(value, cx.budget),
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
