//! Tokens from text. rustc's own lexer finds them; what no token can be is said here, where it begins rather than where it
//! was noticed.

use std::borrow::Cow;
use std::sync::Arc;

use ra_ap_rustc_lexer::{DocStyle, FrontmatterAllowed, LiteralKind, TokenKind, strip_shebang, tokenize};

use super::delimiters::Delimiters;
use super::diag::Diagnostic;
use super::limits::MAX_SOURCE_BYTES;
use super::literal::literal_of;
use super::span::Span;
use super::token::{INNER_DOC, Kind, Token, Tokens, lifetime, word};

/// Lexes a text.
///
/// # Errors
/// The first thing that is no token, an unbalanced delimiter, or a text that is too long or nests too deep.
pub(crate) fn lex(file: &Arc<str>, text: &str) -> Result<Vec<Token>, Box<Diagnostic>> {
    lex_from(file, text, (1, 1))
}

/// [`lex`] of a part of a file that begins at a line and column.
///
/// # Errors
/// As [`lex`].
pub(crate) fn lex_from(
    file: &Arc<str>,
    text: &str,
    start: (u32, u32),
) -> Result<Vec<Token>, Box<Diagnostic>> {
    if text.len() > MAX_SOURCE_BYTES {
        let message =
            format!("a model's text has at most {MAX_SOURCE_BYTES} bytes, and {file} has {}", text.len());
        return Err(Box::new(Diagnostic::error(&Span::whole(file.clone()), message)));
    }
    // As rustc reads a file; no column moves.
    let text: Cow<'_, str> =
        if text.contains("\r\n") { text.replace("\r\n", "\n").into() } else { text.into() };
    let mut lexer =
        Lexer { file, delimiters: Delimiters::default(), open_string: None, out: Tokens::new(file) };
    lexer.all(&text, start)?;
    Ok(lexer.out.finish())
}

struct Lexer<'f> {
    file: &'f Arc<str>,
    delimiters: Delimiters,
    /// The first string that goes over its line: behind a forgotten quote all strings are inside out.
    open_string: Option<Span>,
    out: Tokens<'f>,
}

