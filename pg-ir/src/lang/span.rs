//! Source positions of our own. A `proc_macro2::Span` is thread-local and means nothing after the
//! parse, so every span is converted as soon as there are tokens.

use std::sync::Arc;

use crate::graph::Loc;

/// A stretch of a source file. Lines and columns count from 1; the end is exclusive.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Span {
    /// File name as the user gave it, or `std/NAME`.
    pub file: Arc<str>,
    /// Line and column of the first character.
    pub start: (u32, u32),
    /// Line and column just after the last character.
    pub end: (u32, u32),
}

/// Line and column, from 1, of the first character and of the one just after the last.
pub(crate) fn ends(span: proc_macro2::Span) -> [(u32, u32); 2] {
    [span.start(), span.end()].map(|p| (p.line as u32, p.column as u32 + 1))
}

impl Span {
    /// The whole of something that has no text of its own, such as a command line argument.
    pub fn whole(file: impl Into<Arc<str>>) -> Self {
        Span { file: file.into(), start: (1, 1), end: (1, 1) }
    }

    /// From the start of `self` to the end of `other`.
    pub fn to(&self, other: &Span) -> Span {
        Span { file: self.file.clone(), start: self.start, end: other.end }
    }

    /// The first position.
    pub fn loc(&self) -> Loc {
        Loc { file: self.file.clone(), line: self.start.0, col: self.start.1 }
    }

    /// The word of `text` that begins at `loc`, or one character where there is none.
    pub(crate) fn word(loc: &Loc, text: Option<&str>) -> Self {
        let line = text.and_then(|text| text.lines().nth((loc.line as usize).checked_sub(1)?));
        let rest = line.map(|line| line.chars().skip((loc.col as usize).saturating_sub(1)));
        let length = rest.map_or(1, |rest| rest.take_while(|c| c.is_alphanumeric() || *c == '_').count());
        Span { end: (loc.line, loc.col + length.max(1) as u32), ..Span::at(loc) }
    }

    /// The span of one character at `loc`.
    pub fn at(loc: &Loc) -> Self {
        Span { file: loc.file.clone(), start: (loc.line, loc.col), end: (loc.line, loc.col + 1) }
    }
}
