//! Strings with `{expression}` parts, which are parsed as texts of their own at the place of the string.

use super::{Parsed, Parser, shortened};
use crate::lang::ast::*;
use crate::lang::lexer::lex;
use crate::lang::span::Span;

impl Parser<'_> {
    /// Splits a string at its `{expression}` parts; `{{` and `}}` are braces.
    pub(super) fn interpolated(&mut self, text: &str) -> Parsed<Expr> {
        self.at += 1;
        let place = self.span_from(self.at - 1);
        let mut parts = Vec::new();
        let mut lit = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            lit.push_str(&rest[..at]);
            let (brace, after) = (&rest[at..at + 1], &rest[at + 1..]);
            if let Some(tail) = after.strip_prefix(brace) {
                lit.push_str(brace);
                rest = tail;
                continue;
            }
            let Some(close) = after.find('}').filter(|_| brace == "{") else {
                let help = "`{name}` is replaced by its value; write `{{` for a brace";
                return self.refuse(&place, &format!("unmatched `{brace}` in a string"), help);
            };
            parts.push(TextPart::Lit(std::mem::take(&mut lit)));
            parts.push(TextPart::Expr(self.inside_text(&after[..close], &place)?));
            rest = &after[close + 1..];
        }
        lit.push_str(rest);
        parts.push(TextPart::Lit(lit));
        self.node(ExprKind::Text(parts), place)
    }

    /// The expression between the braces of a string.
    fn inside_text(&mut self, code: &str, place: &Span) -> Parsed<Expr> {
        let tokens = lex(self.file, code);
        let parsed = tokens.map_err(|d| d.message).and_then(|tokens| {
            let (file, depth) = (self.file, self.depth);
            let mut p = Parser {
                file,
                tokens: &tokens,
                at: 0,
                depth,
                inside: Some(place.clone()),
                errors: Vec::new(),
            };
            match p.expr() {
                Ok(e) if p.errors.is_empty() && p.at == tokens.len() => Ok(e),
                Ok(_) if p.errors.is_empty() => Err("one expression is expected".to_string()),
                _ => Err(p.errors.swap_remove(0).message),
            }
        });
        match parsed {
            Ok(e) => Ok(e),
            Err(e) => {
                let message = format!("`{{{}}}` in a string: {e}", shortened(code));
                self.refuse(place, &message, "write `{{` for a brace")
            }
        }
    }
}
