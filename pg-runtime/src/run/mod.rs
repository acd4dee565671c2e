//! The main job: a model file becomes a scored artifact.

mod corpus;
mod folder;
mod full_size;
mod requests;
mod scorer;

use std::path::{Path, PathBuf};
use std::time::Instant;

use pg_ir::footprint::Moment;
use pg_ir::lang::budget::BudgetError;
use pg_ir::lang::model::Model;
use pg_ir::lang::{Diagnostic, Diagnostics, Options, Severity, Source, elaborate};
use pg_ir::slot::Space;
use pg_ir::ty::DType;
use thiserror::Error;

pub use self::corpus::Corpus;
use self::folder::RunFolder;
pub use self::requests::{Request, file_programs, requests};
pub use self::scorer::Scorer;
use crate::data::{DataError, Loader};
use crate::device::{Device, DeviceName};
use crate::eval::EvalError;
use crate::export::{self, ExportError, Provenance};
use crate::profile::median;
use crate::report::{ArtifactReport, Event, Observer, RunReport, Scores, TrainReport};
use crate::session::{Key, SessionError};
use crate::train::schedule::Budget;
use crate::train::{TrainError, TrainPlan, Trained, spaces, train};
use crate::validate::{ValidateError, ValidationReport, validate};
use crate::weights::{self, WeightsError};

/// What `pg run` was asked for. `None` leaves the model file's (or its profile's) value.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The model file.
    pub model: PathBuf,
    /// `--set NAME=VALUE`.
    pub overrides: Vec<(String, String)>,
    /// `--profile`; `None` picks by device: the file as it stands on CUDA, else `quick` if the model has it.
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
    /// `--precision`: how training stores activations and operands; `None` leaves it to the device.
    pub storage: Option<DType>,
    /// `--device`, opened.
    pub device: Device,
    /// Skip the full-size check and timing (`--no-full-size`).
    pub skip_full_size: bool,
    /// Do not hold programs to float64 before the first step (`--no-validate`).
    pub skip_validation: bool,
    /// Folder of what was validated before; `None` to validate anew and remember nothing.
    pub cache: Option<PathBuf>,
    /// When the process started, for `first_step_s`.
    pub started: Option<Instant>,
}

/// Why a run failed. Nothing that was on disk before has been overwritten.
#[derive(Debug, Error)]
pub enum RunError {
    /// The model file does not check.
    #[error("{0}")]
    Model(Diagnostics),
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
    /// A program computes something else than the model says.
    #[error(transparent)]
    Validate(#[from] ValidateError),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Export.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// `--init`.
    #[error(
        "{error}\nthe run uses {profile}; `--profile` chooses another, `--profile full` the file as it stands"
    )]
    Init {
        /// The profile in use, in words.
        profile: String,
        /// What is wrong with the file.
        error: WeightsError,
    },
    /// The saved weights.
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

/// The profile that this machine uses for a model where the user names none; `None` takes the file as it
/// stands.
pub fn default_profile(
    source: &Source,
    overrides: &[(String, String)],
) -> Result<Option<String>, Diagnostics> {
    Ok(WithoutProfile::of(source, overrides)?.default_profile())
}

/// A model file as it stands, under overrides.
struct WithoutProfile {
    /// Overrides may be meant for a profile alone, as a width that the full model's heads do not divide.
    model: Result<Model, Diagnostics>,
    /// Parameters, without the overrides if it must be.
    params: usize,
    profiles: Vec<String>,
}

impl WithoutProfile {
    fn of(source: &Source, overrides: &[(String, String)]) -> Result<WithoutProfile, Diagnostics> {
        let model = elaborate(source, &Options { overrides: overrides.to_vec(), profile: None });
        let (params, profiles) = match &model {
            Ok(model) => (model.param_count(), model.profiles.clone()),
            Err(errors) => match elaborate(source, &Options::default()) {
                Ok(model) => (model.param_count(), model.profiles),
                Err(_) => return Err(errors.clone()),
            },
        };
        Ok(WithoutProfile { model, params, profiles })
    }

    fn default_profile(&self) -> Option<String> {
        self.profiles.iter().find(|p| *p == CPU_PROFILE).cloned()
    }
}

/// What a model file gives under a run's options.
struct Prepared {
    source: Source,
    /// The model without a profile; `None` where it does not check under the overrides.
    full: Option<Model>,
    /// Parameters of the model without a profile, without the overrides if it must be.
    params: usize,
    profile: Option<String>,
    /// How `model` was elaborated.
    chosen: Options,
    model: Model,
}

