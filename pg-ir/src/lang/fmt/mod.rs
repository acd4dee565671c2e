//! The formatter: what is between the braces of `model! { … }`, or a library file, with uniform spaces and indentation.
//!
//! Lines are the author's, but for those that are too long; tokens and comments are the author's in any case. What a
//! text means cannot change: its tokens are compared before and after. It reads tokens of its own, because the parser's
//! have no comments.

mod breaks;
mod pieces;
mod print;

use std::ops::Range;
use std::sync::Arc;

use self::pieces::{Kind, Piece};
use super::diag::{Diagnostic, Diagnostics};
use super::source::parse_alone;
use super::span::Span;
use crate::lang::model::SourceText;

/// Files of this extension are functions alone, without `model! { … }` around them.
const LIBRARY: &str = ".pg";

/// The text of a model file, or of a library file, formatted.
///
/// # Errors
/// If the text does not parse.
pub fn format(file: &str, text: &str) -> Result<String, Diagnostics> {
    let is_library = file.ends_with(LIBRARY);
    parse_alone(file, text, is_library)?;
    let all = pieces::read(text);
    let out = match model(&all) {
        _ if is_library => library(text, &all),
        Some(region) => model_file(text, &all, region),
        None => text.into(),
    };
    if !pieces::read(&out).iter().map(Piece::content).eq(all.iter().map(Piece::content)) {
        let file: Arc<str> = file.into();
        let sources = vec![SourceText { file: file.clone(), text: text.into() }];
        let d =
            Diagnostic::error(&Span::whole(file), "internal error: formatting would change what this says");
        return Err(Diagnostics { list: vec![d], sources });
    }
    Ok(out)
}

/// From the opening to the closing delimiter of `model! { … }`.
fn model(all: &[Piece<'_>]) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    let mut before: Vec<usize> = Vec::new();
    for (at, piece) in all.iter().enumerate() {
        match piece.kind {
            Kind::Comment { .. } => continue,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Open => {
                let is_model = matches!(before[..], [.., name, bang]
                    if all[name].text == "model" && all[bang].text == "!");
                if depth == 0 && is_model {
                    let end =
                        (at..all.len()).find(|&end| all[end].kind == Kind::Close && all[end].pair == at)?;
                    return Some(at..end + 1);
                }
                depth += 1;
            }
            _ => {}
        }
        before.push(at);
    }
    None
}

/// A library file.
fn library(text: &str, all: &[Piece<'_>]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let newline = newline(text);
    print::lines(&mut breaks::normalised(all), "", newline, 0) + newline
}

/// A model file, of which only a region changes.
fn model_file(text: &str, all: &[Piece<'_>], region: Range<usize>) -> String {
    let (head, tail) = (&text[..all[region.start].start], &text[all[region.end - 1].end()..]);
    // The line that opens the braces says how deep the closing one stands.
    let line = head.rsplit('\n').next().unwrap_or_default();
    let margin = &line[..line.len() - line.trim_start().len()];
    let mut pieces = breaks::normalised(&pieces::within(all, region));
    let body = print::lines(&mut pieces, margin, newline(text), line.chars().count());
    format!("{head}{body}{tail}")
}

/// How the text ends its lines.
fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}
