//! Two texts that must mean the same, two halves of a batch, one and two threads.

use std::sync::Arc;

use pg_codegen::Options;
use pg_ir::programs::Program;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use pg_runtime::session::{Key, Session};

use super::inputs::Inputs;
use super::programs::Checker;
use super::reference::Reference;
use super::{Kind, Report, Settings, guarded, shape};
use crate::compare::difference;
use crate::rules;

/// What a pair gave.
fn watched(place: &str, f: impl FnOnce(&mut Report) -> Result<(), String>) -> Report {
    let mut report = Report::default();
    match guarded(|| f(&mut report)) {
        Ok(Ok(())) => {}
        Ok(Err(message)) => report.fail(Kind::Error, place, message),
        Err(words) => report.fail(Kind::Panic, place, words),
    }
    report
}

fn session(text: &str) -> Result<Session, String> {
    Ok(Session::new(Arc::new(rules::elaborated(text)?), Options::default()))
}

fn grad(session: &Session, (batch, seq): (usize, usize), accumulate: bool) -> Result<Program, String> {
    session.program(Key::Grad { phase: 0, batch, seq, qat: false, accumulate }).map_err(|e| e.to_string())
}

/// Loss and gradients of two texts on the same parameters, by name where they have the same names, else by position.
pub fn pair(one: &str, other: &str, seed: u64) -> Report {
    watched("a pair", |report| {
        let (a, b) = (session(one)?, session(other)?);
        let shape = shape(&a.model);
        let (program_a, program_b) = (grad(&a, shape, false)?, grad(&b, shape, false)?);
        let settings = Settings::default();
        let inputs =
            Checker { session: a, shape, seed, settings: &settings, report: &mut *report }.inputs(&program_a);
        let a = session(one)?;
        let model = b.model.clone();
        let name_of = |name: &str| -> Result<String, String> {
            if a.model.params.contains_key(name) {
                return Ok(name.into());
            }
            let at = model.params.get_index_of(name).and_then(|i| a.model.params.get_index(i));
            at.map(|(n, _)| n.clone()).ok_or_else(|| format!("`{name}` has no counterpart"))
        };
        if a.model.params.len() != b.model.params.len() {
            return Err(format!("{} parameters, {} in the twin", a.model.params.len(), b.model.params.len()));
        }
        let mut inputs_b = Inputs::draw(&b.model, &b.layout, inputs.tokens.len(), seed, 1.0);
        (inputs_b.tokens, inputs_b.targets) = (inputs.tokens.clone(), inputs.targets.clone());
        for name in b.model.params.keys() {
            let values = &inputs.state[&Slot::new(Space::Param, name_of(name)?)];
            inputs_b.state.insert(Slot::new(Space::Param, name.clone()), values.clone());
        }

        let state_a = inputs.state(&a).map_err(|e| e.to_string())?;
        let env_a = inputs.environment(&program_a.graph, &state_a)?;
        let mut reference = Reference::new(&program_a.graph, &env_a, seed)?;
        if !reference.is_finite() {
            report.not_finite += 1;
            return Ok(());
        }
        let mut state_b = inputs_b.state(&b).map_err(|e| e.to_string())?;
        let env_b = inputs_b.environment(&program_b.graph, &state_b)?;
        let mut own = Reference::new(&program_b.graph, &env_b, seed)?;
        let mut checker = Checker { session: b, shape, seed, settings: &settings, report: &mut *report };
        let written =
            checker.execute(&program_b, &program_b.graph, DType::F32, true, &inputs_b, &mut state_b)?;
        for (slot, found) in &written {
            let twin = match slot.space {
                Space::Grad => Slot::new(Space::Grad, name_of(&slot.name)?),
                _ => slot.clone(),
            };
            let (Some(value), Some(own_value)) = (reference.output(&twin), own.output(slot)) else {
                return Err(format!("{slot} has no counterpart"));
            };
            checker.report.compared += 1;
            let (want, bound) = reference.value(value);
            if difference(found, want, bound + own.value(own_value).1).is_none() {
                continue;
            }
            reference.look_again();
            own.look_again();
            let (want, bound) = reference.value(value);
            if let Some(d) = difference(found, want, bound + own.value(own_value).1) {
                if reference.is_ill_conditioned(&twin, d.error()) || own.is_ill_conditioned(slot, d.error()) {
                    checker.report.ill_conditioned += 1;
                } else {
                    checker.fail(Kind::Wrong, "a pair", format!("{slot}: {d}"));
                }
            }
        }
        Ok(())
    })
}

