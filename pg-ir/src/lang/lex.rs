//! What rustc would say about text that is not even tokens. Outside of a macro proc-macro2 only says
//! that it cannot parse the string.

use std::sync::Arc;

use super::diag::Diagnostic;
use super::span::Span;

/// Why `text` does not lex.
pub(crate) fn explain(file: &Arc<str>, text: &str, e: Option<proc_macro2::LexError>) -> Diagnostic {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| {
        let before = &chars[..i.min(chars.len())];
        let line = before.iter().filter(|c| **c == '\n').count() as u32 + 1;
        let col = before.iter().rev().take_while(|c| **c != '\n').count() as u32 + 1;
        Span { file: file.clone(), start: (line, col), end: (line, col + 1) }
    };
    let mut open: Vec<(char, usize)> = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let next = chars.get(i + 1).copied();
        match chars[i] {
            '/' if next == Some('/') => {
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
            }
            '/' if next == Some('*') => match skip_comment(&chars, i) {
                Some(end) => i = end,
                None => return Diagnostic::error(&at(i), "unterminated block comment"),
            },
            '"' => match skip_string(&chars, i) {
                Some(end) => i = end,
                None => return Diagnostic::error(&at(i), "unterminated double quote string"),
            },
            // A character literal, not a lifetime.
            '\'' if chars.get(i + 2) == Some(&'\'') && next != Some('\\') => i += 2,
            c @ ('(' | '[' | '{') => open.push((c, i)),
            c @ (')' | ']' | '}') => match open.pop() {
                None => return Diagnostic::error(&at(i), format!("unexpected closing delimiter: `{c}`")),
                Some((o, from)) if closes(o) != c => {
                    let d = Diagnostic::error(&at(i), format!("mismatched closing delimiter: `{c}`"));
                    return d.here("mismatched closing delimiter").label(&at(from), "unclosed delimiter");
                }
                Some(_) => {}
            },
            _ => {}
        }
        i += 1;
    }
    if let Some((o, from)) = open.first() {
        let d =
            Diagnostic::error(&at(chars.len().saturating_sub(1)), "this file contains an unclosed delimiter");
        return d.label(&at(*from), format!("unclosed `{o}`"));
    }
    let span = e.map_or_else(|| Span::whole(file.clone()), |e| Span::new(file, e.span()));
    let found =
        text.lines().nth(span.start.0 as usize - 1).and_then(|l| l.chars().nth(span.start.1 as usize - 1));
    match found {
        Some(c) => Diagnostic::error(&span, format!("unknown start of token: `{c}`")),
        None => Diagnostic::error(&span, "this is not Rust source"),
    }
}

fn closes(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        _ => '}',
    }
}

/// Index of the last character of the (nesting) comment that starts at `i`.
fn skip_comment(chars: &[char], mut i: usize) -> Option<usize> {
    let mut depth = 0;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        if depth == 0 {
            return Some(i + 1);
        }
        i += 2;
    }
    None
}

/// Index of the closing quote of the string that starts at `i`.
fn skip_string(chars: &[char], i: usize) -> Option<usize> {
    let mut j = i + 1;
    while j < chars.len() {
        match chars[j] {
            '\\' => j += 1,
            '"' => return Some(j),
            _ => {}
        }
        j += 1;
    }
    None
}
