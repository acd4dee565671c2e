//! From files to one syntax tree: finding `model! { … }`, reading what it derives from, merging.

use std::path::Path;
use std::sync::Arc;

use proc_macro2::TokenStream;

use super::ast::*;
use super::diag::{Diagnostic, Diagnostics};
use super::lexer;
use super::parse;
use super::span::Span;
use super::stream;
use super::token::{self, Kind as TokenKind, Token};
use crate::input::Kind;
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

/// The text of a base model's file.
///
/// # Errors
/// As [`Kind::read_text`], in words.
pub fn read_base(path: &str) -> Result<String, String> {
    Kind::MODEL.read_text(Path::new(path)).map_err(|e| e.to_string())
}

/// A chain of `from` longer than this is a cycle.
const MAX_BASES: usize = 8;

impl Source {
    /// Reads and parses a model file and what it derives from.
    pub fn load(path: impl AsRef<Path>) -> Result<Source, Diagnostics> {
        let name = path.as_ref().to_string_lossy();
        let text = Kind::MODEL.read_text(path.as_ref()).map_err(|e| {
            let span = Span::whole(&*name);
            Diagnostics::one(Diagnostic::error(&span, format!("cannot read {name}: {e}")))
        })?;
        Source::parse(&name, &text, &read_base)
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
        let tokens = stream::flatten(&file, tokens).map_err(|e| vec![*e]);
        let ast = tokens.and_then(|tokens| parse_model(&file, &tokens));
        finish(ast, texts, resolve_base)
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

/// Parses what stands between the braces of `model! { … }`. Behind a forgotten quote nothing is what it seems, so nothing
/// else is said of such a text.
fn parse_model(file: &Arc<str>, tokens: &[Token]) -> Parsed {
    if let Some(open) = tokens.iter().find(|token| token.kind == TokenKind::OpenString) {
        return Err(vec![lexer::open_string(&Span::at(&open.span(file).loc()))]);
    }
    let (ast, errors) = parse::model(file, tokens);
    checked(ast, errors)
}

fn checked(ast: Option<ModelAst>, errors: Vec<Diagnostic>) -> Parsed {
    match ast {
        Some(ast) if errors.is_empty() => Ok(ast),
        _ => Err(errors),
    }
}

fn parse_text(file: &str, text: &str, texts: &mut Vec<SourceText>) -> Parsed {
    let file: Arc<str> = file.into();
    texts.push(SourceText { file: file.clone(), text: text.into() });
    let tokens = lexer::lex(&file, text).map_err(|e| vec![*e])?;
    let mut found = find_models(&tokens);
    let help = "a model file is Rust source with one `pg_macros::model! { name { … } }`";
    match (found.next(), found.next()) {
        (Some((_, inner)), None) => parse_model(&file, inner),
        (Some(_), Some((second, _))) => {
            let d = Diagnostic::error(&second.span(&file), "a second `model! { … }` in this file");
            Err(vec![d.help(help)])
        }
        (None, _) => {
            let d = Diagnostic::error(&Span::whole(file), "no `model! { … }` in this file");
            Err(vec![d.help(help)])
        }
    }
}

/// Parses a text alone, without what it derives from: a model file, or the functions of a library file.
pub(crate) fn parse_alone(file: &str, text: &str, is_library: bool) -> Result<(), Diagnostics> {
    let mut sources = Vec::new();
    let parsed = if is_library {
        let file: Arc<str> = file.into();
        sources.push(SourceText { file: file.clone(), text: text.into() });
        lexer::lex(&file, text).map_err(|e| vec![*e]).and_then(|tokens| {
            let (ast, errors) = parse::library(&file, &tokens);
            checked(ast, errors)
        })
    } else {
        parse_text(file, text, &mut sources)
    };
    parsed.map(|_| ()).map_err(|list| Diagnostics { list, sources })
}

/// Every `model ! { … }` at the top level of a file: its name's token and what is between its delimiters.
fn find_models(tokens: &[Token]) -> impl Iterator<Item = (&Token, &[Token])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(token) = tokens.get(at) {
            let is_model = matches!(&tokens[at..], [name, bang, open, ..]
                if matches!(&name.kind, TokenKind::Word(w) if **w == *"model")
                    && bang.kind == TokenKind::Punct("!")
                    && matches!(open.kind, TokenKind::Open(_)));
            let start = if is_model { at + 2 } else { at };
            let behind = start + token::tree_len(&tokens[start..]);
            at = behind;
            if is_model {
                return Some((token, &tokens[start + 1..behind - 1]));
            }
        }
        None
    })
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
    out.consts.extend(over.consts);
    out.functions.extend(over.functions);
    for (name, profile) in over.profiles {
        match out.profiles.get_mut(&name) {
            Some(slot) => slot.settings.extend(profile.settings),
            None => _ = out.profiles.insert(name, profile),
        }
    }
    out.phases.extend(over.phases);
    out.blocks.extend(over.blocks);
    ModelAst { name: over.name, doc: over.doc, base: over.base, ..out }
}
