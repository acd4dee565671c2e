//! The main job: a model file becomes a scored artifact.

mod corpus;
mod folder;
mod full_size;
mod judge;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pg_ir::budget::BudgetError;
use pg_ir::dsl::{Diagnostics, Options, Source, elaborate};
use pg_ir::footprint::Moment;
use pg_ir::model::Model;
use pg_ir::slot::Space;
use thiserror::Error;

pub use self::corpus::Corpus;
use self::folder::RunFolder;
pub use self::judge::Judge;
use crate::data::{DataError, Loader};
use crate::eval::EvalError;
use crate::export::{self, ExportError, Provenance};
use crate::report::{ArtifactReport, Event, Observer, RunReport, Scores, TrainReport};
use crate::schedule::Budget;
use crate::session::{Key, Session, SessionError};
use crate::train::{TrainError, TrainPlan, Trained, spaces, train};
use crate::weights::{self, WeightsError};

/// What `pg run` was asked for. `None` leaves the model file's (or its profile's) value.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The model file.
    pub model: PathBuf,
    /// `--set NAME=VALUE`.
    pub overrides: Vec<(String, String)>,
    /// `--profile`; `None` picks by machine: `quick` on a CPU if the model has it.
    pub profile: Option<String>,
    /// `--steps`.
    pub steps: Option<u64>,
    /// `--seconds`.
    pub seconds: Option<f64>,
    /// `--batch-tokens`.
    pub batch_tokens: Option<usize>,
    /// `--micro-batch-tokens`.
    pub micro_batch_tokens: Option<usize>,
    /// `--seq-len`.
    pub seq_len: Option<usize>,
    /// `--warmdown-steps`.
    pub warmdown_steps: Option<u64>,
    /// `--seed`.
    pub seed: Option<u64>,
    /// `--data GLOB`; the sample corpus otherwise.
    pub data: Option<String>,
    /// `--val GLOB`.
    pub val: Option<String>,
    /// `--tokenizer FILE`.
    pub tokenizer: Option<PathBuf>,
    /// `--init FILE.safetensors`.
    pub init: Option<PathBuf>,
    /// `--out DIR`; `runs/MODEL-N` otherwise.
    pub out: Option<PathBuf>,
    /// `--schedule spec`: use the file's constants unscaled.
    pub unscaled_schedule: bool,
    /// Skip the full-size check and timing (`--no-full-size`).
    pub skip_full_size: bool,
    /// When the process started, for `first_step_s`.
    pub started: Option<Instant>,
}

/// Why a run failed. Nothing that was on disk before has been overwritten.
#[derive(Debug, Error)]
pub enum RunError {
    /// The model file does not check.
    #[error("{0}")]
    Model(Diagnostics),
    /// The prediction says that the artifact cannot fit.
    #[error(
        "the artifact is predicted at {estimate} bytes and its code at {code}: over the cap of {cap} bytes before \
         any training. Use fewer parameters or smaller clips, or raise `cap_bytes` in the `export` block"
    )]
    OverCap {
        /// Predicted bytes of the artifact.
        estimate: u64,
        /// Bytes of model and library text.
        code: u64,
        /// The cap.
        cap: u64,
    },
    /// The size cannot be predicted.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// Shards or tokenizer.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Compiling or running a program.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Export.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// `--init` or the saved weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file or folder of the run.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
}

/// Elaborates a model file under a run's profile and overrides.
pub fn load_model(source: &Source, options: &Options) -> Result<Model, RunError> {
    elaborate(source, options).map_err(RunError::Model)
}

/// The profile that a machine without a GPU uses where the user names none.
const CPU_PROFILE: &str = "quick";

