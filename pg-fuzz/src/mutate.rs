//! Mutated texts: model files, the standard library's functions and graphs in text, cut, repeated, spliced and nested. A
//! text is read and evaluated to its end, however little sense it makes: it gives a model, a graph or findings.

use pg_ir::graph::Graph;
use pg_ir::lang::{Options, Source, elaborate, reference};
use pg_ir::{programs, verify};

use crate::rng::Rng;

/// What came of a mutated text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A model, or a graph.
    Accepted,
    /// Findings.
    Refused,
}

/// As much of a graph as is mutated, so that a text takes milliseconds.
const GRAPH_LINES: usize = 150;

/// What is mutated.
pub struct Corpus {
    /// Model files, and one with the standard library's functions; in pieces.
    models: Vec<Vec<String>>,
    /// The beginnings of graphs in text, in pieces.
    graphs: Vec<Vec<String>>,
}

impl Corpus {
    /// Of these model files: a name and a text each. A base is found by the end of its name.
    ///
    /// # Panics
    /// If one of them is no model.
    pub fn new(files: &[(String, String)]) -> Corpus {
        let mut models: Vec<Vec<String>> = files.iter().map(|(_, text)| split(text)).collect();
        let library: Vec<String> = reference().into_iter().filter_map(|r| r.text).collect();
        models.push(split(&format!("pg_macros::model! {{ library {{\n{}\n}} }}", library.join("\n"))));
        let mut graphs = Vec::new();
        for (name, text) in files {
            let source = Source::parse(name, text, &|base| base_of(files, base));
            let model = source.and_then(|source| elaborate(&source, &Options::default()));
            let model = model.unwrap_or_else(|e| panic!("{name}: {e}"));
            let program = programs::grad(&model, 0, (1, model.train.seq_len), true, false);
            let graph = program.unwrap_or_else(|e| panic!("{name}: {e}")).graph.to_string();
            graphs.push(split(&graph.lines().take(GRAPH_LINES).collect::<Vec<_>>().join("\n")));
        }
        Corpus { models, graphs }
    }

    /// Reads a mutated model file, and differentiates it if it is a model.
    pub fn model(&self, seed: u64, files: &[(String, String)]) -> Outcome {
        let text = mutated(&self.models, &mut Rng::of(seed, "model text"));
        let source = Source::parse("m.rs", &text, &|base| base_of(files, base));
        match source.and_then(|source| elaborate(&source, &Options::default())) {
            Ok(model) => {
                if let Ok(program) = programs::grad(&model, 0, (1, model.train.seq_len), true, false) {
                    verify::verify(&program.graph).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                }
                Outcome::Accepted
            }
            Err(findings) => {
                assert!(
                    findings.has_errors() && !findings.to_string().is_empty(),
                    "seed {seed}: nothing is said"
                );
                Outcome::Refused
            }
        }
    }

    /// Reads a mutated graph, which reads back as itself if it is one.
    pub fn graph(&self, seed: u64) -> Outcome {
        let text = mutated(&self.graphs, &mut Rng::of(seed, "graph text"));
        match Graph::parse(&text) {
            Ok(graph) => {
                assert_eq!(Graph::parse(&graph.to_string()).as_ref(), Ok(&graph), "seed {seed}");
                Outcome::Accepted
            }
            Err(e) => {
                assert!(e.starts_with("line "), "seed {seed}: {e}");
                Outcome::Refused
            }
        }
    }
}

fn base_of(files: &[(String, String)], base: &str) -> Result<String, String> {
    let found = files.iter().find(|(name, _)| base.ends_with(name.as_str()));
    found.map(|(_, text)| text.clone()).ok_or_else(|| format!("no file {base}"))
}

/// One of some texts after a few mutations.
fn mutated(of: &[Vec<String>], rng: &mut Rng) -> String {
    let mut pieces = rng.pick(of);
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(pieces.len().max(1)).min(pieces.len());
        let most = 1 << rng.below(7);
        let len = 1 + rng.below(most);
        let end = (at + len).min(pieces.len());
        match rng.below(8) {
            0 => _ = pieces.drain(at..end),
            1 => {
                let copy = pieces[at..end].to_vec();
                let times = 1 << rng.below(8);
                let to = rng.below(pieces.len() + 1);
                pieces.splice(to..to, copy.iter().cycle().take(copy.len() * times).cloned());
            }
            2 => {
                let other = &of[rng.below(of.len())];
                let from = rng.below(other.len());
                let until = (from + len).min(other.len());
                pieces.splice(at..end, other[from..until].iter().cloned());
            }
            3 => nest(&mut pieces, at, end, rng),
            4 | 5 => {
                let other = rng.below(pieces.len().max(1)).min(pieces.len());
                if at < pieces.len() && other < pieces.len() {
                    pieces.swap(at, other);
                }
            }
            _ => {
                let odd: String = rng.pick(&ODD).into();
                pieces.splice(at..end.min(at + 1), [odd]);
            }
        }
    }
    pieces.concat()
}

/// Puts something around some pieces, often more often than it may be.
fn nest(pieces: &mut Vec<String>, at: usize, end: usize, rng: &mut Rng) {
    let (open, close) = rng.pick(&AROUND);
    let most = 1 << rng.below(13);
    let times = 1 + rng.below(most);
    let tail: Vec<String> = pieces.drain(end..).collect();
    let inside: Vec<String> = pieces.drain(at..).collect();
    pieces.push(open.repeat(times));
    pieces.extend(inside);
    pieces.push(close.repeat(times));
    pieces.extend(tail);
}

const AROUND: [(&str, &str); 12] = [
    ("(", ")"),
    ("[", "]"),
    ("{", "}"),
    ("if true {", "}"),
    ("for i in 0..9 {", "}"),
    ("scope(\"s\") {", "}"),
    ("-", ""),
    ("|a| ", ""),
    ("1 + ", ""),
    ("", ".tanh()"),
    ("", "[0]"),
    ("\"{", "}\""),
];

const ODD: [&str; 24] = [
    "0",
    "-1",
    "1e308",
    "9223372036854775807",
    "1099511627777",
    "0.0",
    "\"\"",
    "\"{x}\"",
    "none",
    "true",
    "[]",
    "x",
    "tokens",
    ";",
    ",",
    "..",
    "==",
    "}",
    "(",
    "#",
    "é",
    "param(\"p\", [3], ones)",
    "l.push(l)",
    "x = [x, x];",
];

/// Words, numbers and single other characters.
fn split(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in text.chars() {
        let is_word = c.is_alphanumeric() || c == '_';
        match pieces.last_mut() {
            Some(last) if is_word && in_word => last.push(c),
            _ => pieces.push(c.into()),
        }
        in_word = is_word;
    }
    pieces
}
