//! Two models or runs side by side.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::curves::{Point, curves, scores};
use super::differences::{Difference, Differences};
use super::side::{Side, conditions};
use crate::cli::format::{duration, grouped, table};
use crate::cli::ui::Ui;

/// A figure of both sides; `null` where a side does not have it.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    a: Option<f64>,
    b: Option<f64>,
    #[serde(skip)]
    decimals: usize,
    /// Whether a difference of it says anything.
    comparable: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    a: PathBuf,
    b: PathBuf,
    #[serde(flatten)]
    differences: Differences,
    /// Why the scores cannot be compared; empty where they can, and unless both sides are runs.
    incomparable: Vec<String>,
    figures: Vec<Figure>,
    /// Scores of the live weights after the same number of tokens; empty unless both sides are runs with `--val-every`, whose
    /// scores can be compared.
    scores_at_equal_tokens: Vec<Point>,
    /// Training loss after the same number of tokens; empty unless both sides are runs of the same training text.
    at_equal_tokens: Vec<Point>,
    /// Training loss after the same time, in seconds.
    at_equal_time: Vec<Point>,
}

impl Report {
    pub(super) fn new(a: &Path, b: &Path, ui: &Ui) -> anyhow::Result<Report> {
        let (side_a, side_b) = (Side::load(a, ui)?, Side::load(b, ui)?);
        let incomparable = match (&side_a.run, &side_b.run) {
            (Some(a), Some(b)) => conditions(&a.run).differences_of_each_score(&conditions(&b.run)),
            _ => Vec::new(),
        };
        let losses = of_one_training_text(&side_a, &side_b);
        let (at_equal_tokens, at_equal_time) =
            if losses { curves(&side_a, &side_b) } else { Default::default() };
        let scores = if incomparable.is_empty() { scores(&side_a, &side_b) } else { Vec::new() };
        Ok(Report {
            scores_at_equal_tokens: scores,
            a: a.to_owned(),
            b: b.to_owned(),
            differences: Differences::of(&side_a, &side_b),
            figures: figures(&side_a, &side_b, incomparable.is_empty(), losses),
            incomparable,
            at_equal_tokens,
            at_equal_time,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!("A: {}\nB: {}\n", self.a.display(), self.b.display());
        let mut section = |title: &str, text: String| {
            out += &format!("\n{title}\n{text}");
            out.truncate(out.trim_end().len());
            out.push('\n');
        };
        if !self.incomparable.is_empty() {
            let why = self.incomparable.join("; ");
            section(&format!("The scores cannot be compared: {why}."), String::new());
        }
        let kinds = self.differences.kinds();
        let show = |v: &Option<String>| v.clone().unwrap_or("–".into());
        let row = |d: &Difference| vec![d.name.clone(), show(&d.a), show(&d.b)];
        for (kind, list) in kinds.iter().filter(|(_, list)| !list.is_empty()) {
            let rows = list.iter().map(row).collect();
            section(&format!("Different {kind}:"), table(&["", "A", "B"], &[], rows));
        }
        let are_runs = |kind: &str| !matches!(kind, "data" | "schedule" | "conditions");
        let is_known = |kind: &str| self.both_are_runs() || are_runs(kind);
        let same =
            kinds.iter().filter(|(kind, list)| list.is_empty() && is_known(kind)).map(|(kind, _)| *kind);
        let same: Vec<&str> = same.collect();
        if !same.is_empty() {
            section(&format!("No difference in {}.", same.join(", ")), String::new());
        }
        let rows = self.figures.iter().map(Figure::row).collect();
        section("Figures:", table(&["", "A", "B", "B − A"], &[1, 2, 3], rows));
        let curve = |points: &[Point], at: &dyn Fn(f64) -> String| {
            let row = |p: &Point| {
                vec![at(p.at), format!("{:.4}", p.a), format!("{:.4}", p.b), format!("{:+.4}", p.b - p.a)]
            };
            table(&["after", "A", "B", "B − A"], &[0, 1, 2, 3], points.iter().map(row).collect())
        };
        let tokens = |at: f64| format!("{} tokens", grouped(at as u64));
        if !self.scores_at_equal_tokens.is_empty() {
            let title = "Bits per byte of the live weights at equal tokens:";
            section(title, curve(&self.scores_at_equal_tokens, &tokens));
        }
        if !self.at_equal_tokens.is_empty() {
            section("Training loss at equal tokens:", curve(&self.at_equal_tokens, &tokens));
        }
        if !self.at_equal_time.is_empty() {
            // Of a run of seconds, every point would be the same one.
            let is_short = self.at_equal_time.last().is_some_and(|last| last.at < 60.0);
            let at = |at: f64| if is_short { format!("{at:.2} s") } else { duration(at) };
            section("Training loss at equal time:", curve(&self.at_equal_time, &at));
        }
        out
    }

    fn both_are_runs(&self) -> bool {
        // Of a model alone the number of steps is not known.
        self.figures.iter().any(|f| f.name == "steps" && f.a.is_some() && f.b.is_some())
    }
}

/// Whether training losses are of the same tokens.
fn of_one_training_text(a: &Side, b: &Side) -> bool {
    let (Some(a), Some(b)) = (&a.run, &b.run) else { return false };
    let (a, b) = (&a.run.record.text, &b.run.record.text);
    let hash = |text: &pg_runtime::report::TextReport| text.train.as_ref().map(|data| data.hash.clone());
    hash(a) == hash(b) && a.tokenizer == b.tokenizer
}

/// Whether scores and losses can be compared decides whether their differences are shown.
fn figures(a: &Side, b: &Side, scores: bool, losses: bool) -> Vec<Figure> {
    type Get = fn(&Side) -> Option<f64>;
    let all: [(&'static str, usize, bool, Get); 17] = [
        ("parameters", 0, true, |s| Some(s.facts.params as f64)),
        ("packed bytes", 0, true, |s| Some(s.facts.artifact_raw_bytes as f64)),
        ("predicted artifact bytes", 0, true, |s| Some(s.facts.artifact_estimate_bytes as f64)),
        ("artifact bytes", 0, true, |s| s.report().map(|r| r.artifact.artifact_bytes as f64)),
        ("code bytes", 0, true, |s| Some(s.facts.code_bytes as f64)),
        ("FLOPs a token", 0, true, |s| Some(s.facts.flops_per_token)),
        ("steps", 0, true, |s| s.report().map(|r| r.train.steps as f64)),
        ("tokens", 0, true, |s| s.report().map(|r| r.train.tokens as f64)),
        ("ms a step", 1, true, |s| s.report().map(|r| r.train.ms_per_step)),
        ("last loss", 4, losses, |s| s.report().map(|r| r.train.loss_last)),
        ("bpb initial", 4, scores, |s| s.report().and_then(|r| r.bpb.initial)),
        ("bpb live", 4, scores, |s| s.report().and_then(|r| r.bpb.live)),
        ("bpb averaged", 4, scores, |s| s.report().and_then(|r| r.bpb.ema)),
        ("bpb quantised", 4, scores, |s| s.report().and_then(|r| r.bpb.quantized)),
        ("quantisation gap", 4, scores, |s| s.report().and_then(|r| r.quant_gap_bpb)),
        ("bpb sliding", 4, scores, |s| s.report().and_then(|r| r.bpb.sliding)),
        ("bpb test-time", 4, scores, |s| s.report().and_then(|r| r.bpb.ttt)),
    ];
    let figure = |(name, decimals, comparable, get): (&'static str, usize, bool, Get)| Figure {
        name,
        a: get(a),
        b: get(b),
        decimals,
        comparable,
    };
    all.map(figure).into_iter().filter(|f| f.a.is_some() || f.b.is_some()).collect()
}

impl Figure {
    fn row(&self) -> Vec<String> {
        let show = |value: Option<f64>| match value {
            None => "–".into(),
            Some(v) if self.decimals == 0 => grouped(v.max(0.0) as u64),
            Some(v) => format!("{v:.*}", self.decimals),
        };
        let difference = match (self.a, self.b) {
            (Some(_), Some(_)) if !self.comparable => "not comparable".into(),
            (Some(a), Some(b)) if self.decimals == 4 => format!("{:+.4}", b - a),
            (Some(a), Some(b)) if a != 0.0 => format!("{:+.1} %", 100.0 * (b - a) / a),
            _ => String::new(),
        };
        vec![self.name.into(), show(self.a), show(self.b), difference]
    }
}
