//! Proof of having been scored. Scoring is in this module because nothing else can make a [`Scored`]: not
//! even the loop that scores and adapts.

use std::ops::Range;

use super::super::sliding::window_nll;
use super::super::windows::{Window, Windows};
use super::super::{EvalError, OnProgress};
use crate::session::Session;
use crate::state::State;

/// Proof that something has been scored, and so may be trained on.
#[derive(Debug)]
pub struct Scored<T>(T);

impl<T> Scored<T> {
    /// What has been scored. The proof is used up.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// One pass over a text's windows, chunk by chunk.
pub(super) struct Pass {
    /// In the order of their first targets.
    windows: Vec<Window>,
    seq: usize,
    /// Windows that have been scored.
    done: usize,
}

impl Pass {
    /// A pass over a text of `total` targets.
    pub(super) fn new(windows: Windows, total: usize) -> Pass {
        Pass { windows: windows.cover(total), seq: windows.seq, done: 0 }
    }

    /// Windows that have been scored.
    pub(super) fn done(&self) -> u64 {
        self.done as u64
    }

    /// The windows up to a chunk's end that have not been scored.
    fn next(&self, end: usize) -> &[Window] {
        let rest = &self.windows[self.done..];
        &rest[..rest.partition_point(|w| w.first_target() < end)]
    }

    /// Leaves out a chunk without scoring it: the number of windows that [`Self::score`] would score.
    pub(super) fn skip(&mut self, chunk: &Range<usize>) -> usize {
        let own = self.next(chunk.end).len();
        self.done += own;
        own
    }

    /// Scores every window up to the end of `chunk` that has not been scored. A window belongs to the chunk of
    /// the first target that it scores.
    #[expect(clippy::too_many_arguments, reason = "what a program needs, and where its results go")]
    pub(super) fn score(
        &mut self,
        session: &mut Session,
        state: &mut State,
        tokens: &[i32],
        qat: bool,
        chunk: Range<usize>,
        sink: &mut dyn FnMut(usize, f32),
        progress: &mut OnProgress<'_>,
    ) -> Result<Scored<Range<usize>>, EvalError> {
        let own = self.next(chunk.end);
        let before = self.done as u64;
        let mut progress = |n| progress(before + n);
        window_nll(session, state, tokens, own, (self.seq, qat), sink, &mut progress)?;
        let scored = own.len();
        self.done += scored;
        Ok(Scored(chunk))
    }
}