impl Lexer<'_> {
    fn all(&mut self, text: &str, start: (u32, u32)) -> Result<(), Box<Diagnostic>> {
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut at = strip_shebang(body).unwrap_or(0);
        let mut place = Position { line: start.0, column: start.1, indent: 0, is_indent: true };
        let mut tokens = tokenize(&body[at..], FrontmatterAllowed::No).peekable();
        while let Some(token) = tokens.next() {
            let written = &body[at..at + token.len as usize];
            at += written.len();
            let start = place;
            place.advance(written);
            let is_last = tokens.peek().is_none_or(|next| punctuation(next.kind).is_none());
            self.token(token.kind, written, start, place, is_last).map_err(|d| self.blame_open_string(d))?;
        }
        match self.delimiters.unclosed(self.file, (place.line, place.column)) {
            Some(d) => Err(self.blame_open_string(Box::new(d))),
            None => Ok(()),
        }
    }

    fn token(
        &mut self,
        kind: TokenKind,
        written: &str,
        start: Position,
        end: Position,
        is_last: bool,
    ) -> Result<(), Box<Diagnostic>> {
        let place = [start.loc(), end.loc()];
        if let Some(c) = punctuation(kind) {
            self.out.punct(c, place, is_last);
            return Ok(());
        }
        let kind = match kind {
            TokenKind::Whitespace => {
                self.out.end_run();
                return Ok(());
            }
            TokenKind::LineComment { doc_style }
            | TokenKind::BlockComment { doc_style, terminated: true } => match doc_style {
                None => {
                    self.out.end_run();
                    return Ok(());
                }
                Some(DocStyle::Inner) => Kind::Odd(INNER_DOC.into()),
                Some(DocStyle::Outer) => {
                    let is_block = written.starts_with("/*");
                    let end = if is_block { written.len() - 2 } else { written.len() };
                    Kind::Doc(written[3..end].into())
                }
            },
            TokenKind::Literal { kind, suffix_start } => {
                self.literal(written, kind, suffix_start, start, end)?
            }
            TokenKind::Ident | TokenKind::RawIdent | TokenKind::UnknownPrefix => word(written),
            TokenKind::Lifetime { .. } | TokenKind::RawLifetime | TokenKind::UnknownPrefixLifetime => {
                lifetime(written)
            }
            TokenKind::OpenParen | TokenKind::OpenBrace | TokenKind::OpenBracket => {
                let delimiter = if written == "(" {
                    '('
                } else if written == "{" {
                    '{'
                } else {
                    '['
                };
                self.delimiters.open(delimiter, start.loc(), start.indent);
                Kind::Open(delimiter)
            }
            TokenKind::CloseParen | TokenKind::CloseBrace | TokenKind::CloseBracket => {
                let delimiter = if written == ")" {
                    ')'
                } else if written == "}" {
                    '}'
                } else {
                    ']'
                };
                self.delimiters.close(self.file, delimiter, start.loc(), start.indent)?;
                Kind::Close(delimiter)
            }
            _ => return Err(Box::new(self.no_token(kind, written, place))),
        };
        self.out.push(kind, place)
    }

    fn literal(
        &mut self,
        written: &str,
        kind: LiteralKind,
        suffix_start: u32,
        start: Position,
        end: Position,
    ) -> Result<Kind, Box<Diagnostic>> {
        let quote = Span::at(&self.span([start.loc(), end.loc()]).loc());
        let is_open = matches!(
            kind,
            LiteralKind::Str { terminated: false }
                | LiteralKind::ByteStr { terminated: false }
                | LiteralKind::CStr { terminated: false }
                | LiteralKind::RawStr { n_hashes: None }
                | LiteralKind::RawByteStr { n_hashes: None }
                | LiteralKind::RawCStr { n_hashes: None }
        );
        if is_open {
            return Err(Box::new(Diagnostic::error(&quote, UNTERMINATED)));
        }
        let token = literal_of(written, kind, suffix_start as usize);
        if token == Kind::OpenString {
            self.open_string.get_or_insert(quote);
        }
        Ok(token)
    }

    /// What is said of something that is no token.
    fn no_token(&self, kind: TokenKind, written: &str, place: [(u32, u32); 2]) -> Diagnostic {
        let span = self.span(place);
        if matches!(kind, TokenKind::BlockComment { .. }) {
            return Diagnostic::error(&Span::at(&span.loc()), "unterminated block comment")
                .help("`*/` ends it; such comments nest");
        }
        let d = Diagnostic::error(&span, format!("unknown start of token: `{written}`"));
        match LOOKALIKES.iter().find(|(c, _)| written.starts_with(*c)) {
            Some((_, "")) => d.help("this is no space that separates words; a plain one is"),
            Some((_, plain)) => d.help(format!("it looks like `{plain}`, which is what a program has")),
            None => d,
        }
    }

    fn span(&self, [start, end]: [(u32, u32); 2]) -> Span {
        Span { file: self.file.clone(), start, end }
    }

    /// A mistake that a forgotten quote led to, at that quote.
    fn blame_open_string(&self, d: Box<Diagnostic>) -> Box<Diagnostic> {
        match &self.open_string {
            Some(quote) if d.span != *quote => {
                Box::new(open_string(quote).label(&d.span, format!("which leads to: {}", d.message)))
            }
            _ => d,
        }
    }
}

const UNTERMINATED: &str = "unterminated double quote string";

/// What is said of a string that goes over its line, at its quote.
pub(super) fn open_string(quote: &Span) -> Diagnostic {
    Diagnostic::error(quote, UNTERMINATED).here("this string does not end on its line")
}

