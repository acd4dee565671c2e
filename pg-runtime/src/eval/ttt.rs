//! Score-first test-time training: score a chunk, then train on it, never the other way round.
//!
//! The order is in the types: training takes a [`Scored`] chunk, and only scoring makes one.
//!
//! ```
//! use pg_runtime::eval::Scored;
//! fn train_on(_: Scored<std::ops::Range<usize>>) {}
//! ```
//!
//! A chunk that nobody has scored cannot be passed off as one: the field is private.
//!
//! ```compile_fail,E0423
//! use pg_runtime::eval::Scored;
//! fn train_on(_: Scored<std::ops::Range<usize>>) {}
//! train_on(Scored(0..1024));
//! ```

mod scored;

use std::f64::consts::PI;
use std::ops::Range;

use indexmap::IndexSet;
use pg_ir::lang::model::Ttt;

use self::scored::Pass;
pub use self::scored::Scored;
use super::sliding::window_programs;
use super::windows::Windows;
use super::{EvalError, OnProgress};
use crate::session::{Key, Session};
use crate::state::State;

/// Targets of one chunk, counted from the start of the text.
type Chunk = Range<usize>;

/// What an evaluation with test-time training did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TttOutcome {
    /// NLL in nats of every target, the last where it was scored again.
    pub nll: Vec<f32>,
    /// Target and NLL of every earlier score of a target that was scored again: with re-scored tails only.
    pub rescored: Vec<(usize, f32)>,
    /// Chunks scored.
    pub chunks_scored: usize,
    /// Chunks trained on: all but the last that hold a whole sequence.
    pub chunks_trained: usize,
    /// SGD steps.
    pub updates: usize,
}

/// Scores every target of `tokens`, adapting `state` after each chunk but the last. A window belongs to the
/// chunk of the first target that it scores. The state's weights are changed.
pub fn score_and_adapt(
    session: &mut Session,
    state: &mut State,
    tokens: &[i32],
    windows: Windows,
    ttt: &Ttt,
    qat: bool,
    progress: &mut OnProgress<'_>,
) -> Result<TttOutcome, EvalError> {
    let total = tokens.len().checked_sub(1).filter(|&n| n > 0).ok_or(EvalError::TooShort(tokens.len()))?;
    let chunks = chunks(total, ttt);
    let mut pass = Pass::new(windows, total);
    let mut adapter = Adapter { session, state, tokens, windows, ttt, qat };
    let mut outcome = TttOutcome { nll: vec![f32::NAN; total], ..TttOutcome::default() };
    for (index, chunk) in chunks.iter().enumerate() {
        let scored = adapter.score(&mut pass, chunk.clone(), &mut outcome, progress)?;
        outcome.chunks_scored += 1;
        // The last chunk has nothing after it to adapt for.
        if index + 1 < chunks.len() {
            let turn = PI * index as f64 / (chunks.len() - 1).max(1) as f64;
            let mut still = || progress(pass.done());
            let updates = adapter.train(scored, ttt.lr * 0.5 * (1.0 + turn.cos()), &mut still)?;
            outcome.updates += updates;
            outcome.chunks_trained += usize::from(updates > 0);
        }
    }
    Ok(outcome)
}

/// Every program that [`score_and_adapt`] asks for on a text with `total` targets.
pub fn ttt_programs(session: &Session, total: usize, windows: Windows, ttt: &Ttt, qat: bool) -> Vec<Key> {
    let chunks = chunks(total, ttt);
    let mut pass = Pass::new(windows, total);
    let mut keys: IndexSet<Key> = IndexSet::new();
    for (index, chunk) in chunks.iter().enumerate() {
        keys.extend(window_programs(session, pass.skip(chunk), (windows.seq, qat)));
        if index + 1 < chunks.len() && ttt.epochs > 0 {
            for batch in sequences(chunk, windows.seq).chunks(ttt.batch_seqs) {
                keys.extend(micro_batches(session, batch, (windows.seq, qat)).map(|(key, _)| key));
                keys.insert(Key::Adapt);
            }
        }
    }
    keys.into_iter().collect()
}

