//! Scoring by window: a plain evaluation is one whose windows do not overlap.

use super::EvalError;
use super::windows::Window;
use crate::session::{Key, Session};
use crate::state::State;

/// The program that scores so many windows, and how many of them at a time.
pub(super) fn program(session: &Session, windows: usize, (seq, qat): (usize, bool)) -> (Key, usize) {
    let batch = session.score_batch(seq).min(windows).max(1);
    (Key::Score { batch, seq, qat }, batch)
}

/// Every program that [`window_nll`] asks for.
pub fn window_programs(session: &Session, windows: usize, shape: (usize, bool)) -> Option<Key> {
    (windows > 0).then(|| program(session, windows, shape).0)
}

/// Scores the windows' targets in batches of one shape. `sink` receives (target, NLL in nats), window by
/// window in order; `progress` the number of windows done so far.
///
/// Windows shorter than the shape are padded at the end, where a causal model cannot see it from the
/// positions that count.
pub fn window_nll(
    session: &mut Session,
    state: &mut State,
    tokens: &[i32],
    windows: &[Window],
    (seq, qat): (usize, bool),
    sink: &mut dyn FnMut(usize, f32),
    progress: &mut dyn FnMut(u64),
) -> Result<(), EvalError> {
    let (key, batch) = program(session, windows.len(), (seq, qat));
    let (mut inputs, mut targets) = (vec![0i32; batch * seq], vec![0i32; batch * seq]);
    let mut done = 0;
    for group in windows.chunks(batch) {
        inputs.fill(0);
        targets.fill(0);
        for (row, w) in group.iter().enumerate() {
            let len = w.end - w.start;
            inputs[row * seq..][..len].copy_from_slice(&tokens[w.start..w.end]);
            targets[row * seq..][..len].copy_from_slice(&tokens[w.start + 1..w.end + 1]);
        }
        let result = session.run(key, state, &[("tokens", &inputs), ("targets", &targets)], &[])?;
        let nll = result.result("nll");
        for (row, w) in group.iter().enumerate() {
            for (i, &value) in nll[row * seq..][w.first..w.end - w.start].iter().enumerate() {
                if !value.is_finite() {
                    return Err(EvalError::NotFinite(w.first_target() + i));
                }
                sink(w.first_target() + i, value);
            }
        }
        done += group.len() as u64;
        progress(done);
    }
    Ok(())
}
