//! Scores of weights on a corpus, in bits per byte.

use std::time::Instant;

use super::{Corpus, Interrupt};
use crate::data::Score;
use crate::eval::{
    EvalError, TttOutcome, Windows, score_and_adapt, ttt_programs, window_nll, window_programs,
};
use crate::report::{Event, Observer, TttReport};
use crate::session::{Key, Session};
use crate::state::State;

/// Every program that scores of so many targets ask for, in windows of so many tokens.
pub(super) fn score_programs(session: &Session, targets: usize, with_ttt: bool) -> Vec<Key> {
    let sliding = Windows::sliding(&session.model, targets);
    let mut keys = Vec::new();
    for windows in [Windows::plain(sliding.seq), sliding] {
        keys.extend(window_programs(session, windows.cover(targets).len(), (windows.seq, false)));
    }
    if let Some(ttt) = session.model.eval.ttt.as_ref().filter(|_| with_ttt) {
        keys.extend(ttt_programs(session, targets, sliding, ttt, false));
    }
    keys
}

/// Scores weights on one text in one way throughout a run.
pub struct Scorer<'a> {
    corpus: &'a Corpus,
    sliding: Windows,
    limit: Option<Limit>,
    interrupt: Interrupt,
}

impl<'a> Scorer<'a> {
    /// Windows of the model's evaluation length, or of the whole text where that is shorter.
    pub fn new(corpus: &'a Corpus, session: &Session) -> Scorer<'a> {
        Scorer {
            corpus,
            sliding: Windows::sliding(&session.model, corpus.targets()),
            limit: None,
            interrupt: Interrupt::default(),
        }
    }

    /// A score ends with [`EvalError::Interrupted`] when a stop is asked for.
    pub(super) fn until(self, interrupt: Interrupt) -> Scorer<'a> {
        Scorer { interrupt, ..self }
    }

