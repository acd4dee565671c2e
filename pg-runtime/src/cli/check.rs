//! `pg check`: everything that is known of models before anything runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use pg_ir::dsl::{Diagnostic, Diagnostics, Options, Severity, Source, elaborate};
use pg_ir::model::Model;
use pg_runtime::session::{Key, Session};
use serde::Serialize;

use super::Outcome;
use super::facts::Facts;
use super::format::{grouped, megabytes, table};
use super::model::Variation;
use super::ui::Ui;

/// Arguments of `pg check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Model files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    variation: Variation,
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
    params: Option<usize>,
    artifact_raw_bytes: Option<u64>,
    artifact_estimate_bytes: Option<u64>,
    code_bytes: Option<u64>,
    cap_bytes: Option<u64>,
    flops_per_token: Option<f64>,
    ok: bool,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Report {
    models: Vec<Checked>,
}

/// Checks every file; fails if any does.
pub(crate) fn check(args: CheckArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let options = args.variation.options();
    // `pg check models/*.rs` is natural, and the folder is also a Rust library, whose `lib.rs` only lists the models.
    let several = args.files.len() > 1;
    let files = args.files.iter().filter(|f| !(several && f.file_name().is_some_and(|n| n == "lib.rs")));
    let models: Vec<Checked> = files.map(|file| check_file(file, &options)).collect();
    for checked in &models {
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
        artifact_raw_bytes: None,
        artifact_estimate_bytes: None,
        code_bytes: None,
        cap_bytes: None,
        flops_per_token: None,
        ok: false,
        errors: vec![],
        warnings: vec![],
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
        self.warnings = Finding::list(&model.notes, Severity::Warning);
        match Facts::of(&model) {
            Ok(facts) => self.take(&facts),
            Err(message) => {
                self.params = Some(model.param_count());
                self.errors.push(Finding::whole(message));
            }
        }
        let mut also: Vec<String> = model.profiles.clone();
        also.retain(|p| options.profile.as_ref() != Some(p));
        self.errors.extend(prove(model).err().map(Finding::whole));
        for profile in also {
            let options = Options { profile: Some(profile.clone()), ..options.clone() };
            let refused = match elaborate(source, &options) {
                Ok(model) => prove(model).map_err(|e| vec![Finding::whole(e)]),
                Err(errors) => Err(Finding::list(&errors, Severity::Error)),
            };
            for mut finding in refused.err().unwrap_or_default() {
                finding.message = format!("profile `{profile}`: {}", finding.message);
                self.errors.push(finding);
            }
        }
    }

    fn take(&mut self, facts: &Facts) {
        self.params = Some(facts.params);
        self.artifact_raw_bytes = Some(facts.artifact_raw_bytes);
        self.artifact_estimate_bytes = Some(facts.artifact_estimate_bytes);
        self.code_bytes = Some(facts.code_bytes);
        self.cap_bytes = Some(facts.cap_bytes);
        self.flops_per_token = Some(facts.flops_per_token);
        let size = || {
            let (total, cap) = (grouped(facts.total_bytes()), grouped(facts.cap_bytes));
            format!("{}: artifact and code are predicted at {total} bytes; the cap is {cap}", facts.model)
        };
        if facts.is_over_cap() {
            self.errors.push(Finding::whole(size()));
        } else if facts.is_near_cap() {
            let mut warning = Finding::whole(format!("{}: less than 5 % apart", size()));
            warning.rendered = format!("warning: {}", warning.message);
            self.warnings.push(warning);
        }
    }
}

/// Builds the training and scoring programs, each with its proofs: the graph is well formed, quantised parameters are
/// read through their quantiser, no score depends on a later token.
fn prove(model: Model) -> Result<(), String> {
    let (seq, phases) = (model.train.seq_len, model.phases.len());
    let session = Session::new(Arc::new(model), Default::default());
    for phase in 0..phases {
        let qat = session.model.is_quantised(phase);
        let key = Key::Grad { phase, batch: 1, seq, qat, accumulate: false };
        session.program(key).map_err(|e| e.to_string())?;
    }
    let score = Key::Score { batch: 1, seq, qat: false };
    session.program(score).map(drop).map_err(|e| e.to_string())
}

impl Report {
    fn text(&self) -> String {
        let size = |bytes: Option<u64>| bytes.map_or("–".into(), megabytes);
        let row = |m: &Checked| {
            vec![
                m.model.clone(),
                m.params.map_or("–".into(), |p| grouped(p as u64)),
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
        table(&headings, &[1, 2, 3, 4, 5], self.models.iter().map(row).collect())
    }
}
