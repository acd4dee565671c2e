//! The weights that a run starts from, where the user gives them.

use indexmap::IndexMap;
use pg_ir::lang::model::{Model, Param};

use super::{JobOptions, RunError, model};
use crate::init::initialise_all;
use crate::report::{Event, Observer};
use crate::session::SessionError;
use crate::state::StateError;
use crate::weights::{self, Weights};

/// The weights of `--init`, if there are any. What no score depends on may be missing there, as it is from an artifact: it
/// starts as the seed says.
///
/// # Errors
/// If the file does not hold this model's weights.
pub(super) fn initial_weights(
    job: &JobOptions,
    model: &Model,
    profile: Option<&str>,
    observer: &mut Observer<'_>,
) -> Result<Option<Weights>, RunError> {
    let named = |error| RunError::Init { profile: model::profile_words(profile), error };
    let Some(path) = &job.init else { return Ok(None) };
    let mut weights = weights::load(path, &model.params).map_err(named)?;
    let is_missing = |(name, _): &(&String, &Param)| !weights.contains_key(*name);
    let missing = model.params.iter().filter(is_missing).map(|(name, param)| (name.clone(), param.clone()));
    let missing: IndexMap<String, Param> = missing.collect();
    if let Some(first) = missing.keys().next() {
        let more = match missing.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let path = path.display();
        observer(Event::Note(format!(
            "{path} does not hold `{first}`{more}, which no score depends on: initialised from the seed"
        )));
        let own = initialise_all(&missing, model.train.seed).map_err(StateError::from);
        weights.extend(own.map_err(SessionError::from)?);
        weights.sort_by_cached_key(|name, _| model.params.get_index_of(name));
    }
    Ok(Some(weights))
}
