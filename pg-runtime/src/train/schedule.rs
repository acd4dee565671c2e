//! Schedules: what changes from step to step. At full length they are the original's; a short run scales
//! warmdown, momentum warm-up and averaging horizon to its planned number of steps, because with the
//! original constants a 40-step run ends at its initial loss.

use std::fmt;

use pg_ir::lang::model::Train;

/// Constants of a schedule after scaling to the planned number of steps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    /// Steps over which the learning rate falls to zero at the end; 0 for a constant rate.
    pub warmdown: f64,
    /// Muon momentum at step 0.
    pub momentum_start: f64,
    /// Muon momentum after warm-up.
    pub momentum_end: f64,
    /// Steps of momentum warm-up.
    pub momentum_warmup: f64,
    /// Decay of the weight average a step.
    pub ema_decay: f64,
    /// Factor on the steps at which phases begin: a short run is the long one in small.
    pub phase_scale: f64,
}

/// Below this many steps, momentum 0.99 would still carry the first gradients at the end.
const SHORT_RUN: f64 = 1000.0;
const SHORT_RUN_MOMENTUM: f64 = 0.95;

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "warmdown {:.0} steps, momentum {:.3} to {:.3} over {:.0} steps, EMA decay {:.4}",
            self.warmdown, self.momentum_start, self.momentum_end, self.momentum_warmup, self.ema_decay
        )
    }
}

impl Schedule {
    /// The file's constants as they stand.
    pub fn spec(train: &Train) -> Schedule {
        Schedule {
            warmdown: train.warmdown_steps as f64,
            momentum_start: train.momentum_start,
            momentum_end: train.momentum_end,
            momentum_warmup: train.momentum_warmup_steps as f64,
            ema_decay: train.ema_decay,
            phase_scale: 1.0,
        }
    }

    /// Scaled to `steps` planned steps: warmdown ≤ 0.6 S, momentum warm-up ≤ S/2, momentum ≤ 0.95 below
    /// 1,000 steps, EMA decay ≤ 1 − 5/S. Phases that begin at a step come earlier by the factor of what shrinks most.
    pub fn scaled(train: &Train, steps: f64) -> Schedule {
        let spec = Schedule::spec(train);
        let ceiling = if steps < SHORT_RUN { SHORT_RUN_MOMENTUM } else { 1.0 };
        let momentum_end = spec.momentum_end.min(ceiling);
        let (warmdown, momentum_warmup) =
            (spec.warmdown.min(0.6 * steps), spec.momentum_warmup.min(steps / 2.0));
        let scale = |scaled: f64, spec: f64| if spec > 0.0 { scaled / spec } else { 1.0 };
        Schedule {
            warmdown,
            momentum_start: spec.momentum_start.min(momentum_end),
            momentum_end,
            momentum_warmup,
            phase_scale: scale(warmdown, spec.warmdown).min(scale(momentum_warmup, spec.momentum_warmup)),
            ema_decay: spec.ema_decay.min((1.0 - 5.0 / steps).max(0.0)),
        }
    }

    /// Factor on every base learning rate with `remaining` steps to go, this one included.
    pub fn lr_scale(&self, remaining: f64) -> f64 {
        if self.warmdown == 0.0 { 1.0 } else { (remaining / self.warmdown).clamp(0.0, 1.0) }
    }

    /// Muon's momentum at a step, from 0.
    pub fn momentum(&self, step: u64) -> f64 {
        let warm =
            if self.momentum_warmup == 0.0 { 1.0 } else { (step as f64 / self.momentum_warmup).min(1.0) };
        (1.0 - warm) * self.momentum_start + warm * self.momentum_end
    }
}

/// The budget of a run: steps, wall-clock time or both; whichever ends first.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Budget {
    /// Steps.
    pub steps: Option<u64>,
    /// Seconds from the first step on, checkpoints among them, evaluation and compilation not.
    pub seconds: Option<f64>,
}

