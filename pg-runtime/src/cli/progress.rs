//! Progress: a bar on a terminal, plain lines otherwise.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pg_runtime::report::{Event, StepMetrics};

use super::format::{counted, duration, grouped};
use super::ui::Ui;

/// Plain lines of one stage come no more often than this, so that a log stays short.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Turns events into words.
pub(crate) struct Progress<'a> {
    ui: &'a Ui,
    bar: Option<ProgressBar>,
    stage: Stage,
}

/// The stage under way.
struct Stage {
    name: String,
    total: u64,
    began: Instant,
    last_line: Option<Instant>,
    /// Steps and their milliseconds so far, for the rate and the time left.
    steps: u64,
    spent_ms: f64,
}

impl Stage {
    fn new(name: String, total: u64) -> Stage {
        Stage { name, total, began: Instant::now(), last_line: None, steps: 0, spent_ms: 0.0 }
    }

    /// Whether a plain line is due; the first always is.
    fn is_line_due(&mut self) -> bool {
        let due = self.last_line.is_none_or(|t| t.elapsed() >= LINE_EVERY);
        if due {
            self.last_line = Some(Instant::now());
        }
        due
    }
}

/// `7/40`, or `7` where the total is not known, or was a guess that is passed.
fn of_total(done: u64, total: u64) -> String {
    if total >= done { format!("{done}/{total}") } else { done.to_string() }
}

impl<'a> Progress<'a> {
    pub(crate) fn new(ui: &'a Ui) -> Self {
        Progress { ui, bar: None, stage: Stage::new(String::new(), 0) }
    }

    /// Takes in an event.
    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::Warning(text) => {
                let ui = self.ui;
                self.aside(|| ui.warning(&text));
            }
            Event::Note(text) => {
                let ui = self.ui;
                self.aside(|| ui.note(&text));
            }
            Event::Begin { stage, total } => self.begin(stage, total),
            Event::Progress(done) => self.progress(done),
            Event::Step { metrics, tokens, planned } => self.step(&metrics, tokens, planned),
            Event::Scored(score) => {
                let (ui, seconds) = (self.ui, score.ms / 1e3);
                let after = counted(score.after_steps, "step");
                self.aside(|| {
                    ui.note(format_args!("after {after}: {:.4} bits per byte ({seconds:.1} s)", score.bpb))
                });
            }
            Event::End(result) => self.end(&result),
        }
    }

    /// Takes the bar away, also after a run that failed.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Says something while a bar may be on the screen.
    fn aside(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    fn begin(&mut self, name: String, total: u64) {
        self.finish();
        if self.ui.can_draw() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
            // A template of ours that does not parse would be a bug; the default style then serves.
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:28} {pos}/{len} {msg}") {
                bar.set_style(style.progress_chars("█▌·"));
            }
            bar.set_prefix(name.clone());
            self.bar = Some(bar);
        }
        self.stage = Stage::new(name, total);
    }

    fn progress(&mut self, done: u64) {
        let spent = self.stage.began.elapsed().as_secs_f64();
        let left = spent / done.max(1) as f64 * self.stage.total.saturating_sub(done) as f64;
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(format!("{} left", duration(left)));
            }
            // The first line would come before there is anything to say.
            None if spent > LINE_EVERY.as_secs_f64() && self.stage.is_line_due() => {
                let (name, of) = (&self.stage.name, of_total(done, self.stage.total));
                self.ui.note(format_args!("{name}: {of}, {} left", duration(left)));
            }
            None => {}
        }
    }

    fn step(&mut self, metrics: &StepMetrics, tokens: usize, planned: u64) {
        let stage = &mut self.stage;
        stage.steps += 1;
        stage.spent_ms += metrics.ms;
        let done = metrics.step + 1;
        let mean_ms = stage.spent_ms / stage.steps as f64;
        let rate = tokens as f64 / mean_ms * 1e3;
        let left = planned.saturating_sub(done) as f64 * mean_ms / 1e3;
        // Before its first step, a run for a time does not know how many it will do.
        let left = if planned == 0 { String::new() } else { format!("  {} left", duration(left)) };
        let words = format!("loss {:.4}  {} tokens/s{left}", metrics.loss, grouped(rate.max(0.0) as u64));
        match &self.bar {
            Some(bar) => {
                bar.set_length(planned.max(done));
                bar.set_position(done);
                bar.set_message(words);
            }
            None if done == planned || stage.is_line_due() => {
                self.ui.note(format_args!(
                    "step {}  {words}  lr ×{:.3}  |grad| {:.3}  {:.0} ms",
                    of_total(done, planned),
                    metrics.lr_scale,
                    metrics.grad_norm,
                    metrics.ms
                ));
            }
            None => {}
        }
    }

    fn end(&mut self, result: &str) {
        self.finish();
        let spent = duration(self.stage.began.elapsed().as_secs_f64());
        self.ui.note(format_args!("{}: {result} ({spent})", self.stage.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_is_not_known_is_not_shown() {
        assert_eq!([of_total(1, 0), of_total(3, 40), of_total(5, 4)], ["1", "3/40", "5"]);
    }
}
