//! One program on its device beside the reference: is every output right?
//!
//! Three tolerances, each asked only about what the one before does not accept: a few roundings of the storage type; the
//! error of the same program without fusion on the same device; what noise of a rounding's size in every value does to
//! the reference. The second is not asked of devices that compile a kernel for every op, nor believed where it is far
//! off itself. An output that is zero where the reference is not is accepted by none but noise.

use std::collections::HashMap;
use std::sync::Arc;

use pg_codegen::plan::Plan;
use pg_codegen::{Options, compile_for, stored};
use pg_ir::graph::Graph;
use pg_ir::interp::Environment;
use pg_ir::programs::{Program, WeightCache};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use super::ValidateError;
use super::compare::{Measure, Part, Precision, parts};
use super::inputs::{Given, environment, given, state};
use super::noise::{exact, noisy};
use crate::executor::{Executor, Inputs};
use crate::session::{Key, Session, SessionError};
use crate::state::State;

/// Roundings of float32 noise as large as a rounding to bfloat16, and as another on the way to it.
const BF16_ROUNDINGS: f64 = 16384.0;

/// Roundings to bfloat16 may move an output by so many floors without further questions.
const ROUNDED_SUMS: f64 = 8.0;

/// Runs of the reference with noise, of which the largest error counts.
const NOISE_RUNS: u64 = 4;

/// A program, compiled as it runs, and the graph that says what it must compute.
pub(super) struct Compiled {
    pub(super) key: Key,
    pub(super) program: Program,
    /// The program's graph with its storage's roundings, which are the program's own: no other pass has touched it.
    pub(super) reference: Graph,
    pub(super) plan: Arc<Plan>,
}

impl Compiled {
    pub(super) fn new(session: &Session, key: Key) -> Result<Compiled, ValidateError> {
        let program = session.program(key)?;
        let machine = session.machine_of(key);
        let reference = stored(&program.graph, &machine).map_err(SessionError::from)?;
        let options = Options::default().of(&program);
        let plan =
            compile_for(&program.name, &program.graph, &options, &machine).map_err(SessionError::from)?;
        Ok(Compiled { key, program, reference, plan: Arc::new(plan) })
    }

    /// Every op a kernel of its own, and no cached weight from elsewhere.
    fn unfused(&self, session: &Session) -> Result<Plan, SessionError> {
        let options = Options { fuse: false, weight_cache: WeightCache::None };
        let Program { name, graph, .. } = &self.program;
        Ok(compile_for(name, graph, &options, &session.machine_of(self.key))?)
    }

    pub(super) fn precision(&self, session: &Session) -> Precision {
        Precision::of(session.machine_of(self.key).storage)
    }
}

/// What a device wrote, by slot.
pub(super) type Written = HashMap<Slot, Vec<f32>>;

/// One run of a program: what it read, what it wrote, and what ran it.
pub(super) struct Ran {
    pub(super) given: Given,
    pub(super) env: Environment,
    pub(super) written: Written,
    pub(super) executor: Box<dyn Executor>,
}

/// Runs the programs of a chain one after the other on one state; the last one by another plan, if one is given.
pub(super) fn run_chain(
    session: &Session,
    chain: &[Compiled],
    seed: u64,
    other: Option<Arc<Plan>>,
) -> Result<Vec<Ran>, ValidateError> {
    let Some(last) = chain.last() else { return Ok(Vec::new()) };
    // The last one reads whatever an earlier one does.
    let mut state = state(session, &last.program.graph, seed)?;
    let mut all = Vec::new();
    for (number, compiled) in chain.iter().enumerate() {
        let graph = &compiled.program.graph;
        let given = given(&session.model, graph, seed, number);
        let env = environment(graph, &state, &given)?;
        let plan = other.as_ref().filter(|_| number + 1 == chain.len()).unwrap_or(&compiled.plan);
        let executor = execute(session, plan, graph, &mut state, &given)?;
        let written = read(graph, &state, executor.as_ref())?;
        all.push(Ran { given, env, written, executor });
    }
    Ok(all)
}

/// Runs a plan once. What it only writes holds no number before.
fn execute(
    session: &Session,
    plan: &Arc<Plan>,
    graph: &Graph,
    state: &mut State,
    given: &Given,
) -> Result<Box<dyn Executor>, SessionError> {
    state.allocate_cached_weights(plan)?;
    for output in graph.outputs.iter().filter(|o| o.slot.space.is_state()) {
        if graph.inputs().all(|(slot, _)| *slot != output.slot) {
            state.get_mut(&output.slot)?.fill(f32::NAN);
        }
    }
    let data: Vec<(&str, &[i32])> = given.data.iter().map(|(n, ids)| (n.as_str(), &ids[..])).collect();
    let scalars: Vec<(&str, f32)> = given.scalars.iter().map(|(n, x)| (n.as_str(), *x)).collect();
    let mut executor = session.device().prepare(plan.clone())?;
    executor.run(state, Inputs { data: &data, scalars: &scalars }, None)?;
    Ok(executor)
}

/// What a program has written.
fn read(graph: &Graph, state: &State, executor: &dyn Executor) -> Result<Written, SessionError> {
    let values = |slot: &Slot| match slot.space {
        // A result that the plan does not have is one that nothing computes.
        Space::Result => Ok(executor.result(&slot.name).unwrap_or_default().to_vec()),
        _ => Ok::<_, SessionError>(state.get(slot)?.to_vec()),
    };
    graph.outputs.iter().map(|o| Ok((o.slot.clone(), values(&o.slot)?))).collect()
}

