//! What a run will ask of its device: every program at its shape, known before any of them is compiled. Whatever
//! prepares for a run asks here, and a run checks here what was prepared for it; it runs nothing.

use std::sync::Arc;

use indexmap::IndexSet;
use pg_ir::model::Model;

use super::{Corpus, Judge, Prepared, RunError, RunOptions, full_size, prepare, train_plan};
use crate::report::Observer;
use crate::session::{Key, Session};
use crate::train::TrainPlan;

/// A model that a run trains or times, and the programs that it will ask for.
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
    let Prepared { full, model, .. } = prepare(options, observer)?;
    let corpus = Corpus::open(options, &model)?;
    let plan = train_plan(options, &model)?;
    let full = full.filter(|full| full_size::is_timed(full, &model, options));
    let session = session(options, model);
    let programs = programs(&session, &plan, &Judge::new(&corpus, &session))?;
    let full = full.map(|full| full_size::request(full, options)).transpose()?;
    Ok([Request { session, programs }].into_iter().chain(full.map(|(request, _)| request)).collect())
}

/// A session as a run's options ask for it.
pub(super) fn session(options: &RunOptions, model: Model) -> Session {
    let session = Session::on(options.device.clone(), Arc::new(model), Default::default());
    match options.storage {
        Some(storage) => session.storing(storage),
        None => session,
    }
}

/// Every program of a run's training and scoring.
pub(super) fn programs(session: &Session, plan: &TrainPlan, judge: &Judge<'_>) -> Result<Vec<Key>, RunError> {
    let mut keys: IndexSet<Key> = plan.programs(session).into_iter().collect();
    keys.extend(judge.programs(session, true)?);
    Ok(keys.into_iter().collect())
}
