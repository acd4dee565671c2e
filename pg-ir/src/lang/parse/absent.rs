//! What the language does not have: one clear error each, behind which parsing goes on.

use super::{Parsed, Parser};
use crate::lang::ast::*;
use crate::lang::token::Kind;

impl Parser<'_> {
    pub(super) fn no<T>(&mut self, what: &str, help: &str) -> Parsed<T> {
        self.refuse_here(&format!("the language does not have {what}"), help)
    }

    pub(super) fn unsupported_value(&mut self, what: &str, help: &str) -> Parsed<Expr> {
        self.unsupported(&format!("the language does not have {what}"), help, false)
    }

    pub(super) fn unsupported_braced(&mut self, what: &str, help: &str) -> Parsed<Expr> {
        self.unsupported(&format!("the language does not have {what}"), help, true)
    }

    /// Reports all up to `;`, `,` or the end of the group, or up to the end of its braces.
    pub(super) fn unsupported(&mut self, message: &str, help: &str, braced: bool) -> Parsed<Expr> {
        let start = self.at;
        while !self.is_end() && !self.is_punct(";") && !self.is_punct(",") {
            let last = braced && self.is(&Kind::Open('{'));
            self.skip_tree();
            if last {
                break;
            }
        }
        let span = self.span_from(start);
        _ = self.refuse::<()>(&span, message, help);
        self.node(ExprKind::Poison, span)
    }
}
