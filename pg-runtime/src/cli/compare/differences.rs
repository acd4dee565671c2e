//! What differs between two sides, in their texts and in what was done with them.

use indexmap::{IndexMap, IndexSet};
use pg_codegen::report::summary::generalise;
use pg_ir::config;
use pg_ir::lang::model::{Export, Model, Param, Phase};
use pg_runtime::report::{DatasetReport, MachineReport};
use pg_runtime::run::FinishedRun;
use serde::Serialize;

use super::side::Side;
use crate::cli::format::grouped;

/// Something that only one side has, or that differs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Difference {
    pub(super) name: String,
    pub(super) a: Option<String>,
    pub(super) b: Option<String>,
}

/// All that differs, by its kind. Of what only runs have there is nothing unless both sides are runs.
#[derive(Debug, Serialize)]
pub(super) struct Differences {
    pub(super) constants: Vec<Difference>,
    /// Of the `train`, `eval` and `export` blocks, as they are in force.
    pub(super) settings: Vec<Difference>,
    /// Functions of the model's text; `a` and `b` say whether a side has it.
    pub(super) functions: Vec<Difference>,
    /// Parameters, layers as `*`: shape, initial values, optimiser, grids.
    pub(super) parameters: Vec<Difference>,
    /// Phases of training.
    pub(super) phases: Vec<Difference>,
    /// Texts, tokenizer and counts of bytes.
    pub(super) data: Vec<Difference>,
    /// What was asked for and done: steps, time, profile, when each phase began.
    pub(super) schedule: Vec<Difference>,
    /// Program, device, machine, seed.
    pub(super) conditions: Vec<Difference>,
}

impl Differences {
    pub(super) fn of(a: &Side, b: &Side) -> Differences {
        let of_models =
            |list: fn(&Model) -> IndexMap<String, String>| differ(&list(&a.model), &list(&b.model));
        let of_runs = |list: fn(&FinishedRun) -> IndexMap<String, String>| match (&a.run, &b.run) {
            (Some(a), Some(b)) => differ(&list(&a.run), &list(&b.run)),
            _ => Vec::new(),
        };
        Differences {
            constants: of_models(|model| model.consts.clone()),
            settings: of_models(config::settings),
            functions: functions(&a.model, &b.model),
            parameters: parameters(&a.model, &b.model),
            phases: of_models(phases),
            data: of_runs(data),
            schedule: of_runs(schedule),
            conditions: of_runs(conditions),
        }
    }

