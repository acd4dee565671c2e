//! Score-first test-time training: score a chunk, then train on it, never the other way round.
//!
//! The order is in the types: training takes a [`Scored`] chunk, and only scoring makes one.
//!
//! ```compile_fail
//! use pg_runtime::eval::Scored;
//! // A chunk that nobody has scored cannot be passed off as one: the field is private.
//! let chunk = Scored(0..1024);
//! ```

use std::f64::consts::PI;
use std::ops::Range;

use pg_ir::model::Ttt;

use super::EvalError;
use super::sliding::window_nll;
use super::windows::{Window, Windows};
use crate::session::{Key, Session};
use crate::state::State;

/// Proof that something has been scored, and so may be trained on.
#[derive(Debug)]
pub struct Scored<T>(T);

/// Targets of one chunk, counted from the start of the text.
type Chunk = Range<usize>;

/// What an evaluation with test-time training did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TttOutcome {
    /// NLL in nats of every target; with re-scored tails, of every scored target in order.
    pub nll: Vec<f32>,
    /// Chunks scored.
    pub chunks_scored: usize,
    /// Chunks trained on: all but the last.
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
    progress: &mut dyn FnMut(u64),
) -> Result<TttOutcome, EvalError> {
    let total = tokens.len().checked_sub(1).filter(|&n| n > 0).ok_or(EvalError::TooShort(tokens.len()))?;
    let chunks: Vec<Chunk> =
        (0..total).step_by(ttt.chunk).map(|start| start..(start + ttt.chunk).min(total)).collect();
    let all = windows.cover(total);
    let mut adapter = Adapter { session, state, tokens, windows, ttt, qat };
    let mut outcome = TttOutcome { nll: vec![f32::NAN; total], ..TttOutcome::default() };
    let mut done = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let own: Vec<Window> = all.iter().copied().filter(|w| chunk.contains(&w.first_target())).collect();
        let scored = adapter.score(chunk.clone(), &own, &mut outcome.nll, &mut |n| progress(done + n))?;
        done += own.len() as u64;
        outcome.chunks_scored += 1;
        // The last chunk has nothing after it to adapt for.
        if index + 1 < chunks.len() {
            let turn = PI * index as f64 / (chunks.len() - 1).max(1) as f64;
            outcome.updates += adapter.train(scored, ttt.lr * 0.5 * (1.0 + turn.cos()))?;
            outcome.chunks_trained += 1;
        }
    }
    Ok(outcome)
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
        chunk: Chunk,
        windows: &[Window],
        nll: &mut [f32],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Scored<Chunk>, EvalError> {
        let shape = (self.windows.seq, self.qat);
        let mut sink = |target: usize, value: f32| nll[target] = value;
        window_nll(self.session, self.state, self.tokens, windows, shape, &mut sink, progress)?;
        Ok(Scored(chunk))
    }

    /// Trains on the chunk's whole sequences, in order, `batch_seqs` at a time; the number of SGD steps.
    fn train(&mut self, Scored(chunk): Scored<Chunk>, lr: f64) -> Result<usize, EvalError> {
        let seq = self.windows.seq;
        let sequences: Vec<usize> = (0..chunk.len() / seq).map(|i| chunk.start + i * seq).collect();
        let mut updates = 0;
        for _ in 0..self.ttt.epochs {
            for batch in sequences.chunks(self.ttt.batch_seqs) {
                self.step(batch, lr)?;
                updates += 1;
            }
        }
        Ok(updates)
    }

    /// One SGD step on the mean loss of some sequences, in micro-batches that fit the scoring memory.
    fn step(&mut self, starts: &[usize], lr: f64) -> Result<(), EvalError> {
        let seq = self.windows.seq;
        let phase = self.session.model.phases.len() - 1;
        let micro = self.session.score_batch(seq);
        for (index, group) in starts.chunks(micro).enumerate() {
            let slice = |shift: usize| -> Vec<i32> {
                group.iter().flat_map(|&s| self.tokens[s + shift..s + shift + seq].iter().copied()).collect()
            };
            let (inputs, targets) = (slice(0), slice(1));
            let (batch, accumulate) = (group.len(), index > 0);
            let key = Key::Grad { phase, batch, seq, qat: self.qat, accumulate };
            let share = [("inv_accum", group.len() as f32 / starts.len() as f32)];
            self.session.run(key, self.state, &[("tokens", &inputs), ("targets", &targets)], &share)?;
        }
        self.session.run(Key::Adapt, self.state, &[], &[("ttt_lr", lr as f32)])?;
        Ok(())
    }
}
