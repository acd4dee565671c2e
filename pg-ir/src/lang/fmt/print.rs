//! Lines: their indentation, and the spaces within them.

use super::breaks::shorten;
use super::pieces::{Kind, Piece, Role, is_before_operand};

/// Longer lines are broken at their delimiters, if they have any.
const MAX_WIDTH: usize = 120;
const INDENT: usize = 4;
/// The margin of what stands between delimiters which do not begin in the text.
const NONE: usize = usize::MAX;

/// A line: its pieces, from `first` to before `end`, and how many columns they stand to the right of the margin.
struct Line {
    first: usize,
    end: usize,
    indent: usize,
}

/// The text of pieces, whose first line goes on one that has so many columns already.
pub(super) fn lines(pieces: &mut [Piece<'_>], margin: &str, newline: &str, columns: usize) -> String {
    // Every round breaks what is too long one level deeper.
    loop {
        let lines = layout(pieces);
        let mut has_changed = false;
        for line in &lines {
            let before = if line.first == 0 { columns } else { margin.chars().count() + line.indent };
            let widths = widths(&pieces[line.first..line.end]);
            let is_short = |end: usize| before + widths[end - line.first] <= MAX_WIDTH;
            has_changed |= shorten(pieces, line.first, line.end, is_short);
        }
        if !has_changed {
            return written(pieces, &lines, margin, newline);
        }
    }
}

fn written(pieces: &[Piece<'_>], lines: &[Line], margin: &str, newline: &str) -> String {
    let mut out = String::new();
    for line in lines {
        let parts = &pieces[line.first..line.end];
        if line.first > 0 {
            let is_blank_before = parts[0].newlines > 1;
            out.push_str(newline);
            out.push_str(if is_blank_before { newline } else { "" });
            out.push_str(margin);
            out.push_str(&" ".repeat(line.indent));
        }
        for (i, piece) in parts.iter().enumerate() {
            if i > 0 {
                out.push_str(gap(&parts[i - 1], piece));
            }
            out.push_str(piece.content());
        }
    }
    out
}

/// Columns of a line's first pieces, for each number of them. A comment at its end has none; of a text over several lines the
/// first counts.
fn widths(parts: &[Piece<'_>]) -> Vec<usize> {
    let mut widths = vec![0];
    for (i, piece) in parts.iter().enumerate() {
        let before = widths[i];
        let is_aside = piece.is_comment() && i > 0 && i + 1 == parts.len();
        let text = piece.text.lines().next().unwrap_or_default().chars().count();
        let gap = if i > 0 { gap(&parts[i - 1], piece).len() } else { 0 };
        widths.push(if is_aside { before } else { before + gap + text });
    }
    widths
}

/// The lines. What stands between delimiters is indented from the line that opens them, and what continues a statement
/// from that again.
fn layout(pieces: &[Piece<'_>]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    // Indentations of the lines that open what is open, with the delimiter.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut last_token = NONE;
    for (at, piece) in pieces.iter().enumerate() {
        if at == 0 || piece.newlines > 0 {
            if let Some(line) = lines.last_mut() {
                line.end = at;
            }
            let indent = match open.last() {
                _ if at == 0 => 0,
                Some(&(indent, _)) if piece.kind == Kind::Close => indent,
                inside => {
                    let content = inside.map_or(0, |(indent, _)| indent + INDENT);
                    let delimiter = inside.map_or(NONE, |&(_, at)| at);
                    let continues = last_token != delimiter && continues(pieces, last_token, at, delimiter);
                    content + if continues { INDENT } else { 0 }
                }
            };
            lines.push(Line { first: at, end: pieces.len(), indent });
        }
        match piece.kind {
            Kind::Open => open.push((lines.last().map_or(0, |line| line.indent), at)),
            Kind::Close => _ = open.pop(),
            _ => {}
        }
        if !piece.is_comment() {
            last_token = at;
        }
    }
    lines
}

/// Whether a line that begins with piece `at` goes on with what `before` ends, inside of a delimiter.
fn continues(pieces: &[Piece<'_>], before: usize, at: usize, delimiter: usize) -> bool {
    let Some(before) = pieces.get(before) else { return false };
    if before.is(";") || before.is(",") {
        return false;
    }
    let is_in_braces = pieces.get(delimiter).is_none_or(|open| open.text == "{");
    let is_attribute = |open: usize| open > 0 && pieces[open - 1].is("#");
    match (before.text, &pieces[at]) {
        // Behind a statement's braces an operator goes on, and a word begins.
        ("}", piece) if is_in_braces => {
            piece.kind == Kind::Punct && piece.role == Role::Plain && !piece.is("#")
        }
        ("]", _) if before.kind == Kind::Close && is_attribute(before.pair) => false,
        _ => true,
    }
}

/// What stands between two pieces of a line.
fn gap<'t>(before: &Piece<'t>, piece: &Piece<'t>) -> &'t str {
    if piece.is_comment() {
        // A column of comments is the author's.
        let is_kept = !piece.gap.is_empty() && piece.newlines == 0 && piece.gap.bytes().all(|b| b == b' ');
        return if is_kept { piece.gap } else { " " };
    }
    if is_spaced(before, piece) { " " } else { "" }
}

fn is_spaced(before: &Piece<'_>, piece: &Piece<'_>) -> bool {
    let is_glued_behind = |p: &Piece<'_>| p.is(".") || p.is("..") || p.is("#") || p.is("::");
    match (before.kind, piece.kind) {
        (Kind::Comment { .. }, _) => true,
        (Kind::Open, Kind::Close) => false,
        (Kind::Open, _) => before.text == "{",
        (_, Kind::Close) => piece.text == "}",
        // Digits and a dot would be another number.
        (Kind::Literal, _) if before.text.ends_with('.') && is_glued_behind(piece) => true,
        _ if piece.is(",") || piece.is(";") || piece.is("?") || piece.is(":") => false,
        _ if matches!(before.role, Role::Prefix) || is_glued_behind(before) => false,
        _ if before.role == Role::OpenBar && before.text == "|" => piece.role == Role::CloseBar,
        _ if piece.role == Role::CloseBar => false,
        _ if is_glued_behind(piece) && piece.text != "#" => false,
        (Kind::Word, Kind::Open) if piece.text != "{" => is_before_operand(before.text),
        (Kind::Close | Kind::Literal, Kind::Open) if piece.text != "{" => {
            before.text == "}" && has_gap(piece)
        }
        _ => true,
    }
}

fn has_gap(piece: &Piece<'_>) -> bool {
    !piece.gap.is_empty() || piece.newlines > 0
}
