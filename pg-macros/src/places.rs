//! The way back from lines and columns to the tokens that rustc knows.

use std::collections::BTreeMap;

use pg_ir::lang::Span;
use proc_macro2::{TokenStream, TokenTree};
use quote::quote_spanned;

/// Tokens by line and column, both from 1.
pub(crate) struct Places(BTreeMap<(u32, u32), proc_macro2::Span>);

impl Places {
    /// Every token of the input, at any depth.
    pub(crate) fn of(input: &TokenStream) -> Places {
        let mut places = Places(BTreeMap::new());
        // A stack of our own: how deep the input nests has not been checked yet.
        let mut open = vec![input.clone().into_iter()];
        while let Some(stream) = open.last_mut() {
            match stream.next() {
                None => _ = open.pop(),
                Some(TokenTree::Group(group)) => {
                    places.add(group.span_open());
                    places.add(group.span_close());
                    open.push(group.stream().into_iter());
                }
                Some(tree) => places.add(tree.span()),
            }
        }
        places
    }

    fn add(&mut self, span: proc_macro2::Span) {
        let start = span.start();
        self.0.insert((start.line as u32, start.column as u32 + 1), span);
    }

    /// `compile_error!` with `message` at a span, or at the macro's call.
    pub(crate) fn error(&self, span: Option<&Span>, message: &str) -> TokenStream {
        let call = proc_macro2::Span::call_site();
        let covered = || span.map(|s| self.0.range(s.start..s.end.max((s.start.0, s.start.1 + 1))));
        let first = covered().and_then(|mut r| r.next()).map_or(call, |(_, s)| *s);
        let last = covered().and_then(|mut r| r.next_back()).map_or(call, |(_, s)| *s);
        // rustc marks from the first token of an invocation to the last.
        let path = quote_spanned!(first=> ::core::compile_error!);
        let message = quote_spanned!(last=> { #message });
        quote::quote!(#path #message)
    }
}
