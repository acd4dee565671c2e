//! `pg submit`: the folder of a parameter-golf submission.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use pg_runtime::challenge::{RECORD_NATS, RECORD_P};
use pg_runtime::submit::{SubmitOptions, SubmitReport, submit as submit_runs};

use super::devices::DeviceArgs;
use super::format::grouped;
use super::progress::Progress;
use super::ui::Ui;

/// Arguments of `pg submit`.
#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    /// Folders of finished runs of one job with different seeds; `pg sweep` leaves such.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Folder to write; it appears whole or not at all.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Who submits.
    #[arg(long, value_name = "NAME")]
    author: String,
    /// Your GitHub account.
    #[arg(long, value_name = "ID")]
    github: String,
    /// What the submission is called [default: the model's name].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it is, in a sentence or two [default: what the model's file says].
    #[arg(long, value_name = "TEXT")]
    blurb: Option<String>,
    /// What the runs were on, as in '8xH100 80GB SXM' [default: the device's name].
    #[arg(long, value_name = "TEXT")]
    hardware: Option<String>,
    /// Test the score against this one, in bits per byte of the same text.
    #[arg(long, value_name = "BPB", value_parser = super::run::positive)]
    baseline_bpb: Option<f64>,
    /// Write what the challenge would not accept, and say so in it.
    #[arg(long)]
    draft: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Writes the folder and reports.
pub(crate) fn submit(args: SubmitArgs, ui: &Ui) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let SubmitArgs { runs, out, author, github, name, blurb, hardware, baseline_bpb, draft, .. } = args;
    let options =
        SubmitOptions { runs, out, author, github, name, blurb, hardware, baseline_bpb, draft, device };
    let mut progress = Progress::new(ui);
    let report = submit_runs(&options, &mut |event| progress.event(event));
    progress.finish();
    let report = report?;
    ui.report(&report, || text(&report))?;
    Ok(())
}

fn text(report: &SubmitReport) -> String {
    let submission = &report.submission;
    let mut out = format!(
        "{}: val_bpb {:.4} ± {:.4} of {} seeds, {} bytes at most",
        submission.name,
        submission.val_bpb,
        submission.val_bpb_std,
        submission.seeds.len(),
        grouped(submission.bytes_total)
    );
    if let Some((baseline, test)) = report.baseline.as_ref().and_then(|b| Some((b, b.test.as_ref()?))) {
        let _ = write!(
            out,
            "\nagainst {}: {:+.4}, p = {:.2e}; lower by {RECORD_NATS} nats per token at p < {RECORD_P}, as a record must be: {}",
            baseline.bpb,
            test.difference,
            test.p,
            if baseline.is_record { "yes" } else { "no" }
        );
    }
    if !submission.not_accepted.is_empty() {
        let _ = write!(
            out,
            "\na draft; the challenge would not accept it:\n  {}",
            submission.not_accepted.join("\n  ")
        );
    }
    let _ = write!(out, "\n{}:\n  {}", report.out.display(), report.files.join("\n  "));
    out
}
