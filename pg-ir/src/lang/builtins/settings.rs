//! Initialisers, quantisers, optimisers, export rules and triggers: the values of blocks.

use std::sync::Arc;

use super::{Args, Builtin, Row, boolean, float, get, positive, size, text};
use crate::lang::interp::{Fault, Interp, Outcome};
use crate::lang::model::{Init, Trigger};
use crate::lang::span::Span;
use crate::lang::value::{ExportRule, Value};
use crate::optim::{self, Range, Setting};
use crate::quant::{Grid, GridError, ScaleRule};
use crate::ty::{Axis, Role, is_storable};

/// The optimisers.
pub(super) fn optimisers() -> impl Iterator<Item = Builtin> {
    optim::ALL.iter().map(|&(name, doc, settings, new)| Builtin {
        name,
        params: settings.iter().map(|s| (s.name.into(), s.default.is_some())).collect(),
        doc,
        run: Box::new(move |_, args, _| {
            let setting = |(i, s): (usize, &Setting)| match (&args[i], s.default) {
                (None, Some(default)) => Ok(default),
                _ => in_range(get(args, i)?, s),
            };
            let values = settings.iter().enumerate().map(setting).collect::<Outcome<Vec<f64>>>()?;
            Ok(Value::Optimiser(Arc::new(new(&values))))
        }),
    })
}

fn in_range(value: &Value, setting: &Setting) -> Outcome<f64> {
    match setting.range {
        Range::Magnitude => magnitude(value, setting.name),
        Range::Fraction => fraction(value, setting.name),
        Range::Count => positive(value, setting.name).map(|n| n as f64),
    }
}

pub(super) const ROWS: &[Row] = &[
    ("batch", "size", "an axis of independent sequences", |_, a, _| axis(a, Role::Batch)),
    ("time", "size", "an axis of positions", |_, a, _| axis(a, Role::Time)),
    ("head", "size", "an axis of attention heads", |_, a, _| axis(a, Role::Head)),
    ("channel", "size", "an axis of features", |_, a, _| axis(a, Role::Channel)),
    ("constant", "value", "starts with every element the same", |_, a, _| {
        Ok(Value::Init(Init::Constant(float(get(a, 0)?, "the value")?)))
    }),
    ("normal", "std", "starts normal with mean 0", |_, a, _| {
        Ok(Value::Init(Init::Normal { std: magnitude(get(a, 0)?, "the standard deviation")? }))
    }),
    ("uniform", "bound", "starts uniform on -bound … bound", |_, a, _| {
        Ok(Value::Init(Init::Uniform { bound: magnitude(get(a, 0)?, "the bound")? }))
    }),
    ("first_row", "first rest", "starts with row 0 one constant and the others another", |_, a, _| {
        let (first, rest) = (float(get(a, 0)?, "the first row")?, float(get(a, 1)?, "the rest")?);
        Ok(Value::Init(Init::FirstRow { first, rest }))
    }),
    (
        "int",
        "clip? bits? rule?",
        "quantises rows to integers -clip … clip; clip 0 is no quantiser",
        |_, a, _| {
            let rule = rule(a, 2)?.unwrap_or(ScaleRule::Amax);
            Ok(Value::Grid(clip(a)?.filter(|c| *c > 0).map(|clip| Grid { clip, rule })))
        },
    ),
    ("clip_search", "clip? bits? per_matrix? rule?", "exports with GPTQ-lite's clip search", |_, a, _| {
        let per_matrix = a[2].as_ref().map_or(Ok(false), |v| boolean(v, "per_matrix"))?;
        Ok(Value::Export(ExportRule::ClipSearch { clip: nonzero(a)?, rule: rule(a, 3)?, per_matrix }))
    }),
    ("quantile_rows", "clip? bits? rule?", "exports rows clipped at their 0.9999984 quantile", |_, a, _| {
        Ok(Value::Export(ExportRule::QuantileRows { clip: nonzero(a)?, rule: rule(a, 2)? }))
    }),
    ("step", "step", "a phase begins at this step", |_, a, _| {
        Ok(Value::Trigger(Trigger::Step(size(get(a, 0)?, "the step")? as u64)))
    }),
    ("fraction", "spent", "a phase begins when this fraction of the budget is spent", |_, a, _| {
        Ok(Value::Trigger(Trigger::Fraction(fraction(get(a, 0)?, "the fraction")?)))
    }),
    ("lr_scale_below", "scale", "a phase begins when the learning-rate scale falls below", |_, a, _| {
        Ok(Value::Trigger(Trigger::LrScaleBelow(magnitude(get(a, 0)?, "the scale")?)))
    }),
    ("param", "name shape init shared?", "a parameter, named under the scopes in force", param),
];

