//! Which launch went wrong first.
//!
//! Passes over graphs are asked first: each pass's graph must give the reference's outputs in float64. Then the plan as it
//! ran: whether it writes every output, and writes what it reads. Then the plan runs once more with a copy of each buffer
//! taken right after the launch that completes it, and the first that differs from the graph's value is to blame, since
//! all that it read was right. Nothing here decides whether something is wrong, only where.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pg_codegen::pipeline::Pass;
use pg_codegen::plan::{Buffer, BufferId, Computed, Kernel, KernelId, Launch, Place, Plan};
use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_codegen::report::provenance::Provenance;
use pg_codegen::{Options, graph_after};
use pg_ir::graph::{Graph, ValueId};
use pg_ir::interp::{Environment, Tensor};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use super::ValidateError;
use super::check::{Compiled, Ran, misrounded, run_chain};
use super::compare::{Measure, parts};
use super::difference::Blame;
use super::noise::{exact, noisy, watched};
use crate::session::{Session, SessionError};

/// Passes over graphs, in order.
const PASSES: [(Pass, &str); 3] = [
    (Pass::CachedWeights, "cached weights"),
    (Pass::Canonicalize, "canonical form"),
    (Pass::Rematerialize, "recomputation"),
];

/// Two float64 interpretations of one computation are as close as this, relative to the largest element, but where a
/// rounding to bfloat16 goes the other way.
const SAME: f64 = 1e-6;

/// Values inside a program may be off by this many times what its outputs may: what cancels later is not small yet.
const INSIDE: f64 = 4.0;

/// Runs of the reference with noise.
const NOISE_RUNS: u64 = 2;

/// Finds where the last of a chain's programs goes wrong. `ran` are their runs from these inputs.
pub(super) fn blame(
    session: &Session,
    chain: &[Compiled],
    ran: &[Ran],
    seed: u64,
) -> Result<Blame, ValidateError> {
    let (Some(compiled), Some(last)) = (chain.last(), ran.last()) else { return Ok(Blame::default()) };
    let env = with_cached_weights(session, chain, ran)?;
    if let Some(blame) = passes(session, compiled, &env)? {
        return Ok(blame);
    }
    let graph = after(session, compiled, Pass::Rematerialize)?;
    if let Some(blame) = unwritten(last.executor.plan(), &compiled.plan, &graph) {
        return Ok(blame);
    }
    let probed = Probed::of(&compiled.plan);
    let again = match run_chain(session, chain, seed, Some(Arc::new(probed.plan.clone()))) {
        Ok(again) => again,
        // As from a bundle, which has no kernels for it.
        Err(error) => {
            let first =
                format!("the launch was not found, as the plan cannot be run step by step here: {error}");
            return Ok(Blame { first, lines: Vec::new() });
        }
    };
    let Some(again) = again.last() else { return Ok(Blame::default()) };
    let found = |name: &str| again.executor.result(name).map(<[f32]>::to_vec);
    let first = first_wrong(session, compiled, &graph, &env, &probed, found)?;
    Ok(first.unwrap_or_else(|| Blame {
        first: "no single launch stands out: each gives about what its operands let expect".into(),
        lines: Vec::new(),
    }))
}

fn after(session: &Session, compiled: &Compiled, pass: Pass) -> Result<Graph, SessionError> {
    let options = Options::default().of(&compiled.program);
    let machine = session.machine_of(compiled.key);
    Ok(graph_after(pass, &compiled.program.graph, &options, &machine)?)
}

/// What the last program of a chain reads, with the cached weights that the first one left, in float64.
fn with_cached_weights(
    session: &Session,
    chain: &[Compiled],
    ran: &[Ran],
) -> Result<Environment, ValidateError> {
    let mut env = ran.last().map(|r| r.env.clone()).unwrap_or_default();
    if let ([first, .., _], [run, ..]) = (chain, ran) {
        let left = exact(&after(session, first, Pass::CachedWeights)?, &run.env)?;
        env.extend(left.into_iter().filter(|(slot, _)| slot.space == Space::CachedWeight));
    }
    Ok(env)
}

