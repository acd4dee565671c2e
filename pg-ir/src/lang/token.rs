//! Tokens of our own: a flat list with places, made without recursion from what proc-macro2 or the compiler lexes.

use std::sync::Arc;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::diag::Diagnostic;
use super::lex;
use super::limits::{MAX_NESTING, MAX_NUMBER_CHARS, MAX_SOURCE_BYTES, MAX_TOKENS, too_deep};
use super::span::{Span, ends};

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
    /// A literal that the language does not have, with what is wrong with it.
    Odd(Arc<str>),
    /// An opening or closing delimiter.
    Open(char),
    Close(char),
}

/// One token with its place.
#[derive(Clone, Debug)]
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

/// Operators of several characters, longer ones first.
const JOINED: [&str; 24] = [
    "..=", "...", "<<=", ">>=", "==", "!=", "<=", ">=", "&&", "||", "=>", "->", "::", "..", "+=", "-=", "*=",
    "/=", "%=", "^=", "&=", "|=", "<<", ">>",
];

const SINGLE: [&str; 22] = [
    "+", "-", "*", "/", "%", "^", "!", "&", "|", "=", "<", ">", "@", ".", ",", ";", ":", "#", "$", "?", "~",
    "'",
];

/// Lexes a text.
pub(crate) fn lex(file: &Arc<str>, text: &str) -> Result<Vec<Token>, Box<Diagnostic>> {
    if text.len() > MAX_SOURCE_BYTES {
        let message =
            format!("a model's text has at most {MAX_SOURCE_BYTES} bytes, and {file} has {}", text.len());
        return Err(Box::new(Diagnostic::error(&Span::whole(file.clone()), message)));
    }
    detached(|| match text.parse::<TokenStream>() {
        Ok(tokens) => flatten(file, tokens),
        Err(e) => Err(Box::new(lex::explain(file, text, Some(e)))),
    })
}

/// Runs `f` with proc-macro2's own tokens. Inside a macro it would lex with the compiler, whose tokens of
/// other files carry no position. Not to be nested, and no token of the compiler's may get into `f`.
fn detached<T>(f: impl FnOnce() -> T) -> T {
    struct Unforce;
    impl Drop for Unforce {
        fn drop(&mut self) {
            proc_macro2::fallback::unforce();
        }
    }
    proc_macro2::fallback::force();
    let _unforce = Unforce;
    f()
}

/// The tokens of a stream, groups opened up. The error is about nesting or length.
pub(crate) fn flatten(file: &Arc<str>, tokens: TokenStream) -> Result<Vec<Token>, Box<Diagnostic>> {
    let mut out: Vec<Token> = Vec::new();
    // Streams being walked, each with the closing token of its group.
    let mut open = vec![(tokens.into_iter(), None)];
    // Punctuation that may grow into a longer operator.
    let mut run: Vec<(char, proc_macro2::Span)> = Vec::new();
    while let Some((stream, _)) = open.last_mut() {
        let tree = stream.next();
        if let Some(TokenTree::Punct(punct)) = &tree {
            run.push((punct.as_char(), punct.span()));
            if punct.spacing() == Spacing::Alone || punct.as_char() == '\'' {
                punctuate(&mut run, &mut out);
            }
            continue;
        }
        punctuate(&mut run, &mut out);
        match tree {
            None => out.extend(open.pop().and_then(|(_, close)| close)),
            Some(TokenTree::Group(group)) => {
                let [first, last] = delimiters(&group);
                if open.len() > MAX_NESTING {
                    let (message, help) = too_deep("delimiters");
                    return Err(Box::new(Diagnostic::error(&first.span(file), message).help(help)));
                }
                // A literal that came through another macro stands in a group that nobody wrote.
                let is_plain =
                    group.delimiter() == Delimiter::None && group.stream().into_iter().count() == 1;
                out.extend((!is_plain).then_some(first));
                open.push((group.stream().into_iter(), (!is_plain).then_some(last)));
            }
            Some(TokenTree::Ident(ident)) => {
                out.push(token(Kind::Word(ident.to_string().into()), ident.span()))
            }
            Some(TokenTree::Literal(literal)) => {
                let span = literal.span();
                out.push(token(value(literal), span));
            }
            Some(TokenTree::Punct(_)) => {}
        }
        if out.len() > MAX_TOKENS {
            let message = format!("a model's text has at most {MAX_TOKENS} tokens, and {file} has more");
            return Err(Box::new(Diagnostic::error(&out[MAX_TOKENS].span(file), message)));
        }
    }
    Ok(out)
}

fn token(kind: Kind, span: proc_macro2::Span) -> Token {
    let [start, end] = ends(span);
    Token { kind, start, end }
}

/// The delimiters of a group. What a macro put around an expression without showing it is a parenthesis.
fn delimiters(group: &Group) -> [Token; 2] {
    let (open, close) = match group.delimiter() {
        Delimiter::Parenthesis | Delimiter::None => ('(', ')'),
        Delimiter::Bracket => ('[', ']'),
        Delimiter::Brace => ('{', '}'),
    };
    [token(Kind::Open(open), group.span_open()), token(Kind::Close(close), group.span_close())]
}

