//! `README.md`: results, how to do them again, what the audits found, and where the folder is not as the challenge asks.

use std::fmt::Write;

use super::{Audited, BaselineTest, Contents, write};
use crate::audit::Verdict;
use crate::challenge::{MAX_BYTES, RECORD_NATS, RECORD_P};
use crate::report::{RunReport, grouped};
use crate::run::shell_word;
use crate::statistics::Summary;

/// The text.
pub(super) fn text(contents: &Contents<'_>) -> String {
    let sections = [
        title(contents),
        results(contents),
        contents.baseline.as_ref().map_or(String::new(), |test| baseline(contents, test)),
        reproduce(contents),
        audits(contents),
        not_as_asked(contents),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

fn title(contents: &Contents<'_>) -> String {
    let submission = &contents.submission;
    let mut out = format!("# {}\n\n", submission.name);
    if !contents.not_accepted.is_empty() {
        let _ = writeln!(out, "> **A draft, not a submission.** The challenge would not accept it:");
        contents.not_accepted.iter().for_each(|what| _ = writeln!(out, "> - {what}"));
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "**val_bpb: {:.4}** ({} seeds, std {:.4}) | **{} bytes** at most, artifact and code | {}",
        submission.val_bpb,
        contents.runs.len(),
        submission.val_bpb_std,
        grouped(submission.bytes_total),
        submission.hardware
    );
    if !submission.blurb.is_empty() {
        let _ = writeln!(out, "\n{}", submission.blurb);
    }
    out
}

fn results(contents: &Contents<'_>) -> String {
    let mut out = "## Results\n\n".to_string();
    let has_ttt = contents.runs.iter().any(|run| run.run.report.bpb.ttt.is_some());
    let mut headings = vec!["seed", "steps", "val_loss", "val_bpb", "quantised", "sliding"];
    headings.extend(has_ttt.then_some("test-time"));
    headings.extend(["artifact bytes", "with code", "training", "evaluation"]);
    table_head(&mut out, &headings, headings.len());
    for run in contents.runs {
        let RunReport { seed, train, bpb, artifact, .. } = &run.run.report;
        let score = |score: Option<f64>| score.map_or("–".into(), |score| format!("{score:.4}"));
        let mut row = vec![seed.to_string(), grouped(train.steps), format!("{:.4}", run.loss)];
        row.extend([format!("**{:.4}**", run.bpb), score(bpb.quantized), score(bpb.sliding)]);
        row.extend(has_ttt.then(|| score(bpb.ttt)));
        row.extend([grouped(artifact.artifact_bytes), grouped(artifact.total_bytes)]);
        row.extend([run.training_s, run.evaluation_s].map(|seconds| format!("{seconds:.0} s")));
        table_row(&mut out, &row);
    }
    let (bpb, loss) = (&contents.bpb, &contents.loss);
    let mut line = |name: &str, of: fn(&Summary) -> f64| {
        let mut row = vec![format!("**{name}**"), String::new()];
        row.extend([format!("{:.4}", of(loss)), format!("**{:.4}**", of(bpb))]);
        row.resize(headings.len(), String::new());
        table_row(&mut out, &row);
    };
    line("mean", |summary| summary.mean);
    line("std", |summary| summary.std.unwrap_or(0.0));
    let text = contents.runs.first().map(|run| &run.run.record.text);
    if let Some(text) = text {
        let _ = writeln!(
            out,
            "\nval_loss in nats per token and val_bpb in bits per byte are the {} score of the artifact as read back from its \
             file, over {} of {} targets of `{}` (blake3 of its tokens `{}`), {} bytes of text. Times are by the \
             ledger; the deviation is that of the sample.",
            contents.score,
            grouped(text.targets),
            grouped(text.available_targets),
            text.val.name,
            text.val.hash,
            grouped(text.bytes)
        );
    }
    out
}

fn baseline(contents: &Contents<'_>, test: &BaselineTest) -> String {
    let mut out = format!("## Against {} bits per byte\n\n", test.bpb);
    let (Some(two_sided), Some(record_p)) = (&test.test, test.record_p) else {
        let _ = writeln!(out, "The runs do not differ: there is no test.");
        return out;
    };
    let [low, high] = two_sided.interval95;
    let _ = writeln!(
        out,
        "Difference of the mean: {:+.4} bits per byte, 95 % confidence interval {low:+.4} … {high:+.4}, p = {:.2e} (two-sided \
         one-sample t-test, {} degrees of freedom).\n\nThat the loss is lower by {RECORD_NATS} nats per token: p = {record_p:.2e} \
         (one-sided). The challenge asks for p < {RECORD_P}: {}.",
        two_sided.difference,
        two_sided.p,
        contents.runs.len() - 1,
        if test.is_record { "these runs show it" } else { "these runs do not show it" }
    );
    out
}

fn reproduce(contents: &Contents<'_>) -> String {
    let mut out = "## Reproduce\n\n".to_string();
    let main = contents.model.main.display();
    let pg = contents.runs.first().map_or("", |run| run.run.record.pg.as_str());
    let _ = writeln!(out, "With pg {pg}, in this folder; paths of data are as they were.\n\n```sh");
    let _ = writeln!(out, "pg check {main}");
    for run in contents.runs {
        let _ = writeln!(out, "pg run {main} {}", shell(run));
    }
    for run in contents.runs {
        let _ = writeln!(out, "pg eval {}{}", write::artifact_name(run), evaluated(run));
    }
    let _ = writeln!(
        out,
        "```\n\nThe same runs, each step at the time it had and held to what it gave, on such a device:\n\n```sh"
    );
    for run in contents.runs {
        let seed = run.run.report.seed;
        let device = device(run);
        let _ = writeln!(out, "pg run --replay {} --out again_seed{seed}{device}", write::replay_name(run));
    }
    out + "```\n"
}

fn device(run: &Audited) -> String {
    match run.run.record.device.as_str() {
        "cpu" => String::new(),
        device => format!(" --device {device}"),
    }
}

/// The arguments of the run.
fn shell(run: &Audited) -> String {
    let mut job = run.run.record.job.clone();
    job.seed = Some(run.run.report.seed);
    // On another device it may be another by default.
    job.profile = Some(run.run.report.profile.clone()).filter(|profile| profile != "none").or(job.profile);
    quoted(&job.arguments()) + &device(run)
}

/// The arguments of `pg eval` that score the same text.
fn evaluated(run: &Audited) -> String {
    let mut job = crate::run::JobOptions { text: run.run.record.job.text.clone(), ..Default::default() };
    job.text.data = None;
    let mut arguments = job.arguments();
    arguments.extend(run.run.report.bpb.ttt.is_some().then(|| "--ttt".into()));
    let text = quoted(&arguments);
    (if text.is_empty() { text } else { format!(" {text}") }) + &device(run)
}

fn quoted(arguments: &[String]) -> String {
    arguments.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

fn audits(contents: &Contents<'_>) -> String {
    let mut out = "## Audit\n\nWhat `pg audit` recomputed from each artifact and the text. *Claimed* is what only the run can know.\n\n"
        .to_string();
    table_head(&mut out, &["check", "seed", "verdict", "finding"], 0);
    let checks = contents.runs.first().map(|run| run.audit.findings.iter().map(|f| f.check));
    let mut checks: Vec<&str> = checks.into_iter().flatten().collect();
    let others = contents.runs.iter().flat_map(|run| run.audit.findings.iter().map(|f| f.check));
    for check in others {
        if !checks.contains(&check) {
            checks.push(check);
        }
    }
    for check in checks {
        for (seeds, verdict, what) in findings(contents.runs, check) {
            let verdict = match verdict {
                Verdict::Proven => "proven",
                Verdict::Claimed => "*claimed*",
                Verdict::Violated => "**violated**",
            };
            table_row(&mut out, &[check.into(), seeds, verdict.into(), what.replace('|', "\\|")]);
        }
    }
    out
}

/// What the audits found of a check: seeds of which the same was found are together.
fn findings(runs: &[Audited], check: &str) -> Vec<(String, Verdict, String)> {
    let mut all: Vec<(Vec<String>, Verdict, &str)> = Vec::new();
    for run in runs {
        let of_check = run.audit.findings.iter().filter(|finding| finding.check == check);
        for finding in of_check {
            let seed = run.run.report.seed.to_string();
            match all.iter_mut().find(|(_, v, what)| (*v, *what) == (finding.verdict, &finding.what)) {
                Some((seeds, ..)) => seeds.push(seed),
                None => all.push((vec![seed], finding.verdict, &finding.what)),
            }
        }
    }
    let seeds = |seeds: Vec<String>| if seeds.len() == runs.len() { "all".into() } else { seeds.join(", ") };
    all.into_iter().map(|(of, verdict, what)| (seeds(of), verdict, what.to_string())).collect()
}

fn not_as_asked(contents: &Contents<'_>) -> String {
    let mut out = "## Where this folder is not as the challenge asks\n\n".to_string();
    let with_program = contents.runs.iter().map(|run| run.run.report.artifact.with_evaluator_bytes).max();
    let main = contents.model.main.display();
    let _ = writeln!(
        out,
        "- The challenge runs `train_gpt.py`. This folder has none: the model is `{main}`, which `pg` compiles, trains and scores."
    );
    let _ = writeln!(
        out,
        "- Code bytes are those of the model's text and of the library text that it uses. The program `pg` is counted as the \
         challenge counts PyTorch: not. With it the largest total is {} bytes, of {} that are allowed.",
        grouped(with_program.unwrap_or(0)),
        grouped(MAX_BYTES)
    );
    let _ = writeln!(
        out,
        "- `hardware` is what the author says; the run recorded the device as `{}`.",
        contents.runs.first().map_or("", |run| run.run.record.device.as_str())
    );
    let _ = writeln!(
        out,
        "- That `{}` is the challenge's validation set is for its reader to check, by the hash above.",
        contents.runs.first().map_or("", |run| run.run.record.text.val.name.as_str())
    );
    if !contents.not_accepted.is_empty() {
        out += "- What makes it a draft stands at the top.\n";
    }
    out
}

/// The first `right` columns are aligned to the right.
fn table_head(out: &mut String, headings: &[&str], right: usize) {
    table_row(out, &headings.iter().map(|heading| heading.to_string()).collect::<Vec<_>>());
    let rule = |i| if i < right { "---:" } else { "---" };
    table_row(out, &(0..headings.len()).map(|i| rule(i).to_string()).collect::<Vec<_>>());
}

fn table_row(out: &mut String, cells: &[String]) {
    let _ = writeln!(out, "| {} |", cells.join(" | "));
}
