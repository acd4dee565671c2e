//! The parser: a cursor over tokens, without a look back. Items are read by `items`, bodies by `body` and `expr`.
//!
//! Everything nests to a limit, which is checked before the parser goes deeper. After a mistake it goes on behind
//! the statement or the item, so that independent mistakes are all found in one go.

mod absent;
mod body;
mod expr;
mod items;
mod strings;

use std::sync::Arc;

pub(crate) use self::items::BLOCKS;
use super::ast::*;
use super::diag::Diagnostic;
use super::lexer::lex_from;
use super::limits::{MAX_ERRORS, MAX_NESTING, too_deep};
use super::span::Span;
use super::token::{Kind, Token, tree_len};

/// A mistake that has been reported: the statement or item at hand has no meaning.
struct Stop;

type Parsed<T> = Result<T, Stop>;

/// Parses the tokens between the braces of `model! { … }`.
pub(crate) fn model(file: &Arc<str>, tokens: &[Token]) -> (Option<ModelAst>, Vec<Diagnostic>) {
    run(file, tokens, |p| p.model())
}

/// Parses a library file: only functions.
pub(crate) fn library(file: &Arc<str>, tokens: &[Token]) -> (Option<ModelAst>, Vec<Diagnostic>) {
    run(file, tokens, |p| {
        let name = Name { text: file.clone(), span: Span::whole(file.clone()) };
        let mut model = items::empty(name, String::new());
        p.items(&mut model)?;
        Ok(model)
    })
}

/// Parses one expression, such as the value of `--set NAME=VALUE`, which begins at a line and column.
pub(crate) fn expression(file: &Arc<str>, text: &str, start: (u32, u32)) -> (Option<Expr>, Vec<Diagnostic>) {
    match lex_from(file, text, start) {
        Ok(tokens) => run(file, &tokens, |p| p.expr()),
        Err(e) => (None, vec![*e]),
    }
}

fn run<T>(
    file: &Arc<str>,
    tokens: &[Token],
    parse: impl FnOnce(&mut Parser<'_>) -> Parsed<T>,
) -> (Option<T>, Vec<Diagnostic>) {
    let mut p = Parser { file, tokens, at: 0, depth: 0, inside: None, errors: Vec::new() };
    let value = parse(&mut p).ok();
    if value.is_some() && p.errors.is_empty() && p.at < tokens.len() {
        _ = p.expected::<()>("the end");
    }
    (value.filter(|_| p.errors.is_empty()), p.errors)
}

struct Parser<'t> {
    file: &'t Arc<str>,
    tokens: &'t [Token],
    /// The next token.
    at: usize,
    /// Expressions being read, each within the one before.
    depth: usize,
    /// The string literal that the tokens are part of, which is the place of all of them.
    inside: Option<Span>,
    errors: Vec<Diagnostic>,
}

impl<'t> Parser<'t> {
    // ------------------------------------------------------------ tokens

