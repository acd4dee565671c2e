//! Scoring by window: a plain evaluation is one whose windows do not overlap.

use super::windows::Window;
use super::{EvalError, OnProgress};
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

/// Largest magnitude of a position's largest logit: float32 has steps of 1.2e-4 up to here, the last digit of a score.
const LOGIT_LIMIT: f32 = 2048.0;
/// What rounding may take from the likelihood of what is certain.
const BELOW_ZERO: f32 = -1e-4;

/// Checks that a target's likelihood is one of a distribution, and as exact as it is reported.
fn check(target: usize, nll: f32, logit_max: f32) -> Result<(), EvalError> {
    if logit_max.is_finite() && logit_max.abs() > LOGIT_LIMIT {
        let step = logit_max.abs().next_up() - logit_max.abs();
        return Err(EvalError::CoarseLogits { target, largest: logit_max, step });
    }
    if !(BELOW_ZERO..f32::INFINITY).contains(&nll) {
        return Err(EvalError::NoDistribution { target, value: nll });
    }
    Ok(())
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
    progress: &mut OnProgress<'_>,
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
        let (nll, logit_max) = (result.result("nll"), result.result("logit_max"));
        for (row, w) in group.iter().enumerate() {
            for at in w.first..w.end - w.start {
                let target = w.start + at;
                check(target, nll[row * seq + at], logit_max[row * seq + at])?;
                sink(target, nll[row * seq + at]);
            }
        }
        done += group.len() as u64;
        progress(done)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_of_distributions() {
        assert!(
            check(0, 0.0, 2048.0).is_ok() && check(0, 87.0, -30.0).is_ok() && check(0, -1e-5, 0.0).is_ok()
        );
        for nll in [f32::NAN, f32::INFINITY, -0.1] {
            assert!(matches!(check(7, nll, 1.0), Err(EvalError::NoDistribution { target: 7, .. })));
        }
        for largest in [1e9, -3e38, 2049.0] {
            assert!(matches!(check(7, 6.9, largest), Err(EvalError::CoarseLogits { target: 7, .. })));
        }
    }
}
