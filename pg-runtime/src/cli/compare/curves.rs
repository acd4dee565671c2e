//! Training curves of two runs at equal tokens and at equal time.

use pg_runtime::report::{RunReport, StepMetrics};
use serde::Serialize;

use super::side::{FinishedRun, Side};

/// Points of a curve.
const POINTS: usize = 8;

/// Losses of both sides at one place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Point {
    /// Tokens or seconds.
    pub(super) at: f64,
    pub(super) a: f64,
    pub(super) b: f64,
}

/// Losses at equal tokens and at equal time; nothing unless both sides are runs.
pub(super) fn curves(a: &Side, b: &Side) -> (Vec<Point>, Vec<Point>) {
    let (Some(a), Some(b)) = (&a.run, &b.run) else { return Default::default() };
    (align(&by_tokens(a), &by_tokens(b)), align(&by_time(&a.steps), &by_time(&b.steps)))
}

/// Scores of the live weights of both sides after the same number of tokens, wherever both have one.
pub(super) fn scores(a: &Side, b: &Side) -> Vec<Point> {
    let (Some(a), Some(b)) = (a.report(), b.report()) else { return Vec::new() };
    let by_tokens = |report: &RunReport| -> Vec<(u64, f64)> {
        let train = &report.train;
        let per_step = train.tokens / train.steps.max(1);
        train.live_scores.iter().map(|score| (score.after_steps * per_step, score.bpb)).collect()
    };
    let (a, b) = (by_tokens(a), by_tokens(b));
    let point = |&(at, a): &(u64, f64)| {
        let (_, b) = *b.iter().find(|(other, _)| *other == at)?;
        Some(Point { at: at as f64, a, b })
    };
    a.iter().filter_map(point).collect()
}

/// (place, loss) after each step.
type Curve = Vec<(f64, f64)>;

fn by_tokens(run: &FinishedRun) -> Curve {
    let train = &run.run.report.train;
    let per_step = train.tokens as f64 / train.steps.max(1) as f64;
    run.steps.iter().map(|s| ((s.step + 1) as f64 * per_step, s.loss)).collect()
}

fn by_time(steps: &[StepMetrics]) -> Curve {
    let mut elapsed = 0.0;
    let mut after = |s: &StepMetrics| {
        elapsed += s.ms / 1e3;
        (elapsed, s.loss)
    };
    steps.iter().map(&mut after).collect()
}

/// Both curves at places that both have reached, evenly apart.
fn align(a: &Curve, b: &Curve) -> Vec<Point> {
    let (Some(end_a), Some(end_b)) = (a.last(), b.last()) else { return vec![] };
    let end = end_a.0.min(end_b.0);
    let place = |i: usize| end * i as f64 / POINTS as f64;
    let point = |at: f64| Some(Point { at, a: smoothed(a, at)?, b: smoothed(b, at)? });
    (1..=POINTS).filter_map(|i| point(place(i))).collect()
}

/// Mean loss of the last steps up to `at`: a twentieth of the steps so far, as single steps are noisy. `None` before
/// the first step's end.
fn smoothed(curve: &Curve, at: f64) -> Option<f64> {
    // A step that ends where the other curve does must count in spite of rounding.
    let reached = curve.partition_point(|(place, _)| *place <= at * (1.0 + 1e-9));
    let window = reached.div_ceil(20);
    let last = &curve[reached - window..reached];
    (!last.is_empty()).then(|| last.iter().map(|(_, loss)| loss).sum::<f64>() / last.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_meet_at_the_shorter_ones_end() {
        let a: Curve = (1..=16).map(|i| (f64::from(i), 10.0 - f64::from(i) / 2.0)).collect();
        let b: Curve = (1..=4).map(|i| (f64::from(i) * 2.0, 9.0)).collect();
        let points = align(&a, &b);
        // The place 1 comes before B's first step has ended.
        assert_eq!(points.len(), POINTS - 1);
        assert_eq!(points[0], Point { at: 2.0, a: 9.0, b: 9.0 });
        assert_eq!(points.last(), Some(&Point { at: 8.0, a: 6.0, b: 9.0 }));
        assert!(align(&a, &vec![]).is_empty());
    }

    #[test]
    fn long_curves_are_smoothed() {
        let noisy: Curve = (1..=100).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        // Five steps, 96 to 100, of which two are odd.
        assert_eq!(smoothed(&noisy, 100.0), Some(0.4));
        assert_eq!(smoothed(&noisy, 0.5), None);
    }
}
