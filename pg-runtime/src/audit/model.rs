//! The model: its proofs, its grids, and what its scores do when later tokens are others.

use pg_ir::lang::budget::Storage;
use pg_ir::lang::model::Model;

use super::Verdict::{Proven, Violated};
use super::{AuditError, Findings};
use crate::eval::{Window, Windows, score_and_adapt, window_nll};
use crate::report::{Event, Observer};
use crate::run::{Corpus, Scorer};
use crate::session::Session;
use crate::state::State;

/// The check of the static proof.
pub(super) const CAUSAL: &str = "causal";
/// Positions after which tokens are changed.
const POSITIONS: usize = 64;
/// How far a program that is run may be from itself: not at all.
const SAME_BITS: &str = "to the last bit";

/// What was trained on a grid is stored on that grid.
pub(super) fn grids(findings: &mut Findings, model: &Model) {
    let trained = model.params.values().filter_map(|param| Some((param, param.grid?)));
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

/// Every program that the scores ask for is causal, by proof on its graph.
pub(super) fn proofs(findings: &mut Findings, session: &Session, corpus: &Corpus) {
    let programs = Scorer::new(corpus, session).programs(session, true).unwrap_or_default();
    let refused = programs.iter().find_map(|&key| session.program(key).err());
    let what =
        format!("no score depends on a later token or another sequence, in all {} programs", programs.len());
    findings.hold(CAUSAL, refused.is_none(), what, || refused.map_or(String::new(), |e| e.to_string()));
}

/// Other tokens after a position change no score up to it: by sliding window, and through test-time training.
pub(super) fn perturbed(
    findings: &mut Findings,
    session: &mut Session,
    state: &mut State,
    corpus: &Corpus,
    observer: &mut Observer<'_>,
) -> Result<(), AuditError> {
    let windows = Windows::sliding(&session.model, corpus.targets());
    let list = windows.cover(corpus.targets());
    let mut random = Random(corpus.targets() as u64);
    observer(Event::Begin { stage: "change later tokens".into(), total: POSITIONS as u64 });
    let mut leak = None;
    for done in 0..POSITIONS {
        let window = list[random.below(list.len())];
        let position = window.start + random.below(window.end - window.start);
        let changed = changed_after(&corpus.val, position, session.model.vocab, &mut random);
        let whole = Window { first: 0, ..window };
        let before = scores_of(session, state, &corpus.val, whole, windows.seq)?;
        let after = scores_of(session, state, &changed, whole, windows.seq)?;
        // The target at `position` is a token after it.
        let known = position - window.start;
        leak = leak.or((0..known)
            .find(|&i| before[i].to_bits() != after[i].to_bits())
            .map(|i| (window.start + i, position)));
        observer(Event::Progress(done as u64 + 1));
    }
    observer(Event::End("done".into()));
    let what = format!(
        "other tokens after {POSITIONS} random positions of the text change no score before them, {SAME_BITS}"
    );
    findings.hold("later tokens", leak.is_none(), what, || {
        let (target, position) = leak.unwrap_or_default();
        format!("the score of target {target} depends on tokens after token {position}")
    });
    through_training(findings, session, corpus, state, observer)
}

/// Scores of a window's targets, from its first on.
fn scores_of(
    session: &mut Session,
    state: &mut State,
    tokens: &[i32],
    window: Window,
    seq: usize,
) -> Result<Vec<f32>, AuditError> {
    let mut nll = vec![f32::NAN; window.end - window.start];
    let mut sink = |target: usize, value: f32| nll[target - window.start] = value;
    window_nll(session, state, tokens, &[window], (seq, false), &mut sink, &mut |_| {})?;
    Ok(nll)
}

/// Two chunks and a part of test-time training, with other tokens in the second: the first chunk's scores, and those of
/// the second up to there, are what they were.
fn through_training(
    findings: &mut Findings,
    session: &mut Session,
    corpus: &Corpus,
    state: &mut State,
    observer: &mut Observer<'_>,
) -> Result<(), AuditError> {
    let Some(ttt) = session.model.eval.ttt.clone() else { return Ok(()) };
    let windows = Windows::sliding(&session.model, corpus.targets());
    let targets = corpus.targets().min(ttt.chunk + ttt.chunk / 2);
    let text = &corpus.val[..=targets];
    let mut random = Random(targets as u64);
    let position = targets.saturating_sub(1 + random.below(targets.min(ttt.chunk) / 2 + 1));
    let changed = changed_after(text, position, session.model.vocab, &mut random);
    observer(Event::Begin { stage: "change later tokens in test-time training".into(), total: 2 });
    let weights = session.read_weights(state, pg_ir::slot::Space::Param)?;
    let mut scored = Vec::new();
    for (done, tokens) in [text, &changed[..]].into_iter().enumerate() {
        let mut state = super::scores::state(session, &weights)?;
        scored.push(score_and_adapt(session, &mut state, tokens, windows, &ttt, false, &mut |_| {})?.nll);
        observer(Event::Progress(done as u64 + 1));
    }
    observer(Event::End("done".into()));
    let leak = (0..position).find(|&i| scored[0][i].to_bits() != scored[1][i].to_bits());
    let what = format!(
        "each chunk is scored before it is trained on: other tokens after token {position} change no score before it, \
         {SAME_BITS}"
    );
    findings.hold("score first", leak.is_none(), what, || {
        format!("the score of target {} depends on tokens after token {position}", leak.unwrap_or_default())
    });
    Ok(())
}

/// The tokens with others after a position.
fn changed_after(tokens: &[i32], position: usize, vocab: usize, random: &mut Random) -> Vec<i32> {
    let mut changed = tokens.to_vec();
    for token in &mut changed[position + 1..] {
        *token = random.below(vocab) as i32;
    }
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