/// The first pass over graphs after which an output is another.
fn passes(session: &Session, compiled: &Compiled, env: &Environment) -> Result<Option<Blame>, ValidateError> {
    let want = exact(&compiled.reference, env)?;
    if let Some(v) = misrounded(session, compiled, env, &want)?.first() {
        let first = format!("the pass `precision` changes {} by more than its roundings do", v.part.words());
        return Ok(Some(Blame { first, lines: Vec::new() }));
    }
    let precision = compiled.precision(session);
    for (pass, name) in PASSES {
        let got = exact(&after(session, compiled, pass)?, env)?;
        for part in parts(&compiled.program.graph, &session.layout) {
            let of =
                |env: &Environment| env.get(&part.slot).map_or(&[][..], |v| &v[part.range.clone()]).to_vec();
            let measure = Measure::of(&of(&want), of(&got));
            let rounds = session.machine_of(compiled.key).storage == DType::BF16;
            let bound = if rounds { precision.floor } else { SAME };
            if measure.compared > 0 && measure.error > bound * measure.scale {
                let first = format!("the pass `{name}` changes {}, before any launch", part.words());
                return Ok(Some(Blame { first, lines: Vec::new() }));
            }
        }
    }
    Ok(None)
}

/// Whether a plan leaves out an output, or a launch reads what none before it has written.
fn unwritten(ran: &Plan, compiled: &Plan, graph: &Graph) -> Option<Blame> {
    let mut written: HashSet<BufferId> = HashSet::new();
    let label = |b: BufferId| ran.buffers.get(b.0 as usize).map_or("", |b| &b.label);
    for (at, launch) in ran.launches.iter().enumerate() {
        let kernel = &ran.kernels[launch.kernel.0 as usize];
        let is_temporary = |b: &BufferId| matches!(ran.buffers[b.0 as usize].place, Place::Temp { .. });
        let args = || launch.args.iter().enumerate();
        let missing = args().find(|(i, b)| !kernel.writes(*i) && is_temporary(b) && !written.contains(b));
        if let Some((_, &buffer)) = missing {
            let lost = compiled.computed.iter().find(|c| c.buffer == buffer).map(|c| c.value);
            let first = format!(
                "first launch that differs: #{at} {} reads {}, which no launch has computed",
                in_words(ran, at),
                label(buffer)
            );
            return Some(Blame { first, lines: lines_of(&launch.provenance, lost.map(|v| (graph, v))) });
        }
        written.extend(args().filter(|(i, _)| kernel.writes(*i)).map(|(_, b)| *b));
    }
    let holds = |slot: &Slot| {
        let buffers = ran.buffers.iter().enumerate();
        let mut of = buffers.filter(|(_, b)| matches!(&b.place, Place::External(s) if s == slot));
        of.any(|(i, _)| written.contains(&BufferId(i as u32)))
    };
    let inputs: HashMap<&Slot, ValueId> = graph.inputs().collect();
    let lost = graph.outputs.iter().find(|o| inputs.get(&o.slot) != Some(&o.value) && !holds(&o.slot))?;
    let first = format!("no launch computes {}: the plan has lost it", lost.slot);
    Some(Blame { first, lines: lines_of(&Provenance::default(), Some((graph, lost.value))) })
}

/// A launch's family, shape, and what it computes.
fn in_words(plan: &Plan, launch: usize) -> String {
    let launch = &plan.launches[launch];
    let kernel = &plan.kernels[launch.kernel.0 as usize];
    format!("{} [{}] {}", kernel.family(), kernel.shape(), launch.note())
}

/// Lines of the model that a launch and a value come from.
fn lines_of(provenance: &Provenance, value: Option<(&Graph, ValueId)>) -> Vec<String> {
    // What a pass made up stands at line 0.
    let of_model = provenance.model_lines().filter(|line| line.line > 0);
    let mut lines: Vec<String> = of_model.map(ToString::to_string).collect();
    if let Some((graph, value)) = value {
        let origin = &graph.producer(value).origin;
        let places = [Some(&origin.loc), origin.call.as_ref()].into_iter().flatten();
        let of_model = places.filter(|loc| !loc.file.starts_with("std/") && loc.line > 0);
        lines.extend(of_model.map(|loc| format!("{}:{}", loc.file, loc.line)));
    }
    let mut seen = HashSet::new();
    lines.retain(|line| seen.insert(line.clone()));
    lines
}

/// A plan that also keeps what its launches compute.
struct Probed {
    plan: Plan,
    /// What is kept, in the order in which it is computed: the name of the result, and the original's launch.
    kept: Vec<(String, Computed)>,
}

