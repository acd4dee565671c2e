//! `pg ir`: the programs that a model compiles to.

use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};
use pg_codegen::compile;
use pg_ir::dsl::{Head, Trace, nearest};
use pg_runtime::session::{Key, Session};
use serde::Serialize;

use super::format::{grouped, megabytes, table};
use super::model::ModelArgs;
use super::summary::invocation;
use super::ui::Ui;

/// Arguments of `pg ir`.
#[derive(Args, Debug)]
pub(crate) struct IrArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Print this program; without it, list them.
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Print the program as it is after this pass.
    #[arg(long, value_enum, default_value_t = Pass::Autodiff, value_name = "PASS")]
    after: Pass,
    /// Sequences of a batch [default: those of a micro-batch].
    #[arg(long, value_name = "N", value_parser = super::run::count)]
    batch: Option<usize>,
    /// Tokens of a sequence [default: the model's].
    #[arg(long, value_name = "N", value_parser = super::run::count)]
    seq_len: Option<usize>,
    /// Plan one kernel an op.
    #[arg(long)]
    no_fuse: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Pass {
    /// The model's forward function, modules inlined.
    Trace,
    /// The whole program as a graph, backward and state included.
    Autodiff,
    /// The plan: regions, matmuls, buffers, launches.
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
    let model = args.model.load(ui)?;
    let seq = args.seq_len.unwrap_or(model.train.seq_len);
    let batch = args.batch.unwrap_or((model.train.micro_batch_tokens / seq.max(1)).max(1));
    let fuse = pg_codegen::Options { fuse: !args.no_fuse };
    let session = Session::new(Arc::new(model), fuse.clone());
    let named = programs(&session, (batch, seq));
    match args.program {
        None => list(&session, named, &fuse, &args.model, ui),
        Some(name) => {
            let Some((_, key)) = named.iter().find(|(n, _)| *n == name) else {
                let known: Vec<&str> = named.iter().map(|(n, _)| n.as_str()).collect();
                let hint = nearest(&name, known.iter().copied());
                let hint = hint.map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
                bail!("there is no program `{name}`{hint}; the programs are {}", known.join(", "));
            };
            let (after, text) = text(&session, *key, args.after, &fuse)?;
            let text = Text { model: session.model.name.clone(), program: name, after, text };
            ui.report(&text, || text.text.clone())?;
            Ok(())
        }
    }
}

/// Programs by name. Quantisation-aware training is part of a program, and so of its name.
fn programs(session: &Session, (batch, seq): (usize, usize)) -> Vec<(String, Key)> {
    let mut all = Vec::new();
    for phase in 0..session.model.phases.len() {
        let qat = session.model.is_quantised(phase);
        let suffix = format!(
            "{}{}",
            if qat { ".qat" } else { "" },
            if phase > 0 { format!(".phase{phase}") } else { String::new() }
        );
        for (name, accumulate) in [("grad.first", false), ("grad.next", true)] {
            all.push((format!("{name}{suffix}"), Key::Grad { phase, batch, seq, qat, accumulate }));
        }
    }
    all.push(("update".into(), Key::Update));
    all.push(("score".into(), Key::Score { batch, seq, qat: false }));
    all.push(("logits".into(), Key::Logits { batch, seq, qat: false }));
    if session.model.eval.ttt.is_some() {
        all.push(("adapt".into(), Key::Adapt));
    }
    all
}

/// The text of a program after a pass, and the pass that it is really after.
fn text(
    session: &Session,
    key: Key,
    after: Pass,
    options: &pg_codegen::Options,
) -> anyhow::Result<(&'static str, String)> {
    let last = session.model.phases.len() - 1;
    let forward = |phase, batch, seq, qat, head| Trace { phase, batch, seq, qat, head };
    let request = match key {
        Key::Grad { phase, batch, seq, qat, .. } => Some(forward(phase, batch, seq, qat, Head::Loss)),
        Key::Score { batch, seq, qat } => Some(forward(last, batch, seq, qat, Head::Nll)),
        Key::Logits { batch, seq, qat } => Some(forward(last, batch, seq, qat, Head::Logits)),
        Key::Update | Key::Adapt => None,
    };
    Ok(match (after, request) {
        (Pass::Trace, Some(request)) => {
            ("trace", session.model.trace(&request)?.builder.finish().to_string())
        }
        // The optimiser's programs are not traced from the model: they begin as graphs.
        (Pass::Trace | Pass::Autodiff, _) => ("autodiff", session.program(key)?.graph.to_string()),
        (Pass::Plan, _) => {
            let program = session.program(key)?;
            ("plan", compile(&program.name, &program.graph, options)?.to_string())
        }
    })
}

fn list(
    session: &Session,
    named: Vec<(String, Key)>,
    options: &pg_codegen::Options,
    file: &ModelArgs,
    ui: &Ui,
) -> anyhow::Result<()> {
    let mut listing = Listing { model: session.model.name.clone(), programs: vec![] };
    for (name, key) in named {
        let program = session.program(key)?;
        let plan = compile(&program.name, &program.graph, options)?;
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
    ui.report(&listing, || listing.text(file))?;
    Ok(())
}

impl Listing {
    fn text(&self, model: &ModelArgs) -> String {
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
        format!(
            "{}\n{}\n\nOne of them: {} ir {} --program {first} --after plan",
            self.model,
            table(&headings, &[1, 2, 3, 4, 5], rows),
            invocation(),
            model.file.display()
        )
    }
}
