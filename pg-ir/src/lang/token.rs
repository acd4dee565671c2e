//! Tokens of the language: a flat list with places. [`super::lexer`] makes them from text, [`super::stream`] from what the
//! compiler hands to the macro; the parser sees no difference.

use std::sync::Arc;

use unicode_normalization::UnicodeNormalization as _;

use super::diag::Diagnostic;
use super::limits::{MAX_NESTING, MAX_TOKENS, too_deep};
use super::span::Span;

/// What a token is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    /// An identifier or a keyword.
    Word(Arc<str>),
    /// An operator, as long as it can be.
    Punct(&'static str),
    Int(i64),
    Float(f64),
    /// The value of a string literal.
    Text(Arc<str>),
    /// A string that goes over its line, which nobody means.
    OpenString,
    /// A doc comment, without its slashes.
    Doc(Arc<str>),
    /// What Rust has and the language does not, with what is wrong with it.
    Odd(Arc<str>),
    /// An opening or closing delimiter.
    Open(char),
    Close(char),
}

/// One token with its place.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: (u32, u32),
    pub(crate) end: (u32, u32),
}

impl Token {
    pub(crate) fn span(&self, file: &Arc<str>) -> Span {
        Span { file: file.clone(), start: self.start, end: self.end }
    }
}

/// How many tokens the first one and, if it opens a group, the rest of that group are.
pub(crate) fn tree_len(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open(_) => depth += 1,
            Kind::Close(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// A file's tokens, as they are made: single characters of punctuation grow into operators, and there is a bound on how
/// many there are and how deep they nest.
pub(crate) struct Tokens<'f> {
    file: &'f Arc<str>,
    list: Vec<Token>,
    depth: usize,
    /// Punctuation that may grow into a longer operator, with the places of its characters.
    run: Vec<(char, [(u32, u32); 2])>,
}

impl<'f> Tokens<'f> {
    pub(crate) fn new(file: &'f Arc<str>) -> Self {
        Tokens { file, list: Vec::new(), depth: 0, run: Vec::new() }
    }

    /// A character of punctuation; `is_last` if no operator goes on behind it.
    pub(crate) fn punct(&mut self, c: char, place: [(u32, u32); 2], is_last: bool) {
        self.run.push((c, place));
        if is_last {
            self.end_run();
        }
    }

    /// Nothing joins what stands before with what follows.
    pub(crate) fn end_run(&mut self) {
        let mut rest = &self.run[..];
        while let Some((first, [start, _])) = rest.first() {
            let fits = |op: &&&str| {
                op.len() <= rest.len() && op.chars().zip(rest).all(|(c, (found, _))| c == *found)
            };
            let kind = match OPERATORS.iter().find(fits) {
                Some(op) => Kind::Punct(op),
                None => Kind::Odd(format!("`{first}` has no meaning here").into()),
            };
            let length = if let Kind::Punct(op) = kind { op.len() } else { 1 };
            self.list.push(Token { kind, start: *start, end: rest[length - 1].1[1] });
            rest = &rest[length..];
        }
        self.run.clear();
    }

    /// A token that is no punctuation.
    pub(crate) fn push(&mut self, kind: Kind, [start, end]: [(u32, u32); 2]) -> Result<(), Box<Diagnostic>> {
        self.end_run();
        match kind {
            Kind::Open(_) => self.depth += 1,
            Kind::Close(_) => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.list.push(Token { kind, start, end });
        let (last, file) = (&self.list[self.list.len() - 1], self.file);
        if self.depth > MAX_NESTING {
            let (message, help) = too_deep("delimiters");
            return Err(Box::new(Diagnostic::error(&last.span(file), message).help(help)));
        }
        if self.list.len() > MAX_TOKENS {
            let message = format!("a model's text has at most {MAX_TOKENS} tokens, and {file} has more");
            return Err(Box::new(Diagnostic::error(&self.list[MAX_TOKENS].span(file), message)));
        }
        Ok(())
    }

    /// All of them. `#[doc = "text"]`, which is what the compiler makes of a comment, is that comment.
    pub(crate) fn finish(mut self) -> Vec<Token> {
        self.end_run();
        let (all, mut at) = (std::mem::take(&mut self.list), 0);
        let mut list = Vec::with_capacity(all.len());
        while let Some(token) = all.get(at) {
            let (token, length) = match doc_attribute(&all[at..]) {
                Some((kind, length)) => (Token { kind, end: all[at + length - 1].end, ..*token }, length),
                None => (token.clone(), 1),
            };
            list.push(token);
            at += length;
        }
        list
    }
}

fn behind_punct<'t>(tokens: &'t [Token], op: &str) -> Option<&'t [Token]> {
    tokens
        .split_first()
        .filter(|(first, _)| matches!(first.kind, Kind::Punct(found) if found == op))
        .map(|(_, rest)| rest)
}

/// The doc comment that an attribute stands for, and how many tokens it has.
fn doc_attribute(tokens: &[Token]) -> Option<(Kind, usize)> {
    let behind = behind_punct(tokens, "#")?;
    let inner = behind_punct(behind, "!");
    let [open, doc, equals, text, close, ..] = inner.unwrap_or(behind) else { return None };
    let is_doc = open.kind == Kind::Open('[')
        && matches!(&doc.kind, Kind::Word(w) if **w == *"doc")
        && equals.kind == Kind::Punct("=")
        && close.kind == Kind::Close(']');
    let Kind::Text(text) = &text.kind else { return None };
    let kind = if inner.is_some() { Kind::Odd(INNER_DOC.into()) } else { Kind::Doc(text.clone()) };
    is_doc.then_some((kind, 6 + usize::from(inner.is_some())))
}

/// A word, as rustc sees it: two that look the same are the same.
pub(crate) fn word(written: &str) -> Kind {
    Kind::Word(if written.is_ascii() { written.into() } else { written.nfc().collect::<String>().into() })
}

/// What is said of a lifetime, which is mostly a string in single quotes.
pub(crate) fn lifetime(written: &str) -> Kind {
    Kind::Odd(format!("`{written}` has no meaning here: strings have double quotes").into())
}

/// What is wrong with a comment that documents what it stands in.
pub(crate) const INNER_DOC: &str = "a comment of what is around it (`//!`) has no meaning here";

/// Operators, longer ones first.
const OPERATORS: [&str; 45] = [
    "..=", "...", "<<=", ">>=", "==", "!=", "<=", ">=", "&&", "||", "=>", "->", "::", "..", "+=", "-=", "*=",
    "/=", "%=", "^=", "&=", "|=", "<<", ">>", "+", "-", "*", "/", "%", "^", "!", "&", "|", "=", "<", ">",
    "@", ".", ",", ";", ":", "#", "$", "?", "~",
];