impl Probed {
    fn of(plan: &Plan) -> Probed {
        // Where several launches write parts of a value, the last completes it.
        let mut last: HashMap<(BufferId, ValueId), usize> = HashMap::new();
        for c in &plan.computed {
            let launch = last.entry((c.buffer, c.value)).or_default();
            *launch = c.launch.max(*launch);
        }
        let mut out = Plan { launches: Vec::new(), computed: Vec::new(), ..plan.clone() };
        let mut kept = Vec::new();
        for (at, launch) in plan.launches.iter().enumerate() {
            out.launches.push(launch.clone());
            for &c in plan.computed.iter().filter(|c| c.launch == at) {
                if last.get(&(c.buffer, c.value)) == Some(&at) {
                    let name = format!("probe {}", kept.len());
                    keep(&mut out, c.buffer, &name);
                    kept.push((name, c));
                }
            }
        }
        Probed { plan: out, kept }
    }
}

/// Appends a launch that copies a buffer, as float32, into a result.
fn keep(plan: &mut Plan, from: BufferId, name: &str) {
    let Buffer { dtype, len, .. } = plan.buffers[from.0 as usize];
    let columns = [64, 16, 4].into_iter().find(|columns| len.is_multiple_of(*columns)).unwrap_or(1);
    let at = Affine { offset: 0, strides: [columns as i64, 1].into_iter().collect() };
    let load = Instr::Load { arg: 0, map: IndexMap { at: at.clone(), guards: Vec::new() } };
    let body = vec![load, Instr::Cast(DType::F32, 0), Instr::Store { arg: 1, value: 1, at }];
    let rows = vec![len / columns];
    plan.kernels.push(Kernel::Region(Region {
        rows,
        reduced: 0,
        columns,
        body,
        args: vec![dtype, DType::F32],
    }));
    plan.buffers.push(Buffer {
        dtype: DType::F32,
        len,
        place: Place::External(Slot::new(Space::Result, name)),
        label: name.into(),
        why: "validation looks at it",
    });
    let (kernel, to) = (plan.kernels.len() as u32 - 1, plan.buffers.len() as u32 - 1);
    plan.launches.push(Launch {
        kernel: KernelId(kernel),
        args: vec![from, BufferId(to)],
        provenance: Provenance::task("validation"),
        flops: 0.0,
        bytes: 0.0,
    });
}

/// The first launch whose result is not its value of the graph.
fn first_wrong(
    session: &Session,
    compiled: &Compiled,
    graph: &Graph,
    env: &Environment,
    probed: &Probed,
    found: impl Fn(&str) -> Option<Vec<f32>>,
) -> Result<Option<Blame>, ValidateError> {
    let precision = compiled.precision(session);
    let wanted: HashSet<ValueId> = probed.kept.iter().map(|(_, c)| c.value).collect();
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    watched(graph, env, &mut |value, tensor| {
        if wanted.contains(&value) {
            values.insert(value, tensor.to_vec());
        }
    })?;
    let mut yardsticks: HashMap<ValueId, f64> = HashMap::new();
    for seed in 0..NOISE_RUNS {
        noisy(graph, env, (seed, 1.0), &mut |value, tensor| {
            if let Some(want) = values.get(&value) {
                let error = Measure::of(want, tensor.iter().copied()).error;
                let most = yardsticks.entry(value).or_default();
                *most = most.max(error);
            }
        })?;
    }
    for (name, c) in &probed.kept {
        let Some(want) = values.get(&c.value) else { continue };
        let got = found(name).unwrap_or_default();
        let measure = match got.len() == want.len() {
            true => Measure::of(want, got.iter().map(|&x| f64::from(x))),
            false => Measure { error: f64::INFINITY, ..Measure::default() },
        };
        let yardstick = yardsticks.get(&c.value).copied().unwrap_or(0.0);
        let bound = INSIDE * precision.bound(yardstick, measure.scale);
        if measure.error > bound || measure.is_lost {
            let launch = &compiled.plan.launches[c.launch];
            let first = format!(
                "first launch that differs: #{} {}, off by {:.1e} at element {} of {}",
                c.launch,
                in_words(&compiled.plan, c.launch),
                measure.error,
                measure.at,
                compiled.plan.buffers[c.buffer.0 as usize].label,
            );
            return Ok(Some(Blame { first, lines: lines_of(&launch.provenance, Some((graph, c.value))) }));
        }
    }
    Ok(None)
}
