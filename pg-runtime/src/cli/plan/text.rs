//! The report of `pg plan` for people: totals, what is expensive, launches, memory.

use pg_codegen::machine::Machine;

use super::super::command::{command, variation_arguments};
use super::super::format::{grouped, megabytes, table, table_without};
use super::super::timing;
use super::{BufferLine, Group, Held, Line, PlanArgs, ProgramReport, Report, Totals};

/// Rows of a summary in the overview of all programs.
const OVERVIEW_ROWS: usize = 6;

impl Report {
    pub(super) fn text(&self, args: &PlanArgs, target: &Machine) -> String {
        if !self.timing.is_empty() {
            return format!("{}\n{}", self.model, timing::text(&self.timing));
        }
        let mut out = format!(
            "{} on {} ({}), {} × {} tokens{}. Times are predicted from peaks.\n\n{}\n",
            self.model,
            self.target,
            target.summary,
            self.batch,
            grouped(self.seq_len as u64),
            if self.fused { "" } else { ", one kernel an op" },
            self.totals()
        );
        match &self.programs[..] {
            [one] if args.programs.program.is_some() => out += &one.text(args.buffers),
            all => {
                for program in all {
                    out += &format!(
                        "\n{}, the most expensive first{}\n\n{}\n",
                        program.name,
                        program.passes_text(),
                        groups(&program.summary, OVERVIEW_ROWS)
                    );
                }
                let first = all.first().map_or("score", |p| p.name.as_str());
                let mut words = vec!["plan".to_string(), args.model.file.display().to_string()];
                words.extend(variation_arguments(&args.model.variation));
                words.extend(["--program".into(), first.into(), "--target".into(), self.target.clone()]);
                out += &format!("\nEvery launch of one of them:\n  {}", command(words));
            }
        }
        out
    }

    fn totals(&self) -> String {
        let row = |name: &str, t: &Totals| {
            vec![
                name.to_string(),
                grouped(t.launches as u64),
                grouped(t.unfused_launches as u64),
                gigas(t.flops),
                gigas(t.bytes),
                gigas(t.unfused_bytes),
                milliseconds(t.roofline_ms / 1e3),
                megabytes(t.peak_bytes as u64),
            ]
        };
        let headings =
            ["program", "launches", "unfused", "GFLOP", "GB", "GB unfused", "time", "scratch memory"];
        let step = self.train.iter().map(|t| row("an optimiser step", t));
        let rows = self.programs.iter().map(|p| row(&p.name, &p.totals)).chain(step).collect();
        table_without(&headings, &[1, 2, 3, 4, 5, 6, 7], &[5, 2, 1], rows)
    }
}

impl ProgramReport {
    fn text(&self, with_buffers: bool) -> String {
        let passes = self.passes_text();
        let mut out =
            format!("\nThe most expensive first{passes}\n\n{}\n", groups(&self.summary, usize::MAX));
        let line = |l: &Line| {
            let at = l.launches[0];
            vec![
                if l.launches.len() > 1 { format!("#{at} ×{}", l.launches.len()) } else { format!("#{at}") },
                l.family.to_string(),
                l.shape.clone(),
                l.computes.clone(),
                l.scope.clone(),
                listed(&l.lines),
                gigas(l.flops),
                gigas(l.bytes),
                milliseconds(l.roofline_us / 1e6),
                l.bound.clone(),
                l.why.join("; "),
            ]
        };
        let headings = [
            "launch",
            "family",
            "shape",
            "computes",
            "scope",
            "lines",
            "GFLOP",
            "GB",
            "time",
            "bound",
            "what it writes is in memory because",
        ];
        let rows = self.launches_table.iter().map(line).collect();
        out += &format!(
            "\nLaunches in order\n\n{}\n",
            table_without(&headings, &[6, 7, 8], &[10, 6, 7, 9, 2, 1], rows)
        );
        if let Some(at) = self.peak_launch {
            let held = |h: &Held| vec![h.holds.clone(), grouped(h.buffers as u64), megabytes(h.bytes as u64)];
            let rows = self.peak.iter().map(held).collect();
            out += &format!(
                "\nScratch memory when most of it is in use, at launch #{at}\n\n{}\n",
                table(&["holds", "buffers", "bytes"], &[1, 2], rows)
            );
        }
        if with_buffers {
            out += &format!("\nBuffers\n\n{}\n", self.buffer_table());
        }
        out
    }

    /// `; 97.0 passes over 2,048 × 512 bf16 a layer`.
    fn passes_text(&self) -> String {
        self.passes.as_ref().map_or(String::new(), |p| {
            let tokens = grouped(p.tokens as u64);
            format!("; {:.1} passes over {tokens} × {} {} a layer", p.per_layer, p.width, p.dtype)
        })
    }

    fn buffer_table(&self) -> String {
        let at = |launch: Option<usize>| launch.map_or("–".into(), |l| format!("#{l}"));
        let row = |b: &BufferLine| {
            vec![
                format!("b{}", b.buffer),
                b.holds.clone(),
                b.place.clone(),
                megabytes(b.bytes as u64),
                at(b.first_launch),
                at(b.last_launch),
                b.why.to_string(),
            ]
        };
        let headings = ["buffer", "holds", "place", "bytes", "first", "last", "in memory because"];
        table_without(&headings, &[3, 4, 5], &[2, 4, 5], self.buffers.iter().map(row).collect())
    }
}

fn groups(groups: &[Group], most: usize) -> String {
    let row = |g: &Group| {
        vec![
            format!("{:.1} %", g.share * 100.0),
            milliseconds(g.roofline_us / 1e6),
            g.bound.clone(),
            g.scope.clone(),
            g.family.to_string(),
            grouped(g.launches as u64),
            gigas(g.flops),
            gigas(g.bytes),
            listed(&g.lines),
        ]
    };
    let headings = ["share", "time", "bound", "scope", "family", "launches", "GFLOP", "GB", "lines"];
    table_without(&headings, &[0, 1, 5, 6, 7], &[7, 6, 5, 2], groups.iter().take(most).map(row).collect())
}

/// The first few of them.
fn listed(lines: &[String]) -> String {
    match lines {
        [a, b, c, _, ..] => format!("{a} {b} {c} …"),
        few => few.join(" "),
    }
}

fn gigas(n: f64) -> String {
    format!("{:.2}", n / 1e9)
}

fn milliseconds(seconds: f64) -> String {
    if seconds < 1e-3 { format!("{:.1} µs", seconds * 1e6) } else { format!("{:.2} ms", seconds * 1e3) }
}
