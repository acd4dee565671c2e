//! Steps as text: the comments of a generated kernel.

use std::fmt::Write as _;

use super::lowered::{LoweredRegion, Step};
use crate::region::{Affine, IndexMap};

impl LoweredRegion {
    /// One step as a line, as in `%3 = mul %1, %2`.
    pub(crate) fn line(&self, step: usize) -> String {
        let right = match &self.steps[step] {
            Step::Load { arg, map } => format!("load arg{arg}[{}]", index_map(map)),
            Step::Gather { arg, row, rows, stride, map } => {
                format!("gather arg{arg}[{stride}·%{row} + {}] of {rows} rows", index_map(map))
            }
            Step::Float(c) => format!("{c:?}"),
            Step::Int(c) => format!("{c}"),
            Step::Index(a) => format!("index {}", affine(a)),
            Step::Unary(f, x) => format!("{} %{x}", lower(f)),
            Step::Binary(f, a, b) => format!("{} %{a}, %{b}", lower(f)),
            Step::Select(c, a, b) => format!("select %{c}, %{a}, %{b}"),
            Step::Cast(to, x) => format!("cast {to} %{x}"),
            Step::Magnitude(x) => format!("magnitude %{x}"),
            Step::GridScale(grid, x) => format!("scale of {grid} from %{x}"),
            Step::GridValue(grid, x, s) => format!("%{x} on {grid} with scale %{s}"),
            Step::RowReduce(kind, x) => format!("row {} %{x}", lower(kind)),
            Step::Permute(perm, x) => format!("columns [{}] of %{x}", runs(perm)),
            Step::Store { arg, value, at } => return format!("store arg{arg}[{}] = %{value}", affine(at)),
            Step::Accumulate { arg, value, kind, at } => {
                return format!("accumulate arg{arg}[{}] {}= %{value}", affine(at), lower(kind));
            }
        };
        format!("%{step} = {right}")
    }
}

fn lower(name: &impl std::fmt::Debug) -> String {
    format!("{name:?}").to_lowercase()
}

/// `512·i0 + column`.
fn affine(a: &Affine) -> String {
    let rank = a.strides.len();
    let mut text = String::new();
    for (i, &stride) in a.strides.iter().enumerate().filter(|(_, s)| **s != 0) {
        if !text.is_empty() {
            text += if stride < 0 { " − " } else { " + " };
        } else if stride < 0 {
            text += "−";
        }
        if stride.abs() != 1 {
            let _ = write!(text, "{}·", stride.abs());
        }
        text += &if i + 1 == rank { "column".to_owned() } else { format!("i{i}") };
    }
    match (text.is_empty(), a.offset) {
        (true, offset) => offset.to_string(),
        (false, 0) => text,
        (false, offset) => format!("{text} {} {}", if offset < 0 { "−" } else { "+" }, offset.abs()),
    }
}

fn index_map(map: &IndexMap) -> String {
    let mut text = affine(&map.at);
    for (i, guard) in map.guards.iter().enumerate() {
        let word = if i == 0 { " where" } else { " and" };
        let _ = write!(text, "{word} 0 ≤ {} < {}", affine(&guard.expr), guard.size);
    }
    text
}

/// A permutation as runs of consecutive columns, shortened.
fn runs(perm: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &p in perm {
        match runs.last_mut() {
            Some((_, end)) if *end == p => *end = p + 1,
            _ => runs.push((p, p + 1)),
        }
    }
    let shown: Vec<String> = runs.iter().take(6).map(|(a, b)| format!("{a}..{b}")).collect();
    if runs.len() > 6 { format!("{}, …", shown.join(", ")) } else { shown.join(", ") }
}
