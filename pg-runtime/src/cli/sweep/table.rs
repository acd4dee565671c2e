//! What a sweep came to, for a person.

use std::fmt::Write;

use pg_runtime::statistics::{Summary, TTest};
use pg_runtime::sweep::{ConfigurationReport, SweepReport};

use crate::cli::format::{counted, grouped, scored, table_without};

/// The end of `pg sweep`.
pub(super) fn text(report: &SweepReport) -> String {
    let headings = [
        "configuration",
        "runs",
        "bits per byte",
        "± std",
        "steps",
        "artifact",
        "difference",
        "95 % interval",
        "p",
    ];
    let rows = report.configurations.iter().map(row).collect();
    let mut out = format!(
        "\n{} on {} in {}: {} score, mean of the runs; difference from {}\n{}\n\n{}",
        report.model,
        report.device,
        report.precision,
        report.score,
        baseline(report),
        scored(&report.text),
        table_without(&headings, &[1, 2, 3, 4, 5, 6, 7, 8], &[4, 5, 1], rows)
    );
    for (why, names) in without_test(report) {
        let _ = write!(out, "\n\n{}: {why}", names.join(", "));
    }
    let tests = report.configurations.iter().filter(|c| c.against_baseline.is_some()).count();
    if tests > 0 {
        out += "\n\np: Welch's t-test, two-sided, of this difference alone";
    }
    if tests > 1 {
        let _ =
            write!(out, "; of {tests} such tests one finds p < {:.3} by chance in 20", 0.05 / tests as f64);
    }
    let _ = write!(out, "\n\nArtifact: bytes of the largest. Runs: {}", report.sweep.display());
    if !report.failures.is_empty() {
        let _ = write!(out, "\n\nFailed:");
    }
    for failure in &report.failures {
        let _ = write!(out, "\n  {}: {}", failure.folder.display(), failure.message);
    }
    out
}

fn baseline(report: &SweepReport) -> String {
    let name = &report.baseline.name;
    match report.baseline.score {
        None => format!("{name}, of which no run has finished"),
        Some(Summary { n, mean, std }) => {
            let std = std.map_or(String::new(), |std| format!(" ± {std:.4}"));
            format!("{name} ({}, {mean:.4}{std})", counted(n as u64, "run"))
        }
    }
}

fn row(configuration: &ConfigurationReport) -> Vec<String> {
    let c = configuration;
    let dash = || "–".to_string();
    let count = format!("{} of {}", c.score.map_or(0, |score| score.n), c.runs.len());
    let difference = |show: &dyn Fn(&TTest) -> String| match (c.is_baseline, &c.against_baseline) {
        (true, _) => String::new(),
        (false, Some(test)) => show(test),
        (false, None) => dash(),
    };
    vec![
        format!("{}{}", c.name, if c.is_baseline { " (baseline)" } else { "" }),
        count,
        c.score.map_or_else(dash, |score| format!("{:.4}", score.mean)),
        c.score.and_then(|score| score.std).map_or_else(dash, |std| format!("{std:.4}")),
        c.steps.map_or_else(dash, |steps| grouped(steps.round().max(0.0) as u64)),
        c.artifact_bytes.map_or_else(dash, grouped),
        difference(&|test| format!("{:+.4}", test.difference)),
        difference(&|test| format!("{:+.4} … {:+.4}", test.interval95[0], test.interval95[1])),
        difference(&|test| p_value(test.p)),
    ]
}

/// `0.0312`, `4.1e-5`.
pub(crate) fn p_value(p: f64) -> String {
    if p < 1e-3 { format!("{p:.1e}") } else { format!("{p:.4}") }
}

/// Configurations without a test, by the reason.
fn without_test(report: &SweepReport) -> Vec<(&str, Vec<&str>)> {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    for configuration in &report.configurations {
        let Some(why) = configuration.no_test.as_deref() else { continue };
        match all.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, names)) => names.push(&configuration.name),
            None => all.push((why, vec![&configuration.name])),
        }
    }
    all
}
