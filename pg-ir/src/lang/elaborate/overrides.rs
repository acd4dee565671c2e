//! Constants and phases: declarations, and what profiles, `--set` and phases put in their place.

use std::sync::Arc;

use indexmap::IndexMap;

use super::{Elaborator, Given, Options};
use crate::lang::ast::{Expr, ExprKind, Setting};
use crate::lang::diag::{Diagnostic, nearest};
use crate::lang::interp::{ConstValue, Interp};
use crate::lang::library::Library;
use crate::lang::model::{Phase, SourceText, Trigger};
use crate::lang::parse;
use crate::lang::settings::{Reader, Settings, Written};
use crate::lang::source::detached;
use crate::lang::span::Span;
use crate::lang::value::Value;

impl Elaborator<'_> {
    /// Constants given by the profile and by `--set`; settings go straight into `settings`.
    pub(super) fn given(&mut self, options: &Options, settings: &mut Settings) -> Given {
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
        } else if self.model.consts.iter().any(|c| *c.name.text == *name) {
            given.insert(name.into(), (value, by.to_string()));
        } else {
            self.unknown_constant(name, key);
        }
    }

    pub(super) fn unknown_constant(&mut self, name: &str, key: &Span) {
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

    /// What a phase puts in a constant's place. The command line wins over that too.
    pub(super) fn switch(&mut self, s: &Setting, by: &str, given: &mut Given) {
        let name = &s.path.text;
        if !self.model.consts.iter().any(|c| c.name.text == *name) {
            self.unknown_constant(name, &s.path.span);
        } else if !given.get(name).is_some_and(|(_, by)| by.starts_with("--set ")) {
            given.insert(name.clone(), (s.value.clone(), by.to_string()));
        }
    }

    /// An error where a phase's setting reaches what one run has only one of: optimisers, export, `train`.
    pub(super) fn keeps_what_is_fixed(
        &mut self,
        s: &Setting,
        settings: &Settings,
        before: &Given,
        after: &Given,
    ) {
        let [before, after] = [before, after].map(|given| self.fixed(given, settings));
        let of = ["optimisers are", "export rules are", "`train` settings are", "`export` settings are"];
        let changed = before.iter().zip(&after).position(|(b, a)| b != a);
        if let Some(what) = changed.and_then(|i| of.get(i)) {
            let message = format!("a phase cannot change {}: {what} fixed for the run", s.path.text);
            self.error(Diagnostic::error(&s.path.span, message));
        }
    }

    /// What the rules and settings that hold for the whole run come to, to be compared. What is wrong with
    /// them is reported elsewhere.
    fn fixed(&mut self, given: &Given, settings: &Settings) -> [String; 4] {
        let before = self.errors.len();
        let consts = self.constants(given);
        let rules = ["optim", "export"].map(|block| {
            let rules = self.rules(block, &consts);
            let text = rules.iter().map(|e| format!("{:?} {:?} {:?}\n", e.rule.glob.span, e.glob, e.value));
            text.collect::<String>()
        });
        self.errors.truncate(before);
        let mut cx = Interp::new(&self.model.functions, Library::std(), consts);
        let mut reader = Reader::new(&mut cx, settings, &self.model.name.span);
        let [optim, export] = rules;
        [optim, export, format!("{:?}", reader.train()), format!("{:?}", reader.export())]
    }

    /// Evaluates constants in order of declaration; each may use those before it.
    pub(super) fn constants(&mut self, given: &Given) -> IndexMap<Arc<str>, ConstValue> {
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

    /// The phases, from the constants of each.
    pub(super) fn phases(&mut self, consts: &[IndexMap<Arc<str>, ConstValue>]) -> Vec<Phase> {
        let mut cx = Interp::new(&self.model.functions, Library::std(), consts[0].clone());
        let mut phases =
            vec![Phase { name: "start".into(), trigger: Trigger::Step(0), overrides: Vec::new() }];
        for (phase, consts) in self.model.phases.iter().zip(&consts[1..]) {
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
            let overrides = phase
                .settings
                .iter()
                .filter_map(|s| Some((s.path.text.to_string(), consts.get(&s.path.text)?.value.to_string())));
            phases.push(Phase { name: phase.name.text.to_string(), trigger, overrides: overrides.collect() });
        }
        let errors = std::mem::take(&mut cx.errors);
        errors.into_iter().for_each(|d| self.error(d));
        phases
    }
}

/// The value of an override, checked against the default. A bare word will do for a Str.
fn override_value(cx: &mut Interp<'_>, default: &Value, expr: &Expr) -> Result<Value, Value> {
    if let (Value::Text(_), ExprKind::Name(word)) = (default, &expr.kind)
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
