//! The first phase: everything that a run needs is opened, checked and compiled to programs that are held to
//! float64. It ends before the first number of the run is computed.

use std::path::{Path, PathBuf};
use std::time::Instant;

use pg_ir::footprint::Moment;
use pg_ir::input;
use pg_ir::lang::Options;
use pg_ir::lang::model::Model;

use super::folder::{self, RunFolder};
use super::initial::initial_weights;
use super::ledger::Ledger;
use super::model::{self, Loaded};
use super::options::{Earlier, Purpose};
use super::{Corpus, JobOptions, RunError, RunOptions, RunRecord, Scorer, full_size, requests};
use crate::data::DataError;
use crate::export::Provenance;
use crate::report::{Event, Observer, TextReport, counted, now};
use crate::session::{Key, Session};
use crate::train::schedule::Budget;
use crate::train::{TrainError, TrainPlan};
use crate::validate::{ValidationReport, validate};
use crate::weights::Weights;

/// What preparing a run leaves to the other phases.
pub(super) struct Prepared<F = RunFolder> {
    /// What they read and do not change.
    pub(super) job: Job<F>,
    /// The programs of the model that is trained.
    pub(super) session: Session,
    /// The weights to start from, if the user gave any.
    pub(super) initial: Option<Weights>,
    /// The full-size model, where it is timed after the run.
    pub(super) full: Option<Model>,
}

/// A run's facts from its first step on. `F` is its folder; a run that is only checked has none.
pub(super) struct Job<F = RunFolder> {
    /// When it began.
    pub(super) started: Instant,
    /// Where its time goes.
    pub(super) ledger: Ledger,
    /// Parameters of the model without a profile, without the overrides if it must be.
    pub(super) params: usize,
    /// The profile in force.
    pub(super) profile: Option<String>,
    /// How the model was elaborated: what the artifact says of it.
    pub(super) provenance: Provenance,
    /// The text to train on and to score.
    pub(super) corpus: Corpus,
    /// What the run wrote down of itself.
    pub(super) record: RunRecord,
    /// How the model trains.
    pub(super) plan: TrainPlan,
    /// What holding the programs to float64 found.
    pub(super) validation: ValidationReport,
    /// Where the run's files go.
    pub(super) folder: F,
    /// Predicted bytes of the artifact.
    pub(super) estimate_bytes: u64,
}

/// Prepares a run. Whatever can keep it from ending well is found here, as far as it can be known.
pub(super) fn prepare(options: &RunOptions, observer: &mut Observer<'_>) -> Result<Prepared, RunError> {
    let prepared = prepare_in(|model| own_folder(options, model), options, observer)?;
    let text = serde_json::to_vec_pretty(&prepared.job.record).expect("strings and numbers always serialise");
    prepared.job.folder.write(folder::RECORD, &text)?;
    Ok(prepared)
}

/// Prepares a run in a folder that is taken, or only looked at, for the model of this name.
pub(super) fn prepare_in<F>(
    take_folder: impl FnOnce(&str) -> Result<F, RunError>,
    options: &RunOptions,
    observer: &mut Observer<'_>,
) -> Result<Prepared<F>, RunError> {
    let started = options.started.unwrap_or_else(Instant::now);
    let mut ledger = Ledger::since(started);
    let Loaded { source, full, params, profile, chosen, model } = model::load(options, observer)?;
    let folder = take_folder(&model.name)?;
    let corpus = Corpus::open(&options.job.text, &model)?;
    corpus.doubts.iter().for_each(|doubt| observer(Event::Warning(doubt.clone())));
    let initial = initial_weights(&options.job, &model, profile.as_deref(), observer)?;
    let record = RunRecord {
        pg: env!("CARGO_PKG_VERSION").into(),
        device: options.device.name().to_string(),
        job: options.job.clone(),
        file: source.texts()[0].file.to_string(),
        sources: RunRecord::sources_of(&source),
        text: text_report(&corpus, &model, observer)?,
        init_hash: options.job.init.as_deref().map(hash_of).transpose()?,
        replays: replayed_folder(options.earlier.as_ref())?,
        started: began(options.earlier.as_ref()),
    };
    if let Some(earlier) = &options.earlier {
        same_run(earlier, &record)?;
    }
    let plan = train_plan(options, &model)?;
    announce(&model, &plan, profile.as_deref(), &corpus, observer);
    if let Some(every) = options.job.val_every {
        observer(Event::Note(format!(
            "every {}, the live weights are scored on all of the scored text; that takes no training time",
            counted(every, "step")
        )));
    }
    let provenance = Provenance { source, options: chosen, seed: model.train.seed };
    let full = full.filter(|full| full_size::is_timed(full, &model, options));
    if let Some(full) = &full {
        full_size::announce(full, observer)?;
        full_size::check_bundle(full, options)?;
    }
    let estimate_bytes = model.predict_size(Moment::Trained)?.estimate_bytes;

    ledger.enter("open and check");
    let mut session = requests::session(options, model);
    let programs = requests::programs(&session, &plan, &Scorer::new(&corpus, &session))?;
    let validation = validated(&mut session, &programs, options, &provenance.options, observer)?;
    ledger.enter("compile and validate");
    let job = Job {
        started,
        ledger,
        params,
        profile,
        provenance,
        corpus,
        record,
        plan,
        validation,
        folder,
        estimate_bytes,
    };
    Ok(Prepared { job, session, initial, full })
}

