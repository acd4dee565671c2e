//! The kernels of a model's programs as one table.

use std::path::Path;

use anyhow::{Context, bail};
use pg_codegen::Options;
use pg_codegen::cuda::Occupancy;
use pg_codegen::kernels::{Entry, inventory};
use pg_codegen::machine::Machine;
use pg_codegen::plan::Plan;
use pg_codegen::report::provenance::Provenance;
use pg_codegen::report::summary::generalise;
use pg_runtime::session::{Key, Session};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::format::{grouped, table, table_without};
use super::super::programs::ProgramArgs;
use super::compiled::{Compiled, Uses};

/// Kernels that a table shows unless it is asked for all.
const SHOWN: usize = 30;
/// Columns that a narrow terminal shows last: stack, grid, block, shared memory, traffic, what bounds, work, occupancy,
/// registers, spills, program.
const LEAST: [usize; 11] = [14, 4, 5, 6, 8, 10, 7, 15, 12, 13, 1];

/// A program with its kernels.
pub(super) struct ProgramReport {
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) entries: Vec<Entry>,
    unfused_bytes: f64,
    /// How often an optimiser step runs it; 0 for what is no part of one.
    in_step: usize,
}

/// The kernels of some programs on a target.
pub(super) struct Report {
    model: String,
    target: Machine,
    pub(super) programs: Vec<ProgramReport>,
    pub(super) compiled: Compiled,
}

/// A kernel of a program; the public form.
#[derive(Clone, Debug, Serialize)]
struct Kernel {
    name: String,
    program: String,
    family: &'static str,
    /// Launches of the program.
    count: usize,
    grid: [u32; 3],
    block: [u32; 3],
    /// Of a thread, like the spills and the stack; `null` where the kernel was not compiled.
    registers: Option<u32>,
    shared_bytes: usize,
    spill_bytes: Option<u32>,
    stack_bytes: Option<u32>,
    /// Of a multiprocessor; `null` where the kernel was not compiled.
    occupancy: Option<Occupancy>,
    /// Of one launch, like the three that follow.
    flops: f64,
    bytes: f64,
    roofline_us: f64,
    /// What its instructions take; `null` where the kernel was not compiled, like the two that follow.
    issue_us: Option<f64>,
    executed_flops: Option<f64>,
    /// Branches that depend on data: their outcome is assumed.
    assumed_branches: Option<usize>,
    predicted_us: f64,
    bound: String,
}

/// What a program, or a step, comes to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Totals {
    launches: usize,
    flops: f64,
    bytes: f64,
    unfused_bytes: f64,
    roofline_ms: f64,
    /// `null` where a kernel was not compiled.
    predicted_ms: Option<f64>,
    peak_bytes: usize,
}

impl Report {
    pub(super) fn new(
        session: &Session,
        named: &[(String, Key)],
        args: &ProgramArgs,
        machine: &Machine,
    ) -> anyhow::Result<Report> {
        let (batch, seq) = args.shape(session);
        let micro_batches = (session.model.train.batch_tokens / (batch * seq)).max(1);
        let unfused = Options { fuse: false, ..Options::default() };
        let mut programs = Vec::new();
        for (name, key) in named {
            let generated = session.generate(*key);
            let (plan, generated) =
                generated.with_context(|| format!("program {name} does not fit {}", machine.name))?;
            programs.push(ProgramReport {
                name: name.clone(),
                entries: inventory(&plan, &generated, machine),
                unfused_bytes: session.lower_with(*key, &unfused)?.bytes() + 0.0,
                in_step: match key {
                    Key::Grad { phase: 0, accumulate: false, .. } | Key::Update => 1,
                    Key::Grad { phase: 0, accumulate: true, .. } => micro_batches - 1,
                    _ => 0,
                },
                plan,
            });
        }
        let compiled = Compiled::No("--no-compile".into());
        Ok(Report { model: session.model.name.clone(), target: machine.clone(), programs, compiled })
    }

    /// Keeps the kernels that a line of the model file became.
    pub(super) fn keep_line(&mut self, file: &Path, line: usize) -> anyhow::Result<()> {
        let name = |path: &Path| path.file_name().map(|n| n.to_owned());
        let is_it = |p: &Provenance| {
            p.model_lines().any(|l| l.line as usize == line && name(Path::new(&*l.file)) == name(file))
        };
        let mut known: Vec<u32> = Vec::new();
        for program in &mut self.programs {
            let launches = &program.plan.launches;
            let lines = launches.iter().flat_map(|l| l.provenance.model_lines());
            known.extend(lines.filter(|l| name(Path::new(&*l.file)) == name(file)).map(|l| l.line));
            program.entries.retain(|e| e.launches.iter().any(|&l| is_it(&launches[l].provenance)));
        }
        if self.programs.iter().all(|p| p.entries.is_empty()) {
            known.sort_unstable();
            known.dedup();
            let known: Vec<String> = known.iter().map(u32::to_string).collect();
            bail!(
                "no kernel comes from line {line} of {}; kernels come from lines {}",
                file.display(),
                known.join(", ")
            );
        }
        Ok(())
    }