    /// All scores from now on together take at most so many seconds; what would take longer ends with
    /// [`EvalError::OutOfTime`]. No limit for `None`.
    pub fn within(self, seconds: Option<f64>) -> Scorer<'a> {
        Scorer { limit: seconds.map(Limit::from_now), ..self }
    }

    /// Every program that its scores ask for, with or without test-time training.
    pub fn programs(&self, session: &Session, with_ttt: bool) -> Result<Vec<Key>, EvalError> {
        Ok(score_programs(session, self.targets()?, with_ttt))
    }

    /// Bits per byte over windows that do not overlap.
    pub fn plain(
        &mut self,
        session: &mut Session,
        state: &mut State,
        stage: &str,
        observer: &mut Observer<'_>,
    ) -> Result<f64, EvalError> {
        self.windows(session, state, Windows::plain(self.sliding.seq), stage, observer)
    }

    /// Bits per byte by sliding window.
    pub fn sliding(
        &mut self,
        session: &mut Session,
        state: &mut State,
        observer: &mut Observer<'_>,
    ) -> Result<f64, EvalError> {
        let windows = self.sliding;
        let stage = format!("score by sliding window, stride {}", windows.stride);
        self.windows(session, state, windows, &stage, observer)
    }

    /// Bits per byte with score-first test-time training, if the model has it, and what it did. The weights are
    /// changed.
    pub fn ttt(
        &mut self,
        session: &mut Session,
        state: &mut State,
        observer: &mut Observer<'_>,
    ) -> Result<Option<(f64, TttReport)>, EvalError> {
        let Some(ttt) = session.model.eval.ttt.clone() else { return Ok(None) };
        let windows = self.sliding;
        let total = windows.cover(self.targets()?).len() as u64;
        let mut pace = self.begin("score, then adapt", total, observer)?;
        let val = &self.corpus.val;
        let mut progress = |done| pace.progress(done, observer);
        let outcome = score_and_adapt(session, state, val, windows, &ttt, false, &mut progress)?;
        let mut score = Score::default();
        self.add(&mut score, 0, &outcome.nll);
        outcome.rescored.iter().for_each(|&(target, nll)| self.add(&mut score, target, &[nll]));
        observer(Event::End(format!(
            "{:.4} bits per byte; {} chunks scored, {} trained on, {} updates",
            score.bits_per_byte(),
            outcome.chunks_scored,
            outcome.chunks_trained,
            outcome.updates
        )));
        let TttOutcome { chunks_scored, chunks_trained, updates, .. } = outcome;
        Ok(Some((score.bits_per_byte(), TttReport { chunks_scored, chunks_trained, updates })))
    }

    fn targets(&self) -> Result<usize, EvalError> {
        let tokens = self.corpus.val.len();
        tokens.checked_sub(1).filter(|&n| n > 0).ok_or(EvalError::TooShort(tokens))
    }

    fn windows(
        &mut self,
        session: &mut Session,
        state: &mut State,
        windows: Windows,
        stage: &str,
        observer: &mut Observer<'_>,
    ) -> Result<f64, EvalError> {
        let list = windows.cover(self.targets()?);
        let mut pace = self.begin(stage, list.len() as u64, observer)?;
        let mut score = Score::default();
        let mut sink = |target: usize, nll: f32| self.add(&mut score, target, &[nll]);
        let mut progress = |done| pace.progress(done, observer);
        let val = &self.corpus.val;
        window_nll(session, state, val, &list, (windows.seq, false), &mut sink, &mut progress)?;
        observer(Event::End(format!("{:.4} bits per byte", score.bits_per_byte())));
        Ok(score.bits_per_byte())
    }

    /// Begins a score of so many windows, unless the time is over.
    fn begin(&self, stage: &str, total: u64, observer: &mut Observer<'_>) -> Result<Pace, EvalError> {
        observer(Event::Begin { stage: stage.into(), total });
        let mut pace = Pace {
            limit: self.limit,
            interrupt: self.interrupt.clone(),
            began: Instant::now(),
            total,
            warned: false,
        };
        pace.progress(0, observer)?;
        Ok(pace)
    }

    /// Adds the losses of consecutive targets from `first` on.
    fn add(&self, score: &mut Score, first: usize, nll: &[f32]) {
        score.add(&self.corpus.val_bytes[first..first + nll.len()], nll);
    }
}

/// The time that scores may take together.
#[derive(Clone, Copy)]
struct Limit {
    seconds: f64,
    since: Instant,
}

impl Limit {
    fn from_now(seconds: f64) -> Limit {
        Limit { seconds, since: Instant::now() }
    }

    fn left(&self) -> f64 {
        self.seconds - self.since.elapsed().as_secs_f64()
    }
}

/// How fast a score comes on.
struct Pace {
    limit: Option<Limit>,
    interrupt: Interrupt,
    began: Instant,
    total: u64,
    warned: bool,
}

impl Pace {
    /// Shares of a score after which its rate tells how long it will take.
    const TELLING: f64 = 0.02;

    /// Says how far the score is; warns once where the time will not be enough for it, and ends it when the time is over.
    fn progress(&mut self, done: u64, observer: &mut Observer<'_>) -> Result<(), EvalError> {
        observer(Event::Progress(done));
        if self.interrupt.is_requested() {
            return Err(EvalError::Interrupted);
        }
        let (Some(limit), true) = (self.limit, done < self.total) else { return Ok(()) };
        let left = limit.left();
        if left <= 0.0 {
            return Err(EvalError::OutOfTime { seconds: limit.seconds, done, total: self.total });
        }
        let (share, spent) = (done as f64 / self.total as f64, self.began.elapsed().as_secs_f64());
        let needed = spent / share - spent;
        if share >= Pace::TELLING && needed > left && !self.warned {
            self.warned = true;
            observer(Event::Warning(format!(
                "this score will take about {needed:.0} s more, and {left:.0} of {} s are left (eval.seconds, --eval-seconds): \
                 it will be stopped, and there will be none",
                limit.seconds
            )));
        }
        Ok(())
    }
}
