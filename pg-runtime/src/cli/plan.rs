//! `pg plan`: what is launched, what it costs, and why it ends where it does. Every time it prints is predicted
//! from a target's peaks and says so.

mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use pg_codegen::machine::roofline::{Bound, predict};
use pg_codegen::machine::{self, Machine};
use pg_codegen::plan::{Launch, Place, Plan};
use pg_codegen::report::summary::{Peak, Row, passes, peak, rows};
use pg_codegen::{Options, compile_for};
use pg_ir::programs::Program;
use pg_runtime::session::{Key, Session};
use serde::Serialize;

use super::model::ModelArgs;
use super::programs::{ProgramArgs, find, machines};
use super::timing::{Clock, PassTime};
use super::ui::Ui;

/// Arguments of `pg plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    programs: ProgramArgs,
    #[arg(long, value_name = "NAME", default_value = "cpu", help = machines("Machine to predict times for", |_| true))]
    target: String,
    /// A line for each launch, instead of one for those that differ only in their layer.
    #[arg(long)]
    all: bool,
    /// Buffers too: what each holds, where, from which launch to which, and why.
    #[arg(long)]
    buffers: bool,
    /// How long each pass of the compiler takes over these programs, instead of what they launch.
    #[arg(long, conflicts_with_all = ["all", "buffers"])]
    timing: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    target: String,
    /// Times are predictions from peaks, never measurements.
    times: &'static str,
    batch: usize,
    seq_len: usize,
    fused: bool,
    /// One optimiser step of the first phase: its micro-batches and the update.
    train: Option<Totals>,
    programs: Vec<ProgramReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timing: Vec<PassTime>,
}

/// What something comes to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Totals {
    launches: usize,
    flops: f64,
    bytes: f64,
    unfused_launches: usize,
    unfused_bytes: f64,
    roofline_ms: f64,
    /// Scratch memory. Parameters and state come on top.
    peak_bytes: usize,
}

#[derive(Debug, Serialize)]
struct ProgramReport {
    name: String,
    kernels: usize,
    #[serde(flatten)]
    totals: Totals,
    /// Scopes and families, the most expensive first.
    summary: Vec<Group>,
    launches_table: Vec<Line>,
    buffers: Vec<BufferLine>,
    /// What holds scratch memory when most of it is in use.
    peak: Vec<Held>,
    peak_launch: Option<usize>,
    /// Traffic in passes over the most frequent activation, a layer.
    passes: Option<Passes>,
}

#[derive(Debug, Serialize)]
struct Passes {
    per_layer: f64,
    layers: usize,
    tokens: usize,
    width: usize,
    dtype: String,
}

/// Launches of one family in one scope.
#[derive(Clone, Debug, Serialize)]
struct Group {
    scope: String,
    family: &'static str,
    launches: usize,
    flops: f64,
    bytes: f64,
    roofline_us: f64,
    share: f64,
    bound: String,
    lines: Vec<String>,
}