    /// The JSON object. Its names are a public interface.
    pub(super) fn public(&self) -> Value {
        let rows = self.rows().into_iter();
        let kernels: Vec<Kernel> = rows.map(|(p, e)| p.kernel(e, &self.compiled)).collect();
        let mut programs = Map::new();
        if self.programs.iter().filter(|p| p.in_step > 0).count() > 1 {
            programs.insert("train".into(), json!(self.step()));
        }
        programs.extend(self.programs.iter().map(|p| (p.name.clone(), json!(p.totals(&self.compiled)))));
        json!({
            "target": self.target.name,
            "compiler": self.compiled.compiler(),
            "basis": basis(),
            "kernels": kernels,
            "programs": programs,
        })
    }

    /// The kernels that a table shows, or all of them.
    pub(super) fn shown(&self, all: bool) -> Vec<&Entry> {
        let shown = if all { usize::MAX } else { SHOWN };
        self.rows().into_iter().take(shown).map(|(_, e)| e).collect()
    }

    /// Programs and kernels, those of the optimiser step first, the most expensive first.
    fn rows(&self) -> Vec<(&ProgramReport, &Entry)> {
        let mut all: Vec<(&ProgramReport, &Entry)> =
            self.programs.iter().flat_map(|p| p.entries.iter().map(move |e| (p, e))).collect();
        let weight = |(p, e): &(&ProgramReport, &Entry)| {
            (p.in_step > 0, p.in_step.max(1) as f64 * self.compiled.predicted(e).seconds)
        };
        all.sort_by(|a, b| {
            let (a, b) = (weight(a), weight(b));
            b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
        });
        all
    }

    fn step(&self) -> Totals {
        let mut sum = Totals { predicted_ms: Some(0.0), ..Totals::default() };
        for p in &self.programs {
            let (t, times) = (p.totals(&self.compiled), p.in_step);
            sum.launches += t.launches * times;
            sum.flops += t.flops * times as f64;
            sum.bytes += t.bytes * times as f64;
            sum.unfused_bytes += t.unfused_bytes * times as f64;
            sum.roofline_ms += t.roofline_ms * times as f64;
            if times > 0 {
                sum.predicted_ms = sum.predicted_ms.zip(t.predicted_ms).map(|(a, b)| a + b * times as f64);
                sum.peak_bytes = sum.peak_bytes.max(t.peak_bytes);
            }
        }
        sum
    }

    pub(super) fn text(&self, all: bool) -> String {
        let rows = self.rows();
        let shown = if all { rows.len() } else { rows.len().min(SHOWN) };
        let step = self.step();
        let mut out = format!(
            "{} on {} ({}). {}\n\n",
            self.model,
            self.target.name,
            self.target.summary,
            self.compiled.legend()
        );
        let headings = [
            "kernel",
            "program",
            "launches",
            "computes",
            "grid",
            "block",
            "shared",
            "GFLOP",
            "GB",
            "time",
            "bound",
            "of the step",
            "registers",
            "spills",
            "stack",
            "blocks an SM",
        ];
        // Every kernel as its own row predicts it: those that are not compiled, by the roofline.
        let weight =
            |(p, e): &(&ProgramReport, &Entry)| p.in_step as f64 * self.compiled.predicted(e).seconds;
        let step_seconds: f64 = rows.iter().map(weight).sum();
        let line = |(p, e): &(&ProgramReport, &Entry)| p.row(e, step_seconds, &self.compiled);
        let right = [2, 5, 6, 7, 8, 9, 11, 12, 13, 14];
        out += &table_without(&headings, &right, &LEAST, rows.iter().take(shown).map(line).collect());
        if shown < rows.len() {
            out += &format!("\n… and {} more kernels: --all shows them.", rows.len() - shown);
        }
        out += "\n\n";
        out += &self.totals(&step);
        out
    }

    fn totals(&self, step: &Totals) -> String {
        let row = |name: &str, t: &Totals| {
            vec![
                name.to_string(),
                grouped(t.launches as u64),
                format!("{:.2}", t.flops / 1e9),
                format!("{:.2}", t.bytes / 1e9),
                format!("{:.2}", t.unfused_bytes / 1e9),
                format!("{:.2}", t.roofline_ms),
                t.predicted_ms.map_or("–".into(), |ms| format!("{ms:.2}")),
            ]
        };
        let headings = ["program", "launches", "GFLOP", "GB", "GB unfused", "roofline, ms", "predicted, ms"];
        let mut rows: Vec<Vec<String>> =
            self.programs.iter().map(|p| row(&p.name, &p.totals(&self.compiled))).collect();
        if self.programs.iter().filter(|p| p.in_step > 0).count() > 1 {
            rows.push(row("an optimiser step", step));
        }
        table(&headings, &[1, 2, 3, 4, 5, 6], rows)
    }
}