fn chunks(total: usize, ttt: &Ttt) -> Vec<Chunk> {
    (0..total).step_by(ttt.chunk).map(|start| start..(start + ttt.chunk).min(total)).collect()
}

/// Starts of a chunk's whole sequences.
fn sequences(chunk: &Chunk, seq: usize) -> Vec<usize> {
    (0..chunk.len() / seq).map(|i| chunk.start + i * seq).collect()
}

/// The sequences of an SGD step in micro-batches that fit the scoring memory, with the program of each.
fn micro_batches<'a>(
    session: &Session,
    starts: &'a [usize],
    (seq, qat): (usize, bool),
) -> impl Iterator<Item = (Key, &'a [usize])> + use<'a> {
    let phase = session.model.phases.len() - 1;
    // What only training's own loss reads is not in the artifact.
    let of_scores = session.model.has_own_loss();
    let groups = starts.chunks(session.score_batch(seq)).enumerate();
    groups.map(move |(index, group)| {
        let (batch, accumulate) = (group.len(), index > 0);
        let key = match of_scores {
            true => Key::ScoreGrad { batch, seq, qat, accumulate },
            false => Key::Grad { phase, batch, seq, qat, accumulate },
        };
        (key, group)
    })
}

struct Adapter<'a> {
    session: &'a mut Session,
    state: &'a mut State,
    tokens: &'a [i32],
    windows: Windows,
    ttt: &'a Ttt,
    qat: bool,
}

impl Adapter<'_> {
    fn score(
        &mut self,
        pass: &mut Pass,
        chunk: Chunk,
        outcome: &mut TttOutcome,
        progress: &mut OnProgress<'_>,
    ) -> Result<Scored<Chunk>, EvalError> {
        let TttOutcome { nll, rescored, .. } = outcome;
        let mut sink = |target: usize, value: f32| {
            let before = std::mem::replace(&mut nll[target], value);
            // No score is NaN: that is an error of its own.
            if !before.is_nan() {
                rescored.push((target, before));
            }
        };
        pass.score(self.session, self.state, self.tokens, self.qat, chunk, &mut sink, progress)
    }

    /// Trains on the chunk's whole sequences, in order, `batch_seqs` at a time; the number of SGD steps. `still` is asked before
    /// each whether to go on.
    fn train(
        &mut self,
        scored: Scored<Chunk>,
        lr: f64,
        still: &mut dyn FnMut() -> Result<(), EvalError>,
    ) -> Result<usize, EvalError> {
        let chunk = scored.into_inner();
        let sequences = sequences(&chunk, self.windows.seq);
        let mut updates = 0;
        for _ in 0..self.ttt.epochs {
            for batch in sequences.chunks(self.ttt.batch_seqs) {
                still()?;
                self.step(batch, lr)?;
                updates += 1;
            }
        }
        Ok(updates)
    }

    /// One SGD step on the mean score of some sequences, in micro-batches that fit the scoring memory.
    fn step(&mut self, starts: &[usize], lr: f64) -> Result<(), EvalError> {
        let seq = self.windows.seq;
        for (key, group) in micro_batches(self.session, starts, (seq, self.qat)) {
            let slice = |shift: usize| -> Vec<i32> {
                group.iter().flat_map(|&s| self.tokens[s + shift..s + shift + seq].iter().copied()).collect()
            };
            let (inputs, targets) = (slice(0), slice(1));
            let share = [("inv_accum", group.len() as f32 / starts.len() as f32)];
            self.session.run(key, self.state, &[("tokens", &inputs), ("targets", &targets)], &share)?;
        }
        self.session.run(Key::Adapt, self.state, &[], &[("ttt_lr", lr as f32)])?;
        Ok(())
    }
}
