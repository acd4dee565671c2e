//! Scores, computed again: in float64 from the logits at some positions, and as the run did it over all of the text.

use pg_ir::slot::Space;

use super::{AuditError, Findings};
use crate::eval::{Window, Windows, window_nll};
use crate::report::{Event, Observer, RunReport};
use crate::run::{Corpus, Scorer};
use crate::session::{Key, Session};
use crate::state::State;
use crate::weights::Weights;

/// Nats by which a float32 likelihood may differ from the float64 softmax of the same logits.
const ROUNDING: f64 = 1e-3;
/// Bits per byte by which a score may differ that is computed again: half of the last digit on the same device.
const SAME_SCORE: f64 = 5e-5;
/// The same on another device, whose sums are in another order.
const OTHER_DEVICE: f64 = 2e-3;

/// A state that holds an artifact's weights, for every way to score.
pub(super) fn state(session: &Session, weights: &Weights) -> Result<State, AuditError> {
    Ok(session.state_with(weights, &[Space::Param, Space::Grad, Space::Velocity])?)
}

/// The likelihoods are those of the softmax of the logits, whose probabilities sum to 1.
pub(super) fn normalised(
    findings: &mut Findings,
    session: &mut Session,
    state: &mut State,
    corpus: &Corpus,
    observer: &mut Observer<'_>,
) -> Result<(), AuditError> {
    let windows = Windows::sliding(&session.model, corpus.targets());
    let (seq, end) = (windows.seq, windows.seq.min(corpus.targets()));
    observer(Event::Begin { stage: "softmax in float64".into(), total: 1 });
    let mut nll = vec![f32::NAN; end];
    let window = Window { start: 0, end, first: 0 };
    let mut sink = |target: usize, value: f32| nll[target] = value;
    window_nll(session, state, &corpus.val, &[window], (seq, false), &mut sink, &mut |_| {})?;
    let mut inputs = corpus.val[..end].to_vec();
    inputs.resize(seq, 0);
    let key = Key::Logits { batch: 1, seq, qat: false };
    let ran = session.run(key, state, &[("tokens", &inputs)], &[])?;
    let logits = ran.result("logits");
    let vocab = logits.len() / seq;
    let off = |position: usize| {
        let row = &logits[position * vocab..(position + 1) * vocab];
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&z| f64::from(z - largest).exp()).sum();
        let target = usize::try_from(corpus.val[position + 1]).unwrap_or(0);
        (sum.ln() - f64::from(row[target] - largest) - f64::from(nll[position])).abs()
    };
    let worst = (0..end).map(off).fold(0.0, f64::max);
    observer(Event::End(format!("worst difference {worst:.1e} nats")));
    findings.hold(
        "normalised",
        worst <= ROUNDING,
        format!("likelihoods of {end} targets are those of a float64 softmax over {vocab} tokens, within {worst:.0e} nats"),
        || format!("likelihoods differ from a float64 softmax of the same logits by {worst:.1e} nats"),
    );
    Ok(())
}

/// The scores of the report are those of the artifact.
pub(super) fn again(
    findings: &mut Findings,
    session: &mut Session,
    weights: &Weights,
    corpus: &Corpus,
    report: Option<&RunReport>,
    observer: &mut Observer<'_>,
) -> Result<(), AuditError> {
    let mut state = state(session, weights)?;
    let mut scorer = Scorer::new(corpus, session);
    let plain = scorer.plain(session, &mut state, "score again", observer)?;
    let sliding = scorer.sliding(session, &mut state, observer)?;
    let ttt = scorer.ttt(session, &mut state, observer)?.map(|(score, _)| score);
    let own = session.device().name().to_string();
    let bound = |report: &RunReport| if report.device == own { SAME_SCORE } else { OTHER_DEVICE };
    let claimed = |pick: fn(&RunReport) -> Option<f64>| report.map(|report| (pick(report), bound(report)));
    let scores = [
        ("plain score", Some(plain), claimed(|report| report.bpb.quantized)),
        ("sliding score", Some(sliding), claimed(|report| report.bpb.sliding)),
        ("test-time score", ttt, claimed(|report| report.bpb.ttt)),
    ];
    for (check, now, claimed) in scores {
        let say = |score: Option<f64>| score.map_or("none".into(), |score| format!("{score:.4}"));
        let is_so = match (now, claimed) {
            (_, None) => true,
            (Some(now), Some((Some(then), bound))) => (now - then).abs() <= bound,
            (now, Some((then, _))) => now == then,
        };
        if now.is_some() || !is_so {
            let then = claimed.and_then(|(then, _)| then);
            let so = format!("{} bits per byte, computed again", say(now));
            findings.hold(check, is_so, so, || {
                format!("the report says {} bits per byte, the artifact gives {}", say(then), say(now))
            });
        }
    }
    Ok(())
}