impl ProgramReport {
    /// What a kernel computes, in a few words, layers as `*`.
    fn computes(&self, entry: &Entry) -> String {
        const LONGEST: usize = 60;
        let provenance = &self.plan.launches[entry.launches[0]].provenance;
        let scope = provenance.main_site().map_or_else(String::new, |s| generalise(&s.name()));
        let text = format!("{scope}: {}", provenance.ops_text());
        match text.char_indices().nth(LONGEST) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        }
    }

    fn kernel(&self, entry: &Entry, compiled: &Compiled) -> Kernel {
        let uses = compiled.uses(&entry.kernel);
        let issue = compiled.bound(&entry.kernel);
        let predicted = compiled.predicted(entry);
        let count = entry.launches.len();
        let of_one = |total: f64| total / count as f64;
        let launch = &self.plan.launches[entry.launches[0]];
        Kernel {
            name: entry.kernel.name().into(),
            program: self.name.clone(),
            family: self.plan.kernels[launch.kernel.0 as usize].family(),
            count,
            grid: entry.grid,
            block: [entry.kernel.threads(), 1, 1],
            registers: uses.as_ref().map(|u| u.resources.registers),
            shared_bytes: entry.kernel.shared_bytes(),
            spill_bytes: uses.as_ref().map(|u| u.resources.spill_bytes),
            stack_bytes: uses.as_ref().map(|u| u.resources.stack_bytes),
            occupancy: uses.map(|u| u.occupancy),
            flops: of_one(entry.flops),
            bytes: of_one(entry.bytes),
            roofline_us: of_one(entry.seconds) * 1e6,
            issue_us: issue.map(|i| i.seconds * 1e6),
            executed_flops: issue.map(|i| i.executed_flops),
            assumed_branches: issue.map(|i| i.assumed_branches),
            predicted_us: of_one(predicted.seconds) * 1e6,
            bound: predicted.binds.to_string(),
        }
    }

    fn row(&self, entry: &Entry, step_seconds: f64, compiled: &Compiled) -> Vec<String> {
        let uses = compiled.uses(&entry.kernel);
        let uses = uses.as_ref();
        let predicted = compiled.predicted(entry);
        let share = 100.0 * self.in_step as f64 * predicted.seconds / step_seconds;
        let [x, y, z] = entry.grid;
        let grid = if y * z == 1 { x.to_string() } else { format!("{x} × {y} × {z}") };
        let resource = |of: fn(&Uses) -> u32| uses.map_or("–".into(), |u| of(u).to_string());
        let occupancy = |u: &Uses| format!("{} by {}", u.occupancy.blocks, u.occupancy.limited_by);
        vec![
            entry.kernel.name().into(),
            self.name.clone(),
            entry.launches.len().to_string(),
            self.computes(entry),
            grid,
            entry.kernel.threads().to_string(),
            entry.kernel.shared_bytes().to_string(),
            format!("{:.3}", entry.flops / 1e9),
            format!("{:.3}", entry.bytes / 1e9),
            format!("{:.1} µs", predicted.seconds * 1e6),
            predicted.binds.to_string(),
            if self.in_step > 0 { format!("{share:.2} %") } else { "–".into() },
            resource(|u| u.resources.registers),
            resource(|u| u.resources.spill_bytes),
            resource(|u| u.resources.stack_bytes),
            uses.map_or("–".into(), occupancy),
        ]
    }

    fn totals(&self, compiled: &Compiled) -> Totals {
        let predicted = |e: &Entry| compiled.bound(&e.kernel).map(|_| compiled.predicted(e).seconds * 1e3);
        let sum = |f: fn(&Entry) -> f64| self.entries.iter().map(f).sum::<f64>() + 0.0;
        Totals {
            launches: self.entries.iter().map(|e| e.launches.len()).sum(),
            flops: sum(|e| e.flops),
            bytes: sum(|e| e.bytes),
            unfused_bytes: self.unfused_bytes,
            roofline_ms: sum(|e| e.seconds) * 1e3,
            predicted_ms: self.entries.iter().map(predicted).sum(),
            peak_bytes: self.plan.arena_bytes,
        }
    }
}

/// How the figures of the JSON object came about: nothing in it is measured.
fn basis() -> Value {
    let counted = ["flops", "bytes", "unfused_bytes", "launches", "count", "peak_bytes", "shared_bytes"];
    let predicted = ["roofline_us", "roofline_ms", "issue_us", "predicted_us", "predicted_ms", "bound"];
    let compiled =
        ["executed_flops", "assumed_branches", "registers", "spill_bytes", "stack_bytes", "occupancy"];
    json!({ "counted": counted, "predicted": predicted, "compiled": compiled })
}
