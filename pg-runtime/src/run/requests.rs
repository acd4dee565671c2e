//! What a run will ask of its device: every program at its shape, known before any of them is compiled. Whatever
//! prepares for a run asks here, and a run checks here what was prepared for it; it runs nothing.

use std::sync::Arc;

use indexmap::IndexSet;
use pg_ir::lang::model::Model;

use super::model::{self, Loaded};
use super::prepare::train_plan;
use super::scorer::score_programs;
use super::{Corpus, RunError, RunOptions, Scorer, full_size};
use crate::report::Observer;
use crate::session::{Key, Session};
use crate::train::TrainPlan;
use crate::train::schedule::Budget;
use crate::validate::subjects;

/// A model that a run trains, validates or times, and the programs that it will ask for.
pub struct Request {
    /// The model's session, on the run's device. Nothing is compiled yet.
    pub session: Session,
    /// The programs, each once.
    pub programs: Vec<Key>,
}

/// What [`run`](super::run) would ask for with these options.
///
/// # Errors
/// What keeps such a run from beginning.
pub fn requests(options: &RunOptions, observer: &mut Observer<'_>) -> Result<Vec<Request>, RunError> {
    let Loaded { full, model, .. } = model::load(options, observer)?;
    let corpus = Corpus::open(&options.job.text, &model)?;
    let plan = train_plan(options, &model)?;
    let full = full.filter(|full| full_size::is_timed(full, &model, options));
    let session = session(options, model);
    let programs = programs(&session, &plan, &Scorer::new(&corpus, &session))?;
    let validated = if options.job.skip_validation { Vec::new() } else { subjects(&session, &programs) };
    let full = full.map(|full| full_size::request(full, options)).transpose()?;
    let mut all = vec![Request { session, programs }];
    all.extend(validated.into_iter().map(|s| Request { programs: s.programs(), session: s.session }));
    all.extend(full.map(|(request, _)| request));
    Ok(all)
}

/// What a run of a model would ask for at the sizes of its file, without any text: for checks before there is a run.
///
/// # Errors
/// If the file's batch does not divide into sequences.
pub fn file_programs(session: &Session) -> Result<Vec<Key>, RunError> {
    let (train, eval) = (&session.model.train, &session.model.eval);
    let plan = TrainPlan::new(train.clone(), Budget { steps: Some(1), seconds: None }, false, None)?;
    // As much text as shows every program: two chunks of test-time training.
    let chunk = eval.ttt.as_ref().map_or(eval.seq_len, |ttt| ttt.chunk);
    let targets = eval.max_targets.unwrap_or(usize::MAX).min(2 * chunk.max(eval.seq_len));
    let mut keys: IndexSet<Key> = plan.programs(session).into_iter().collect();
    keys.extend(score_programs(session, targets, true));
    Ok(keys.into_iter().collect())
}

/// A session as a run's options ask for it.
pub(super) fn session(options: &RunOptions, model: Model) -> Session {
    let session = Session::on(options.device.clone(), Arc::new(model), Default::default());
    match options.job.storage {
        Some(storage) => session.storing(storage),
        None => session,
    }
}

/// Every program of a run's training and scoring.
pub(super) fn programs(
    session: &Session,
    plan: &TrainPlan,
    scorer: &Scorer<'_>,
) -> Result<Vec<Key>, RunError> {
    let mut keys: IndexSet<Key> = plan.programs(session).into_iter().collect();
    keys.extend(scorer.programs(session, true)?);
    Ok(keys.into_iter().collect())
}
