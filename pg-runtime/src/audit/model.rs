//! The model: its proofs, its grids, and what its scores do when later tokens are others.

use pg_ir::lang::budget::Storage;
use pg_ir::lang::model::Model;

use super::Verdict::{Claimed, Proven, Violated};
use super::{Artifact, AuditError, Findings};
use crate::eval::{Windows, score_and_adapt};
use crate::report::Event;
use crate::run::{Corpus, Scorer};
use crate::session::{Session, SessionError};

/// Positions after which tokens are changed.
const POSITIONS: usize = 64;

/// What was trained on a grid is stored on that grid.
pub(super) fn grids(findings: &mut Findings, model: &Model) {
    let trained = model.stored_params().filter_map(|param| Some((param, param.grid?)));
    let other = trained.clone().find(|(param, grid)| match param.storage() {
        Storage::Int { grid: stored, .. } => stored != *grid,
        Storage::F16 => true,
    });
    let count = trained.count();
    match other {
        None => findings.add(
            "grids",
            Proven,
            format!("{count} tensors are stored on the grid that they trained on"),
        ),
        Some((param, grid)) => {
            let what = format!("`{}` trained on {grid:?} and is stored as {:?}", param.name, param.storage());
            findings.add("grids", Violated, what);
        }
    }
}

/// Every program that the scores ask for is causal, by proof on its graph; whether that is so.
pub(super) fn proofs(findings: &mut Findings, session: &Session, corpus: &Corpus) -> bool {
    let programs = Scorer::new(corpus, session).programs(session, true).unwrap_or_default();
    let refused = programs.iter().find_map(|&key| session.program(key).err()).map(|error| match error {
        SessionError::Model(errors) => errors.summary(),
        error => error.to_string(),
    });
    let is_causal = refused.is_none();
    let what =
        format!("no score depends on a later token or another sequence, in all {} programs", programs.len());
    findings.hold("causal", is_causal, what, || refused.unwrap_or_default());
    is_causal
}

