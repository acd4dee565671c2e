//! `pg compare`: two models or runs side by side.

mod curves;
mod side;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use self::curves::{Point, curves};
use self::side::Side;
use super::format::{duration, grouped, table};
use super::ui::Ui;

/// Arguments of `pg compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// Model file or run folder.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Model file or run folder.
    #[arg(value_name = "B")]
    b: PathBuf,
}

/// A constant that only one side has, or that differs.
#[derive(Debug, Serialize)]
struct Constant {
    name: String,
    a: Option<String>,
    b: Option<String>,
}

/// A figure of both sides; `null` where a side does not have it.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    a: Option<f64>,
    b: Option<f64>,
    #[serde(skip)]
    decimals: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    a: PathBuf,
    b: PathBuf,
    /// Constants that differ.
    constants: Vec<Constant>,
    figures: Vec<Figure>,
    /// Training loss after the same number of tokens; empty unless both sides are runs.
    at_equal_tokens: Vec<Point>,
    /// Training loss after the same time, in seconds.
    at_equal_time: Vec<Point>,
}

/// Compares and reports.
pub(crate) fn compare(args: CompareArgs, ui: &Ui) -> anyhow::Result<()> {
    let (a, b) = (Side::load(&args.a, ui)?, Side::load(&args.b, ui)?);
    let (at_equal_tokens, at_equal_time) = curves(&a, &b);
    let constants = constants(&a, &b);
    let report =
        Report { figures: figures(&a, &b), a: args.a, b: args.b, constants, at_equal_tokens, at_equal_time };
    ui.report(&report, || report.text())?;
    Ok(())
}

fn constants(a: &Side, b: &Side) -> Vec<Constant> {
    let new = b.constants.keys().filter(|name| !a.constants.contains_key(*name));
    let all = a.constants.keys().chain(new);
    let pair = |name: &String| Constant {
        name: name.clone(),
        a: a.constants.get(name).cloned(),
        b: b.constants.get(name).cloned(),
    };
    all.map(pair).filter(|c| c.a != c.b).collect()
}

fn figures(a: &Side, b: &Side) -> Vec<Figure> {
    type Get = fn(&Side) -> Option<f64>;
    let all: [(&'static str, usize, Get); 17] = [
        ("parameters", 0, |s| Some(s.facts.params as f64)),
        ("packed bytes", 0, |s| Some(s.facts.artifact_raw_bytes as f64)),
        ("predicted artifact bytes", 0, |s| Some(s.facts.artifact_estimate_bytes as f64)),
        ("artifact bytes", 0, |s| s.report().map(|r| r.artifact.artifact_bytes as f64)),
        ("code bytes", 0, |s| Some(s.facts.code_bytes as f64)),
        ("FLOPs a token", 0, |s| Some(s.facts.flops_per_token)),
        ("steps", 0, |s| s.report().map(|r| r.train.steps as f64)),
        ("tokens", 0, |s| s.report().map(|r| r.train.tokens as f64)),
        ("ms a step", 1, |s| s.report().map(|r| r.train.ms_per_step)),
        ("last loss", 4, |s| s.report().map(|r| r.train.loss_last)),
        ("bpb initial", 4, |s| s.report().and_then(|r| r.bpb.initial)),
        ("bpb live", 4, |s| s.report().and_then(|r| r.bpb.live)),
        ("bpb averaged", 4, |s| s.report().and_then(|r| r.bpb.ema)),
        ("bpb quantised", 4, |s| s.report().and_then(|r| r.bpb.quantized)),
        ("quantisation gap", 4, |s| s.report().and_then(|r| r.quant_gap_bpb)),
        ("bpb sliding", 4, |s| s.report().and_then(|r| r.bpb.sliding)),
        ("bpb test-time", 4, |s| s.report().and_then(|r| r.bpb.ttt)),
    ];
    let figure =
        |(name, decimals, get): (&'static str, usize, Get)| Figure { name, a: get(a), b: get(b), decimals };
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
            (Some(a), Some(b)) if self.decimals == 4 => format!("{:+.4}", b - a),
            (Some(a), Some(b)) if a != 0.0 => format!("{:+.1} %", 100.0 * (b - a) / a),
            _ => String::new(),
        };
        vec![self.name.into(), show(self.a), show(self.b), difference]
    }
}

impl Report {
    fn text(&self) -> String {
        let mut out = format!("A: {}\nB: {}\n", self.a.display(), self.b.display());
        let mut section = |title: &str, text: String| {
            out += &format!("\n{title}\n{text}");
            out.truncate(out.trim_end().len());
            out.push('\n');
        };
        if self.constants.is_empty() {
            section("Constants: the same.", String::new());
        } else {
            let show = |v: &Option<String>| v.clone().unwrap_or("–".into());
            let row = |c: &Constant| vec![c.name.clone(), show(&c.a), show(&c.b)];
            section(
                "Constants that differ:",
                table(&["", "A", "B"], &[1, 2], self.constants.iter().map(row).collect()),
            );
        }
        let rows = self.figures.iter().map(Figure::row).collect();
        section("Figures:", table(&["", "A", "B", "B − A"], &[1, 2, 3], rows));
        let curve = |points: &[Point], at: &dyn Fn(f64) -> String| {
            let row = |p: &Point| {
                vec![at(p.at), format!("{:.4}", p.a), format!("{:.4}", p.b), format!("{:+.4}", p.b - p.a)]
            };
            table(&["after", "A", "B", "B − A"], &[0, 1, 2, 3], points.iter().map(row).collect())
        };
        if !self.at_equal_tokens.is_empty() {
            let tokens = |at: f64| format!("{} tokens", grouped(at as u64));
            section("Training loss at equal tokens:", curve(&self.at_equal_tokens, &tokens));
        }
        if !self.at_equal_time.is_empty() {
            section("Training loss at equal time:", curve(&self.at_equal_time, &duration));
        }
        out
    }
}
