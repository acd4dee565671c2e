//! Item headers: our own grammar over a token stream. Rust cannot parse `const X = 3;` or `fn f(x)`,
//! so the headers are ours and only bodies go through syn's expression parser (see `body`).
//!
//! ```text
//! model   := docs NAME [from "file"] { item* }
//! item    := docs const NAME = expr ;
//!          | docs fn NAME ( NAME [= expr], … ) { body }
//!          | (quant | optim | export | weight_std | train | eval) { entry* }
//!          | phases { (NAME at expr { setting* })* }
//!          | profile NAME { setting* }
//! entry   := "glob" [if expr] => expr ,
//!          | setting
//!          | NAME { setting* }
//! setting := NAME(.NAME)* = expr ;
//! ```

use std::sync::Arc;

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Ident, LitStr, Token, braced, parenthesized, token};

use super::ast::*;
use super::body::Lower;
use super::diag::{Diagnostic, nearest};
use super::span::Span;

/// The blocks of settings and rules that a model can have.
pub(crate) const BLOCKS: [&str; 6] = ["quant", "optim", "export", "weight_std", "train", "eval"];

/// Parses the tokens between the braces of `model! { … }`.
pub(crate) fn model(file: &Arc<str>, tokens: TokenStream) -> (Option<ModelAst>, Vec<Diagnostic>) {
    run(file, tokens, |p, input| {
        let doc = p.docs(input)?.0;
        let name = p.ident(input)?;
        let mut model = empty(name, doc);
        if input.peek(Ident) && input.peek2(LitStr) {
            let from = p.ident(input)?;
            let path: LitStr = input.parse()?;
            if &*from.text != "from" {
                p.error(Diagnostic::error(&from.span, "expected `from \"file.rs\"` or `{`"));
            }
            model.base = Some(Name { text: path.value().into(), span: Span::new(&p.file, path.span()) });
        }
        let inner;
        braced!(inner in input);
        p.items(&inner, &mut model)?;
        Ok(model)
    })
}

/// Parses a library file: only functions.
pub(crate) fn library(file: &Arc<str>, tokens: TokenStream) -> (Option<ModelAst>, Vec<Diagnostic>) {
    run(file, tokens, |p, input| {
        let name = Name { text: file.clone(), span: Span::whole(file.clone()) };
        let mut model = empty(name, String::new());
        p.items(input, &mut model)?;
        Ok(model)
    })
}

/// Parses one expression, such as the value of `--set NAME=VALUE`.
pub(crate) fn expression(file: &Arc<str>, tokens: TokenStream) -> (Option<Expr>, Vec<Diagnostic>) {
    run(file, tokens, |p, input| p.expr(input))
}

fn empty(name: Name, doc: String) -> ModelAst {
    let (consts, functions, blocks) = (Vec::new(), Vec::new(), Vec::new());
    ModelAst { name, doc, base: None, consts, functions, blocks, phases: Vec::new(), profiles: Vec::new() }
}

