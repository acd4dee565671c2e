//! Findings as text, with the lines that they are about.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use indexmap::IndexMap;

use super::diag::{Diagnostic, Severity};
use super::span::Span;
use crate::lang::model::SourceText;

/// A line with more bytes is not shown.
const LONGEST_LINE: usize = 2000;

/// A place with what is said there, and whether the finding is about it.
struct Mark<'d> {
    span: &'d Span,
    text: &'d str,
    kind: AnnotationKind,
}

/// One finding, each of its files with the marked lines, in the order in which they are first mentioned.
pub(super) fn render(d: &Diagnostic, sources: &[SourceText], renderer: &Renderer) -> String {
    let level = match d.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let own = Mark { span: &d.span, text: &d.here, kind: AnnotationKind::Primary };
    let others = d.labels.iter().map(|(span, text)| Mark { span, text, kind: AnnotationKind::Context });
    let mut files: IndexMap<&str, Vec<Mark<'_>>> = IndexMap::new();
    for mark in std::iter::once(own).chain(others) {
        files.entry(&*mark.span.file).or_default().push(mark);
    }
    let mut group = level.primary_title(d.message.as_str()).elements(Vec::<Origin<'_>>::new());
    for (file, marks) in &files {
        let text = sources.iter().find(|s| *s.file == **file).map_or("", |s| &*s.text);
        group = excerpt(group, file, text, marks);
    }
    if let Some(help) = &d.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group]) + "\n"
}

/// The lines of one file that carry marks. Where there is no line to show, a place and what is said of it.
fn excerpt<'d>(mut group: Group<'d>, file: &'d str, text: &'d str, marks: &[Mark<'d>]) -> Group<'d> {
    let first = marks.iter().map(|m| m.span.start.0).min().unwrap_or(1);
    let start = line_start(text, first);
    let shown: Vec<(&Mark<'_>, Annotation<'_>)> = marks
        .iter()
        .filter_map(|m| Some((m, m.kind.span(range(&text[start?..], first, m.span)?).label(label(m.text)))))
        .collect();
    let hidden = marks.iter().filter(|m| !shown.iter().any(|(s, _)| std::ptr::eq(*s, *m)));
    let hidden: Vec<&Mark<'_>> = hidden.collect();
    if let Some(start) = start.filter(|_| !shown.is_empty()) {
        let annotations = shown.into_iter().map(|(_, annotation)| annotation);
        let snippet = Snippet::source(&text[start..]).line_start(first as usize).path(file);
        group = group.element(snippet.annotations(annotations));
    }
    // A message about a whole file names it.
    let is_whole = |mark: &&Mark<'_>| *mark.span == Span::whole(mark.span.file.clone());
    for mark in hidden.into_iter().filter(|mark| !is_whole(mark)) {
        let (line, column) = mark.span.start;
        group = group.element(Origin::path(file).line(line as usize).char_column(column as usize));
        if !mark.text.is_empty() {
            group = group.element(Level::NOTE.message(mark.text));
        }
    }
    group
}

fn label(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Where a line begins, in bytes.
fn line_start(text: &str, line: u32) -> Option<usize> {
    let ends = text.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends).nth((line as usize).checked_sub(1)?).filter(|&at| at < text.len())
}

/// The bytes of a place in a text whose first line has the number `first`: what of it stands on its own first line.
fn range(text: &str, first: u32, span: &Span) -> Option<std::ops::Range<usize>> {
    let start = line_start(text, span.start.0 + 1 - first)?;
    let line = text[start..].lines().next().filter(|line| line.len() <= LONGEST_LINE)?;
    let at = |column: u32| {
        let mut starts = line.char_indices().map(|(at, _)| at).chain([line.len()]);
        starts.nth(column as usize - 1).unwrap_or(line.len())
    };
    let end = if span.end.0 == span.start.0 { at(span.end.1) } else { line.trim_end().len() };
    let begin = at(span.start.1);
    Some(start + begin..start + end.max(begin))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn shown(text: &str, d: Diagnostic) -> String {
        let sources = [SourceText { file: "m.rs".into(), text: text.into() }];
        render(&d, &sources, &Renderer::plain())
    }

    fn span(line: u32, from: u32, to: u32) -> Span {
        let file: Arc<str> = "m.rs".into();
        Span { file, start: (line, from), end: (line, to) }
    }

    #[test]
    fn excerpts_point_at_their_text() {
        let d = Diagnostic::error(&span(2, 7, 12), "bad")
            .here("this")
            .label(&span(1, 1, 4), "from here")
            .label(&Span { file: "std/x.pg".into(), ..span(3, 1, 2) }, "in the library")
            .help("do");
        insta::assert_snapshot!(shown("one\n  two three\nfour\n", d));
    }

    #[test]
    fn wide_characters_and_tabs_move_no_mark() {
        let d = Diagnostic::error(&span(1, 8, 9), "bad").label(&span(1, 2, 4), "é");
        insta::assert_snapshot!(shown("\té漢 == c\n", d));
    }

    #[test]
    fn places_that_are_not_there_are_said() {
        let whole = Diagnostic::error(&Span::whole("m.rs"), "cannot read m.rs");
        assert_eq!(shown("", whole), "error: cannot read m.rs\n");
        for (text, place) in [("", span(1, 1, 2)), ("a\n", span(7, 3, 4)), ("a\n", span(1, 90, 91))] {
            let text = shown(text, Diagnostic::error(&place, "bad"));
            assert!(text.starts_with("error: bad\n") && text.contains("--> m.rs:"), "{text}");
        }
        let long = format!("{}\n", "x".repeat(LONGEST_LINE + 1));
        let d = Diagnostic::error(&span(1, 5, 6), "bad").here("this");
        let text = shown(&long, d);
        assert!(text.len() < 200 && text.contains("m.rs:1:5") && text.contains("this"), "{text}");
    }
}