/// Characters of prose and mathematics, with what a program has in their place.
const LOOKALIKES: [(char, &str); 17] = [
    ('“', "\""),
    ('”', "\""),
    ('„', "\""),
    ('‘', "\""),
    ('’', "\""),
    ('–', "-"),
    ('—', "-"),
    ('−', "-"),
    ('×', "*"),
    ('·', "*"),
    ('÷', "/"),
    ('≤', "<="),
    ('≥', ">="),
    ('≠', "!="),
    ('→', "=>"),
    ('…', ".."),
    ('\u{a0}', ""),
];

/// The character of a token that may be part of a longer operator.
fn punctuation(kind: TokenKind) -> Option<char> {
    Some(match kind {
        TokenKind::Semi => ';',
        TokenKind::Comma => ',',
        TokenKind::Dot => '.',
        TokenKind::At => '@',
        TokenKind::Pound => '#',
        TokenKind::Tilde => '~',
        TokenKind::Question => '?',
        TokenKind::Colon => ':',
        TokenKind::Dollar => '$',
        TokenKind::Eq => '=',
        TokenKind::Bang => '!',
        TokenKind::Lt => '<',
        TokenKind::Gt => '>',
        TokenKind::Minus => '-',
        TokenKind::And => '&',
        TokenKind::Or => '|',
        TokenKind::Plus => '+',
        TokenKind::Star => '*',
        TokenKind::Slash => '/',
        TokenKind::Caret => '^',
        TokenKind::Percent => '%',
        _ => return None,
    })
}

/// A place in a text, counted from 1, with the indentation of its line.
#[derive(Clone, Copy)]
struct Position {
    line: u32,
    column: u32,
    indent: u32,
    /// Whether only white space stands before it.
    is_indent: bool,
}

impl Position {
    fn advance(&mut self, written: &str) {
        for c in written.chars() {
            if c == '\n' {
                *self = Position { line: self.line + 1, column: 1, indent: 0, is_indent: true };
                continue;
            }
            self.column += 1;
            self.is_indent &= c.is_whitespace();
            self.indent += u32::from(self.is_indent);
        }
    }