fn run<T>(
    file: &Arc<str>,
    tokens: TokenStream,
    parse: impl Fn(&mut Items, ParseStream<'_>) -> syn::Result<T>,
) -> (Option<T>, Vec<Diagnostic>) {
    let mut items = Items { file: file.clone(), errors: Vec::new() };
    let result = (|input: ParseStream<'_>| parse(&mut items, input)).parse2(tokens);
    match result {
        Ok(value) => (Some(value), items.errors),
        Err(e) => {
            let first = items.errors.is_empty();
            // Later items could not be read, so only report this if nothing else explains it.
            if first {
                items.errors.extend(syn_errors(file, e));
            }
            (None, items.errors)
        }
    }
}

/// syn's errors as diagnostics.
pub(crate) fn syn_errors(file: &Arc<str>, e: syn::Error) -> Vec<Diagnostic> {
    e.into_iter().map(|e| Diagnostic::error(&Span::new(file, e.span()), e.to_string())).collect()
}

struct Items {
    file: Arc<str>,
    errors: Vec<Diagnostic>,
}

impl Items {
    fn error(&mut self, d: Diagnostic) {
        self.errors.push(d);
    }

    fn ident(&self, input: ParseStream<'_>) -> syn::Result<Name> {
        let ident = input.call(Ident::parse_any)?;
        Ok(Name { text: ident.to_string().into(), span: Span::new(&self.file, ident.span()) })
    }

    /// Doc comments, with the place of the first.
    fn docs(&self, input: ParseStream<'_>) -> syn::Result<(String, Option<Span>)> {
        let mut doc = String::new();
        let mut first = None;
        for attr in input.call(syn::Attribute::parse_outer)? {
            use syn::spanned::Spanned;
            first.get_or_insert_with(|| Span::new(&self.file, attr.span()));
            match &attr.meta {
                syn::Meta::NameValue(syn::MetaNameValue {
                    path,
                    value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }),
                    ..
                }) if path.is_ident("doc") => {
                    let text = text.value();
                    doc.push_str(text.strip_prefix(' ').unwrap_or(&text));
                    doc.push('\n');
                }
                _ => return Err(syn::Error::new_spanned(attr, "attributes have no meaning here")),
            }
        }
        Ok((doc.trim_end().to_string(), first))
    }

    fn expr(&mut self, input: ParseStream<'_>) -> syn::Result<Expr> {
        let expr: syn::Expr = input.parse()?;
        let mut lower = Lower::new(&self.file);
        let expr = lower.expr(&expr);
        self.errors.append(&mut lower.errors);
        Ok(expr)
    }

    fn items(&mut self, input: ParseStream<'_>, model: &mut ModelAst) -> syn::Result<()> {
        while !input.is_empty() {
            let (doc, doc_span) = self.docs(input)?;
            if input.peek(Token![const]) {
                input.parse::<Token![const]>()?;
                let name = self.ident(input)?;
                input.parse::<Token![=]>()?;
                let value = self.expr(input)?;
                input.parse::<Token![;]>()?;
                self.unique("constant", model.consts.iter().map(|c| &c.name), &name);
                model.consts.push(Const { name, value });
            } else if input.peek(Token![fn]) {
                let function = self.function(input, doc, doc_span)?;
                self.unique("function", model.functions.iter().map(|f| &f.name), &function.name);
                model.functions.push(Arc::new(function));
            } else {
                self.block(input, model)?;
            }
        }
        Ok(())
    }

    fn unique<'a>(&mut self, what: &str, known: impl Iterator<Item = &'a Name>, name: &Name) {
        if let Some(first) = known.into_iter().find(|n| n.text == name.text) {
            let d = Diagnostic::error(&name.span, format!("{what} `{}` is defined twice", name.text));
            self.error(d.label(&first.span, "first defined here"));
        }
    }

    fn function(
        &mut self,
        input: ParseStream<'_>,
        doc: String,
        doc_span: Option<Span>,
    ) -> syn::Result<Function> {
        let keyword: Token![fn] = input.parse()?;
        let start = doc_span.unwrap_or_else(|| Span::new(&self.file, keyword.span));
        let name = self.ident(input)?;
        let list;
        parenthesized!(list in input);
        let mut params: Vec<FnParam> = Vec::new();
        while !list.is_empty() {
            let name = self.ident(&list)?;
            let default =
                if list.parse::<Option<Token![=]>>()?.is_some() { Some(self.expr(&list)?) } else { None };
            self.unique("parameter", params.iter().map(|p| &p.name), &name);
            params.push(FnParam { name, default });
            if !list.is_empty() {
                list.parse::<Token![,]>()?;
            }
        }
        if !input.peek(token::Brace) {
            return Err(input.error("expected the function's body in braces"));
        }
        let body: proc_macro2::Group = input.parse()?;
        let mut lower = Lower::new(&self.file);
        let body = lower.group(body);
        self.errors.append(&mut lower.errors);
        let span = start.to(&body.span);
        Ok(Function { name, doc, params, body, span })
    }

    fn block(&mut self, input: ParseStream<'_>, model: &mut ModelAst) -> syn::Result<()> {
        if !input.peek(Ident::peek_any) {
            return Err(input.error("expected `const`, `fn`, or a block such as `quant { … }`"));
        }
        let name = self.ident(input)?;
        match &*name.text {
            "phases" => {
                let inner;
                braced!(inner in input);
                while !inner.is_empty() {
                    self.docs(&inner)?;
                    let phase = self.phase(&inner)?;
                    self.unique("phase", model.phases.iter().map(|p| &p.name), &phase.name);
                    model.phases.push(phase);
                }
            }
            "profile" => {
                let name = self.ident(input)?;
                let inner;
                braced!(inner in input);
                let settings = self.settings(&inner, "")?;
                self.unique("profile", model.profiles.iter().map(|p| &p.name), &name);
                model.profiles.push(ProfileAst { name, settings });
            }
            known if BLOCKS.contains(&known) => {
                let inner;
                braced!(inner in input);
                let block = self.entries(name, &inner)?;
                model.blocks.push(block);
            }
            other => {
                let known = BLOCKS.iter().copied().chain(["phases", "profile", "const", "fn"]);
                let mut message = format!("unknown item `{other}`");
                if let Some(best) = nearest(other, known) {
                    message.push_str(&format!("; did you mean `{best}`?"));
                } else {
                    message.push_str("; items are const, fn, quant, optim, export, weight_std, train, eval, phases, profile");
                }
                self.error(Diagnostic::error(&name.span, message.clone()));
                return Err(input.error(message));
            }
        }
        Ok(())
    }

    fn phase(&mut self, input: ParseStream<'_>) -> syn::Result<PhaseAst> {
        let name = self.ident(input)?;
        let at = self.ident(input)?;
        if &*at.text != "at" {
            let d = Diagnostic::error(&at.span, format!("expected `at`, found `{}`", at.text));
            self.error(d.help("a phase looks like `late at fraction(0.5) { MLP_CLIP = 7; }`"));
        }
        // `at(…) {` would read as a struct literal without this.
        let trigger = syn::Expr::parse_without_eager_brace(input)?;
        let mut lower = Lower::new(&self.file);
        let trigger = lower.expr(&trigger);
        self.errors.append(&mut lower.errors);
        let inner;
        braced!(inner in input);
        Ok(PhaseAst { name, trigger, settings: self.settings(&inner, "")? })
    }

    fn settings(&mut self, input: ParseStream<'_>, prefix: &str) -> syn::Result<Vec<Setting>> {
        let mut settings = Vec::new();
        while !input.is_empty() {
            self.docs(input)?;
            settings.push(self.setting(input, prefix)?);
        }
        Ok(settings)
    }

    fn setting(&mut self, input: ParseStream<'_>, prefix: &str) -> syn::Result<Setting> {
        let mut path = self.ident(input)?;
        let mut text = format!("{prefix}{}", path.text);
        while input.parse::<Option<Token![.]>>()?.is_some() {
            let part = self.ident(input)?;
            text = format!("{text}.{}", part.text);
            path.span = path.span.to(&part.span);
        }
        path.text = text.into();
        input.parse::<Token![=]>()?;
        let value = self.expr(input)?;
        input.parse::<Token![;]>()?;
        Ok(Setting { path, value })
    }

    fn entries(&mut self, name: Name, input: ParseStream<'_>) -> syn::Result<Block> {
        let mut block = Block { name, rules: Vec::new(), settings: Vec::new(), groups: Vec::new() };
        while !input.is_empty() {
            self.docs(input)?;
            if input.peek(LitStr) {
                let glob: LitStr = input.parse()?;
                let glob = Name { text: glob.value().into(), span: Span::new(&self.file, glob.span()) };
                let guard = if input.parse::<Option<Token![if]>>()?.is_some() {
                    Some(self.expr(input)?)
                } else {
                    None
                };
                input.parse::<Token![=>]>()?;
                let value = self.expr(input)?;
                block.rules.push(Rule { glob, guard, value });
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            } else if input.peek2(token::Brace) {
                let group = self.ident(input)?;
                let inner;
                braced!(inner in input);
                block.settings.extend(self.settings(&inner, &format!("{}.", group.text))?);
                block.groups.push(group);
            } else {
                block.settings.push(self.setting(input, "")?);
            }
        }
        Ok(block)
    }
}
