//! What is in the way of a submission: what makes the runs none, and what the challenge would not accept of them.

use super::{SubmitError, SubmitOptions};
use crate::audit::{AuditReport, Finding, Verdict};
use crate::challenge::{HARDWARE, MAX_BYTES, MAX_SECONDS, MIN_SEEDS};
use crate::report::StepMetrics;
use crate::run::FinishedRun;

/// What was found, as sentences.
#[derive(Debug, Default)]
pub(super) struct Objections {
    /// No folder is written of such runs.
    pub(super) refusals: Vec<String>,
    /// A draft is.
    pub(super) not_accepted: Vec<String>,
}

impl Objections {
    pub(super) fn add(&mut self, more: Objections) {
        self.refusals.extend(more.refusals);
        // The same of every run is said once.
        for what in more.not_accepted {
            if !self.not_accepted.contains(&what) {
                self.not_accepted.push(what);
            }
        }
    }

    /// Whether the folder may be written.
    pub(super) fn check(&self, is_draft: bool) -> Result<(), SubmitError> {
        if !self.refusals.is_empty() {
            return Err(SubmitError::Refused(self.refusals.clone()));
        }
        if !self.not_accepted.is_empty() && !is_draft {
            return Err(SubmitError::NotAccepted(self.not_accepted.clone()));
        }
        Ok(())
    }

    fn refuse_if(&mut self, so: bool, what: impl FnOnce() -> String) {
        if so {
            self.refusals.push(what());
        }
    }

    fn draft_if(&mut self, so: bool, what: impl FnOnce() -> String) {
        if so {
            self.not_accepted.push(what());
        }
    }
}

/// The longest name of a GitHub account.
const MAX_LOGIN: usize = 39;

/// What the arguments themselves get wrong.
pub(super) fn of_options(options: &SubmitOptions) -> Objections {
    let mut objections = Objections::default();
    let SubmitOptions { out, author, github, name, blurb, hardware, .. } = options;
    objections.refuse_if(out.symlink_metadata().is_ok(), || {
        format!("{}: it exists; a submission is written to a new folder", out.display())
    });
    let texts = [("--author", Some(author)), ("--name", name.as_ref()), ("--hardware", hardware.as_ref())];
    for (argument, text) in texts.into_iter().chain([("--blurb", blurb.as_ref())]) {
        let is_line = |text: &String| !text.trim().is_empty() && !text.contains(char::is_control);
        objections.refuse_if(text.is_some_and(|text| !is_line(text)), || {
            format!("{argument}: expected a line of text")
        });
    }
    let is_login = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_account = !github.is_empty() && github.len() <= MAX_LOGIN && github.chars().all(is_login);
    objections.refuse_if(!is_account, || {
        format!(
            "--github {github}: expected the name of a GitHub account: letters, digits and `-`, without `@`"
        )
    });
    objections
}

/// What is wrong with the runs, as far as their reports say; `named` are as many as the user names.
pub(super) fn of_runs(runs: &[(FinishedRun, Vec<StepMetrics>)], named: usize) -> Objections {
    let mut objections = Objections::default();
    objections.refuse_if(named < MIN_SEEDS, || {
        format!("a submission shows its score with {MIN_SEEDS} runs of different seeds; these are {named}")
    });
    for (index, (run, _)) in runs.iter().enumerate() {
        of_run(run, &mut objections);
        objections.refusals.extend(runs.first().and_then(|(first, _)| not_the_same_job(run, first)));
        let twin = runs[..index].iter().find(|(other, _)| other.report.seed == run.report.seed);
        if let Some((twin, _)) = twin {
            let (one, other, seed) = (twin.folder.display(), run.folder.display(), run.report.seed);
            objections.refusals.push(format!("{one} and {other} have the same seed, {seed}"));
        }
    }
    objections
}

/// Runs of a submission differ in their seeds and in nothing else.
fn not_the_same_job(run: &FinishedRun, first: &FinishedRun) -> Option<String> {
    let what = run.record.difference_besides_seed(&first.record)?;
    let (run, first) = (run.folder.display(), first.folder.display());
    Some(format!("{run} is not of the same job as {first}: {what}"))
}

fn of_run(run: &FinishedRun, objections: &mut Objections) {
    let FinishedRun { folder, record, report } = run;
    let at = folder.display();
    let (artifact, code, total) =
        (report.artifact.artifact_bytes, report.artifact.code_bytes, report.artifact.total_bytes);
    objections.refuse_if(total > MAX_BYTES, || {
        format!("{at}: {artifact} bytes of artifact and {code} of model and library text are {total}, more than {MAX_BYTES}")
    });
    objections
        .refuse_if(report.bpb.last().is_none(), || format!("{at}: its report has no score of the artifact"));

    objections.draft_if(record.job.text.val.is_none(), || match record.job.text.data {
        None => "the score is of the sample text that is part of pg, not of the challenge's validation set (--val)".into(),
        Some(_) => "the score is of the training text, not of the challenge's validation set (--val)".into(),
    });
    let text = &record.text;
    objections.draft_if(text.targets < text.available_targets, || {
        let (scored, all) = (text.targets, text.available_targets);
        format!("the score is of {scored} of the validation text's {all} targets (eval.max_targets)")
    });
    objections.draft_if(report.params != report.trained_params, || {
        let (own, full) = (report.trained_params, report.params);
        format!("the runs trained profile `{}` of {own} parameters; the model has {full}", report.profile)
    });
    objections.draft_if(!record.device.starts_with("cuda"), || {
        format!("the runs were on `{}`; the challenge's times are of {HARDWARE}", record.device)
    });
    objections.draft_if(record.init_hash.is_some(), || {
        "training began from weights of a file, whose own training took time that is not counted".into()
    });
    let times = [("training", report.training_seconds()), ("evaluation", report.evaluation_seconds())];
    for (what, seconds) in times {
        objections.draft_if(seconds > MAX_SECONDS, || {
            format!("{at}: {what} took {seconds:.0} s; the challenge allows {MAX_SECONDS:.0}")
        });
    }
}

/// What an audit found. Times are the challenge's business, and in the report.
pub(super) fn of_audit(run: &FinishedRun, audit: &AuditReport) -> Objections {
    let violated = audit.findings.iter().filter(|f| f.verdict == Verdict::Violated && f.check != "time");
    let at = run.folder.display();
    let refuse = |f: &Finding| format!("{at}: the audit's check `{}` fails: {}", f.check, f.what);
    Objections { refusals: violated.map(refuse).collect(), not_accepted: Vec::new() }
}
