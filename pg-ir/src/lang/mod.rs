//! The DSL front end: from the text of a model file to a checked [`Model`](crate::lang::model::Model), and from
//! that to the graph of each of its programs.
//!
//! A model file is Rust source with one `model! { name { … } }`. The same parser and elaborator serve the
//! macro at compile time and `pg` at run time. The grammar of items is in `parse::items`, bodies are Rust
//! expressions (`parse::expr`), evaluated by `interp` with the functions of `builtins` and of the standard
//! library (`pg-ir/library/*.pg`). What a text may ask for is bounded: see `limits`.
//!
//! ```
//! use pg_ir::lang::{Head, Options, Source, Trace, elaborate};
//!
//! let text = r#"model! { bigram_table {
//!     const VOCAB = 16;
//!     fn forward(tokens) { gather(param("table", [VOCAB, VOCAB], normal(0.02)), tokens) }
//!     optim { "*" => adamw(lr = 0.01) }
//! } }"#;
//! let source = Source::parse("bigram.rs", text, &|_| Err("no base".into()))?;
//! let model = elaborate(&source, &Options::default())?;
//! assert_eq!(model.param_count(), 256);
//! let request = Trace { phase: 0, batch: 4, seq: 32, qat: true, head: Head::Loss };
//! assert!(model.trace(&request)?.builder.graph().value_count() > 0);
//! # Ok::<(), pg_ir::lang::Diagnostics>(())
//! ```

mod ast;
pub mod budget;
mod builtins;
mod delimiters;
mod diag;
mod elaborate;
mod fmt;
mod glob;
mod interp;
pub mod layout;
mod lexer;
mod library;
pub(crate) mod limits;
mod literal;
pub mod model;
mod names;
mod parse;
mod reference;
mod render;
mod settings;
mod size;
mod source;
mod span;
mod stream;
mod token;
mod trace;
mod value;

use std::sync::Arc;

pub use diag::{Diagnostic, Diagnostics, Severity, nearest};
pub use elaborate::{Options, Override, elaborate};
pub use fmt::format;
pub use reference::{
    Reference, SettingReference, Topic, language_document, reference, settings, settings_document, topics,
};
pub use source::{ResolveBase, Source, read_base};
pub use span::Span;
pub use trace::{Head, Trace, Traced};

use crate::lang::model::SourceText;

/// A parsed model with everything it derives from, kept for tracing.
#[derive(Debug)]
pub struct ParsedModel {
    pub(crate) ast: Arc<ast::ModelAst>,
    pub(crate) phases: Vec<trace::PhaseProgram>,
    pub(crate) texts: Vec<SourceText>,
}