/// A batch as a whole, and as two micro-batches of its halves.
pub fn halves(text: &str, seed: u64) -> Report {
    watched("two micro-batches", |report| {
        let whole = session(text)?;
        let (batch, seq) = shape(&whole.model);
        let shape = (2 * batch, seq);
        let program = grad(&whole, shape, false)?;
        let (first, next) = (grad(&whole, (batch, seq), false)?, grad(&whole, (batch, seq), true)?);
        let settings = Settings::default();
        let mut checker = Checker { session: whole, shape, seed, settings: &settings, report };
        let mut inputs = checker.inputs(&program);
        let share = |inputs: &mut Inputs, value: f32| {
            inputs.scalars.iter_mut().filter(|(n, _)| n == "inv_accum").for_each(|(_, v)| *v = value);
        };
        share(&mut inputs, 1.0);
        let state = inputs.state(&checker.session).map_err(|e| e.to_string())?;
        let env = inputs.environment(&program.graph, &state)?;
        let mut reference = Reference::new(&program.graph, &env, seed)?;
        if !reference.is_finite() {
            checker.report.not_finite += 1;
            return Ok(());
        }
        share(&mut inputs, 0.5);
        let mut state = inputs.state(&checker.session).map_err(|e| e.to_string())?;
        let half = batch * seq;
        let mut losses = 0.0;
        let mut last = Vec::new();
        for (part, program) in [&first, &next].into_iter().enumerate() {
            let mut own = inputs.clone();
            let range = part * half..(part + 1) * half;
            (own.tokens, own.targets) =
                (inputs.tokens[range.clone()].to_vec(), inputs.targets[range].to_vec());
            last = checker.execute(program, &program.graph, DType::F32, true, &own, &mut state)?;
            let loss = last.iter().find(|(s, _)| s.space == Space::Result).map_or(f64::NAN, |(_, v)| v[0]);
            losses += 0.5 * loss;
        }
        for (slot, found) in &last {
            let found = if slot.space == Space::Result { vec![losses] } else { found.clone() };
            checker.hold("two micro-batches", slot, &found, &mut reference);
        }
        Ok(())
    })
}

/// The same bits on one thread as on several. Sizes are raised, so that there is something to share; a text that
/// does not go with other sizes gives nothing.
pub fn threads(text: &str, seed: u64) -> Option<Report> {
    let larger = [("HEAD_DIM", 16), ("VOCAB", 300), ("NARROW", 33), ("MLP_DIM", 70)];
    let mut large = text.to_string();
    for (name, value) in larger {
        large = crate::metamorphic::with_constant(&large, name, value);
    }
    let session = session(&large).ok()?;
    let (batch, seq) = (3, 40);
    let program = guarded(|| grad(&session, (batch, seq), false)).ok()?.ok()?;
    let mut report = Report::default();
    let settings = Settings::default();
    let inputs = Inputs::draw(&session.model, &session.layout, batch * seq, seed, 0.5);
    let mut checker =
        Checker { session, shape: (batch, seq), seed, settings: &settings, report: &mut report };
    let place = "one thread and several";
    let mut runs = Vec::new();
    for count in [1, 2, 3] {
        let run = || {
            guarded(|| {
                let mut state = inputs.state(&checker.session).map_err(|e| e.to_string())?;
                checker.execute(&program, &program.graph, DType::F32, true, &inputs, &mut state)
            })
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().ok()?;
        match pool.install(run) {
            Ok(Ok(written)) => runs.push(written),
            Ok(Err(message)) => checker.fail(Kind::Error, place, message),
            Err(words) => checker.fail(Kind::Panic, place, words),
        }
    }
    let bits = |run: &[(Slot, Vec<f64>)]| -> Vec<u64> {
        run.iter().flat_map(|(_, v)| v.iter().map(|x| x.to_bits())).collect()
    };
    for run in runs.iter().skip(1) {
        checker.report.compared += run.len();
        if bits(run) != bits(&runs[0]) {
            checker.fail(Kind::Wrong, place, "the bits differ");
        }
    }
    Some(report)
}
