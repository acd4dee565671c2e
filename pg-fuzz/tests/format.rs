//! The formatter changes no token, and formats what it has formatted to the same: on every model file, on the library and
//! on random models, as they stand and with their spaces and lines disturbed.

use std::path::PathBuf;

use pg_fuzz::generate;
use pg_fuzz::rng::Rng;
use pg_ir::lang::model::Model;
use pg_ir::lang::{Head, Options, Source, Trace, elaborate, format, read_base};
use pg_testing::files::{model_files, root};
use proc_macro2::{TokenStream, TokenTree};
use ra_ap_rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};

const RANDOM_MODELS: u64 = 40;

/// Name and text of every model file and of every library file.
fn files() -> Vec<(String, String)> {
    let library = std::fs::read_dir(root().join("pg-ir/library")).unwrap().map(|e| e.unwrap().path());
    let all: Vec<PathBuf> = model_files().into_iter().chain(library).collect();
    assert!(all.iter().filter(|f| f.extension().is_some_and(|e| e == "pg")).count() >= 6);
    all.into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.to_string_lossy().into_owned(), text)
        })
        .collect()
}

#[track_caller]
fn formatted(file: &str, text: &str) -> String {
    let once = format(file, text).unwrap_or_else(|e| panic!("{file}: {e}\n{text}"));
    let twice = format(file, &once).unwrap_or_else(|e| panic!("{file}, formatted: {e}\n{once}"));
    assert_eq!(once, twice, "{file}: formatted twice");
    assert_eq!(tokens(text), tokens(&once), "{file}");
    once
}

/// The tokens of a text as Rust's own lexer has them, which is not the formatter's.
fn tokens(text: &str) -> Vec<String> {
    fn flat(stream: TokenStream, out: &mut Vec<String>) {
        for tree in stream {
            match tree {
                TokenTree::Group(group) => {
                    out.push(format!("{:?}", group.delimiter()));
                    flat(group.stream(), out);
                    out.push("end".into());
                }
                // Whether another one follows at once is part of what it is.
                TokenTree::Punct(p) => out.push(format!("{p} {:?}", p.spacing())),
                other => out.push(other.to_string()),
            }
        }
    }
    let mut out = Vec::new();
    flat(text.parse().unwrap(), &mut out);
    // Of punctuation that is no operator together it is not: `= -1` and `=-1`.
    out.iter_mut().for_each(|t| *t = t.replace(" Alone", "").replace(" Joint", ""));
    out
}

/// All that a model computes and says of its parameters.
fn meaning(file: &str, text: &str) -> String {
    let source = Source::parse(file, text, &read_base).unwrap_or_else(|e| panic!("{e}"));
    let model: Model = elaborate(&source, &Options::default()).unwrap_or_else(|e| panic!("{e}"));
    let mut out =
        format!("{} {} {:?} {:?} {:?}", model.name, model.doc, model.consts, model.params, model.phases);
    out += &format!("{:?} {:?} {:?}", model.train, model.eval, model.export);
    for phase in 0..model.phases.len() {
        let request =
            Trace { phase, batch: 2, seq: model.train.seq_len.min(64), qat: true, head: Head::Loss };
        let traced = model.trace(&request).unwrap_or_else(|e| panic!("{e}"));
        for (_, node) in traced.builder.finish().nodes() {
            out += &format!("{} {:?};", node.op, node.operands);
        }
    }
    out
}

#[test]
fn what_is_written_is_formatted() {
    for (file, text) in files() {
        assert_eq!(formatted(&file, &text), text, "{file}");
    }
}

/// Other spaces and blank lines between a model's tokens, the same lines.
fn respaced(text: &str, rng: &mut Rng) -> String {
    let first = if text.contains("model! {") { text.find("model! {").unwrap() + 8 } else { 0 };
    // Nothing outside of the braces, where the formatter keeps what it finds.
    let last = if first > 0 { text.rfind('}').unwrap() } else { text.len() };
    let all: Vec<(TokenKind, &str, usize)> = with_places(text);
    let is_word = |kind: TokenKind| matches!(kind, TokenKind::Ident | TokenKind::Literal { .. });
    let is_comment =
        |kind: TokenKind| matches!(kind, TokenKind::LineComment { .. } | TokenKind::BlockComment { .. });
    let mut out = String::new();
    for (i, &(kind, token, at)) in all.iter().enumerate() {
        let is_inside = (first..last).contains(&at);
        if kind != TokenKind::Whitespace || !is_inside {
            out.push_str(token);
            continue;
        }
        let lines = token.matches('\n').count();
        let next = all.get(i + 1).map(|(kind, ..)| *kind);
        if lines > 0 {
            // One blank line may be any number of them.
            let blank = if lines > 1 { 2 + rng.below(3) } else { 1 };
            out.push_str(&"\n".repeat(blank));
            out.push_str(&" ".repeat(rng.below(9)));
        } else if next.is_some_and(is_comment) {
            out.push_str(token);
        } else {
            let before = all[i - 1].0;
            let may_vanish = next.is_some_and(|next| is_word(before) != is_word(next)) && !is_comment(before);
            out.push_str(&" ".repeat(if may_vanish { rng.below(4) } else { 1 + rng.below(3) }));
        }
    }
    out
}

/// Other lines: breaks between any two tokens, and none where one was.
fn rebroken(text: &str, rng: &mut Rng) -> String {
    let first = if text.contains("model! {") { text.find("model! {").unwrap() + 8 } else { 0 };
    let mut out = String::new();
    let mut after_comment = false;
    for (kind, token, at) in with_places(text) {
        let is_line_comment = matches!(kind, TokenKind::LineComment { .. });
        if kind == TokenKind::Whitespace && at >= first && !after_comment {
            let many = 1 + rng.below(3);
            out.push_str(&if rng.once_in(3) { "\n".repeat(many) } else { " ".repeat(many) });
        } else {
            out.push_str(token);
        }
        after_comment = is_line_comment;
    }
    out
}

/// Tokens, with where they begin.
fn with_places(text: &str) -> Vec<(TokenKind, &str, usize)> {
    let mut at = 0;
    let mut out = Vec::new();
    for token in tokenize(text, FrontmatterAllowed::No) {
        let end = at + token.len as usize;
        out.push((token.kind, &text[at..end], at));
        at = end;
    }
    out
}

#[test]
fn disturbed_spaces_come_back() {
    for (file, text) in files() {
        for seed in 0..10 {
            let disturbed = respaced(&text, &mut Rng::new(seed));
            assert_ne!(disturbed, text);
            assert_eq!(formatted(&file, &disturbed), text, "{file}, seed {seed}");
        }
    }
}

#[test]
fn disturbed_lines_keep_their_meaning() {
    for (file, text) in files() {
        let is_model = file.ends_with(".rs");
        for seed in 0..10 {
            let disturbed = rebroken(&text, &mut Rng::new(seed));
            let out = formatted(&file, &disturbed);
            if is_model && seed == 0 {
                assert_eq!(meaning(&file, &out), meaning(&file, &text), "{file}");
            }
        }
    }
}

#[test]
fn random_models_keep_their_meaning() {
    for seed in 0..RANDOM_MODELS {
        let text = generate::model(seed).to_string();
        let out = formatted("m.rs", &text);
        assert_eq!(meaning("m.rs", &out), meaning("m.rs", &text), "seed {seed}");
        formatted("m.rs", &rebroken(&text, &mut Rng::new(seed)));
    }
}
