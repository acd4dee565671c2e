//! Tokens from what the compiler hands to the macro, made without recursion.

use std::sync::Arc;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::diag::Diagnostic;
use super::literal::literal;
use super::span::ends;
use super::token::{Kind, Token, Tokens, lifetime, word};

/// The tokens of a stream, groups opened up.
///
/// # Errors
/// Too many tokens, or too deep.
pub(crate) fn flatten(file: &Arc<str>, tokens: TokenStream) -> Result<Vec<Token>, Box<Diagnostic>> {
    let mut out = Tokens::new(file);
    // Streams being walked, each with the closing token of its group.
    let mut open = vec![(tokens.into_iter(), None)];
    // The quote of a lifetime, whose name follows.
    let mut quote: Option<(u32, u32)> = None;
    while let Some((stream, _)) = open.last_mut() {
        match stream.next() {
            None => {
                if let Some((_, Some((kind, place)))) = open.pop() {
                    out.push(kind, place)?;
                }
            }
            Some(TokenTree::Punct(punct)) if punct.as_char() == '\'' => {
                quote = Some(ends(punct.span())[0]);
            }
            Some(TokenTree::Punct(punct)) => {
                out.punct(punct.as_char(), ends(punct.span()), punct.spacing() == Spacing::Alone);
            }
            Some(TokenTree::Group(group)) => {
                let [first, last] = delimiters(&group);
                // A literal that came through another macro stands in a group that nobody wrote.
                let is_plain =
                    group.delimiter() == Delimiter::None && group.stream().into_iter().count() == 1;
                if !is_plain {
                    out.push(first.0, first.1)?;
                }
                open.push((group.stream().into_iter(), (!is_plain).then_some(last)));
            }
            Some(TokenTree::Ident(ident)) => {
                let (written, [start, end]) = (ident.to_string(), ends(ident.span()));
                match quote.take() {
                    Some(quote) => out.push(lifetime(&format!("'{written}")), [quote, end])?,
                    None => out.push(word(&written), [start, end])?,
                }
            }
            Some(TokenTree::Literal(found)) => out.push(literal(&found.to_string()), ends(found.span()))?,
        }
    }
    Ok(out.finish())
}

/// The delimiters of a group with their places. What a macro put around an expression without showing it is a
/// parenthesis.
fn delimiters(group: &Group) -> [(Kind, [(u32, u32); 2]); 2] {
    let (open, close) = match group.delimiter() {
        Delimiter::Parenthesis | Delimiter::None => ('(', ')'),
        Delimiter::Bracket => ('[', ']'),
        Delimiter::Brace => ('{', '}'),
    };
    [(Kind::Open(open), ends(group.span_open())), (Kind::Close(close), ends(group.span_close()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_macro_groups_is_what_it_groups() {
        let grouped = |text: &str| {
            let group = TokenTree::Group(Group::new(Delimiter::None, text.parse().unwrap()));
            flatten(&"m.rs".into(), TokenStream::from(group)).unwrap().len()
        };
        assert_eq!((grouped("\"blocks.*\""), grouped("a + b")), (1, 5));
    }
}
