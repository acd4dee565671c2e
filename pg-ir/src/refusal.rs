//! Why a proof about a graph failed: in a sentence, and at the lines of the model that lead to it.
//!
//! It says what the proof found and decides nothing.

use std::fmt;

use indexmap::IndexSet;

use crate::graph::{Graph, Loc, Node, Origin, ValueId};
use crate::lang::model::{Model, SourceText};
use crate::lang::{Diagnostic, Diagnostics, Span};

/// A proof that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// What must not be, as "the logits of a position depend on later tokens".
    pub what: String,
    /// How it shows, as "position 0 reads tokens up to the last, 255"; empty where there is no more to say.
    pub how: String,
    /// The nodes that lead to it, from where it begins to where it shows; empty where no node is to blame.
    pub trail: Vec<Mark>,
}

/// A node on the way to what is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The op, with its attributes.
    pub op: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Mark {
    fn of(node: &Node) -> Mark {
        Mark { op: node.op.to_string(), origin: node.origin.clone() }
    }

    /// The line in the model's own text, if it comes from one.
    fn own_place(&self) -> Option<&Loc> {
        Some(self.origin.call.as_ref().unwrap_or(&self.origin.loc)).filter(|loc| is_own(&loc.file))
    }
}

/// Whether a file is the user's: neither the library's nor what a pass made up.
fn is_own(file: &str) -> bool {
    !file.starts_with("std/") && !file.starts_with('<')
}

/// Most lines that are shown between where a refusal begins and where it shows.
const MOST_SHOWN: usize = 6;

impl Refusal {
    /// A refusal that no node is to blame for.
    pub fn new(what: impl Into<String>) -> Refusal {
        Refusal { what: what.into(), how: String::new(), trail: Vec::new() }
    }

    /// With the values that lead to it, from where it shows back to where it begins.
    pub(crate) fn through(self, graph: &Graph, back: &[ValueId]) -> Refusal {
        Refusal { trail: back.iter().rev().map(|&value| Mark::of(graph.producer(value))).collect(), ..self }
    }

    /// With the node that it is about.
    pub(crate) fn at(self, node: &Node) -> Refusal {
        Refusal { trail: vec![Mark::of(node)], ..self }
    }

    fn diagnostic(&self, program: &str, model: &Span, sources: &[SourceText]) -> Diagnostic {
        let mut message = format!("{program} is refused: {}", self.what);
        if !self.how.is_empty() {
            message += &format!(": {}", self.how);
        }
        let span = |loc: &Loc| Span::word(loc, sources.iter().find(|s| s.file == loc.file).map(|s| &*s.text));
        let Some(begin) = self.trail.first() else { return Diagnostic::error(model, message) };
        let scope = match &*begin.origin.scope {
            "" => String::new(),
            scope => format!(" (in `{scope}`)"),
        };
        let here = format!("`{}`{scope}", begin.op);
        let own = begin.own_place();
        let mut diagnostic = match own {
            Some(own) if *own == begin.origin.loc => Diagnostic::error(&span(own), message).here(here),
            Some(own) => Diagnostic::error(&span(own), message)
                .here(format!("this computes {here}"))
                .label(&span(&begin.origin.loc), format!("here, in the library: `{}`", begin.op)),
            None => Diagnostic::error(model, message).label(&span(&begin.origin.loc), here),
        };
        let mut lines: IndexSet<&Loc> = self.trail.iter().filter_map(Mark::own_place).collect();
        lines.retain(|&loc| own.is_none_or(|own| (&own.file, own.line) != (&loc.file, loc.line)));
        let last = lines.pop();
        for &loc in lines.iter().take(MOST_SHOWN) {
            diagnostic = diagnostic.label(&span(loc), "passes through here");
        }
        match last {
            Some(loc) => diagnostic.label(&span(loc), "and shows here"),
            None => diagnostic,
        }
    }
}

impl Model {
    /// What a proof found wrong with a program, at the lines of the model that lead to it. `shape` is sequences and
    /// tokens of each.
    pub fn refused(&self, program: &str, shape: Option<(usize, usize)>, refusal: &Refusal) -> Diagnostics {
        let size = shape.map_or(String::new(), |(batch, seq)| format!(" for {batch} × {seq} tokens"));
        let (name, sources) = (&self.program.ast.name.span, self.program.all_texts());
        let diagnostic = refusal.diagnostic(&format!("program `{program}`{size}"), name, &sources);
        Diagnostics { list: vec![diagnostic], sources }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(Mark { op, origin }) = self.trail.first() {
            write!(f, ": `{op}` at {}", origin.loc)?;
            if let Some(call) = &origin.call {
                write!(f, ", called at {call}")?;
            }
        }
        if !self.how.is_empty() {
            write!(f, ": {}", self.how)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}