    fn peek(&self) -> Option<&'t Kind> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    fn is(&self, kind: &Kind) -> bool {
        self.peek() == Some(kind)
    }

    fn is_punct(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Kind::Punct(found)) if *found == op)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Kind::Word(found)) if **found == *word)
    }

    /// Whether a group ends here.
    fn is_end(&self) -> bool {
        matches!(self.peek(), None | Some(Kind::Close(_)))
    }

    /// Takes the token if it is this one.
    fn take(&mut self, op: &str) -> bool {
        let found = self.is_punct(op) || self.is_word(op);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, op: &str) -> Parsed<()> {
        match op {
            _ if self.take(op) => Ok(()),
            ";" | "," => self.forgotten(op),
            _ => self.expected(&format!("`{op}`")),
        }
    }

    /// What ends a statement or an entry is missing: behind what it should end, which may be lines before what was found.
    #[cold]
    #[inline(never)]
    fn forgotten<T>(&mut self, op: &str) -> Parsed<T> {
        let (Some(last), None) = (self.at.checked_sub(1).map(|i| &self.tokens[i]), &self.inside) else {
            return self.expected(&format!("`{op}`"));
        };
        let end = Span { file: self.file.clone(), start: last.end, end: (last.end.0, last.end.1 + 1) };
        let d = Diagnostic::error(&end, format!("expected `{op}`, found {}", self.found()));
        self.error(d.here(format!("add `{op}` here")).label(&self.here(), "unexpected"));
        Err(Stop)
    }

    fn open(&mut self, delimiter: char) -> Parsed<()> {
        if !self.is(&Kind::Open(delimiter)) {
            return self.expected(&format!("`{delimiter}`"));
        }
        self.at += 1;
        Ok(())
    }

    /// The end of a group; delimiters match, as the lexer has seen.
    fn close(&mut self, what: &str) -> Parsed<()> {
        if !matches!(self.peek(), Some(Kind::Close(_))) {
            return self.expected(what);
        }
        self.at += 1;
        Ok(())
    }

    /// Any identifier, a keyword too.
    fn word(&mut self, what: &str) -> Parsed<Name> {
        let Some(Kind::Word(text)) = self.peek() else { return self.expected(what) };
        let text = text.clone();
        self.at += 1;
        Ok(Name { text, span: self.span_from(self.at - 1) })
    }

    /// From a token to the last one taken.
    fn span_from(&self, start: usize) -> Span {
        if let Some(span) = &self.inside {
            return span.clone();
        }
        let last = self.at.saturating_sub(1).max(start);
        match (self.tokens.get(start), self.tokens.get(last)) {
            (Some(first), Some(last)) => Span { file: self.file.clone(), start: first.start, end: last.end },
            _ => self.here(),
        }
    }

    /// The next token's place; at the end the last token's.
    fn here(&self) -> Span {
        let token = self.tokens.get(self.at).or(self.tokens.last());
        let span = token.map_or_else(|| Span::whole(self.file.clone()), |t| t.span(self.file));
        self.inside.clone().unwrap_or(span)
    }

    // ------------------------------------------------------------ mistakes

    fn error(&mut self, d: Diagnostic) {
        // One mistake is one finding, and after so many the rest is noise.
        if self.errors.len() < MAX_ERRORS && !self.errors.iter().any(|e| e.span == d.span) {
            self.errors.push(d);
        }
    }

    /// Reports a mistake at a place, with what to write instead if that is not empty. Findings are made here and not
    /// where the parser recurses, whose frames they would fill.
    #[cold]
    #[inline(never)]
    fn refuse<T>(&mut self, at: &Span, message: &str, help: &str) -> Parsed<T> {
        let d = Diagnostic::error(at, message);
        self.error(if help.is_empty() { d } else { d.help(help) });
        Err(Stop)
    }

    /// [`Self::refuse`] at the next token.
    #[cold]
    #[inline(never)]
    fn refuse_here<T>(&mut self, message: &str, help: &str) -> Parsed<T> {
        self.refuse(&self.here(), message, help)
    }

    fn expected<T>(&mut self, what: &str) -> Parsed<T> {
        self.expected_as(what, "")
    }

    /// [`Self::expected`] with what to write instead.
    fn expected_as<T>(&mut self, what: &str, help: &str) -> Parsed<T> {
        if let Some(Kind::Odd(why)) = self.peek() {
            return self.refuse_here(why, "");
        }
        self.refuse_here(&format!("expected {what}, found {}", self.found()), help)
    }

    /// The next token, for a message.
    fn found(&self) -> String {
        match self.peek() {
            None => "the end".into(),
            Some(Kind::Word(w)) => format!("`{}`", shortened(w)),
            Some(Kind::Punct(p)) => format!("`{p}`"),
            Some(Kind::Open(c) | Kind::Close(c)) => format!("`{c}`"),
            Some(Kind::Int(_) | Kind::Float(_)) => "a number".into(),
            Some(Kind::Text(_) | Kind::OpenString) => "a string".into(),
            Some(Kind::Doc(_)) => "a doc comment".into(),
            Some(Kind::Odd(_)) => "a literal".into(),
        }
    }

    /// Skips to behind what began at token `start`: behind the first `;` (or `,`, if that ends it), behind the first
    /// braces if they can end it, or to the end of the group.
    fn skip(&mut self, start: usize, comma: bool) {
        self.at = if self.errors.len() < MAX_ERRORS { start } else { self.tokens.len() };
        let by_braces = !comma && !self.is_word("let") && !self.is_word("const");
        while !self.is_end() {
            let braces = by_braces && self.is(&Kind::Open('{'));
            let last = self.is_punct(";") || (comma && self.is_punct(","));
            self.skip_tree();
            if last || (braces && !self.is_word("else")) {
                return;
            }
        }
    }

    /// Skips one token, or one group.
    fn skip_tree(&mut self) {
        self.at += tree_len(&self.tokens[self.at..]);
    }

    // ------------------------------------------------------------ depth

    /// Reads something one level deeper.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= MAX_NESTING {
            return self.too_deep(&self.here());
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn too_deep<T>(&mut self, at: &Span) -> Parsed<T> {
        let (message, help) = too_deep("expressions");
        self.refuse(at, &message, help)
    }

    /// An expression over its parts; the tree has a bounded height.
    fn node(&mut self, kind: ExprKind, span: Span) -> Parsed<Expr> {
        let height = 1 + kind.tallest_child();
        if height > MAX_NESTING { self.too_deep(&span) } else { Ok(Expr { kind, span, height }) }
    }
}

/// A text for a message: all of it, or its start.
pub(crate) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into(),
    }
}
