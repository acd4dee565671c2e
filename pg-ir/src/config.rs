//! The configuration that a model comes to: every constant and setting with its value and who gave it, and the text of its
//! functions. Commands that explain or compare models read it.

use std::fmt;

use indexmap::IndexMap;
use ra_ap_rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};

use crate::lang::model::{Eval, ExportSettings, Model, Train, Ttt};
use crate::lang::{Options, Source, Span};

/// Who gives a constant or a setting its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody: the language's own value.
    Default,
    /// The model's file, or one that it derives from.
    Model,
    /// The profile of this name.
    Profile(String),
    /// This option of the command line: `--set`, or one that stands for a setting.
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Model => f.write_str("model"),
            Origin::Profile(name) => write!(f, "profile {name}"),
            Origin::Option(option) => f.write_str(option),
        }
    }
}

/// Who gives a constant (`LAYERS`) or a setting (`train.seq_len`) of a source its value under these options: whoever comes
/// last of the model, the profile and the overrides.
pub fn origin(source: &Source, options: &Options, name: &str) -> Origin {
    if let Some(last) = options.overrides.iter().rfind(|o| o.name == name) {
        return Origin::Option(last.option);
    }
    let profile = options.profile.as_ref().and_then(|name| source.ast.profiles.get_key_value(name.as_str()));
    if let Some((profile, _)) = profile.filter(|(_, p)| p.settings.iter().any(|s| *s.path.text == *name)) {
        return Origin::Profile(profile.to_string());
    }
    let is_written = match name.split_once('.') {
        None => source.ast.consts.contains_key(name),
        Some((block, path)) => source
            .ast
            .blocks
            .iter()
            .filter(|b| *b.name.text == *block)
            .any(|b| b.settings.iter().any(|s| *s.path.text == *path)),
    };
    if is_written { Origin::Model } else { Origin::Default }
}

/// Every setting of the `train`, `eval` and `export` blocks by its full name, with its value as a model file writes it.
pub fn settings(model: &Model) -> IndexMap<String, String> {
    // Every field has its line: a new one does not compile until it has.
    let Train {
        batch_tokens,
        micro_batch_tokens,
        seq_len,
        steps,
        seconds,
        warmdown_steps,
        momentum_start,
        momentum_end,
        momentum_warmup_steps,
        grad_clip,
        ema_decay,
        seed,
    } = &model.train;
    let mut all = IndexMap::new();
    let mut add = |name: &str, value: String| _ = all.insert(name.to_string(), value);
    add("train.batch_tokens", batch_tokens.to_string());
    add("train.micro_batch_tokens", micro_batch_tokens.to_string());
    add("train.seq_len", seq_len.to_string());
    add("train.steps", optional(steps.as_ref()));
    add("train.seconds", optional(seconds.as_ref()));
    add("train.warmdown_steps", warmdown_steps.to_string());
    add("train.momentum_start", format!("{momentum_start:?}"));
    add("train.momentum_end", format!("{momentum_end:?}"));
    add("train.momentum_warmup_steps", momentum_warmup_steps.to_string());
    add("train.grad_clip", format!("{grad_clip:?}"));
    add("train.ema_decay", format!("{ema_decay:?}"));
    add("train.seed", seed.to_string());
    let Eval { seq_len, stride, rescore_tail, max_targets, seconds, separate_documents, ttt } = &model.eval;
    add("eval.seq_len", seq_len.to_string());
    add("eval.stride", stride.to_string());
    add("eval.rescore_tail", rescore_tail.to_string());
    add("eval.max_targets", optional(max_targets.as_ref()));
    add("eval.seconds", optional(seconds.as_ref()));
    add("eval.separate_documents", separate_documents.to_string());
    if let Some(Ttt { chunk, lr, momentum, epochs, batch_seqs, grad_clip, freeze }) = ttt {
        add("eval.ttt.chunk", chunk.to_string());
        add("eval.ttt.lr", format!("{lr:?}"));
        add("eval.ttt.momentum", format!("{momentum:?}"));
        add("eval.ttt.epochs", epochs.to_string());
        add("eval.ttt.batch_seqs", batch_seqs.to_string());
        add("eval.ttt.grad_clip", format!("{grad_clip:?}"));
        add("eval.ttt.freeze", format!("{freeze:?}"));
    }
    let ExportSettings { cap_bytes, rule, f16_up_to } = &model.export;
    add("export.cap_bytes", cap_bytes.to_string());
    add("export.rule", rule.to_string());
    add("export.f16_up_to", f16_up_to.to_string());
    all
}