/// A launch, or several that differ only in their layer.
#[derive(Debug, Serialize)]
struct Line {
    launches: Vec<usize>,
    family: &'static str,
    computes: String,
    scope: String,
    lines: Vec<String>,
    shape: String,
    flops: f64,
    bytes: f64,
    roofline_us: f64,
    bound: String,
    why: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct BufferLine {
    buffer: usize,
    holds: String,
    place: String,
    dtype: String,
    elements: usize,
    bytes: usize,
    first_launch: Option<usize>,
    last_launch: Option<usize>,
    why: &'static str,
}

#[derive(Debug, Serialize)]
struct Held {
    holds: String,
    buffers: usize,
    bytes: usize,
}

pub(crate) fn plan(args: PlanArgs, ui: &Ui) -> anyhow::Result<()> {
    let target = machine::named(&args.target).map_err(|message| anyhow!(message))?;
    let model = args.model.load(ui)?;
    let session = Session::new(Arc::new(model), args.programs.options());
    let mut named = args.programs.named(&session);
    if let Some(name) = &args.programs.program {
        let key = find(&named, name)?;
        named.retain(|(_, k)| *k == key);
    }
    let (batch, seq_len) = args.programs.shape(&session);
    let mut report = Report {
        model: session.model.name.clone(),
        target: target.name.to_string(),
        times: "predicted from the target's peaks",
        batch,
        seq_len,
        fused: !args.programs.no_fuse,
        train: None,
        programs: vec![],
        timing: vec![],
    };
    let (mut clock, options) = (Clock::default(), args.programs.options());
    for (name, key) in &named {
        let (program, plan) = clock.compile(&session, *key, &options, &target)?;
        report.programs.push(ProgramReport::new(&session, (name, *key), (&program, &plan), &args, &target)?);
    }
    report.train = report.training_step(&session, &named);
    if args.timing {
        report.timing = clock.times();
    }
    ui.report(&report, || report.text(&args, &target))?;
    Ok(())
}

impl ProgramReport {
    fn new(
        session: &Session,
        (name, key): (&str, Key),
        (program, plan): (&Program, &Plan),
        args: &PlanArgs,
        target: &Machine,
    ) -> anyhow::Result<ProgramReport> {
        let apart = Options { fuse: false, ..args.programs.options() }.of(program);
        let unfused = compile_for(name, &program.graph, &apart, target)?;
        let seconds = |l: &Launch| predict(plan, l, target).seconds();
        let totals = Totals {
            launches: plan.launches.len(),
            // An empty sum of floats is −0.
            flops: plan.flops() + 0.0,
            bytes: plan.bytes() + 0.0,
            unfused_launches: unfused.launches.len(),
            unfused_bytes: unfused.bytes() + 0.0,
            roofline_ms: plan.launches.iter().map(seconds).sum::<f64>() * 1e3,
            peak_bytes: plan.arena_bytes,
        };
        let lines: Vec<Line> = rows(plan, args.all).into_iter().map(|r| Line::new(plan, r, target)).collect();
        let at_peak = peak(plan);
        let (batch, seq_len) = args.programs.shape(session);
        let tokens = batch * seq_len;
        let is_of_tokens = !matches!(key, Key::Update | Key::Adapt);
        let passes = passes(plan, tokens).filter(|_| is_of_tokens).map(|p| Passes {
            per_layer: p.per_layer,
            layers: p.layers,
            tokens,
            width: p.width,
            dtype: p.dtype.to_string(),
        });
        Ok(ProgramReport {
            name: name.into(),
            kernels: plan.kernels.len(),
            totals,
            summary: summary(plan, target),
            launches_table: lines,
            buffers: if args.buffers { buffers(plan) } else { vec![] },
            passes,
            peak_launch: at_peak.as_ref().map(|p| p.launch),
            peak: at_peak.map_or(vec![], held),
        })
    }
}

fn held(peak: Peak) -> Vec<Held> {
    peak.holds.into_iter().map(|(holds, buffers, bytes)| Held { holds, buffers, bytes }).collect()
}

/// Predicted seconds of some launches of a plan, and what bounds most of that time.
fn time(plan: &Plan, launches: &[usize], target: &Machine) -> (f64, String) {
    let mut by_bound: BTreeMap<Bound, f64> = BTreeMap::new();
    for &i in launches {
        let prediction = predict(plan, &plan.launches[i], target);
        *by_bound.entry(prediction.bound()).or_default() += prediction.seconds();
    }
    let bound = by_bound.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(bound, _)| bound.to_string());
    (by_bound.values().sum(), bound.unwrap_or_default())
}