fn prepare(options: &RunOptions, observer: &mut Observer<'_>) -> Result<Prepared, RunError> {
    let source = Source::load(&options.model).map_err(RunError::Model)?;
    let without = WithoutProfile::of(&source, &options.overrides).map_err(RunError::Model)?;
    let is_cuda = matches!(options.device.name(), DeviceName::Cuda(_));
    let chosen = options.profile.clone();
    let profile = if is_cuda { chosen } else { chosen.or_else(|| without.default_profile()) };
    let WithoutProfile { model: full, params, .. } = without;
    let mut chosen = Options { overrides: options.overrides.clone(), profile: profile.clone() };
    let as_written = load_model(&source, &chosen)?;
    chosen.overrides.extend(settings(options, &as_written));
    let model = load_model(&source, &chosen)?;
    if let Err(errors) = &full {
        let reason = errors.list.first().map_or(String::new(), |d| format!(": {}", d.message));
        observer(Event::Note(format!(
            "without the profile, the model does not check under these settings{reason}; its size and speed \
             are left out"
        )));
    }
    for finding in model.notes.list.iter().filter(|d| d.severity != Severity::Error) {
        observer(event_of(&model.notes, finding));
    }
    let full = full.ok();
    if let Some(full) = &full {
        check_size(full, observer)?;
    }
    // What is trained is also written: nobody should wait for an artifact that cannot be.
    if full.as_ref().is_none_or(|full| full.param_count() != model.param_count()) {
        check_size(&model, observer)?;
    }
    Ok(Prepared { source, full, params, profile, chosen, model })
}

fn event_of(all: &Diagnostics, finding: &Diagnostic) -> Event {
    let text = all.render(finding);
    if finding.severity == Severity::Note { Event::Note(text) } else { Event::Warning(text) }
}

