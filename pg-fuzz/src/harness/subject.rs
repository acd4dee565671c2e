//! A model's programs with numbers for all that they read, for executors that this crate does not know: whoever runs
//! a program hands back what it wrote, and hears what is wrong with it.

use std::sync::Arc;

use pg_codegen::Options;
use pg_codegen::machine::Machine;
use pg_codegen::stored;
use pg_ir::interp::Environment;
use pg_ir::programs::Program;
use pg_runtime::session::Session;

use super::programs::Checker;
use super::reference::Reference;
use super::{Failure, Kind, Report, Settings, shape};
use crate::compare::difference;
use crate::rules;

/// A program and its inputs.
pub struct Subject {
    /// The program.
    pub program: Program,
    /// What it reads.
    pub env: Environment,
    seed: u64,
}

/// The programs of a text.
///
/// # Errors
/// In pg's words, if it refuses the text or one of its programs.
pub fn subjects(text: &str, seed: u64) -> Result<Vec<Subject>, String> {
    let model = rules::elaborated(text)?;
    let shape = shape(&model);
    let session = Session::new(Arc::new(model), Options::default());
    let (settings, mut report) = (Settings::default(), Report::default());
    let mut checker = Checker { session, shape, seed, settings: &settings, report: &mut report };
    let mut subjects = Vec::new();
    let mut inputs = None;
    for (key, _) in checker.keys() {
        let program = checker.session.program(key).map_err(|e| e.to_string())?;
        let inputs = inputs.get_or_insert_with(|| checker.inputs(&program));
        let state = inputs.state(&checker.session).map_err(|e| e.to_string())?;
        let env = inputs.environment(&program.graph, &state)?;
        subjects.push(Subject { program, env, seed });
    }
    Ok(subjects)
}

impl Subject {
    /// What is wrong with what a program wrote when it was stored as a machine stores it, by an executor whose attention rounds
    /// probabilities to bfloat16 or does not. Nothing is, if the values are beyond float32.
    ///
    /// # Errors
    /// If the program cannot be evaluated.
    pub fn differences(
        &self,
        found: &Environment,
        machine: &Machine,
        rounds_probabilities: bool,
    ) -> Result<Vec<Failure>, String> {
        let graph = stored(&self.program.graph, machine).map_err(|e| e.to_string())?;
        let mut reference = Reference::of(&graph, &self.env, self.seed, rounds_probabilities)?;
        let mut failures = Vec::new();
        if !reference.is_finite() {
            return Ok(failures);
        }
        for output in &graph.outputs {
            let slot = &output.slot;
            let mut fail = |kind, message: String| {
                failures.push(Failure { kind, place: self.program.name.clone(), message, more: 0 });
            };
            let Some(found) = found.get(slot).or_else(|| self.env.get(slot)) else {
                fail(Kind::Error, format!("{slot} was not written"));
                continue;
            };
            let is_right = |reference: &Reference<'_>| {
                let (want, bound) = reference.value(output.value);
                difference(found, want, bound)
            };
            if is_right(&reference).is_none() {
                continue;
            }
            reference.look_again();
            if let Some(d) = is_right(&reference)
                && !reference.is_ill_conditioned(slot, d.error())
            {
                fail(if d.is_lost { Kind::Lost } else { Kind::Wrong }, format!("{slot}: {d}"));
            }
        }
        Ok(failures)
    }
}