/// The run's folder: its own from the start, or from now on.
fn own_folder(options: &RunOptions, model: &str) -> Result<RunFolder, RunError> {
    match options.resumed() {
        Some(folder) => RunFolder::reopen(folder),
        None => RunFolder::create(options.out.as_deref(), model, options.overwrite),
    }
}

/// Holds a run's programs to its bundle and, unless that is skipped, to float64. `chosen` is how the model was elaborated.
pub(super) fn validated(
    session: &mut Session,
    programs: &[Key],
    options: &RunOptions,
    chosen: &Options,
    observer: &mut Observer<'_>,
) -> Result<ValidationReport, RunError> {
    session.check_bundle(programs)?;
    if options.job.skip_validation {
        observer(Event::Note("the programs are not validated (--no-validate)".into()));
        return Ok(ValidationReport::default());
    }
    Ok(validate(session, programs, chosen, options.cache.as_deref(), observer)?)
}

/// The run that one with this earlier run does again; one that continues goes on with what it did.
fn replayed_folder(earlier: Option<&Earlier>) -> Result<Option<PathBuf>, RunError> {
    let absolute = |folder: &PathBuf| {
        folder.canonicalize().map_err(|error| RunError::Io { path: folder.clone(), error })
    };
    match earlier {
        Some(Earlier { folder, purpose: Purpose::Replay, .. }) => absolute(folder).map(Some),
        Some(Earlier { record, purpose: Purpose::Resume, .. }) => Ok(record.replays.clone()),
        None => Ok(None),
    }
}

/// When a run began: one that continues began when it did first.
fn began(earlier: Option<&Earlier>) -> Option<String> {
    match earlier {
        Some(Earlier { record, purpose: Purpose::Resume, .. }) => record.started.clone(),
        _ => Some(now()),
    }
}

/// Checks that a run uses what an earlier one did.
fn same_run(earlier: &Earlier, now: &RunRecord) -> Result<(), RunError> {
    let before = &earlier.record;
    let differs = [
        ("pg's version", before.pg != now.pg),
        ("the device", before.device != now.device),
        ("the initial weights", before.init_hash != now.init_hash),
        ("the model or its settings", before.sources != now.sources || before.job != now.job),
    ];
    let differs = differs.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what);
    let differs = differs.or_else(|| before.text.difference(&now.text));
    match differs.or_else(|| (before.text != now.text).then_some("the scored text")) {
        Some(what) => {
            let what = format!("{what} is another than it was");
            Err(RunError::Changed { folder: earlier.folder.clone(), what })
        }
        None => Ok(()),
    }
}

/// blake3 of a file, in hexadecimal.
fn hash_of(path: &Path) -> Result<String, RunError> {
    let error = |error| RunError::Io { path: path.to_owned(), error };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(input::open(path).map_err(error)?.0).map_err(error)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Share of the scored windows that honest texts have in common at most: licences, menus, quotations.
pub(crate) const HONEST_OVERLAP: f64 = 0.01;

/// Looks at all of the text: what it is, and whether what is scored was trained on.
fn text_report(corpus: &Corpus, model: &Model, observer: &mut Observer<'_>) -> Result<TextReport, DataError> {
    let overlap = corpus.overlap()?;
    if overlap.share() > HONEST_OVERLAP {
        let (percent, name) = (100.0 * overlap.share(), corpus.train.name());
        observer(Event::Warning(format!(
            "{percent:.1} % of the scored text stands in the training text (`{name}`): the scores say nothing of text \
             that is new to the model"
        )));
    }
    corpus.report(model, Some(overlap))
}

/// How a model trains under a run's options.
pub(super) fn train_plan(options: &RunOptions, model: &Model) -> Result<TrainPlan, TrainError> {
    let budget = Budget { steps: model.train.steps, seconds: model.train.seconds };
    let JobOptions { unscaled_schedule, warmdown_steps, .. } = options.job;
    TrainPlan::new(model.train.clone(), budget, unscaled_schedule, warmdown_steps)
}

/// How many parameters there are, in words.
pub(super) fn parameters(model: &Model) -> String {
    match (model.param_count(), model.stored_count()) {
        (all, stored) if all == stored => format!("{all} parameters"),
        (all, stored) => format!("{all} parameters, {stored} of them in the artifact"),
    }
}

fn announce(
    model: &Model,
    plan: &TrainPlan,
    profile: Option<&str>,
    corpus: &Corpus,
    observer: &mut Observer<'_>,
) {
    let mut note = |text: String| observer(Event::Note(text));
    let profile = profile.map_or(String::new(), |p| format!(", profile `{p}`"));
    note(format!("{}: {}{profile}", model.name, parameters(model)));
    note(format!("data: {} training tokens, {} scored targets", corpus.train.len(), corpus.targets()));
    let steps = match (plan.budget.steps, plan.budget.seconds) {
        (Some(n), Some(s)) => format!("{} or {s} s", counted(n, "step")),
        (Some(n), None) => counted(n, "step"),
        (None, s) => format!("{} s", s.unwrap_or(0.0)),
    };
    let train = &plan.train;
    note(format!("train: {steps} of {} tokens, sequences of {}", train.batch_tokens, train.seq_len));
    let planned = plan.budget.planned(0, 0.0);
    let scaled = match planned {
        _ if plan.unscaled => "as written",
        Some(_) => "scaled to the planned steps",
        None => "as written, and scaled as the run is timed",
    };
    note(format!("schedule ({scaled}): {}", plan.schedule(planned)));
}