fn optional<T: fmt::Debug>(value: Option<&T>) -> String {
    value.map_or("none".into(), |value| format!("{value:?}"))
}

/// The functions of a model's file and of those that it derives from, by name: their tokens, without comments, so that two
/// are the same text if and only if they are the same code.
pub fn functions(model: &Model) -> IndexMap<String, String> {
    let text_of = |file: &str| model.program.texts.iter().find(|t| *t.file == *file).map_or("", |t| &*t.text);
    let functions = model.program.ast.functions.iter();
    functions.map(|(name, f)| (name.to_string(), code(&cut(text_of(&f.span.file), &f.span)))).collect()
}

/// What a text has between the ends of a span.
fn cut(text: &str, span: &Span) -> String {
    let (first, last) = (span.start.0 as usize, span.end.0 as usize);
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let part = |(number, line): (usize, &str)| -> String {
        let from = if number == first { span.start.1 as usize - 1 } else { 0 };
        let to = if number == last { span.end.1 as usize - 1 } else { usize::MAX };
        line.chars().take(to).skip(from).collect()
    };
    let lines = lines.filter(|(number, _)| (first..=last).contains(number));
    lines.map(part).collect::<Vec<_>>().join("\n")
}

/// The tokens of a text, a space between each two, without comments.
fn code(text: &str) -> String {
    let mut at = 0;
    let mut words = Vec::new();
    for token in tokenize(text, FrontmatterAllowed::No) {
        let word = &text[at..at + token.len as usize];
        at += word.len();
        let is_code = !matches!(
            token.kind,
            TokenKind::Whitespace | TokenKind::LineComment { .. } | TokenKind::BlockComment { .. }
        );
        words.extend(is_code.then_some(word));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::{Override, elaborate};

    const BASE: &str = r#"model! { base {
        const DIM = 16;
        /// Doubles.
        fn twice(x) { x + x }
        fn forward(tokens) { twice(gather(param("t", [DIM, DIM], normal(0.02)), tokens)) }
        optim { "*" => adamw(lr = 0.01) }
        train { seq_len = 8; }
        profile small { DIM = 8; train.batch_tokens = 16; }
    } }"#;
    const DERIVED: &str = r#"model! { derived from "base.rs" {
        fn twice(x) {
            // The same, written otherwise.
            x + x
        }
        fn thrice(x) { x + x + x }
    } }"#;

    fn model(text: &str, options: &Options) -> (Source, Model) {
        let source = Source::parse("m.rs", text, &|_| Ok(BASE.into())).unwrap();
        let model = elaborate(&source, options).unwrap_or_else(|e| panic!("{e}"));
        (source, model)
    }

    #[test]
    fn functions_are_compared_as_code() {
        let (_, base) = model(BASE, &Options::default());
        let (_, derived) = model(DERIVED, &Options::default());
        let (base, derived) = (functions(&base), functions(&derived));
        assert_eq!(base["twice"], derived["twice"]);
        assert_eq!(base["forward"], derived["forward"]);
        assert!(!base.contains_key("thrice") && derived["thrice"].contains("x + x + x"), "{derived:?}");
        assert!(!base["twice"].contains("Doubles"), "{base:?}");
    }

    #[test]
    fn whoever_comes_last_gives_the_value() {
        let overrides = vec![Override::set("train.seed", "7")];
        let options = Options { overrides, profile: Some("small".into()) };
        let (source, model) = model(BASE, &options);
        let of = |name: &str| origin(&source, &options, name).to_string();
        assert_eq!(of("DIM"), "profile small");
        assert_eq!(of("train.batch_tokens"), "profile small");
        assert_eq!((of("train.seq_len"), of("train.seed")), ("model".into(), "--set".into()));
        assert_eq!(of("train.steps"), "default");
        let all = settings(&model);
        assert_eq!((&*all["train.seq_len"], &*all["train.seed"], &*all["train.seconds"]), ("8", "7", "none"));
    }
}
