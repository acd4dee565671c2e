//! Digests: a plan short enough to read. Launches that differ only in their layer are one row, and the memory
//! that is alive at the worst moment is listed by what it holds.
//!
//! For people, reports and golden files. It must be deterministic, and never leave a launch out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pg_ir::ty::DType;

use crate::plan::{Buffer, Place, Plan};
use crate::report::provenance::Line;

/// Equal launches of a plan: the same family, shape and ops, in the same scope of different layers.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The launches, by position in the plan.
    pub launches: Vec<usize>,
    /// Their kernel family.
    pub family: &'static str,
    /// Shape of one of them.
    pub shape: String,
    /// What one of them computes.
    pub ops: String,
    /// Where most of it stands, layers as `*`: `grad of blocks.*.mlp`.
    pub scope: String,
    /// Lines of the model file that the first of them comes from, and of the library if there are none.
    pub lines: Vec<Line>,
    /// Why they end where they do: why what they write is kept in memory, each reason once.
    pub why: Vec<&'static str>,
    /// Floating point operations of all of them.
    pub flops: f64,
    /// Bytes that all of them read and write.
    pub bytes: f64,
}

/// What is in the arena when most of it is in use.
#[derive(Clone, PartialEq, Debug)]
pub struct Peak {
    /// The launch during which that is.
    pub launch: usize,
    /// Bytes in use then; the arena may be larger where buffers do not fit together.
    pub bytes: usize,
    /// What they hold, layers as `*`: description, number of buffers, bytes; the largest first.
    pub holds: Vec<(String, usize, usize)>,
}

/// Words, of which some are scopes, with layer numbers as `*`: `grad of blocks.*.mlp`.
pub fn generalise(words: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let ends = |c: char| c == '.' || c == ' ';
    let general = |part: &str| {
        let name = part.trim_end_matches(ends);
        if is_number(name) { format!("*{}", &part[name.len()..]) } else { part.into() }
    };
    words.split_inclusive(ends).map(general).collect()
}

impl Buffer {
    /// What it holds, without its place in the text and with layers as `*`.
    pub fn kind(&self) -> String {
        let head = self.label.split(" at ").next().unwrap_or_default();
        generalise(head)
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len * self.dtype.size()
    }
}

/// The launches of a plan in order, equal layers as one row; with `all`, each as a row of its own.
pub fn rows(plan: &Plan, all: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut known: BTreeMap<(&str, String, String, String), usize> = BTreeMap::new();
    for (i, launch) in plan.launches.iter().enumerate() {
        let row = row(plan, i, !all);
        let key = (row.family, row.shape.clone(), row.ops.clone(), row.scope.clone());
        match known.get(&key) {
            Some(&at) if !all => {
                rows[at].launches.push(i);
                rows[at].flops += launch.flops;
                rows[at].bytes += launch.bytes;
                for why in row.why {
                    if !rows[at].why.contains(&why) {
                        rows[at].why.push(why);
                    }
                }
            }
            _ => {
                known.insert(key, rows.len());
                rows.push(row);
            }
        }
    }
    rows
}

fn row(plan: &Plan, index: usize, general: bool) -> Row {
    let launch = &plan.launches[index];
    let kernel = &plan.kernels[launch.kernel.0 as usize];
    let provenance = &launch.provenance;
    let main = provenance.main_site();
    let name = main.map_or_else(|| "slots".to_string(), |s| s.name());
    let mut why: Vec<&'static str> = Vec::new();
    for (param, buffer) in kernel.params().iter().zip(&launch.args) {
        let reason = plan.buffers[buffer.0 as usize].why;
        if param.is_written && !why.contains(&reason) {
            why.push(reason);
        }
    }
    let mut lines: Vec<Line> = provenance.model_lines().cloned().collect();
    if lines.is_empty() {
        lines.extend(main.into_iter().flat_map(|s| s.lines.iter().cloned()));
    }
    lines.sort();
    lines.dedup();
    Row {
        launches: vec![index],
        family: kernel.family(),
        shape: kernel.shape(),
        ops: provenance.ops_text(),
        scope: if general { generalise(&name) } else { name },
        lines,
        why,
        flops: launch.flops,
        bytes: launch.bytes,
    }
}