/// The launches by scope and family, the most expensive first.
fn summary(plan: &Plan, target: &Machine) -> Vec<Group> {
    let mut grouped: BTreeMap<(String, &'static str), Vec<Row>> = BTreeMap::new();
    for row in rows(plan, false) {
        grouped.entry((row.scope.clone(), row.family)).or_default().push(row);
    }
    let group = |((scope, family), rows): ((String, &'static str), Vec<Row>)| {
        let launches: Vec<usize> = rows.iter().flat_map(|r| r.launches.iter().copied()).collect();
        let (seconds, bound) = time(plan, &launches, target);
        let mut lines: Vec<String> = rows.iter().flat_map(|r| r.lines.iter().map(short)).collect();
        lines.sort();
        lines.dedup();
        Group {
            scope,
            family,
            launches: launches.len(),
            flops: rows.iter().map(|r| r.flops).sum::<f64>() + 0.0,
            bytes: rows.iter().map(|r| r.bytes).sum::<f64>() + 0.0,
            roofline_us: seconds * 1e6,
            share: 0.0,
            bound,
            lines,
        }
    };
    let mut groups: Vec<Group> = grouped.into_iter().map(group).collect();
    let total: f64 = groups.iter().map(|g| g.roofline_us).sum();
    // Every launch takes time, so that the total of some is not 0.
    groups.iter_mut().for_each(|g| g.share = g.roofline_us / total);
    groups.sort_by(|a, b| b.roofline_us.total_cmp(&a.roofline_us));
    groups
}

/// A line as `mlp.pg:10`: the folder is the model's own, or the library's.
fn short(line: &pg_codegen::report::provenance::Line) -> String {
    let name = line.file.rsplit(['/', '\\']).next().unwrap_or_default();
    if line.line == 0 { name.to_string() } else { format!("{name}:{}", line.line) }
}

impl Line {
    fn new(plan: &Plan, row: Row, target: &Machine) -> Line {
        let (seconds, bound) = time(plan, &row.launches, target);
        Line {
            family: row.family,
            computes: row.ops,
            scope: row.scope,
            lines: row.lines.iter().map(short).collect(),
            shape: row.shape,
            flops: row.flops,
            bytes: row.bytes,
            roofline_us: seconds * 1e6,
            bound,
            why: row.why,
            launches: row.launches,
        }
    }
}

fn buffers(plan: &Plan) -> Vec<BufferLine> {
    let uses = plan.uses();
    let line = |i: usize| {
        let (buffer, uses) = (&plan.buffers[i], uses[i]);
        BufferLine {
            buffer: i,
            holds: buffer.label.clone(),
            place: match &buffer.place {
                Place::External(slot) => slot.to_string(),
                Place::Temp { offset } => format!("scratch+{offset}"),
                Place::Constant(_) => "constant".into(),
            },
            dtype: buffer.dtype.to_string(),
            elements: buffer.len,
            bytes: buffer.bytes(),
            first_launch: uses.map(|u| u.0),
            last_launch: uses.map(|u| u.1),
            why: buffer.why,
        }
    };
    (0..plan.buffers.len()).map(line).collect()
}

impl Report {
    /// One optimiser step of the first phase, if all its programs are here.
    fn training_step(&self, session: &Session, named: &[(String, Key)]) -> Option<Totals> {
        let find = |want: &dyn Fn(&Key) -> bool| {
            let at = named.iter().position(|(_, key)| want(key))?;
            Some(self.programs[at].totals)
        };
        let grad = |next: bool| {
            find(&move |k| matches!(k, Key::Grad { phase: 0, accumulate, .. } if *accumulate == next))
        };
        let (first, next, update) = (grad(false)?, grad(true)?, find(&|k| *k == Key::Update)?);
        let micro_batches = (session.model.train.batch_tokens / (self.batch * self.seq_len)).max(1);
        let mut sum = Totals::default();
        for (totals, times) in [(first, 1), (next, micro_batches - 1), (update, 1)] {
            sum.launches += totals.launches * times;
            sum.unfused_launches += totals.unfused_launches * times;
            sum.flops += totals.flops * times as f64;
            sum.bytes += totals.bytes * times as f64;
            sum.unfused_bytes += totals.unfused_bytes * times as f64;
            sum.roofline_ms += totals.roofline_ms * times as f64;
            sum.peak_bytes = sum.peak_bytes.max(totals.peak_bytes);
        }
        Some(sum)
    }
}
