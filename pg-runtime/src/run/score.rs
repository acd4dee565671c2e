//! The last phase: the artifact is read back from its file and scored. Nothing in memory takes part.

use pg_ir::slot::Space;

use super::export::Exported;
use super::prepare::Job;
use super::{RunError, Scorer};
use crate::export;
use crate::report::{Event, Observer, TttReport};
use crate::session::Session;

/// Scores of the artifact, in bits per byte.
pub(super) struct ArtifactScores {
    /// blake3 of the file that was scored.
    pub(super) hash: String,
    /// Over windows that do not overlap.
    pub(super) plain: f64,
    /// By sliding window.
    pub(super) sliding: f64,
    /// With test-time training, if the model has it, and what that did.
    pub(super) ttt: Option<(f64, TttReport)>,
}

/// Scores the artifact in every way that the model asks for.
pub(super) fn score(
    job: &mut Job,
    session: &mut Session,
    artifact: &Exported,
    observer: &mut Observer<'_>,
) -> Result<ArtifactScores, RunError> {
    let mut scorer = Scorer::new(&job.corpus, session);
    let loaded = export::read(&artifact.file)?;
    let mut state = session.state_with(&loaded.weights, &[Space::Param, Space::Grad, Space::Velocity])?;
    let plain = scorer.plain(session, &mut state, "score the artifact", observer)?;
    job.ledger.enter("score the artifact");
    let sliding = scorer.sliding(session, &mut state, observer)?;
    job.ledger.enter("score by sliding window");
    let ttt = scorer.ttt(session, &mut state, observer)?;
    if ttt.is_some() {
        job.ledger.enter("score with test-time training");
    }
    observer(Event::Note(session.placement()));
    Ok(ArtifactScores { hash: loaded.artifact.hash, plain, sliding, ttt })
}