/// Does the main job.
pub fn run(options: &RunOptions, observer: &mut Observer<'_>) -> Result<RunReport, RunError> {
    let started = options.started.unwrap_or_else(Instant::now);
    let source = Source::load(&options.model).map_err(RunError::Model)?;
    let full_options = Options { overrides: options.overrides.clone(), profile: None };
    let full = load_model(&source, &full_options)?;
    check_size(&full, observer)?;
    let fallback = full.profiles.iter().find(|p| *p == CPU_PROFILE).cloned();
    let profile = options.profile.clone().or(fallback);
    let mut chosen = Options { profile: profile.clone(), ..full_options };
    let as_written = load_model(&source, &chosen)?;
    chosen.overrides.extend(settings(options, &as_written));
    let model = load_model(&source, &chosen)?;
    let corpus = Corpus::open(options, &model)?;
    let budget = Budget { steps: model.train.steps, seconds: model.train.seconds };
    let plan =
        TrainPlan::new(model.train.clone(), budget, options.unscaled_schedule, options.warmdown_steps)?;
    announce(&model, &plan, profile.as_deref(), &corpus, observer);
    let seed = model.train.seed;
    let initial = options.init.as_deref().map(|path| weights::load(path, &model.params)).transpose()?;
    if full.param_count() != model.param_count() && !options.skip_full_size {
        full_size::time_steps(full.clone(), &corpus, observer)?;
    }
    let folder = RunFolder::create(options.out.as_deref(), &model.name)?;

    let mut session = Session::new(Arc::new(model), Default::default());
    let initial = initial.unwrap_or_else(|| session.initial_weights(seed));
    let mut state = session.state_with(&initial, &spaces(&plan.train))?;
    if plan.train.ema_decay > 0.0 {
        session.write_weights(&mut state, Space::Ema, &initial)?;
    }
    let estimate = session.model.predict_size(Moment::Trained)?.estimate_bytes;
    let mut bpb = Scores::default();
    let mut judge = Judge::new(&corpus, &session);
    bpb.initial = Some(judge.plain(&mut session, &mut state, "score the initial weights", observer)?);

    let mut first_step_s = 0.0;
    let mut metrics = folder.metrics()?;
    let mut loader = Loader::new(corpus.train.clone());
    let on_first_step = || first_step_s = started.elapsed().as_secs_f64();
    let trained = train(&mut session, &mut state, &plan, &mut loader, &mut metrics, observer, on_first_step)?;
    folder.keep_metrics(metrics)?;
    let compile_s = session.compile_seconds;
    session.forget(|key| matches!(key, Key::Grad { .. } | Key::Update));

    bpb.live = Some(judge.plain(&mut session, &mut state, "score the live weights", observer)?);
    let averaged = if plan.train.ema_decay > 0.0 { Space::Ema } else { Space::Param };
    let weights = session.read_weights(&state, averaged)?;
    drop(state);
    let mut state = session.state_with(&weights, &[Space::Param])?;
    bpb.ema = Some(judge.plain(&mut session, &mut state, "score the averaged weights", observer)?);
    weights::save(&folder.file("weights.safetensors"), &session.model.params, &weights)?;

    let path = folder.file("artifact.pg");
    let provenance = Provenance { source, options: chosen, seed };
    let sizes = export::write(&path, &session.model, &weights, &provenance)?;
    observer(Event::Note(format!("wrote {} ({} bytes)", path.display(), sizes.total_bytes)));
    let artifact = artifact_report(&path, &session.model, sizes.total_bytes, estimate);

    // Everything from here on is of the file, not of what is in memory.
    let loaded = export::read(&path)?;
    let mut state = session.state_with(&loaded.weights, &[Space::Param, Space::Grad, Space::Velocity])?;
    bpb.quantized = Some(judge.plain(&mut session, &mut state, "score the artifact", observer)?);
    bpb.sliding = Some(judge.sliding(&mut session, &mut state, observer)?);
    bpb.ttt = judge.ttt(&mut session, &mut state, observer)?;

    let report = RunReport {
        model: session.model.name.clone(),
        params: full.param_count(),
        trained_params: session.model.param_count(),
        device: "cpu".into(),
        profile: profile.unwrap_or_else(|| "none".into()),
        seed,
        train: train_report(&trained, &plan, first_step_s, compile_s),
        quant_gap_bpb: bpb.quantized.unwrap_or(f64::NAN) - bpb.ema.unwrap_or(f64::NAN),
        bpb,
        artifact,
        peak_rss_bytes: peak_rss_bytes(),
        run_dir: folder.path.clone(),
    };
    folder.write_report(&report)?;
    Ok(report)
}

/// An estimate over the cap is an error, one within 5 % of it a warning.
fn check_size(model: &Model, observer: &mut Observer<'_>) -> Result<(), RunError> {
    let estimate = model.predict_size(Moment::Trained)?.estimate_bytes;
    let (code, cap) = (model.code_bytes(), model.export.cap_bytes);
    if estimate + code > cap {
        return Err(RunError::OverCap { estimate, code, cap });
    }
    if (estimate + code) as f64 > 0.95 * cap as f64 {
        let total = estimate + code;
        observer(Event::Warning(format!(
            "the artifact is predicted at {total} bytes, within 5 % of the cap {cap}"
        )));
    }
    Ok(())
}

