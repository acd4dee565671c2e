//! Scores, computed again: in float64 from the logits at some positions, and as the run did it over all of the text.

use super::{Artifact, AuditError};
use crate::report::{Event, RunReport};
use crate::run::Scorer;
use crate::session::Key;

/// Nats by which a float32 likelihood may differ from the float64 softmax of the same logits.
const ROUNDING: f64 = 1e-3;
/// Bits per byte by which a score may differ that is computed again: half of the last digit on the same device.
const SAME_SCORE: f64 = 5e-5;
/// The same on another device, whose sums are in another order.
const OTHER_DEVICE: f64 = 2e-3;

impl Artifact<'_> {
    /// The likelihoods are those of the softmax of the logits, whose probabilities sum to 1.
    pub(super) fn normalised(&mut self) -> Result<(), AuditError> {
        let corpus = self.corpus;
        let seq = self.windows().seq;
        let end = seq.min(corpus.targets());
        (self.observer)(Event::Begin { stage: "softmax in float64".into(), total: 1 });
        let nll = self.scores_of(&corpus.val[..=end])?;
        let mut inputs = corpus.val[..end].to_vec();
        inputs.resize(seq, 0);
        let key = Key::Logits { batch: 1, seq, qat: false };
        let ran = self.session.run(key, &mut self.state, &[("tokens", &inputs)], &[])?;
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
        (self.observer)(Event::End(format!("worst difference {worst:.1e} nats")));
        self.findings.hold(
            "normalised",
            worst <= ROUNDING,
            format!(
                "likelihoods of {end} targets are those of a float64 softmax over {vocab} tokens, within {worst:.0e} nats"
            ),
            || format!("likelihoods differ from a float64 softmax of the same logits by {worst:.1e} nats"),
        );
        Ok(())
    }

    /// The scores of the report are those of the artifact.
    pub(super) fn scored_again(&mut self, report: Option<&RunReport>) -> Result<(), AuditError> {
        let mut state = self.fresh_state()?;
        let Artifact { session, observer, findings, corpus, .. } = self;
        let mut scorer = Scorer::new(corpus, session);
        let plain = scorer.plain(session, &mut state, "score again", observer)?;
        let sliding = scorer.sliding(session, &mut state, observer)?;
        let ttt = scorer.ttt(session, &mut state, observer)?.map(|(score, _)| score);
        let own = session.device().name().to_string();
        let bound = |report: &RunReport| if report.device == own { SAME_SCORE } else { OTHER_DEVICE };
        let claimed =
            |pick: fn(&RunReport) -> Option<f64>| report.map(|report| (pick(report), bound(report)));
        let scores = [
            ("plain score", Some(plain), claimed(|report| report.bpb.quantized)),
            ("sliding score", Some(sliding), claimed(|report| report.bpb.sliding)),
            ("test-time score", ttt, claimed(|report| report.bpb.ttt)),
        ];
        for (check, now, claimed) in scores {
            let say = |score: Option<f64>| score.map_or("none".into(), |score| format!("{score:.4}"));
            let is_so = match (now, claimed) {
                // What is not claimed cannot be wrong.
                (Some(_), None | Some((None, _))) | (None, None) => true,
                (Some(now), Some((Some(then), bound))) => (now - then).abs() <= bound,
                (None, Some((then, _))) => then.is_none(),
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
}
