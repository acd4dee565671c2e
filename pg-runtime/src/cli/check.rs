//! `pg check`: everything that is known of models before anything runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use indexmap::IndexSet;
use pg_ir::lang::model::Model;
use pg_ir::lang::{Diagnostic, Diagnostics, Options, Severity, Source, elaborate};
use pg_runtime::device::Device;
use pg_runtime::run::file_programs;
use pg_runtime::session::{Key, Session, SessionError};
use pg_runtime::validate::{ValidationReport, cache_folder, validate};
use serde::Serialize;

use super::Outcome;
use super::devices::DeviceArgs;
use super::format::{grouped, megabytes, table_without};
use super::model::{PrecisionArgs, Variation};
use super::model_summary::ModelSummary;
use super::progress::Progress;
use super::ui::Ui;
use super::validation;

/// Arguments of `pg check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Model files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    variation: Variation,
    /// Also compile every program of the file at a small shape, run it, and hold each output and gradient to float64.
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
}

/// One error or warning.
#[derive(Debug, Serialize)]
struct Finding {
    message: String,
    /// `null` for findings about the whole model.
    file: Option<String>,
    line: Option<u32>,
    col: Option<u32>,
    help: Option<String>,
    /// As for a terminal, with source excerpts.
    rendered: String,
}

impl Finding {
    fn whole(message: String) -> Finding {
        let rendered = format!("error: {message}");
        Finding { message, file: None, line: None, col: None, help: None, rendered }
    }

    /// Says of a finding which profile it is of.
    fn under(mut self, profile: &str) -> Finding {
        let message = format!("profile `{profile}`: {}", self.message);
        // The message stands in the first line of what is rendered, after the severity.
        self.rendered = self.rendered.replacen(&self.message, &message, 1);
        self.message = message;
        self
    }

    fn at(all: &Diagnostics, d: &Diagnostic) -> Finding {
        let loc = d.loc();
        Finding {
            message: d.message.clone(),
            file: Some(loc.file.to_string()),
            line: Some(loc.line),
            col: Some(loc.col),
            help: d.help.clone(),
            rendered: all.render(d),
        }
    }

    fn list(all: &Diagnostics, severity: Severity) -> Vec<Finding> {
        all.list.iter().filter(|d| d.severity == severity).map(|d| Finding::at(all, d)).collect()
    }
}

/// What is known of one file. Figures are `null` where the model does not elaborate.
#[derive(Debug, Serialize)]
struct Checked {
    file: PathBuf,
    model: String,
    /// Trained.
    params: Option<usize>,
    /// In the artifact.
    stored_params: Option<usize>,
    artifact_raw_bytes: Option<u64>,
    artifact_estimate_bytes: Option<u64>,
    code_bytes: Option<u64>,
    cap_bytes: Option<u64>,
    flops_per_token: Option<f64>,
    ok: bool,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// What is no mistake and worth knowing.
    notes: Vec<Finding>,
    /// With `--deep`: what validation found; `null` if it did not pass.
    validation: Option<ValidationReport>,
}

#[derive(Debug, Serialize)]
struct Report {
    models: Vec<Checked>,
}

/// Checks every file; fails if any does.
pub(crate) fn check(args: CheckArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let options = args.variation.options();
    if !args.deep && (!args.device.is_default() || args.precision.storage().is_some()) {
        bail!(
            "--device, --tuning, --bundle and --precision say where programs run, and only --deep runs any"
        );
    }
    let device = args.deep.then(|| args.device.open()).transpose()?;
    // `pg check models/*.rs` is natural, and the folder is also a Rust library, whose `lib.rs` only lists the models.
    let several = args.files.len() > 1;
    let files = args.files.iter().filter(|f| !(several && f.file_name().is_some_and(|n| n == "lib.rs")));
    let mut models: Vec<Checked> = Vec::new();
    for file in files {
        let mut checked = check_file(file, &options);
        if let Some(device) = device.as_ref().filter(|_| checked.ok) {
            checked.validate(&options, device, &args.precision, ui);
        }
        models.push(checked);
    }
    for checked in &models {
        checked.notes.iter().for_each(|n| ui.note(&n.rendered));
        checked.warnings.iter().for_each(|w| ui.warning(&w.rendered));
        checked.errors.iter().for_each(|e| ui.error(&e.rendered));
    }
    let all_ok = models.iter().all(|m| m.ok);
    let report = Report { models };
    ui.report(&report, || report.text())?;
    Ok(if all_ok { Outcome::Success } else { Outcome::Failure })
}

fn check_file(file: &Path, options: &Options) -> Checked {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut checked = Checked {
        file: file.to_owned(),
        model: stem,
        params: None,
        stored_params: None,
        artifact_raw_bytes: None,
        artifact_estimate_bytes: None,
        code_bytes: None,
        cap_bytes: None,
        flops_per_token: None,
        ok: false,
        errors: vec![],
        warnings: vec![],
        notes: vec![],
        validation: None,
    };
    let elaborated = Source::load(file).and_then(|source| {
        checked.model = source.name().to_string();
        let model = elaborate(&source, options)?;
        Ok((source, model))
    });
    match elaborated {
        Ok((source, model)) => checked.examine(&source, model, options),
        Err(errors) => checked.errors = Finding::list(&errors, Severity::Error),
    }
    checked.ok = checked.errors.is_empty();
    checked
}