    /// Every kind with its title and its differences.
    pub(super) fn kinds(&self) -> [(&'static str, &[Difference]); 8] {
        [
            ("constants", &self.constants),
            ("settings", &self.settings),
            ("functions", &self.functions),
            ("parameters", &self.parameters),
            ("phases", &self.phases),
            ("data", &self.data),
            ("schedule", &self.schedule),
            ("conditions", &self.conditions),
        ]
    }
}

/// The names whose values are not the same, in the order of A, then of B.
fn differ(a: &IndexMap<String, String>, b: &IndexMap<String, String>) -> Vec<Difference> {
    let names: IndexSet<&String> = a.keys().chain(b.keys()).collect();
    let pair =
        |name: &String| Difference { name: name.clone(), a: a.get(name).cloned(), b: b.get(name).cloned() };
    names.into_iter().map(pair).filter(|d| d.a != d.b).collect()
}

/// Functions by name; their text would be too long here.
fn functions(a: &Model, b: &Model) -> Vec<Difference> {
    let differences = differ(&config::functions(a), &config::functions(b)).into_iter();
    let named = |Difference { name, a, b }| {
        let both = a.is_some() && b.is_some();
        let word = |side: Option<String>| side.map(|_| if both { "differs" } else { "has it" }.to_string());
        Difference { name, a: word(a), b: word(b) }
    };
    differences.map(named).collect()
}

/// What differs of parameters, a line each; of one that only one side has, its shape.
fn parameters(a: &Model, b: &Model) -> Vec<Difference> {
    let (a, b) = (aspects(a), aspects(b));
    let names: IndexSet<&String> = a.keys().chain(b.keys()).collect();
    let of_name = |name: &String| match (a.get(name), b.get(name)) {
        (Some(a), Some(b)) => {
            let named = |d: Difference| Difference { name: format!("{name}: {}", d.name), ..d };
            differ(a, b).into_iter().map(named).collect()
        }
        (a, b) => {
            let shape = |side: Option<&IndexMap<String, String>>| Some(side?.get(SHAPE)?.clone());
            vec![Difference { name: name.clone(), a: shape(a), b: shape(b) }]
        }
    };
    names.into_iter().flat_map(of_name).collect()
}

const SHAPE: &str = "shape";

/// What there is to say of each parameter, layers as `*`; where layers differ, of all of them.
fn aspects(model: &Model) -> IndexMap<String, IndexMap<String, String>> {
    let mut all: IndexMap<String, IndexMap<String, IndexSet<String>>> = IndexMap::new();
    for param in model.params.values() {
        let said = all.entry(generalise(&param.name)).or_default();
        for (aspect, value) in aspects_of(param) {
            said.entry(aspect.to_string()).or_default().insert(value);
        }
    }
    let joined = |said: IndexMap<String, IndexSet<String>>| {
        said.into_iter().map(|(aspect, values)| (aspect, Vec::from_iter(values).join(" | "))).collect()
    };
    all.into_iter().map(|(name, said)| (name, joined(said))).collect()
}

fn aspects_of(param: &Param) -> [(&'static str, String); 7] {
    // Every field has its line: a new one does not compile until it has.
    let Param { name: _, shape, init, optimiser, grid, export, ttt_frozen, weight_std, in_artifact } = param;
    let optimiser = format!("{optimiser:?}");
    // `Muon(Muon { lr: … })`
    let optimiser =
        optimiser.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(&optimiser);
    [
        (SHAPE, format!("{shape:?}")),
        ("initial values", format!("{init:?}")),
        ("optimiser", optimiser.to_string()),
        ("trained on", grid.map_or("no grid".into(), |grid| grid.to_string())),
        ("exported as", if *in_artifact { exported(export) } else { "nothing: only training has it".into() }),
        ("in test-time training", if *ttt_frozen { "frozen" } else { "trained" }.into()),
        ("expected deviation", weight_std.map_or("none".into(), |std| format!("{std:?}"))),
    ]
}

fn exported(export: &Export) -> String {
    match export {
        Export::F16 => "float16".into(),
        Export::TrainingGrid(grid) => grid.to_string(),
        Export::ClipSearch { grid, per_matrix } => {
            format!("{grid}, clip searched per {}", if *per_matrix { "matrix" } else { "row" })
        }
        Export::QuantileRows(grid) => format!("{grid}, rows clipped at a quantile"),
    }
}

fn phases(model: &Model) -> IndexMap<String, String> {
    let said = |phase: &Phase| {
        let set = phase.overrides.iter().map(|(name, value)| format!("{name} = {value}"));
        (phase.name.clone(), format!("at {:?}: {}", phase.trigger, set.collect::<Vec<_>>().join(", ")))
    };
    model.phases.iter().map(said).collect()
}

fn data(run: &FinishedRun) -> IndexMap<String, String> {
    let text = &run.record.text;
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    let dataset = |data: &Option<DatasetReport>| match data {
        Some(data) => format!("{} tokens, {}", grouped(data.tokens), short(&data.hash)),
        None => "none".into(),
    };
    let counts = if text.val_bytes.is_some() { dataset(&text.val_bytes) } else { "by the tokenizer".into() };
    [
        ("training text", dataset(&text.train)),
        ("validation text", dataset(&Some(text.val.clone()))),
        ("tokenizer", short(&text.tokenizer)),
        ("byte counts", counts),
        ("scored targets", grouped(text.targets)),
        ("bytes of scored text", grouped(text.bytes)),
        ("initial weights", run.record.init_hash.as_deref().map_or("random".into(), short)),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into()
}

fn schedule(run: &FinishedRun) -> IndexMap<String, String> {
    let (report, job) = (&run.report, &run.record.job);
    let asked = |value: Option<String>| value.unwrap_or("the model's".into());
    let mut all: IndexMap<String, String> = [
        ("profile", report.profile.clone()),
        ("steps done", grouped(report.train.steps)),
        ("tokens of training", grouped(report.train.tokens)),
        ("budget of steps", asked(job.steps.map(|n| n.to_string()))),
        ("budget of seconds", asked(job.seconds.map(|s| format!("{s} s")))),
        ("budget of FLOP", asked(job.flops.map(|f| format!("{f:e}")))),
        ("constants of the schedule", if job.unscaled_schedule { "as written" } else { "scaled" }.into()),
        ("warmdown", asked(job.warmdown_steps.map(|n| format!("{n} steps")))),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into();
    all.extend(report.train.phases.iter().map(|phase| {
        let began = phase.first_step.map_or("never".into(), |step| format!("at step {step}"));
        (format!("phase {} began", phase.name), began)
    }));
    all
}

fn conditions(run: &FinishedRun) -> IndexMap<String, String> {
    let report = &run.report;
    let unknown = |value: &Option<String>| value.clone().unwrap_or("unknown".into());
    let machine = report.machine.as_ref().map(|MachineReport { cpu, cores, os, arch }| {
        format!("{}, {cores} threads, {os}, {arch}", unknown(cpu))
    });
    [
        ("seed", report.seed.to_string()),
        ("device", run.record.device.clone()),
        ("precision", super::side::conditions(run).storage.to_string()),
        ("machine", unknown(&machine)),
        ("pg", run.record.pg.clone()),
        ("commit of pg", unknown(&report.commit)),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into()
}