/// The command line's settings as overrides, so that the artifact records them with all others and its
/// reader elaborates the model that was trained.
fn settings(options: &RunOptions, model: &Model) -> Vec<(String, String)> {
    let mut overrides = Vec::new();
    let mut set = |name: &str, value: Option<String>| {
        overrides.extend(value.map(|v| (name.to_string(), v)));
    };
    // A number of steps that the user gives is the whole budget: a profile's wall clock must not bend the
    // schedule.
    if options.steps.is_some() || options.seconds.is_some() {
        set("train.steps", Some(options.steps.map_or("none".into(), |n| n.to_string())));
        set("train.seconds", Some(options.seconds.map_or("none".into(), |s| format!("{s:?}"))));
    }
    let sequence = options.seq_len.map(|n| n.to_string());
    set("train.seq_len", sequence.clone());
    set("eval.seq_len", sequence);
    set("train.batch_tokens", options.batch_tokens.map(|n| n.to_string()));
    // A smaller step than the file's micro-batch is one micro-batch.
    let shrunk = options.batch_tokens.map(|n| n.min(model.train.micro_batch_tokens));
    set("train.micro_batch_tokens", options.micro_batch_tokens.or(shrunk).map(|n| n.to_string()));
    set("train.seed", options.seed.map(|n| n.to_string()));
    overrides
}

fn announce(
    model: &Model,
    plan: &TrainPlan,
    profile: Option<&str>,
    corpus: &Corpus,
    observer: &mut Observer<'_>,
) {
    let mut note = |text: String| observer(Event::Note(text));
    let profile = profile.map_or(String::new(), |p| format!(", profile `{p}`"));
    note(format!("{}: {} parameters{profile}", model.name, model.param_count()));
    note(format!("data: {} training tokens, {} scored targets", corpus.train.len(), corpus.val.len() - 1));
    let steps = match (plan.budget.steps, plan.budget.seconds) {
        (Some(n), Some(s)) => format!("{n} steps or {s} s"),
        (Some(n), None) => format!("{n} steps"),
        (None, s) => format!("{} s", s.unwrap_or(0.0)),
    };
    let train = &plan.train;
    note(format!("train: {steps} of {} tokens, sequences of {}", train.batch_tokens, train.seq_len));
    let s = plan.schedule(plan.budget.planned(0, 0.0));
    let scaled = if plan.unscaled { "as written" } else { "scaled to the planned steps" };
    note(format!(
        "schedule ({scaled}): warmdown {:.0} steps, momentum {:.3} to {:.3} over {:.0} steps, EMA decay {:.4}",
        s.warmdown, s.momentum_start, s.momentum_end, s.momentum_warmup, s.ema_decay
    ));
}

fn train_report(trained: &Trained, plan: &TrainPlan, first_step_s: f64, compile_s: f64) -> TrainReport {
    let steps = trained.steps.len() as u64;
    let mut ms: Vec<f64> = trained.steps.iter().map(|s| s.ms).collect();
    ms.sort_unstable_by(f64::total_cmp);
    TrainReport {
        steps,
        tokens: steps * plan.train.batch_tokens as u64,
        ms_per_step: ms.get(ms.len() / 2).copied().unwrap_or(f64::NAN),
        first_step_s,
        compile_s,
        loss_first: trained.steps.first().map_or(f64::NAN, |s| s.loss),
        loss_last: trained.steps.last().map_or(f64::NAN, |s| s.loss),
    }
}

fn artifact_report(path: &Path, model: &Model, artifact_bytes: u64, estimate_bytes: u64) -> ArtifactReport {
    let code_bytes = model.code_bytes();
    let program = std::env::current_exe().and_then(std::fs::metadata).map_or(0, |m| m.len());
    ArtifactReport {
        path: path.to_owned(),
        artifact_bytes,
        code_bytes,
        total_bytes: artifact_bytes + code_bytes,
        with_evaluator_bytes: artifact_bytes + code_bytes + program,
        estimate_bytes,
        cap_bytes: model.export.cap_bytes,
    }
}

/// The most memory this process has had, where the system says so.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
