//! Provenance: what a launch computes, in the model's terms. Ops with their counts, and the places of the
//! model text that they come from.
//!
//! It is for people, reports and profiles. No executor may decide anything by it.

use std::fmt;
use std::sync::Arc;

use pg_ir::graph::{Graph, Loc, NodeId, Origin};
use pg_ir::op::Op;

/// A line of a model file or of the standard library.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Line {
    /// File as the user named it, or `std/NAME`.
    pub file: Arc<str>,
    /// Line, from 1; 0 for what a pass made up.
    pub line: u32,
}

impl Line {
    fn of(loc: &Loc) -> Line {
        Line { file: loc.file.clone(), line: loc.line }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A place of a model: a scope in one direction, with the lines of it that a launch computes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Site {
    /// Scope of parameters, as in `blocks.3.mlp`; empty at the top of the model.
    pub scope: Arc<str>,
    /// Whether it is the gradient of those lines.
    pub backward: bool,
    /// How many of the launch's ops stand there, without views and constants.
    pub ops: usize,
    /// Lines, in the order in which the launch computes them, each once.
    pub lines: Vec<Line>,
    /// Lines of the model file whose calls lead to those of `lines` that are in the library, each once.
    pub calls: Vec<Line>,
}

impl Site {
    /// The scope for people: `blocks.3.mlp`, `grad of blocks.3.mlp`, `model` at the top.
    pub fn name(&self) -> String {
        let scope = if self.scope.is_empty() { "model" } else { &*self.scope };
        format!("{}{scope}", if self.backward { "grad of " } else { "" })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.lines.iter().map(Line::to_string).collect();
        write!(f, "{} ({})", self.name(), lines.join(" "))
    }
}

/// What a launch computes, and where in the model that stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Provenance {
    /// What it does besides computing ops, as in `writes @param:bank`; empty for most launches.
    pub task: String,
    /// Names of ops that are not views, each with its count, in order of first use.
    pub ops: Vec<(&'static str, usize)>,
    /// Places of the model, in order of first use.
    pub sites: Vec<Site>,
}

impl Provenance {
    /// Of a launch that computes nothing of the graph.
    pub fn task(what: impl Into<String>) -> Provenance {
        Provenance { task: what.into(), ..Provenance::default() }
    }

    /// Of a launch that computes some nodes.
    pub(crate) fn of(graph: &Graph, nodes: &[NodeId]) -> Provenance {
        let mut out = Provenance::default();
        for &id in nodes {
            let node = graph.node(id);
            let is_work = !node.op.is_view() && !matches!(node.op, Op::Const(..) | Op::Iota(_));
            if is_work {
                let name = node.op.record().name;
                match out.ops.iter_mut().find(|(n, _)| *n == name) {
                    Some((_, count)) => *count += 1,
                    None => out.ops.push((name, 1)),
                }
            }
            out.add_site(&node.origin, usize::from(is_work));
        }
        out
    }

    fn add_site(&mut self, origin: &Origin, ops: usize) {
        let known = self.sites.iter().position(|s| s.scope == origin.scope && s.backward == origin.backward);
        let at = known.unwrap_or_else(|| {
            let (scope, backward) = (origin.scope.clone(), origin.backward);
            self.sites.push(Site { scope, backward, ops: 0, lines: vec![], calls: vec![] });
            self.sites.len() - 1
        });
        let site = &mut self.sites[at];
        site.ops += ops;
        push_once(&mut site.lines, Line::of(&origin.loc));
        if let Some(call) = &origin.call {
            push_once(&mut site.calls, Line::of(call));
        }
    }

    /// The place that most of the launch's ops come from; of several, the last, which is what it leads to.
    pub fn main_site(&self) -> Option<&Site> {
        self.sites.iter().max_by_key(|s| s.ops)
    }

    /// The ops in a few words: `mul×4 add`.
    pub fn ops_text(&self) -> String {
        let times = |count: usize| if count > 1 { format!("×{count}") } else { String::new() };
        let ops = self.ops.iter().map(|(name, count)| format!("{name}{}", times(*count)));
        let words = std::iter::once(self.task.clone()).chain(ops).filter(|w| !w.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }

    /// Every line of the model file that the launch computes a part of, itself or through the library.
    pub fn model_lines(&self) -> impl Iterator<Item = &Line> {
        self.sites.iter().flat_map(|s| s.lines.iter().chain(&s.calls)).filter(|l| !l.file.starts_with("std/"))
    }
}

fn push_once(lines: &mut Vec<Line>, line: Line) {
    if !lines.contains(&line) {
        lines.push(line);
    }
}

/// `mul×4 add — block (model.rs:4), block.norm (std/norm:5)`.
impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ops_text())?;
        let sites: Vec<String> = self.sites.iter().map(Site::to_string).collect();
        write!(f, "{}{}", if sites.is_empty() { "" } else { " — " }, sites.join(", "))
    }
}
