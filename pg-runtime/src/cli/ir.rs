//! `pg ir`: the programs that a model compiles to.

use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use pg_codegen::machine::{self, Machine};
use pg_codegen::pipeline;
use pg_codegen::{Options, compile_for, graph_after};
use pg_ir::lang::{Head, Trace};
use pg_runtime::session::{Key, Session};
use serde::Serialize;

use super::command::{command, variation_arguments};
use super::format::{grouped, megabytes, table_without};
use super::model::ModelArgs;
use super::programs::{ProgramArgs, find, machines};
use super::timing::{self, Clock, PassTime};
use super::ui::Ui;

/// Arguments of `pg ir`.
#[derive(Args, Debug)]
pub(crate) struct IrArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    programs: ProgramArgs,
    /// Print the program as it is after this pass.
    #[arg(long, value_enum, default_value_t = Pass::Autodiff, value_name = "PASS")]
    after: Pass,
    #[arg(long, value_name = "NAME", default_value = "cpu", help = machines("Machine to compile for (passes up to autodiff are the same for all)", |_| true))]
    target: String,
    /// How long each pass takes, over all programs.
    #[arg(long, conflicts_with = "program")]
    timing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Pass {
    /// The model's forward function, modules inlined.
    Trace,
    /// The whole program as a graph, backward and state included.
    Autodiff,
    /// The target's storage types, as explicit rounds.
    Precision,
    /// Cached weights written for other programs, or read.
    CachedWeights,
    /// Live nodes only, no identities, contractions in one form.
    Canonicalize,
    /// What the backward pass computes again instead of keeping it.
    Rematerialize,
    /// The plan: regions, contractions, buffers, launches. What becomes of these is shown by `pg kernels`.
    Plan,
}

#[derive(Debug, Serialize)]
struct Line {
    program: String,
    nodes: usize,
    launches: usize,
    kernels: usize,
    flops: f64,
    arena_bytes: usize,
}

#[derive(Debug, Serialize)]
struct Listing {
    model: String,
    programs: Vec<Line>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timing: Vec<PassTime>,
}

#[derive(Debug, Serialize)]
struct Text {
    model: String,
    program: String,
    after: &'static str,
    text: String,
}

/// Prints a program, or lists them all.
pub(crate) fn ir(args: IrArgs, ui: &Ui) -> anyhow::Result<()> {
    let target = machine::named(&args.target).map_err(|message| anyhow!(message))?;
    let model = args.model.load(ui)?;
    let options = args.programs.options();
    let session = Session::new(Arc::new(model), options.clone());
    let named = args.programs.named(&session);
    let how = (&options, &target);
    let Some(name) = &args.programs.program else {
        return list(&session, named, how, &args, ui);
    };
    let key = find(&named, name)?;
    let (after, text) = text(&session, key, args.after, how)?;
    let text = Text { model: session.model.name.clone(), program: name.clone(), after, text };
    ui.report_verbatim(&text, || text.text.clone())?;
    Ok(())
}

/// The text of a program after a pass, and the pass that it is really after.
fn text(
    session: &Session,
    key: Key,
    after: Pass,
    (options, target): (&Options, &Machine),
) -> anyhow::Result<(&'static str, String)> {
    let last = session.model.phases.len() - 1;
    let forward = |phase, batch, seq, qat, head| Trace { phase, batch, seq, qat, head };
    let request = match key {
        Key::Grad { phase, batch, seq, qat, .. } => Some(forward(phase, batch, seq, qat, Head::Loss)),
        Key::ScoreGrad { batch, seq, qat, .. } => Some(forward(last, batch, seq, qat, Head::MeanNll)),
        Key::Score { batch, seq, qat } => Some(forward(last, batch, seq, qat, Head::Nll)),
        Key::Logits { batch, seq, qat } => Some(forward(last, batch, seq, qat, Head::Logits)),
        Key::Update | Key::Adapt => None,
    };
    let graph = |pass| -> anyhow::Result<String> {
        let program = session.program(key)?;
        Ok(graph_after(pass, &program.graph, &options.of(&program), target)?.to_string())
    };
    Ok(match (after, request) {
        (Pass::Trace, Some(request)) => {
            ("trace", session.model.trace(&request)?.builder.finish().to_string())
        }
        // The optimiser's programs are not traced from the model: they begin as graphs.
        (Pass::Trace | Pass::Autodiff, _) => ("autodiff", session.program(key)?.graph.to_string()),
        (Pass::Precision, _) => ("precision", graph(pipeline::Pass::Precision)?),
        (Pass::CachedWeights, _) => ("cached-weights", graph(pipeline::Pass::CachedWeights)?),
        (Pass::Canonicalize, _) => ("canonicalize", graph(pipeline::Pass::Canonicalize)?),
        (Pass::Rematerialize, _) => ("rematerialize", graph(pipeline::Pass::Rematerialize)?),
        (Pass::Plan, _) => {
            let program = session.program(key)?;
            let plan = compile_for(&program.name, &program.graph, &options.of(&program), target)?;
            ("plan", plan.to_string())
        }
    })
}

fn list(
    session: &Session,
    named: Vec<(String, Key)>,
    (options, target): (&Options, &Machine),
    args: &IrArgs,
    ui: &Ui,
) -> anyhow::Result<()> {
    let mut listing = Listing { model: session.model.name.clone(), programs: vec![], timing: vec![] };
    let mut clock = Clock::default();
    for (name, key) in named {
        let (program, plan) = clock.compile(session, key, options, target)?;
        listing.programs.push(Line {
            program: name,
            nodes: program.graph.nodes().len(),
            launches: plan.launches.len(),
            kernels: plan.kernels.len(),
            // An empty sum of floats is −0.
            flops: plan.launches.iter().map(|l| l.flops).sum::<f64>() + 0.0,
            arena_bytes: plan.arena_bytes,
        });
    }
    if args.timing {
        listing.timing = clock.times();
    }
    ui.report(&listing, || listing.text(&args.model))?;
    Ok(())
}

impl Listing {
    fn text(&self, model: &ModelArgs) -> String {
        if !self.timing.is_empty() {
            return format!("{}\n{}", self.model, timing::text(&self.timing));
        }
        let row = |l: &Line| {
            vec![
                l.program.clone(),
                grouped(l.nodes as u64),
                grouped(l.launches as u64),
                grouped(l.kernels as u64),
                format!("{:.2}", l.flops / 1e9),
                megabytes(l.arena_bytes as u64),
            ]
        };
        let headings = ["program", "ops", "launches", "distinct kernels", "GFLOP", "scratch memory"];
        let rows = self.programs.iter().map(row).collect();
        let first = self.programs.first().map_or("score", |l| l.program.as_str());
        let mut words = vec!["ir".to_string(), model.file.display().to_string()];
        words.extend(variation_arguments(&model.variation));
        words.extend(["--program", first, "--after", "plan"].map(String::from));
        format!(
            "{}\n{}\n\nOne of them:\n  {}",
            self.model,
            table_without(&headings, &[1, 2, 3, 4, 5], &[3, 1], rows),
            command(words)
        )
    }
}