fn axis(args: &Args, role: Role) -> Outcome {
    Ok(Value::Axis(Axis::new(positive(get(args, 0)?, "the size of an axis")?, role)))
}

/// A finite number from 0.
fn magnitude(value: &Value, what: &str) -> Outcome<f64> {
    match float(value, what)? {
        f if f.is_finite() && f >= 0.0 => Ok(f),
        f => Err(format!("{what} is a finite number from 0, found {f:?}").into()),
    }
}

/// A number from 0 and below 1.
fn fraction(value: &Value, what: &str) -> Outcome<f64> {
    match float(value, what)? {
        f if (0.0..1.0).contains(&f) => Ok(f),
        f => Err(format!("{what} is from 0 and below 1, found {f:?}").into()),
    }
}

fn rule(args: &Args, i: usize) -> Outcome<Option<ScaleRule>> {
    let Some(value) = &args[i] else { return Ok(None) };
    text(value, "the scale rule")?.parse().map(Some).map_err(|e: GridError| e.to_string().into())
}

/// `clip = 31` or `bits = 6`; `None` if neither is given.
fn clip(args: &Args) -> Outcome<Option<u16>> {
    let help = Some("clip 7 is int4, clip 31 is int6, clip 127 is int8".to_string());
    match (&args[0], &args[1]) {
        (Some(c), None) => match size(c, "clip")? {
            c @ 0..=127 => Ok(Some(c as u16)),
            c => Err(Fault::Error(format!("clip is at most 127, found {c}"), help)),
        },
        (None, Some(b)) => match size(b, "bits")? {
            b @ 2..=8 => Ok(Some((1 << (b - 1)) - 1)),
            b => Err(Fault::Error(format!("bits is 2 to 8, found {b}"), help)),
        },
        _ => Err(Fault::Error("give either clip or bits".into(), help)),
    }
}

fn nonzero(args: &Args) -> Outcome<u16> {
    match clip(args)? {
        Some(0) | None => Err("an export grid has a clip of at least 1".into()),
        Some(c) => Ok(c),
    }
}

fn param(cx: &mut Interp<'_>, args: &Args, span: &Span) -> Outcome {
    let name: Arc<str> = text(get(args, 0)?, "the name")?;
    if !crate::lang::interp::is_path(&name) {
        return Err(
            format!("`{name}` is not a parameter's name: names joined by dots, as in \"fc.weight\"").into()
        );
    }
    let shape = get(args, 1)?;
    if !matches!(shape, Value::List(_)) {
        return Err(super::wrong("the shape", "a List of sizes", shape));
    }
    let sizes = super::short_list(shape, "the shape")?;
    let shape: Vec<usize> =
        sizes.iter().map(|s| positive(s, "a size of the shape")).collect::<Outcome<_>>()?;
    if !is_storable(shape.iter().copied()) {
        return Err(format!("a parameter of shape {shape:?} is too large").into());
    }
    let Value::Init(init) = get(args, 2)? else {
        let found = get(args, 2)?;
        let help =
            "zeros, ones, orthogonal, constant(x), normal(std), uniform(bound), first_row(a, b)".to_string();
        return Err(Fault::Error(
            format!("the third argument says how it starts, found {}", found.kind()),
            Some(help),
        ));
    };
    if *init == Init::Orthogonal && shape.len() != 2 {
        return Err(format!("orthogonal is for matrices, found shape {shape:?}").into());
    }
    let shared = args[3].as_ref().map_or(Ok(false), |v| boolean(v, "shared"))?;
    cx.declare(&name, shape, *init, shared, span)
}
