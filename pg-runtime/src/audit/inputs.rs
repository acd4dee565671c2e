//! Files and text: that they are the ones the report names, that they are within the rules' sizes and times, and that what
//! was scored was not trained on.

use super::Findings;
use super::Verdict::{Claimed, Proven, Violated};
use crate::challenge::{MAX_BYTES, MAX_SECONDS};
use crate::data::DataError;
use crate::export::Loaded;
use crate::report::RunReport;
use crate::run::{Corpus, HONEST_OVERLAP};

/// The artifact is the one that was scored, and small enough.
pub(super) fn artifact(findings: &mut Findings, loaded: &Loaded, report: Option<&RunReport>) {
    let hash = &loaded.artifact.hash;
    match report.map(|report| &report.artifact.hash) {
        Some(scored) => findings.hold(
            "artifact",
            scored == hash,
            format!("the file is the one that was scored ({hash})"),
            || format!("the file's hash is {hash}, the run scored {scored}: it was changed after the run"),
        ),
        None => findings.add("artifact", Proven, format!("the file is whole ({hash})")),
    }
    let (file, code) = (loaded.artifact.sizes.total_bytes, loaded.model.code_bytes());
    let total = file + code;
    findings.hold(
        "size",
        total <= MAX_BYTES,
        format!("{file} bytes of artifact and {code} of model and library text are {total} of {MAX_BYTES}"),
        || format!("{file} bytes of artifact and {code} of model and library text are more than {MAX_BYTES}"),
    );
}

/// The text is the one that was scored, it was not trained on, and its bytes are those of its tokens.
pub(super) fn text(
    findings: &mut Findings,
    loaded: &Loaded,
    corpus: &Corpus,
    report: Option<&RunReport>,
) -> Result<(), DataError> {
    let own = corpus.tokenizer.hash();
    match loaded.tokenizer() {
        Some(made_with) => findings.hold(
            "tokenizer",
            made_with == own,
            format!("the model was trained and is scored with the same ({own})"),
            || format!("the model was trained with {made_with}, the text is counted with {own}"),
        ),
        None => findings.add("tokenizer", Claimed, "the artifact does not name its tokenizer"),
    }
    let overlap = corpus.overlap()?;
    let now = corpus.report(&loaded.model, Some(overlap))?;
    if let Some(then) = report.and_then(|report| report.text.as_ref()) {
        let difference = then.difference(&now);
        findings.hold(
            "text",
            difference.is_none(),
            format!(
                "{} targets of {} bytes, counted again, are what the report says",
                now.targets, now.bytes
            ),
            || format!("{} is another than the report says", difference.unwrap_or_default()),
        );
    }
    let share = 100.0 * overlap.share();
    findings.hold(
        "disjoint",
        overlap.share() <= HONEST_OVERLAP,
        format!("{share:.2} % of the scored text stands in the training text `{}`", corpus.train.name()),
        || format!("{share:.1} % of the scored text stands in the training text `{}`", corpus.train.name()),
    );
    match now.scored_again {
        0 => findings.add("once", Proven, "every target is scored exactly once"),
        n => findings.add(
            "once",
            Violated,
            format!("{n} targets at the end are scored twice (eval.rescore_tail)"),
        ),
    }
    if now.targets < now.available_targets {
        let (some, all) = (now.targets, now.available_targets);
        findings.add(
            "whole",
            Claimed,
            format!("{some} of {all} targets are scored: a score of a part (eval.max_targets)"),
        );
    }
    match &now.val_bytes {
        None => {
            findings.add("bytes", Proven, "bytes are what the tokenizer's decoder writes for each target")
        }
        Some(counts) => {
            let what =
                format!("bytes are the counts in `{}`, none above what the decoder writes", counts.name);
            findings.add("bytes", Claimed, what);
        }
    }
    Ok(())
}

/// What only the run can know.
pub(super) fn claims(findings: &mut Findings, report: &RunReport) {
    let (train, score) = (report.training_seconds(), report.evaluation_seconds());
    let (verdict, what) = match train <= MAX_SECONDS && score <= MAX_SECONDS {
        true => (Claimed, format!("{train:.0} s of training, {score:.0} s of evaluation")),
        false => (
            Violated,
            format!(
                "{train:.0} s of training and {score:.0} s of evaluation; {MAX_SECONDS:.0} s each are allowed"
            ),
        ),
    };
    findings.add("time", verdict, what);
    findings.add("calibration", Proven, "none: the exporter reads the weights alone");
    let read = "the training read no other text than the report names; `pg run --replay` proves it";
    findings.add("training data", Claimed, read);
    if let Some(hash) = &report.init_hash {
        let what = format!("training began from weights of a file ({hash}), whose own training is not known");
        findings.add("initial weights", Claimed, what);
    }
    if report.validation.as_ref().is_none_or(|validation| validation.programs.is_empty()) {
        findings.add("validation", Claimed, "the run's programs were not held to float64 (--no-validate)");
    }
}