/// What is in the arena when most of it is in use; `None` if the plan has no temporaries.
pub fn peak(plan: &Plan) -> Option<Peak> {
    let uses = plan.uses();
    let alive = |launch: usize| {
        plan.buffers.iter().zip(&uses).filter(move |(buffer, uses)| {
            matches!(buffer.place, Place::Temp { .. })
                && uses.is_some_and(|(first, last)| first <= launch && launch <= last)
        })
    };
    let total = |launch: usize| alive(launch).map(|(b, _)| b.bytes()).sum::<usize>();
    // Of equal moments the first.
    let launch = (0..plan.launches.len()).rev().max_by_key(|&i| total(i)).filter(|&i| total(i) > 0)?;
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (buffer, _) in alive(launch) {
        let entry = kinds.entry(buffer.kind()).or_default();
        *entry = (entry.0 + 1, entry.1 + buffer.bytes());
    }
    let mut holds: Vec<(String, usize, usize)> = kinds.into_iter().map(|(k, (n, b))| (k, n, b)).collect();
    holds.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
    Some(Peak { launch, bytes: total(launch), holds })
}

/// A program's traffic in passes over the activation that it keeps most often.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Passes {
    /// Times that such an activation could be read or written with a layer's share of the program's bytes.
    pub per_layer: f64,
    /// Layers: different numbers in scopes.
    pub layers: usize,
    /// Elements of the activation for each token.
    pub width: usize,
    /// Its element type.
    pub dtype: DType,
}

/// The passes of a plan for so many tokens; `None` if it has no layers or keeps nothing for each token.
pub fn passes(plan: &Plan, tokens: usize) -> Option<Passes> {
    let number = |scope: &str| scope.split('.').find_map(|part| part.parse::<usize>().ok());
    let sites = plan.launches.iter().flat_map(|l| &l.provenance.sites);
    let layers = sites.filter_map(|s| number(&s.scope)).collect::<BTreeSet<usize>>().len();
    let mut kept: BTreeMap<(usize, DType), usize> = BTreeMap::new();
    for buffer in &plan.buffers {
        let is_activation = matches!(buffer.place, Place::Temp { .. }) && buffer.dtype.is_float();
        if is_activation && buffer.len > tokens && buffer.len % tokens == 0 {
            *kept.entry((buffer.len / tokens, buffer.dtype)).or_default() += 1;
        }
    }
    let (&(width, dtype), _) = kept.iter().max_by_key(|(_, count)| **count)?;
    let pass = (tokens * width * dtype.size()) as f64;
    (layers > 0).then(|| Passes { per_layer: plan.bytes() / pass / layers as f64, layers, width, dtype })
}

/// A whole plan in a few dozen lines, for golden files: `{}` of this.
pub struct Digest<'a>(pub &'a Plan);

impl fmt::Display for Digest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        writeln!(
            f,
            "{}: {} launches of {} kernels, {:.3e} FLOP, {:.3e} bytes, arena {:.3e} bytes",
            plan.program,
            plan.launches.len(),
            plan.kernels.len(),
            plan.flops(),
            plan.bytes(),
            plan.arena_bytes as f64
        )?;
        for row in rows(plan, false) {
            let Row { family, shape, ops, scope, .. } = &row;
            writeln!(
                f,
                "  ×{} {family} [{shape}] {ops} — {scope}: {}",
                row.launches.len(),
                row.why.join("; ")
            )?;
        }
        if let Some(peak) = peak(plan) {
            writeln!(f, "  at most {:.3e} bytes, of which", peak.bytes as f64)?;
            for (kind, count, bytes) in peak.holds.iter().take(12) {
                writeln!(f, "    {:.3e} ×{count} {kind}", *bytes as f64)?;
            }
        }
        Ok(())
    }
}