impl Budget {
    /// Expected steps from `step` on, this one included, after `elapsed` seconds of training. Infinite while
    /// there is nothing to go by.
    pub fn remaining(&self, step: u64, elapsed: f64) -> f64 {
        let by_steps = self.steps.map_or(f64::INFINITY, |s| s.saturating_sub(step) as f64);
        let by_time = match self.seconds {
            Some(s) if step > 0 && elapsed > 0.0 => (s - elapsed).max(0.0) / (elapsed / step as f64),
            _ => f64::INFINITY,
        };
        by_steps.min(by_time)
    }

    /// Expected total steps; `None` while there is nothing to go by.
    pub fn planned(&self, step: u64, elapsed: f64) -> Option<f64> {
        let total = step as f64 + self.remaining(step, elapsed);
        total.is_finite().then_some(total.max(1.0))
    }

    /// Fraction of the budget that is spent, 0 … 1.
    pub fn fraction(&self, step: u64, elapsed: f64) -> f64 {
        let by_steps = self.steps.map_or(0.0, |s| step as f64 / s.max(1) as f64);
        let by_time = self.seconds.map_or(0.0, |s| elapsed / s.max(1e-9));
        by_steps.max(by_time).min(1.0)
    }

    /// Whether the run is over before `step`: a step that would end after the time is not begun. What a step takes is the mean of
    /// those before it; the first alone does not tell, because it also fills caches.
    pub fn is_over(&self, step: u64, elapsed: f64) -> bool {
        let left = self.remaining(step, elapsed);
        if step > 1 { left < 1.0 } else { left <= 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train() -> Train {
        Train {
            batch_tokens: 786_432,
            micro_batch_tokens: 98_304,
            seq_len: 2048,
            steps: None,
            seconds: Some(600.0),
            warmdown_steps: 3500,
            momentum_start: 0.92,
            momentum_end: 0.99,
            momentum_warmup_steps: 1500,
            grad_clip: 0.3,
            ema_decay: 0.997,
            seed: 42,
        }
    }

    #[test]
    fn a_full_run_has_the_constants_of_the_spec() {
        assert_eq!(Schedule::scaled(&train(), 7000.0), Schedule::spec(&train()));
    }

    #[test]
    fn a_short_run_scales() {
        let s = Schedule::scaled(&train(), 200.0);
        assert_eq!((s.warmdown, s.momentum_warmup, s.momentum_end, s.ema_decay), (120.0, 100.0, 0.95, 0.975));
        assert_eq!(s.phase_scale, 120.0 / 3500.0);
        assert_eq!(s.lr_scale(200.0), 1.0);
        assert_eq!(s.lr_scale(60.0), 0.5);
        assert_eq!(s.momentum(0), 0.92);
        assert_eq!(s.momentum(1000), 0.95);
    }

    #[test]
    fn a_warmdown_of_zero_is_a_constant_rate() {
        let s = Schedule::scaled(&Train { warmdown_steps: 0, ..train() }, 200.0);
        assert_eq!(s.lr_scale(1.0), 1.0);
    }

    #[test]
    fn wall_clock_and_steps_end_a_run_whichever_is_first() {
        let b = Budget { steps: Some(100), seconds: Some(10.0) };
        assert_eq!(b.remaining(0, 0.0), 100.0);
        assert_eq!(b.remaining(50, 9.0), (1.0 / (9.0 / 50.0)));
        assert!(b.is_over(100, 1.0) && b.is_over(3, 10.0) && !b.is_over(99, 9.8));
        assert!(b.is_over(50, 9.9), "a step takes 0.198 s, and 0.1 s are left");
        assert!(!b.is_over(0, 0.0) && !b.is_over(1, 6.0) && b.is_over(1, 10.0));
        assert_eq!(Budget { steps: None, seconds: Some(10.0) }.planned(0, 0.0), None);
    }
}