impl Artifact<'_> {
    /// Other tokens after a position change no score up to it.
    pub(super) fn later_tokens(&mut self) -> Result<(), AuditError> {
        let (corpus, vocab) = (self.corpus, self.session.model.vocab);
        let list = self.windows().cover(corpus.targets());
        let mut random = Random(corpus.targets() as u64);
        (self.observer)(Event::Begin { stage: "change later tokens".into(), total: POSITIONS as u64 });
        let mut leak = None;
        for done in 0..POSITIONS {
            let window = list[random.below(list.len())];
            // The target at this place of the window is a token after it.
            let place = random.below(window.end - window.start);
            let own = &corpus.val[window.start..=window.end];
            let changed = changed_after(own, place, vocab, &mut random);
            let (before, after) = (self.scores_of(own)?, self.scores_of(&changed)?);
            leak = leak.or_else(|| {
                let target = first_difference(&before[..place], &after)?;
                Some((window.start + target, window.start + place))
            });
            (self.observer)(Event::Progress(done as u64 + 1));
        }
        (self.observer)(Event::End("done".into()));
        let what = format!(
            "other tokens after {POSITIONS} random positions of the text change no score before them, to the last bit"
        );
        self.findings.hold("later tokens", leak.is_none(), what, || {
            let (target, position) = leak.unwrap_or_default();
            format!("the score of target {target} depends on tokens after token {position}")
        });
        Ok(())
    }

    /// Other tokens in earlier documents change no score of a later one, where the model promises that.
    pub(super) fn earlier_documents(&mut self) -> Result<(), AuditError> {
        if !self.session.model.eval.separate_documents {
            return Ok(());
        }
        let (corpus, vocab) = (self.corpus, self.session.model.vocab);
        let Some(bos) = corpus.tokenizer.bos().map(i32::from) else {
            let what = "the tokenizer has no token that begins a document: separate documents are promised, and there are none";
            self.findings.add("documents", Violated, what);
            return Ok(());
        };
        // Where a document begins within a window.
        let windows = Windows::plain(self.windows().seq).cover(corpus.targets());
        let starts = windows.into_iter().flat_map(|window| {
            let inside = window.start + 1..window.end;
            inside.filter(|&at| corpus.val[at] == bos).map(move |at| (window, at))
        });
        let starts: Vec<_> = starts.collect();
        let mut random = Random(starts.len() as u64);
        let count = starts.len().min(POSITIONS);
        (self.observer)(Event::Begin { stage: "change earlier documents".into(), total: count as u64 });
        let mut smear = None;
        for done in 0..count {
            // Spread over all of them.
            let (window, start) = starts[done * starts.len() / count];
            let (own, place) = (&corpus.val[window.start..=window.end], start - window.start);
            let mut changed = own.to_vec();
            changed[..place].fill_with(|| random.below(vocab) as i32);
            let (before, after) = (self.scores_of(own)?, self.scores_of(&changed)?);
            smear =
                smear.or_else(|| Some((start + first_difference(&before[place..], &after[place..])?, start)));
            (self.observer)(Event::Progress(done as u64 + 1));
        }
        (self.observer)(Event::End("done".into()));
        if count == 0 {
            let what = "separate documents are promised, and none begins within a window of the scored text";
            self.findings.add("documents", Claimed, what);
            return Ok(());
        }
        let what = format!(
            "other tokens before {count} documents' beginnings change no score after them, to the last bit"
        );
        self.findings.hold("documents", smear.is_none(), what, || {
            let (target, start) = smear.unwrap_or_default();
            format!(
                "the score of target {target} depends on the document before its own, which begins at token {start}; the model \
                 promises separate documents (eval.separate_documents)"
            )
        });
        Ok(())
    }

    /// Other tokens after a position change no score up to it through test-time training either: a chunk and a part of the next,
    /// with other tokens in the second.
    pub(super) fn later_tokens_through_training(&mut self) -> Result<(), AuditError> {
        let Some(ttt) = self.session.model.eval.ttt.clone() else { return Ok(()) };
        let (windows, vocab) = (self.windows(), self.session.model.vocab);
        let targets = self.corpus.targets().min(ttt.chunk + ttt.chunk / 2);
        let text = &self.corpus.val[..=targets];
        let mut random = Random(targets as u64);
        let position = targets.saturating_sub(1 + random.below(targets.min(ttt.chunk) / 2 + 1));
        let changed = changed_after(text, position, vocab, &mut random);
        let stage = "change later tokens in test-time training".into();
        (self.observer)(Event::Begin { stage, total: 2 });
        let mut scored = Vec::new();
        for tokens in [text, &changed[..]] {
            let mut state = self.fresh_state()?;
            let session = &mut self.session;
            scored.push(
                score_and_adapt(session, &mut state, tokens, windows, &ttt, false, &mut |_| Ok(()))?.nll,
            );
            (self.observer)(Event::Progress(scored.len() as u64));
        }
        (self.observer)(Event::End("done".into()));
        let leak = first_difference(&scored[0][..position], &scored[1]);
        let what = format!(
            "each chunk is scored before it is trained on: other tokens after token {position} change no score before \
             it, to the last bit"
        );
        self.findings.hold("score first", leak.is_none(), what, || {
            let target = leak.unwrap_or_default();
            format!("the score of target {target} depends on tokens after token {position}")
        });
        Ok(())
    }
}

/// Where scores differ first from others, of which there are at least as many.
fn first_difference(scores: &[f32], others: &[f32]) -> Option<usize> {
    scores.iter().zip(others).position(|(a, b)| a.to_bits() != b.to_bits())
}

/// The tokens with others after a position.
fn changed_after(tokens: &[i32], position: usize, vocab: usize, random: &mut Random) -> Vec<i32> {
    let mut changed = tokens.to_vec();
    changed[position + 1..].fill_with(|| random.below(vocab) as i32);
    changed
}

/// Numbers that are the same in every audit of a text.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0) * bound.max(1) as u128) >> 64) as usize
    }
}
