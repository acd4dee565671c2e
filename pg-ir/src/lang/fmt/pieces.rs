//! Tokens and comments with what stands between them.

use std::ops::Range;

use ra_ap_rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};

/// What a piece is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Word,
    Literal,
    Punct,
    Open,
    Close,
    /// A comment; a line of it ends the line.
    Comment {
        is_line: bool,
    },
}

/// What punctuation does where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Plain,
    /// An operator before its operand.
    Prefix,
    /// The bar that begins a closure's parameters, and the one that ends them; `||` is both.
    OpenBar,
    CloseBar,
    /// A comma between a closure's parameters.
    Parameter,
}

/// A token or a comment.
#[derive(Clone, Debug)]
pub(super) struct Piece<'t> {
    pub(super) kind: Kind,
    pub(super) role: Role,
    pub(super) text: &'t str,
    /// Where it begins in the text.
    pub(super) start: usize,
    /// Of a delimiter, the index of the other one; else its own.
    pub(super) pair: usize,
    /// Line breaks before it.
    pub(super) newlines: usize,
    /// What stands before it on its line.
    pub(super) gap: &'t str,
}

impl Piece<'_> {
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// What formatting must keep. At the ends of lines of a comment that is no documentation, spaces are nothing.
    pub(super) fn content(&self) -> &str {
        let is_doc = self.text.starts_with("///") || self.text.starts_with("//!");
        if self.kind == (Kind::Comment { is_line: true }) && !is_doc {
            self.text.trim_end()
        } else {
            self.text
        }
    }

    pub(super) fn is_comment(&self) -> bool {
        matches!(self.kind, Kind::Comment { .. })
    }

    pub(super) fn is(&self, text: &str) -> bool {
        self.kind == Kind::Punct && self.text == text
    }
}

/// Operators of several characters, longer ones first: what the parser takes as one.
const JOINED: [&str; 24] = [
    "..=", "...", "<<=", ">>=", "==", "!=", "<=", ">=", "&&", "||", "=>", "->", "::", "..", "+=", "-=", "*=",
    "/=", "%=", "^=", "&=", "|=", "<<", ">>",
];

/// Words behind which an operand begins.
const BEFORE_OPERAND: [&str; 10] =
    ["if", "else", "in", "for", "let", "mut", "move", "match", "while", "return"];

pub(super) fn is_before_operand(word: &str) -> bool {
    BEFORE_OPERAND.contains(&word)
}

/// Reads a text.
pub(super) fn read(text: &str) -> Vec<Piece<'_>> {
    let mut out: Vec<Piece<'_>> = Vec::new();
    let (mut at, mut newlines, mut gap) = (0, 0, "");
    for token in tokenize(text, FrontmatterAllowed::No) {
        let (start, end) = (at, at + token.len as usize);
        at = end;
        let kind = match token.kind {
            TokenKind::Whitespace => {
                newlines += text[start..end].matches('\n').count();
                gap = text[start..end].rsplit('\n').next().unwrap_or_default();
                continue;
            }
            TokenKind::LineComment { .. } => Kind::Comment { is_line: true },
            TokenKind::BlockComment { .. } => Kind::Comment { is_line: false },
            TokenKind::Literal { .. } | TokenKind::Lifetime { .. } => Kind::Literal,
            TokenKind::OpenParen | TokenKind::OpenBrace | TokenKind::OpenBracket => Kind::Open,
            TokenKind::CloseParen | TokenKind::CloseBrace | TokenKind::CloseBracket => Kind::Close,
            _ if end - start == 1
                && text[start..end].starts_with(|c: char| c.is_ascii_punctuation() && c != '_') =>
            {
                Kind::Punct
            }
            _ => Kind::Word,
        };
        // Punctuation that grows into a longer operator.
        if kind == Kind::Punct
            && let Some(last) = out.last_mut()
            && last.kind == Kind::Punct
            && last.end() == start
            && JOINED.contains(&&text[last.start..end])
        {
            last.text = &text[last.start..end];
            continue;
        }
        let text = match kind {
            Kind::Comment { is_line: true } => text[start..end].trim_end_matches('\r'),
            _ => &text[start..end],
        };
        out.push(Piece { kind, role: Role::Plain, text, start, pair: out.len(), newlines, gap });
        (newlines, gap) = (0, "");
    }
    pair(&mut out);
    roles(&mut out);
    out
}

/// The pieces of a range that begins and ends with delimiters of each other.
pub(super) fn within<'t>(all: &[Piece<'t>], range: Range<usize>) -> Vec<Piece<'t>> {
    let first = range.start;
    all[range].iter().map(|piece| Piece { pair: piece.pair - first, ..piece.clone() }).collect()
}

fn pair(pieces: &mut [Piece<'_>]) {
    let mut open = Vec::new();
    for at in 0..pieces.len() {
        match pieces[at].kind {
            Kind::Open => open.push(at),
            Kind::Close => {
                if let Some(other) = open.pop() {
                    (pieces[at].pair, pieces[other].pair) = (other, at);
                }
            }
            _ => {}
        }
    }
}

fn roles(pieces: &mut [Piece<'_>]) {
    // Whether an operand ends before the piece at hand.
    let mut is_behind_operand = false;
    // Delimiters within which closures' parameters are being read.
    let mut bars: Vec<usize> = Vec::new();
    let mut depth = 0_usize;
    for piece in pieces.iter_mut().filter(|piece| !piece.is_comment()) {
        let is_in_bars = bars.last() == Some(&depth);
        piece.role = match (piece.kind, piece.text) {
            (Kind::Punct, "|") if is_in_bars => Role::CloseBar,
            (Kind::Punct, "|" | "||") if !is_behind_operand => Role::OpenBar,
            (Kind::Punct, "-" | "!" | "&" | "*") if !is_behind_operand => Role::Prefix,
            (Kind::Punct, ",") if is_in_bars => Role::Parameter,
            _ => Role::Plain,
        };
        match (piece.kind, piece.role) {
            (Kind::Open, _) => depth += 1,
            (Kind::Close, _) => depth = depth.saturating_sub(1),
            (_, Role::OpenBar) if piece.text == "|" => bars.push(depth),
            (_, Role::CloseBar) => _ = bars.pop(),
            _ => {}
        }
        // Bars that no bar closes end with their delimiters.
        while bars.last().is_some_and(|&bar| bar > depth) {
            bars.pop();
        }
        is_behind_operand = match piece.kind {
            Kind::Word => !is_before_operand(piece.text),
            Kind::Literal | Kind::Close => true,
            Kind::Punct | Kind::Open => false,
            Kind::Comment { .. } => is_behind_operand,
        };
    }
}
