//! The reference of the language by topic: what `pg help TOPIC` prints and what docs/LANGUAGE.md consists of.

use std::fmt::Write;

use crate::graph::MAX_NODES;
use crate::lang::builtins::MAX_LIST;
use crate::lang::limits::*;
use crate::ty::MAX_RANK;

/// A chapter of the reference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// What to ask for.
    pub name: &'static str,
    /// Other words for it.
    pub also: &'static [&'static str],
    /// What it is about.
    pub title: &'static str,
    /// Markdown. A block that is marked `pg` is an example: a file, items of a model that derives from `tiny.rs`, or
    /// statements about x [batch, time, DIM]. One that is marked `pg refused` is no model.
    pub text: String,
}

macro_rules! chapters {
    ($(($name:literal, $title:literal, $also:expr)),* $(,)?) => {
        [$(($name, $title, &$also as &[&str], include_str!(concat!("../../../reference/", $name, ".md")))),*]
    };
}

/// Every topic, in the order of the reference.
pub fn topics() -> Vec<Topic> {
    let chapters = chapters![
        ("file", "A model file", ["model", "items", "forward", "comments"]),
        ("values", "Values and constants", ["constants", "const", "kinds", "none"]),
        ("expressions", "Expressions and operators", ["operators", "if", "index"]),
        ("strings", "Strings", ["text"]),
        ("statements", "Statements", ["let", "mut", "for", "loops", "lists", "push", "pop"]),
        ("functions", "Functions and closures", ["fn", "closures", "methods", "arguments"]),
        ("tensors", "Tensors", ["shapes", "axes", "roles", "broadcasting"]),
        (
            "parameters",
            "Parameters and scopes",
            ["param", "scope", "scopes", "shared", "init", "initialisers"]
        ),
        (
            "rules",
            "Rules: quant, optim, export, weight_std",
            ["patterns", "quant", "optim", "optimisers", "weight_std"]
        ),
        ("loss", "The loss, and what only training uses", ["heads", "auxiliary"]),
        ("phases", "Phases", ["triggers"]),
        ("profiles", "Profiles and --set", ["set"]),
        ("from", "Deriving from another model", ["base"]),
        ("causality", "Causality, masks and scans", ["masks", "scans", "proof"]),
        ("absent", "What the language does not have", ["while", "return", "match"]),
        ("examples", "Three models", ["models"]),
    ];
    let chapters = chapters.map(|(name, title, also, text)| Topic { name, also, title, text: text.into() });
    let limits = Topic { name: "limits", also: &["budgets", "nesting"], title: "Limits", text: limits() };
    chapters.into_iter().chain([limits]).collect()
}

fn limits() -> String {
    let mut out = "No text can raise these bounds. The models that come with `pg` use less than a hundredth of each budget.\n\n\
         | of | most |\n|---|---|\n"
        .to_string();
    let mut row = |what: &str, most: u64| _ = writeln!(out, "| {what} | {} |", grouped(most));
    for (what, most) in [
        ("bytes of a file", MAX_SOURCE_BYTES),
        ("tokens of a file", MAX_TOKENS),
        ("characters of a number", MAX_NUMBER_CHARS),
        ("delimiters, expressions and statements within each other", MAX_NESTING),
        ("parameters of a function, and arguments of a call", MAX_ARGUMENTS),
        ("rules in all blocks together", MAX_RULES),
        ("characters of a pattern", MAX_PATTERN_CHARS),
        ("characters of a parameter's full name", MAX_NAME_CHARS),
        ("expressions evaluated within each other, over all calls", MAX_DEPTH),
        ("calls within calls", MAX_CALLS),
        ("lists and closures within each other", MAX_VALUE_DEPTH),
        ("items of a list", MAX_LIST),
        ("axes of a tensor", MAX_RANK),
        ("nodes of a program's graph", MAX_NODES),
    ] {
        row(what, most as u64);
    }
    for (what, resource) in [
        ("steps: expressions evaluated, values compared", Resource::Steps),
        ("items put into lists", Resource::Elements),
        ("bytes of text made", Resource::Bytes),
    ] {
        row(what, resource.limit());
    }
    out += "\nThe last three are of one elaboration, or of one trace of a program.\n";
    out
}

/// 1,048,576
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