/// Does the main job.
pub fn run(options: &RunOptions, observer: &mut Observer<'_>) -> Result<RunReport, RunError> {
    let started = options.started.unwrap_or_else(Instant::now);
    let Prepared { source, full, params, profile, chosen, model } = prepare(options, observer)?;
    let corpus = Corpus::open(options, &model)?;
    corpus.doubts.iter().for_each(|doubt| observer(Event::Warning(doubt.clone())));
    let plan = train_plan(options, &model)?;
    announce(&model, &plan, profile.as_deref(), &corpus, observer);
    let seed = model.train.seed;
    let load = |path: &PathBuf| {
        let named = |error| RunError::Init { profile: profile_words(profile.as_deref()), error };
        weights::load(path, &model.params).map_err(named)
    };
    let initial = options.init.as_ref().map(load).transpose()?;
    let full = full.filter(|full| full_size::is_timed(full, &model, options));
    if let Some(full) = &full {
        full_size::announce(full, observer)?;
        full_size::check_bundle(full, options)?;
    }

    let mut session = requests::session(options, model);
    let mut scorer = Scorer::new(&corpus, &session);
    let programs = requests::programs(&session, &plan, &scorer)?;
    session.check_bundle(&programs)?;
    let validation = if options.skip_validation {
        observer(Event::Note("the programs are not validated (--no-validate)".into()));
        ValidationReport::default()
    } else {
        validate(&mut session, &programs, &chosen, options.cache.as_deref(), observer)?
    };
    let folder = RunFolder::create(options.out.as_deref(), &session.model.name)?;
    let initial = initial.unwrap_or_else(|| session.initial_weights(seed));
    let mut state = session.state_with(&initial, &spaces(&plan.train))?;
    if plan.train.ema_decay > 0.0 {
        session.write_weights(&mut state, Space::Ema, &initial)?;
    }
    drop(initial);
    let estimate = session.model.predict_size(Moment::Trained)?.estimate_bytes;
    let initial = scorer.plain(&mut session, &mut state, "score the initial weights", observer)?;
    let mut bpb = Scores { initial: Some(initial), ..Scores::default() };

    let mut first_step_s = 0.0;
    let mut metrics = folder.metrics()?;
    let mut loader = Loader::new(corpus.train.clone());
    let on_first_step = || first_step_s = started.elapsed().as_secs_f64();
    let trained = train(&mut session, &mut state, &plan, &mut loader, &mut metrics, observer, on_first_step)?;
    folder.finish_metrics(metrics)?;
    if let Some(schedule) = trained.schedule {
        observer(Event::Note(format!("schedule in force at the end: {schedule}")));
    }
    observer(Event::Note(session.placement()));
    let compile_s = session.compile_seconds;
    session.forget(|key| matches!(key, Key::Grad { .. } | Key::Update));

    bpb.live = Some(scorer.plain(&mut session, &mut state, "score the live weights", observer)?);
    let averaged = if plan.train.ema_decay > 0.0 { Space::Ema } else { Space::Param };
    let weights = session.read_weights(&state, averaged)?;
    drop(state);
    let mut state = session.state_with(&weights, &[Space::Param])?;
    bpb.ema = Some(scorer.plain(&mut session, &mut state, "score the averaged weights", observer)?);
    drop(state);
    weights::save(&folder.unfinished(folder::WEIGHTS), &session.model.params, &weights)?;

    let written = folder.unfinished(folder::ARTIFACT);
    let provenance = Provenance { source, options: chosen, seed };
    let tokenizer = Some(corpus.tokenizer.hash());
    let sizes = export::write_for(&written, &session.model, &weights, &provenance, tokenizer)?;
    drop(weights);
    let path = folder.file(folder::ARTIFACT);
    let artifact = artifact_report(&path, &session.model, sizes.total_bytes, estimate);

    // Everything from here on is of the file, not of what is in memory.
    let loaded = export::read(&written)?;
    let mut state = session.state_with(&loaded.weights, &[Space::Param, Space::Grad, Space::Velocity])?;
    bpb.quantized = Some(scorer.plain(&mut session, &mut state, "score the artifact", observer)?);
    bpb.sliding = Some(scorer.sliding(&mut session, &mut state, observer)?);
    let adapted = scorer.ttt(&mut session, &mut state, observer)?;
    bpb.ttt = adapted.map(|(score, _)| score);
    observer(Event::Note(session.placement()));

    let report = RunReport {
        model: session.model.name.clone(),
        params,
        trained_params: session.model.param_count(),
        device: options.device.name().to_string(),
        profile: profile.unwrap_or_else(|| "none".into()),
        seed,
        sample: corpus.is_sample,
        train: train_report(&trained, &plan, first_step_s, compile_s),
        quant_gap_bpb: bpb.quantized.unwrap_or(f64::NAN) - bpb.ema.unwrap_or(f64::NAN),
        bpb,
        ttt: adapted.map(|(_, facts)| facts),
        validation: Some(validation),
        artifact,
        peak_rss_bytes: peak_rss_bytes(),
        bundle: options.device.bundle_report(),
        run_dir: folder.path.clone(),
    };
    folder.finish(&report)?;
    observer(Event::Note(format!("wrote {} ({} bytes)", path.display(), sizes.total_bytes)));

    // Last, so that the time and memory it takes are not the run's.
    drop((session, state, loaded));
    if let Some(full) = full
        && let Err(error) = full_size::time_steps(full, options, &corpus, observer)
    {
        observer(Event::Warning(format!("the full-size model could not be timed: {error}")));
    }
    if let Some(bundle) = options.device.bundle_report() {
        observer(Event::Note(bundle.to_string()));
    }
    Ok(report)
}

/// How a model trains under a run's options.
fn train_plan(options: &RunOptions, model: &Model) -> Result<TrainPlan, TrainError> {
    let budget = Budget { steps: model.train.steps, seconds: model.train.seconds };
    TrainPlan::new(model.train.clone(), budget, options.unscaled_schedule, options.warmdown_steps)
}

/// An estimate over the cap is an error, one within 5 % of it a warning.
fn check_size(model: &Model, observer: &mut Observer<'_>) -> Result<(), RunError> {
    let findings = model.check_size();
    if findings.has_errors() {
        return Err(RunError::Model(findings));
    }
    findings.list.iter().for_each(|d| observer(event_of(&findings, d)));
    Ok(())
}

/// Which profile is in force, for a sentence.
fn profile_words(profile: Option<&str>) -> String {
    profile.map_or("no profile".into(), |p| format!("profile `{p}`"))
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
    let planned = plan.budget.planned(0, 0.0);
    let scaled = match planned {
        _ if plan.unscaled => "as written",
        Some(_) => "scaled to the planned steps",
        None => "as written, and scaled as the run is timed",
    };
    note(format!("schedule ({scaled}): {}", plan.schedule(planned)));
}

fn train_report(trained: &Trained, plan: &TrainPlan, first_step_s: f64, compile_s: f64) -> TrainReport {
    let steps = trained.steps.len() as u64;
    let mut ms: Vec<f64> = trained.steps.iter().map(|s| s.ms).collect();
    TrainReport {
        steps,
        tokens: steps * plan.train.batch_tokens as u64,
        ms_per_step: median(&mut ms),
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
