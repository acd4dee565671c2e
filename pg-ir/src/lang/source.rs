//! From files to one syntax tree: finding `model! { … }`, reading what it derives from, merging.

use std::path::Path;
use std::sync::Arc;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::ast::*;
use super::diag::{Diagnostic, Diagnostics};
use super::span::Span;
use super::{lex, parse};
use crate::lang::model::SourceText;

/// How the text of a base model is found: from the path of `from "…"`, already joined with the folder
/// of the file that says it.
pub type ResolveBase<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// A parsed model file with the files it derives from.
#[derive(Clone, Debug)]
pub struct Source {
    pub(crate) ast: Arc<ModelAst>,
    /// The file itself, then its base, then the base's base.
    pub(crate) texts: Vec<SourceText>,
}

/// A chain of `from` longer than this is a cycle.
const MAX_BASES: usize = 8;

impl Source {
    /// Reads and parses a model file and what it derives from.
    pub fn load(path: impl AsRef<Path>) -> Result<Source, Diagnostics> {
        let name = path.as_ref().to_string_lossy();
        let text = std::fs::read_to_string(&path).map_err(|e| {
            let span = Span::whole(&*name);
            Diagnostics::one(Diagnostic::error(&span, format!("cannot read {name}: {e}")))
        })?;
        Source::parse(&name, &text, &|base| std::fs::read_to_string(base).map_err(|e| e.to_string()))
    }

    /// Parses the text of a model file.
    pub fn parse(file: &str, text: &str, resolve_base: ResolveBase<'_>) -> Result<Source, Diagnostics> {
        let mut texts = Vec::new();
        let ast = parse_text(file, text, &mut texts);
        finish(ast, texts, resolve_base)
    }

    /// Parses what stands between the braces of `model! { … }`, as the macro gets it. `text` is that of the
    /// whole file, for excerpts and for the artifact's manifest.
    pub fn from_tokens(
        file: &str,
        text: &str,
        tokens: TokenStream,
        resolve_base: ResolveBase<'_>,
    ) -> Result<Source, Diagnostics> {
        let file: Arc<str> = file.into();
        let texts = vec![SourceText { file: file.clone(), text: text.into() }];
        let (ast, errors) = parse::model(&file, tokens);
        finish(checked(ast, errors), texts, resolve_base)
    }

    /// Name of the model.
    pub fn name(&self) -> &str {
        &self.ast.name.text
    }

    /// The model file and the files it derives from.
    pub fn texts(&self) -> &[SourceText] {
        &self.texts
    }
}

type Parsed = Result<ModelAst, Vec<Diagnostic>>;

fn checked(ast: Option<ModelAst>, errors: Vec<Diagnostic>) -> Parsed {
    match ast {
        Some(ast) if errors.is_empty() => Ok(ast),
        _ => Err(errors),
    }
}

/// Runs `f` with proc-macro2's own tokens. Inside a macro it would lex with the compiler, whose tokens of
/// other files carry no position. Not to be nested, and no token of the compiler's may get into `f`.
pub(crate) fn detached<T>(f: impl FnOnce() -> T) -> T {
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

fn parse_text(file: &str, text: &str, texts: &mut Vec<SourceText>) -> Parsed {
    let file: Arc<str> = file.into();
    texts.push(SourceText { file: file.clone(), text: text.into() });
    detached(|| {
        let tokens: TokenStream = match text.parse() {
            Ok(tokens) => tokens,
            Err(e) => return Err(vec![lex::explain(&file, text, Some(e))]),
        };
        let mut found = find_models(tokens);
        let whole = Span::whole(file.clone());
        let help = "a model file is Rust source with one `pg_macros::model! { name { … } }`";
        match (found.len(), found.pop()) {
            (1, Some((_, inner))) => {
                let (ast, errors) = parse::model(&file, inner);
                checked(ast, errors)
            }
            (0, _) => Err(vec![Diagnostic::error(&whole, "no `model! { … }` in this file").help(help)]),
            (_, Some((at, _))) => Err(vec![
                Diagnostic::error(&Span::new(&file, at), "a second `model! { … }` in this file").help(help),
            ]),
            (_, None) => Err(Vec::new()),
        }
    })
}

/// Every `model ! { … }` at the top level of a file.
fn find_models(tokens: TokenStream) -> Vec<(proc_macro2::Span, TokenStream)> {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let is_model = |w: &&[TokenTree]| {
        matches!(w, [TokenTree::Ident(name), TokenTree::Punct(bang), TokenTree::Group(group)]
            if name == "model" && bang.as_char() == '!' && group.delimiter() != Delimiter::None)
    };
    let group = |w: &[TokenTree]| match &w[2] {
        TokenTree::Group(g) => (w[0].span(), g.stream()),
        other => (other.span(), TokenStream::new()),
    };
    trees.windows(3).filter(is_model).map(group).collect()
}

/// Reads the bases and merges the chain, base first.
fn finish(ast: Parsed, mut texts: Vec<SourceText>, resolve: ResolveBase<'_>) -> Result<Source, Diagnostics> {
    let fail = |list, texts: &Vec<SourceText>| Diagnostics { list, sources: texts.clone() };
    let mut merged = ast.map_err(|list| fail(list, &texts))?;
    let mut from = merged.base.clone();
    while let Some(base) = from {
        if texts.len() > MAX_BASES {
            let d = Diagnostic::error(&base.span, "this model derives from itself");
            return Err(fail(vec![d], &texts));
        }
        let path = join(&base.span.file, &base.text);
        let text = match resolve(&path) {
            Ok(text) => text,
            Err(e) => {
                let d = Diagnostic::error(&base.span, format!("cannot read the base model {path}: {e}"));
                return Err(fail(vec![d], &texts));
            }
        };
        let under = parse_text(&path, &text, &mut texts).map_err(|mut list| {
            for d in &mut list {
                d.labels.push((base.span.clone(), "the base model".into()));
            }
            fail(list, &texts)
        })?;
        from = under.base.clone();
        merged = merge(under, merged);
    }
    Ok(Source { ast: Arc::new(merged), texts })
}

/// `path` seen from the folder of `file`.
fn join(file: &str, path: &str) -> String {
    match Path::new(file).parent() {
        Some(folder) if folder != Path::new("") => folder.join(path).to_string_lossy().into_owned(),
        _ => path.to_string(),
    }
}

/// "That model, but": same-named constants and functions are replaced where they stand, new ones follow,
/// and entries of blocks come after the base's, so that they win.
fn merge(base: ModelAst, over: ModelAst) -> ModelAst {
    let mut out = base;
    for c in over.consts {
        match out.consts.iter_mut().find(|o| o.name.text == c.name.text) {
            Some(slot) => *slot = c,
            None => out.consts.push(c),
        }
    }
    for f in over.functions {
        match out.functions.iter_mut().find(|o| o.name.text == f.name.text) {
            Some(slot) => *slot = f,
            None => out.functions.push(f),
        }
    }
    for p in over.profiles {
        match out.profiles.iter_mut().find(|o| o.name.text == p.name.text) {
            Some(slot) => slot.settings.extend(p.settings),
            None => out.profiles.push(p),
        }
    }
    for p in over.phases {
        match out.phases.iter_mut().find(|o| o.name.text == p.name.text) {
            Some(slot) => *slot = p,
            None => out.phases.push(p),
        }
    }
    out.blocks.extend(over.blocks);
    ModelAst { name: over.name, doc: over.doc, base: over.base, ..out }
}