    fn loc(self) -> (u32, u32) {
        (self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::limits::{MAX_NESTING, MAX_TOKENS};
    use crate::lang::stream::flatten;

    fn kinds(text: &str) -> Vec<Kind> {
        lex(&"m.rs".into(), text).unwrap().into_iter().map(|t| t.kind).collect()
    }

    /// Message, place of the finding, and places of its labels.
    fn refusal(text: &str) -> (String, (u32, u32), Vec<(u32, u32)>) {
        let d = lex(&"m.rs".into(), text).unwrap_err();
        (d.message.clone(), d.span.start, d.labels.iter().map(|(span, _)| span.start).collect())
    }

    #[test]
    fn operators_are_as_long_as_they_can_be() {
        let puncts = |text: &str| -> Vec<&str> {
            kinds(text).iter().filter_map(|k| if let Kind::Punct(p) = k { Some(*p) } else { None }).collect()
        };
        assert_eq!(puncts("a==-b..c&&!d||e=>f"), ["==", "-", "..", "&&", "!", "||", "=>"]);
        assert_eq!(puncts("a . . b + = c =/**/= d"), [".", ".", "+", "=", "=", "="]);
        assert_eq!(puncts("a <- b; a<<=1"), ["<", "-", ";", "<<="]);
    }

    #[test]
    fn comments_are_docs_or_nothing() {
        let doc = |s: &str| Kind::Doc(s.into());
        assert_eq!(kinds("/// a\r\n/** b */ // c\n//// d\n/* e /* f */ */"), [doc(" a"), doc(" b ")]);
        assert_eq!(kinds("#[doc = \" a\"]"), [doc(" a")]);
        assert!(matches!(&kinds("//! a")[..], [Kind::Odd(why)] if why.contains("//!")));
    }

    /// The macro and the command read the same: what rustc's lexer hands over is what ours finds, places included.
    #[test]
    fn a_text_and_a_stream_have_the_same_tokens() {
        let text = "/// Doc.\n//! inner\nfn f(x, y = -1.5e3) { x[0]..=y => \"a\\nb\" r#\"c\"# 0x1f 'a' 1u8 'b }\n#[doc = \"d\"] é";
        let file: Arc<str> = "m.rs".into();
        let stream = flatten(&file, text.parse().unwrap()).unwrap();
        for (ours, rustc) in lex(&file, text).unwrap().iter().zip(&stream) {
            assert_eq!(ours, rustc);
        }
        assert_eq!(lex(&file, text).unwrap().len(), stream.len());
    }

    #[test]
    fn lines_end_in_either_way_and_words_are_composed() {
        let text = "/// a\n/** b\nc */ \"d\\\n  e\" r\"f\ng\" h";
        assert_eq!(kinds(text), kinds(&text.replace('\n', "\r\n")));
        assert_eq!(kinds("a\u{308}"), kinds("\u{e4}"));
    }

    #[test]
    fn delimiters_nest_to_the_limit() {
        let nested = |n: usize| format!("{}{}", "(".repeat(n), ")".repeat(n));
        assert_eq!(kinds(&nested(MAX_NESTING)).len(), 2 * MAX_NESTING);
        let (message, at, _) = refusal(&nested(MAX_NESTING + 1));
        assert_eq!((&*message, at), ("delimiters nest more than 128 deep", (1, MAX_NESTING as u32 + 1)));
        assert!(lex(&"m.rs".into(), &nested(200_000)).is_err());
    }

    #[test]
    fn files_have_a_length() {
        assert_eq!(kinds(&"a ".repeat(MAX_TOKENS)).len(), MAX_TOKENS);
        assert!(refusal(&"a ".repeat(MAX_TOKENS + 1)).0.contains("at most 262144 tokens"));
        assert_eq!(kinds(&" ".repeat(MAX_SOURCE_BYTES)).len(), 0);
        assert!(refusal(&" ".repeat(MAX_SOURCE_BYTES + 1)).0.contains("at most 1048576 bytes"));
    }

    #[test]
    fn a_forgotten_quote_is_blamed_where_it_is() {
        let text = "a {\n  x(\"one);\n  y(\"two\");\n}\n";
        let (message, at, labels) = refusal(text);
        assert_eq!((&*message, at, labels), (UNTERMINATED, (2, 5), vec![(3, 9)]));
        // The quotes are even, and a delimiter is what fails.
        let (message, at, _) = refusal("a {\n  x(\"one, [);\n  y(\"two]); }\n");
        assert_eq!((&*message, at), (UNTERMINATED, (2, 5)));
        // Nothing fails: the parser sees it.
        assert!(kinds("x(\"one);\n  \")").contains(&Kind::OpenString));
        assert_eq!(kinds("\"a\\\n  b\""), [Kind::Text("ab".into())]);
    }

    #[test]
    fn a_forgotten_brace_is_blamed_by_indentation() {
        let (message, _, labels) = refusal("a {\n  b {\n    c();\n  d {\n  }\n}\n");
        assert_eq!((&*message, labels), ("unclosed delimiter: `{`", vec![(2, 5), (6, 1)]));
        let (message, at, labels) = refusal("a {\n  b {\n  }\n  }\n}\n");
        assert_eq!(
            (&*message, at, labels),
            ("unexpected closing delimiter: `}`", (5, 1), vec![(1, 3), (4, 3)])
        );
        assert_eq!(refusal("f(a]").1, (1, 4));
    }

    #[test]
    fn look_alikes_are_named() {
        let help = |text: &str| lex(&"m.rs".into(), text).unwrap_err().help.unwrap_or_default();
        assert!(help("“a”").contains("`\"`"));
        assert!(help("a − b").contains("`-`"));
        assert!(help("a\u{a0}b").contains("space"));
        assert_eq!(lex(&"m.rs".into(), "\u{feff}#!/usr/bin/env pg\na").unwrap().len(), 1);
    }
}