impl Checked {
    /// Sizes, proofs and profiles of a model that elaborated.
    fn examine(&mut self, source: &Source, model: Model, options: &Options) {
        self.notes = Finding::list(&model.notes, Severity::Note);
        self.warnings = Finding::list(&model.notes, Severity::Warning);
        let size = model.check_size();
        self.warnings.extend(Finding::list(&size, Severity::Warning));
        self.errors = Finding::list(&size, Severity::Error);
        match ModelSummary::of(&model) {
            Ok(facts) => self.take(&facts),
            Err(message) => {
                self.params = Some(model.param_count());
                self.stored_params = Some(model.stored_count());
                // A size that cannot be predicted has been found above, at its place.
                if self.errors.is_empty() {
                    self.errors.push(Finding::whole(message));
                }
            }
        }
        let mut also: Vec<String> = model.profiles.clone();
        also.retain(|p| options.profile.as_ref() != Some(p));
        self.errors.extend(prove(model).err().unwrap_or_default());
        for profile in also {
            let options = Options { profile: Some(profile.clone()), ..options.clone() };
            let refused = match elaborate(source, &options) {
                Ok(model) => prove(model),
                Err(errors) => Err(Finding::list(&errors, Severity::Error)),
            };
            let refused = refused.err().unwrap_or_default();
            self.errors.extend(refused.into_iter().map(|finding| finding.under(&profile)));
        }
    }

    /// Runs the file's programs beside the reference.
    fn validate(&mut self, options: &Options, device: &Device, precision: &PrecisionArgs, ui: &Ui) {
        let mut progress = Progress::new(ui);
        let validated =
            Source::load(&self.file).and_then(|source| elaborate(&source, options)).map(|model| {
                let mut session =
                    precision.of(Session::on(device.clone(), Arc::new(model), Default::default()));
                let programs = file_programs(&session).map_err(|e| e.to_string())?;
                let cache = cache_folder();
                validate(&mut session, &programs, options, cache.as_deref(), &mut |event| {
                    progress.event(event)
                })
                .map_err(|e| e.to_string())
            });
        progress.finish();
        match validated {
            Ok(Ok(report)) => self.validation = Some(report),
            Ok(Err(message)) => self.errors.push(Finding::whole(message)),
            Err(errors) => self.errors.extend(Finding::list(&errors, Severity::Error)),
        }
        self.ok = self.errors.is_empty();
    }

    fn take(&mut self, facts: &ModelSummary) {
        self.params = Some(facts.params);
        self.stored_params = Some(facts.stored_params);
        self.artifact_raw_bytes = Some(facts.artifact_raw_bytes);
        self.artifact_estimate_bytes = Some(facts.artifact_estimate_bytes);
        self.code_bytes = Some(facts.code_bytes);
        self.cap_bytes = Some(facts.cap_bytes);
        self.flops_per_token = Some(facts.flops_per_token);
    }
}

/// Builds every program, each with its proofs: the graph is well formed, quantised parameters are read through their
/// quantiser, no score depends on a later token. Sizes are those of a run of the file, and two sequences beside: with
/// one, a program that mixes them up would look right.
fn prove(model: Model) -> Result<(), Vec<Finding>> {
    let (lengths, phases, batch) = ([model.eval.seq_len, model.train.seq_len], model.phases.len(), 2);
    let session = Session::new(Arc::new(model), Default::default());
    let grads = (0..phases).flat_map(|phase| {
        let qat = session.model.is_quantised(phase);
        [false, true].map(|accumulate| Key::Grad { phase, batch, seq: lengths[1], qat, accumulate })
    });
    let adapt = session.model.eval.ttt.is_some().then_some(Key::Adapt);
    // What cannot be scored is refused before it is differentiated, in words about the model.
    let scored = lengths.map(|seq| (batch, seq));
    // As many windows at a time as a text of any length can ask for.
    let most = lengths.map(|seq| (session.score_batch(seq), seq));
    let scores = scored.into_iter().chain(most).map(|(batch, seq)| Key::Score { batch, seq, qat: false });
    let of_run = file_programs(&session).map_err(|error| vec![Finding::whole(error.to_string())])?;
    let keys: IndexSet<Key> = scores.chain(grads).chain([Key::Update]).chain(adapt).chain(of_run).collect();
    for key in keys {
        session.program(key).map_err(|error| match error {
            SessionError::Model(errors) => Finding::list(&errors, Severity::Error),
            error => vec![Finding::whole(error.to_string())],
        })?;
    }
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let size = |bytes: Option<u64>| bytes.map_or("–".into(), megabytes);
        let row = |m: &Checked| {
            vec![
                m.model.clone(),
                // Beside the sizes of the artifact; a note says what else is trained.
                m.stored_params.map_or("–".into(), |p| grouped(p as u64)),
                size(m.artifact_raw_bytes),
                size(m.artifact_estimate_bytes),
                size(m.cap_bytes),
                m.flops_per_token.map_or("–".into(), |f| format!("{:.1} M", f / 1e6)),
                match m.errors.len() {
                    0 => "ok".into(),
                    1 => "1 error".into(),
                    n => format!("{n} errors"),
                },
            ]
        };
        let headings = ["model", "parameters", "packed", "entropy coded", "cap", "FLOPs/token", ""];
        let mut text =
            table_without(&headings, &[1, 2, 3, 4, 5], &[4, 2], self.models.iter().map(row).collect());
        for checked in &self.models {
            if let Some(validation) = &checked.validation {
                text += &format!("\n\n{}\n\n{}", checked.model, validation::text(validation));
            }
        }
        text
    }
}