/// The same inputs in a state of their own.
fn restored(session: &Session, graph: &Graph, env: &Environment) -> Result<State, SessionError> {
    let mut state = state(session, graph, 0)?;
    for (slot, values) in env.iter().filter(|(slot, _)| slot.space.is_state()) {
        state.get_mut(slot)?.iter_mut().zip(values).for_each(|(x, &v)| *x = v as f32);
    }
    Ok(state)
}

/// An output and what was found about it.
pub(super) struct Verdict {
    pub(super) part: Part,
    pub(super) measure: Measure,
    pub(super) bound: f64,
    /// What is there and what should be, where the error is largest.
    pub(super) got: f64,
    pub(super) want: f64,
    /// Error of the same output without fusion, if that was asked.
    pub(super) unfused: Option<f64>,
}

impl Verdict {
    pub(super) fn passed(&self) -> bool {
        self.measure.error <= self.bound
    }
}

/// Holds what a program wrote to the reference.
pub(super) fn scorer(
    session: &Session,
    compiled: &Compiled,
    ran: &Ran,
) -> Result<Vec<Verdict>, ValidateError> {
    let graph = &compiled.reference;
    let precision = compiled.precision(session);
    let want = exact(graph, &ran.env)?;
    let mut verdicts: Vec<Verdict> = parts(&compiled.program.graph, &session.layout)
        .into_iter()
        .map(|part| {
            let (want, got) = (&want[&part.slot][part.range.clone()], wide(&ran.written[&part.slot], &part));
            let measure = Measure::of(want, got.iter().copied());
            let bound = if measure.is_lost { 0.0 } else { precision.bound(0.0, measure.scale) };
            let value = |of: &[f64]| of.get(measure.at).copied().unwrap_or(f64::NAN);
            Verdict { measure, bound, got: value(&got), want: value(want), unfused: None, part }
        })
        .collect();
    if session.device().runs_plans_as_they_are() && verdicts.iter().any(|v| !v.passed()) {
        let mut state = restored(session, &compiled.program.graph, &ran.env)?;
        let plan = Arc::new(compiled.unfused(session)?);
        let executor = execute(session, &plan, &compiled.program.graph, &mut state, &ran.given)?;
        let written = read(&compiled.program.graph, &state, executor.as_ref())?;
        for v in verdicts.iter_mut().filter(|v| !v.passed()) {
            let want = &want[&v.part.slot][v.part.range.clone()];
            let error = Measure::of(want, wide(&written[&v.part.slot], &v.part)).error;
            v.unfused = Some(error);
            if !v.measure.is_lost {
                let scale = v.measure.scale;
                v.bound = precision.bound(precision.believed(error, scale), scale);
            }
        }
    }
    for seed in 0..NOISE_RUNS {
        if verdicts.iter().all(Verdict::passed) {
            break;
        }
        let moved = noisy(graph, &ran.env, (seed, 1.0), &mut |_, _| {})?;
        for v in verdicts.iter_mut().filter(|v| !v.passed()) {
            let values = |env: &Environment| env[&v.part.slot][v.part.range.clone()].to_vec();
            let yardstick = Measure::of(&values(&want), values(&moved)).error;
            v.bound = v.bound.max(match v.measure.is_lost {
                true => yardstick,
                false => precision.bound(yardstick, v.measure.scale),
            });
        }
    }
    verdicts.extend(misrounded(session, compiled, &ran.env, &want)?);
    Ok(verdicts)
}

/// Outputs that storage's roundings, which the reference has, move by more than roundings of that size do: what the pass
/// that writes them changes beside.
pub(super) fn misrounded(
    session: &Session,
    compiled: &Compiled,
    env: &Environment,
    rounded: &Environment,
) -> Result<Vec<Verdict>, ValidateError> {
    if session.machine_of(compiled.key).storage != DType::BF16 {
        return Ok(Vec::new());
    }
    let graph = &compiled.program.graph;
    let floor = ROUNDED_SUMS * compiled.precision(session).floor;
    let want = exact(graph, env)?;
    let mut moved = None;
    let mut wrong = Vec::new();
    for part in parts(graph, &session.layout) {
        let of = |env: &Environment| env[&part.slot][part.range.clone()].to_vec();
        let (want, got) = (of(&want), of(rounded));
        let measure = Measure::of(&want, got.iter().copied());
        let mut bound = floor * measure.scale + f64::MIN_POSITIVE;
        if measure.error > bound {
            let moved = match &moved {
                Some(moved) => moved,
                None => moved.insert(noisy(graph, env, (0, BF16_ROUNDINGS), &mut |_, _| {})?),
            };
            bound += compiled.precision(session).bound(Measure::of(&want, of(moved)).error, measure.scale);
        }
        let (got, want) = (got[measure.at], want[measure.at]);
        let verdict = Verdict { part, measure, bound, got, want, unfused: None };
        wrong.extend((!verdict.passed()).then_some(verdict));
    }
    Ok(wrong)
}

/// A part of what was written, in float64; nothing where it was not written at all.
fn wide(written: &[f32], part: &Part) -> Vec<f64> {
    let none = vec![f32::NAN; part.range.len()];
    let values = written.get(part.range.clone()).unwrap_or(&none);
    values.iter().map(|&x| f64::from(x)).collect()
}
