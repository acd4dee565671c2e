//! What a run came to, for a person: every number with what it means, the artifact, and what to try next.

use std::fmt::Write;

use pg_runtime::data::{self, sample};
use pg_runtime::report::RunReport;
use pg_runtime::run::JobOptions;

use super::command::{command, scored_text_arguments};
use super::format::{adapted, bpb, counted, duration, grouped, megabytes, scored, table};

/// The end of `pg run`.
pub(crate) fn text(report: &RunReport, options: &JobOptions) -> String {
    let mut out = String::new();
    let train = &report.train;
    let _ = writeln!(
        out,
        "\n{} (profile {}, seed {}, {}): {} parameters trained{}",
        report.model,
        report.profile,
        report.seed,
        report.device,
        grouped(report.trained_params as u64),
        match report.params == report.trained_params {
            true => String::new(),
            false => format!(", {} at full size", grouped(report.params as u64)),
        }
    );
    let _ = writeln!(
        out,
        "{}, {} tokens, {:.0} ms a step; loss {:.3} → {:.3} nats a token; first step after {}; peak memory {}",
        counted(train.steps, "step"),
        grouped(train.tokens),
        train.ms_per_step,
        train.loss_first,
        train.loss_last,
        duration(train.first_step_s),
        megabytes(report.peak_rss_bytes)
    );
    if !report.ledger.is_empty() {
        let parts = report.ledger.iter().map(|entry| format!("{} {:.1} s", entry.part, entry.seconds));
        let _ = writeln!(out, "time: {}", parts.collect::<Vec<_>>().join(", "));
    }
    if let Some(validation) = &report.validation {
        let _ = writeln!(out, "validated: {validation}\n");
    }
    if let Some(text) = &report.text {
        let _ = writeln!(out, "{}", scored(text));
    }
    out += &scores(report);
    if report.sample {
        let _ = writeln!(out, "\n\nThe same text under simpler models:\n");
        out += &reference_points();
    }
    let _ = writeln!(out, "\n\nSize:\n");
    out += &sizes(report);
    let _ = writeln!(out, "\n\nArtifact: {}", report.artifact.path.display());
    let _ = writeln!(out, "Everything else of the run: {}", report.run_dir.display());
    let _ = writeln!(out, "\nTry next:");
    for (command, why) in next_commands(report, options) {
        let _ = writeln!(out, "  {command}\n      {why}");
    }
    out
}

fn scores(report: &RunReport) -> String {
    let b = &report.bpb;
    let rows = [
        ("before training", b.initial, "random weights"),
        ("live", b.live, "the last step's weights, unquantised"),
        ("averaged", b.ema, "the moving average of the weights, unquantised: what is exported"),
        ("quantised", b.quantized, "the artifact read back from disk"),
        ("sliding", b.sliding, "the artifact, every target scored once with a long context before it"),
        ("test-time", b.ttt, "sliding, and training on each chunk after it has been scored"),
    ];
    let mut rows: Vec<Vec<String>> = rows.map(|(n, v, why)| vec![n.into(), bpb(v), why.into()]).into();
    let gap = "quantised − averaged: what quantisation costs";
    rows.extend(report.ttt.as_ref().map(adapted));
    rows.insert(
        4,
        vec!["gap".into(), report.quant_gap_bpb.map_or("–".into(), |gap| format!("{gap:+.4}")), gap.into()],
    );
    table(&["score", "bits per byte", "of"], &[1], rows)
}

fn reference_points() -> String {
    let stats = data::stats(&sample::val(), &sample::tokenizer()).expect("the sample is part of the program");
    let uniform = stats.targets as f64 * (sample::VOCAB as f64).log2() / stats.bytes.max(1) as f64;
    let points = std::iter::once(("uniform", uniform)).chain(sample::REFERENCE_POINTS);
    let meaning = |name: &str| match name {
        "uniform" => "every token equally likely",
        "unigram" => "token frequencies of the training text",
        "bigram" => "frequencies given the token before",
        "trigram" => "frequencies given the two tokens before",
        _ => "a general-purpose compressor on the text",
    };
    let rows = points.map(|(name, v)| vec![name.into(), format!("{v:.3}"), meaning(name).into()]);
    table(&["reference", "bits per byte", "of"], &[1], rows.collect())
}

fn sizes(report: &RunReport) -> String {
    let a = &report.artifact;
    let share = 100.0 * a.total_bytes as f64 / a.cap_bytes.max(1) as f64;
    let rows = [
        ("artifact", a.artifact_bytes, format!("the file; predicted {}", grouped(a.estimate_bytes))),
        (
            "with code",
            a.total_bytes,
            format!("and model text: what the cap of {} holds ({share:.1} %)", grouped(a.cap_bytes)),
        ),
        ("with evaluator", a.with_evaluator_bytes, "and this program: everything that scoring needs".into()),
    ];
    let rows = rows.into_iter().map(|(n, bytes, of)| vec![n.into(), grouped(bytes), of]);
    table(&["total", "bytes", "of"], &[1], rows.collect())
}

/// Three commands for what a reader may want next.
fn next_commands(report: &RunReport, options: &JobOptions) -> [(String, &'static str); 3] {
    let words = |words: &[&str], more: Vec<String>| {
        command(words.iter().map(|word| word.to_string()).chain(more).collect::<Vec<_>>())
    };
    let file = options.model.display().to_string();
    let of_device = |mut arguments: Vec<String>| {
        if report.device != "cpu" {
            arguments.extend(["--device".into(), report.device.clone()]);
        }
        arguments
    };
    // Only of this model is that one "the same, but".
    let sibling = options.model.with_file_name("pr910.rs");
    let second = if report.model == "int4mlp_12l" && sibling.is_file() {
        let arguments = JobOptions { overrides: Vec::new(), init: None, ..options.clone() }.arguments();
        (
            words(&["run", &sibling.display().to_string()], of_device(arguments)),
            "the same model, exported on another grid than it was trained on: watch the gap",
        )
    } else {
        let artifact = report.artifact.path.display().to_string();
        let mut arguments = of_device(scored_text_arguments(&options.text));
        arguments.extend(report.bpb.ttt.map(|_| "--ttt".into()));
        (words(&["eval", &artifact], arguments), "the artifact's scores, from the file alone")
    };
    let variation = JobOptions { overrides: options.overrides.clone(), ..JobOptions::default() }.arguments();
    [
        (words(&["ir", &file], variation), "what the model compiles to"),
        second,
        (command(["new", "my_idea", "--from", &file]), "a model of your own: this one, but …"),
    ]
}