/// Splits a run of punctuation into operators.
fn punctuate(run: &mut Vec<(char, proc_macro2::Span)>, out: &mut Vec<Token>) {
    let mut rest = &run[..];
    while let Some((_, span)) = rest.first() {
        let fits =
            |op: &&&str| op.len() <= rest.len() && op.chars().zip(rest).all(|(c, (found, _))| c == *found);
        // proc-macro2 knows the characters that can be punctuation, and all of them are here.
        let op = JOINED.iter().chain(&SINGLE).find(fits).copied().unwrap_or("?");
        let last = rest[op.len() - 1].1;
        out.push(Token { kind: Kind::Punct(op), start: ends(*span)[0], end: ends(last)[1] });
        rest = &rest[op.len()..];
    }
    run.clear();
}

/// What a literal stands for.
fn value(literal: proc_macro2::Literal) -> Kind {
    let written = literal.to_string();
    let is_number = written.starts_with(|c: char| c.is_ascii_digit());
    // Longer ones are not read at all: that takes time quadratic in their digits.
    if is_number && written.len() > MAX_NUMBER_CHARS {
        let message =
            format!("a number has at most {MAX_NUMBER_CHARS} characters, and this one has {}", written.len());
        return Kind::Odd(message.into());
    }
    let odd = |e: syn::Error| Kind::Odd(e.to_string().into());
    match syn::Lit::new(literal) {
        syn::Lit::Int(i) => i.base10_parse().map_or_else(odd, Kind::Int),
        syn::Lit::Float(f) => f.base10_parse().map_or_else(odd, Kind::Float),
        syn::Lit::Str(s) => Kind::Text(s.value().into()),
        _ => Kind::Odd("literals are integers, floats, booleans and strings".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        lex(&"m.rs".into(), text).unwrap().into_iter().map(|t| t.kind).collect()
    }

    #[test]
    fn operators_are_as_long_as_they_can_be() {
        let puncts = |text: &str| -> Vec<&str> {
            kinds(text).iter().filter_map(|k| if let Kind::Punct(p) = k { Some(*p) } else { None }).collect()
        };
        assert_eq!(puncts("a==-b..c&&!d||e=>f"), ["==", "-", "..", "&&", "!", "||", "=>"]);
        assert_eq!(puncts("a . . b + = c"), [".", ".", "+", "="]);
        assert_eq!(puncts("a <- b; a<<=1"), ["<", "-", ";", "<<="]);
    }

    #[test]
    fn literals_have_values() {
        let text = |s: &str| Kind::Text(s.into());
        assert_eq!(
            kinds(r##"1_000 0x10 1.5e3 "a\n\u{e9}" r#"b"c"# "##),
            [Kind::Int(1000), Kind::Int(16), Kind::Float(1500.0), text("a\n\u{e9}"), text("b\"c")]
        );
        assert!(matches!(&kinds("99999999999999999999")[..], [Kind::Odd(m)] if m.contains("too large")));
        assert!(matches!(&kinds("'c'")[..], [Kind::Odd(m)] if m.contains("literals are")));
    }

    #[test]
    fn what_another_macro_groups_is_what_it_groups() {
        let grouped = |text: &str| {
            let group = TokenTree::Group(Group::new(Delimiter::None, text.parse().unwrap()));
            flatten(&"m.rs".into(), TokenStream::from(group)).unwrap().len()
        };
        assert_eq!((grouped("\"blocks.*\""), grouped("a + b")), (1, 5));
    }

    #[test]
    fn delimiters_nest_to_the_limit() {
        let nested = |n: usize| format!("{}{}", "(".repeat(n), ")".repeat(n));
        assert_eq!(kinds(&nested(MAX_NESTING)).len(), 2 * MAX_NESTING);
        let e = lex(&"m.rs".into(), &nested(MAX_NESTING + 1)).unwrap_err();
        assert_eq!(e.message, "delimiters nest more than 128 deep");
        assert_eq!(e.span.start, (1, MAX_NESTING as u32 + 1));
        assert!(lex(&"m.rs".into(), &nested(200_000)).is_err());
    }

    #[test]
    fn numbers_and_files_have_a_length() {
        let zeros = |n: usize| format!("0.{}", "0".repeat(n));
        assert!(matches!(kinds(&zeros(MAX_NUMBER_CHARS - 2))[..], [Kind::Float(_)]));
        assert!(
            matches!(&kinds(&zeros(MAX_NUMBER_CHARS - 1))[..], [Kind::Odd(m)] if m.contains("at most 64"))
        );
        assert!(matches!(&kinds(&"9".repeat(100_000))[..], [Kind::Odd(m)] if m.contains("100000")));
        let says = |text: String| lex(&"m.rs".into(), &text).unwrap_err().message;
        assert_eq!(kinds(&"a ".repeat(MAX_TOKENS)).len(), MAX_TOKENS);
        assert!(says("a ".repeat(MAX_TOKENS + 1)).contains("at most 262144 tokens"));
        assert_eq!(kinds(&" ".repeat(MAX_SOURCE_BYTES)).len(), 0);
        assert!(says(" ".repeat(MAX_SOURCE_BYTES + 1)).contains("at most 1048576 bytes"));
    }
}
