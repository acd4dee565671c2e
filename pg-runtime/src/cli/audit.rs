//! `pg audit`: what a reviewer of a score checks by hand.

use std::path::PathBuf;

use clap::Args;
use pg_runtime::audit::{AuditOptions, AuditReport, Verdict, audit as audit_run};

use super::Outcome;
use super::devices::DeviceArgs;
use super::eval::ScoredTextArgs;
use super::format::table;
use super::progress::Progress;
use super::ui::Ui;

/// Arguments of `pg audit`.
#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Folder of a finished run, or an artifact.
    #[arg(value_name = "RUN|ARTIFACT")]
    path: PathBuf,
    #[command(flatten)]
    text: ScoredTextArgs,
    /// The scored text itself, text or JSON Lines (field `text`), gzipped or not, in order: it is tokenized again, and its
    /// bytes are held to those that the score counts.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    val_text: Vec<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Audits and reports; a violation is a failure.
pub(crate) fn audit(args: AuditArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let options = AuditOptions {
        path: args.path,
        text: args.text.given(),
        val_text: args.val_text,
        device: args.device.open()?,
    };
    let mut progress = Progress::new(ui);
    let report = audit_run(&options, &mut |event| progress.event(event));
    progress.finish();
    let report = report?;
    ui.report(&report, || text(&report))?;
    Ok(if report.passes() { Outcome::Success } else { Outcome::Failure })
}

fn text(report: &AuditReport) -> String {
    let verdict = |verdict| match verdict {
        Verdict::Proven => "proven",
        Verdict::Claimed => "claimed",
        Verdict::Violated => "VIOLATED",
    };
    let rows =
        report.findings.iter().map(|f| vec![f.check.into(), verdict(f.verdict).into(), f.what.clone()]);
    let count = |wanted| report.findings.iter().filter(|f| f.verdict == wanted).count();
    let [proven, claimed, violated] = [Verdict::Proven, Verdict::Claimed, Verdict::Violated].map(count);
    format!(
        "{}: {} ({})\n{}\n\n{proven} proven, {claimed} claimed, not proven, {violated} violated",
        report.model,
        report.artifact.display(),
        report.hash,
        table(&["check", "", "finding"], &[], rows.collect())
    )
}
