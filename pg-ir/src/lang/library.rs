//! The standard library: functions in the language itself, embedded as text. A model's functions call
//! them by name; they see only each other and the builtins.

use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;

use super::ast::Function;
use super::lexer::lex;
use super::span::Span;
use super::{ast, parse};
use crate::lang::model::SourceText;

/// The parsed library.
#[derive(Debug)]
pub(crate) struct Library {
    functions: IndexMap<Arc<str>, Arc<Function>>,
    texts: Vec<SourceText>,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$((concat!("std/", $name), include_str!(concat!("../../library/", $name)))),*]
    };
}

const FILES: [(&str, &str); 6] =
    files!["basic.pg", "norm.pg", "embedding.pg", "attention.pg", "mlp.pg", "head.pg"];

impl Library {
    /// The library that comes with the compiler.
    pub(crate) fn std() -> &'static Library {
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        LIBRARY.get_or_init(|| Library::parse(&FILES).unwrap_or_else(|e| panic!("internal error: {e}")))
    }

    fn parse(files: &[(&str, &str)]) -> Result<Library, String> {
        let mut library = Library { functions: IndexMap::new(), texts: Vec::new() };
        for (file, text) in files {
            let file: Arc<str> = (*file).into();
            library.texts.push(SourceText { file: file.clone(), text: (*text).into() });
            let (ast, errors) = match lex(&file, text) {
                Ok(tokens) => parse::library(&file, &tokens),
                Err(e) => (None, vec![*e]),
            };
            if !errors.is_empty() {
                let all = super::Diagnostics { list: errors, sources: library.texts };
                return Err(all.to_string());
            }
            let functions: ast::Named<Arc<Function>> = ast.map(|a| a.functions).unwrap_or_default();
            for (name, f) in functions {
                if library.functions.insert(name.clone(), f).is_some() {
                    return Err(format!("{file}: `{name}` is defined twice in the library"));
                }
            }
        }
        Ok(library)
    }

    /// The function of this name.
    pub(crate) fn function(&self, name: &str) -> Option<&Arc<Function>> {
        self.functions.get(name)
    }

    /// Names of all functions.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.functions.keys()
    }

    /// All functions, in file order.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &Arc<Function>> {
        self.functions.values()
    }

    /// Whole files, for excerpts.
    pub(crate) fn texts(&self) -> &[SourceText] {
        &self.texts
    }

    /// The text of a function with its doc comment.
    pub(crate) fn text_of(&self, f: &Function) -> String {
        let Some(source) = self.texts.iter().find(|t| t.file == f.span.file) else { return String::new() };
        let (first, last) = (f.span.start.0 as usize, f.span.end.0 as usize);
        let lines: Vec<&str> = source.text.lines().skip(first - 1).take(last + 1 - first).collect();
        lines.join("\n") + "\n"
    }

    /// What stands at a place within a line.
    pub(crate) fn text_at(&self, span: &Span) -> String {
        let source = self.texts.iter().find(|t| t.file == span.file);
        let line = source.and_then(|s| s.text.lines().nth(span.start.0 as usize - 1)).unwrap_or_default();
        let (first, behind) = (span.start.1 as usize - 1, span.end.1 as usize - 1);
        line.chars().skip(first).take(behind - first).collect()
    }

    /// The used functions' text, one entry a library file.
    pub(crate) fn excerpt<'a>(&self, used: impl Fn(&str) -> bool + 'a) -> Vec<SourceText> {
        self.texts
            .iter()
            .filter_map(|t| {
                let mine = self.functions.values().filter(|f| f.span.file == t.file && used(&f.name.text));
                let text = mine.map(|f| self.text_of(f)).collect::<Vec<_>>().join("\n");
                (!text.is_empty()).then(|| SourceText { file: t.file.clone(), text: text.into() })
            })
            .collect()
    }
}
