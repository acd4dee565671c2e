//! A model file under a run's options: which profile it takes, and which settings the command line adds.

use pg_ir::lang::model::Model;
use pg_ir::lang::{Diagnostic, Diagnostics, Options, Override, Severity, Source, elaborate};

use super::{JobOptions, RunError, RunOptions};
use crate::device::DeviceName;
use crate::report::{Event, Observer, counted};

/// Elaborates a model file under a run's profile and overrides.
pub fn load_model(source: &Source, options: &Options) -> Result<Model, RunError> {
    elaborate(source, options).map_err(RunError::Model)
}

/// The profile that a machine without a GPU uses where the user names none.
const CPU_PROFILE: &str = "quick";

/// The profile that this machine uses for a model where the user names none; `None` takes the file as it
/// stands.
pub fn default_profile(source: &Source, overrides: &[Override]) -> Result<Option<String>, Diagnostics> {
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
    fn of(source: &Source, overrides: &[Override]) -> Result<WithoutProfile, Diagnostics> {
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
pub(super) struct Loaded {
    pub(super) source: Source,
    /// The model without a profile; `None` where it does not check under the overrides.
    pub(super) full: Option<Model>,
    /// Parameters of the model without a profile, without the overrides if it must be.
    pub(super) params: usize,
    pub(super) profile: Option<String>,
    /// How `model` was elaborated.
    pub(super) chosen: Options,
    pub(super) model: Model,
}

/// Loads the model that a run trains, and checks that its artifact will fit.
pub(super) fn load(options: &RunOptions, observer: &mut Observer<'_>) -> Result<Loaded, RunError> {
    let job = &options.job;
    let source = match &options.earlier {
        // The file may have changed since.
        Some(earlier) => earlier.record.source(),
        None => Source::load(&job.model),
    };
    let source = source.map_err(RunError::Model)?;
    let overrides: Vec<Override> = job.overrides.iter().cloned().map(Override::from).collect();
    let without = WithoutProfile::of(&source, &overrides).map_err(RunError::Model)?;
    let is_cuda = matches!(options.device.name(), DeviceName::Cuda(_));
    let chosen = job.profile.clone();
    let profile = if is_cuda { chosen } else { chosen.or_else(|| without.default_profile()) };
    let WithoutProfile { model: full, params, .. } = without;
    let mut chosen = Options { overrides, profile: profile.clone() };
    let as_written = load_model(&source, &chosen)?;
    chosen.overrides.extend(settings(job, &as_written));
    let mut model = load_model(&source, &chosen)?;
    if let Some(flops) = job.flops {
        let steps = steps_within(flops, &model, observer)?;
        chosen.overrides.push(Override {
            name: "train.steps".into(),
            value: steps.to_string(),
            option: "--budget",
        });
        model = load_model(&source, &chosen)?;
    }
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
    Ok(Loaded { source, full, params, profile, chosen, model })
}

/// Steps of a model that a budget of FLOPs pays for, counted as model FLOP utilisation counts them: contractions and
/// attention, forward and backward.
fn steps_within(flops: f64, model: &Model, observer: &mut Observer<'_>) -> Result<u64, RunError> {
    let step = model.flops_per_token().map_err(RunError::Model)? * model.train.batch_tokens as f64;
    let steps = (flops / step).floor();
    if steps < 1.0 {
        return Err(RunError::TooFewFlops { flops, step });
    }
    observer(Event::Note(format!(
        "{flops:.3e} FLOP are {} of {step:.3e} FLOP",
        counted(steps as u64, "step")
    )));
    Ok(steps as u64)
}

fn event_of(all: &Diagnostics, finding: &Diagnostic) -> Event {
    let text = all.render(finding);
    if finding.severity == Severity::Note { Event::Note(text) } else { Event::Warning(text) }
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
pub(super) fn profile_words(profile: Option<&str>) -> String {
    profile.map_or("no profile".into(), |p| format!("profile `{p}`"))
}

/// The command line's settings as overrides, so that the artifact records them with all others and its
/// reader elaborates the model that was trained.
fn settings(options: &JobOptions, model: &Model) -> Vec<Override> {
    let mut overrides = Vec::new();
    let mut set = |option: &'static str, name: &str, value: Option<String>| {
        overrides.extend(value.map(|value| Override { name: name.into(), value, option }));
    };
    // A number of steps that the user gives is the whole budget: a profile's wall clock must not bend the
    // schedule.
    if options.steps.is_some() || options.seconds.is_some() || options.flops.is_some() {
        let (steps, seconds) = (options.steps, options.seconds);
        // One budget ends the other, too.
        let steps_by = match (steps, seconds) {
            (Some(_), _) => "--steps",
            (None, Some(_)) => "--seconds",
            (None, None) => "--budget",
        };
        let seconds_by = if seconds.is_some() { "--seconds" } else { steps_by };
        set(steps_by, "train.steps", Some(steps.map_or("none".into(), |n| n.to_string())));
        set(seconds_by, "train.seconds", Some(seconds.map_or("none".into(), |s| format!("{s:?}"))));
    }
    set("--eval-seconds", "eval.seconds", options.eval_seconds.map(|s| format!("{s:?}")));
    let sequence = options.seq_len.map(|n| n.to_string());
    set("--seq-len", "train.seq_len", sequence.clone());
    set("--seq-len", "eval.seq_len", sequence);
    set("--batch-tokens", "train.batch_tokens", options.batch_tokens.map(|n| n.to_string()));
    // A smaller step than the file's micro-batch is one micro-batch.
    let shrunk = options.batch_tokens.map(|n| n.min(model.train.micro_batch_tokens));
    let by = if options.micro_batch_tokens.is_some() { "--micro-batch-tokens" } else { "--batch-tokens" };
    set(by, "train.micro_batch_tokens", options.micro_batch_tokens.or(shrunk).map(|n| n.to_string()));
    set("--seed", "train.seed", options.seed.map(|n| n.to_string()));
    overrides
}
