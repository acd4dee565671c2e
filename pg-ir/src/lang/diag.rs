//! Diagnostics: what is wrong, where, where each part of it came from, and what to write instead.

use std::fmt::{self, Write as _};

use annotate_snippets::Renderer;

use super::render::render;
use super::span::Span;
use crate::graph::Loc;
use crate::lang::model::SourceText;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Likely a mistake, but the model is well formed.
    Warning,
    /// There is no model.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What was expected and what was found.
    pub message: String,
    /// The innermost place it is about.
    pub span: Span,
    /// What to say at [`Self::span`] itself, beneath the carets.
    pub here: String,
    /// Other places that took part: calls on the way, where a shape came from, a constant's declaration.
    pub labels: Vec<(Span, String)>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at `span`. Of a very long message only the start is kept.
    pub fn error(span: &Span, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Error,
            message: cut(message.into()),
            span: span.clone(),
            here: String::new(),
            labels: Vec::new(),
            help: None,
        }
    }

    /// Adds what to say beneath the carets.
    pub fn here(mut self, text: impl Into<String>) -> Self {
        self.here = text.into();
        self
    }

    /// Adds another place with what it has to do with this one.
    pub fn label(mut self, span: &Span, text: impl Into<String>) -> Self {
        self.labels.push((span.clone(), cut(text.into())));
        self
    }

    /// Adds what to write instead.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(cut(text.into()));
        self
    }

    /// Adds "a similar name exists" if one does.
    pub fn nearest<'a>(mut self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(best) = nearest(name, known) {
            self.help = Some(format!("a similar name exists: `{best}`"));
        }
        self
    }

    /// The innermost location.
    pub fn loc(&self) -> Loc {
        self.span.loc()
    }

    /// The innermost place inside `file`: the finding's own, or the nearest label's, as a macro needs to
    /// point at a token of its own input.
    pub fn span_in(&self, file: &str) -> Option<&Span> {
        std::iter::once(&self.span).chain(self.labels.iter().map(|(s, _)| s)).find(|s| &*s.file == file)
    }
}

/// Most characters of a message.
const MOST_CHARS: usize = 2000;

/// A message without what is too much of it.
fn cut(mut text: String) -> String {
    if text.len() > MOST_CHARS {
        text.truncate(text.floor_char_boundary(MOST_CHARS));
        text.push('…');
    }
    text
}

/// Names over this length are not compared, and of many names only the first: distances take time quadratic in
/// lengths.
const MOST_COMPARED: (usize, usize) = (64, 4096);

/// The known name closest to `name` by Damerau–Levenshtein distance, if one is close at all.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Any two short names are similar.
    let bound = if name.len() < 3 { 0 } else { 1 + name.len() / 4 };
    let (longest, most) = MOST_COMPARED;
    known
        .into_iter()
        .take(most)
        .filter(|k| *k != name && name.len() <= longest && k.len().abs_diff(name.len()) <= bound)
        .map(|k| (strsim::damerau_levenshtein(&name.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(d, _)| *d <= bound)
        .min()
        .map(|(_, k)| k)
}

/// Findings with the text they are about. As an error it prints like rustc.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diagnostics {
    /// Findings, in the order found.
    pub list: Vec<Diagnostic>,
    /// Texts of the files they mention.
    pub sources: Vec<SourceText>,
}

impl Diagnostics {
    /// One finding without any text.
    pub fn one(diagnostic: Diagnostic) -> Self {
        Diagnostics { list: vec![diagnostic], sources: Vec::new() }
    }

    /// Whether any finding is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first error in one line, with its place.
    pub fn summary(&self) -> String {
        let first = self.list.iter().find(|d| d.severity == Severity::Error).or(self.list.first());
        first.map_or(String::new(), |d| format!("{}: {}", d.loc(), d.message))
    }

    /// One finding with source excerpts, like rustc's.
    pub fn render(&self, d: &Diagnostic) -> String {
        render(d, &self.sources, &Renderer::plain())
    }

    /// [`Self::render`] with colours, as terminals understand them.
    pub fn render_styled(&self, d: &Diagnostic) -> String {
        render(d, &self.sources, &Renderer::styled().hyperlink(false))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_char('\n')?;
            }
            f.write_str(&self.render(d))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("rms_nrom", ["rms_norm", "smear_gate"]), Some("rms_norm"));
        assert_eq!(nearest("LAYER", ["LAYERS", "XSA_LAST"]), Some("LAYERS"));
        assert_eq!(nearest("attention", ["xsa", "rope"]), None);
    }
}
