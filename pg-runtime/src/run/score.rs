//! The last phase: the artifact is read back from its file and scored. Nothing in memory takes part.

use pg_ir::slot::Space;

use super::export::Exported;
use super::prepare::Job;
use super::{RunError, Scorer};
use crate::eval::EvalError;
use crate::export;
use crate::report::{Event, Observer, TttReport};
use crate::session::Session;

/// Scores of the artifact, in bits per byte.
pub(super) struct ArtifactScores {
    /// blake3 of the file that was scored.
    pub(super) hash: String,
    /// Over windows that do not overlap.
    pub(super) plain: Option<f64>,
    /// By sliding window.
    pub(super) sliding: Option<f64>,
    /// With test-time training, if the model has it, and what that did.
    pub(super) ttt: Option<(f64, TttReport)>,
    /// Scores that were stopped because their time was over, in words.
    pub(super) out_of_time: Vec<String>,
}

/// Scores the artifact in every way that the model asks for, as far as the time for it goes.
pub(super) fn score(
    job: &mut Job,
    session: &mut Session,
    artifact: &Exported,
    observer: &mut Observer<'_>,
) -> Result<ArtifactScores, RunError> {
    let mut scorer = Scorer::new(&job.corpus, session).within(session.model.eval.seconds);
    let mut out_of_time = Vec::new();
    let loaded = export::read(&artifact.file)?;
    let mut state = session.state_with(&loaded.weights, &[Space::Param, Space::Grad, Space::Velocity])?;
    let plain = scorer.plain(session, &mut state, "score the artifact", observer);
    let plain = in_time(plain, "plain", &mut out_of_time, observer)?;
    job.ledger.enter("score the artifact");
    let sliding = scorer.sliding(session, &mut state, observer);
    let sliding = in_time(sliding, "sliding", &mut out_of_time, observer)?;
    job.ledger.enter("score by sliding window");
    let ttt = scorer.ttt(session, &mut state, observer);
    let ttt = in_time(ttt, "test-time", &mut out_of_time, observer)?.flatten();
    if session.model.eval.ttt.is_some() {
        job.ledger.enter("score with test-time training");
    }
    observer(Event::Note(session.placement()));
    Ok(ArtifactScores { hash: loaded.artifact.hash, plain, sliding, ttt, out_of_time })
}

/// A score, or none where its time was over: the artifact is whole without it.
fn in_time<T>(
    score: Result<T, EvalError>,
    name: &str,
    out_of_time: &mut Vec<String>,
    observer: &mut Observer<'_>,
) -> Result<Option<T>, EvalError> {
    match score {
        Ok(score) => Ok(Some(score)),
        Err(error @ EvalError::OutOfTime { .. }) => {
            let what = format!("{name} score: {error}");
            observer(Event::Warning(what.clone()));
            out_of_time.push(what);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
