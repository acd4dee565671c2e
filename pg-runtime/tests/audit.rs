//! `pg audit`: it passes for an honest run, and fails with the right sentence for each way to be wrong.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use pg_ir::lang::{Options, Source, elaborate};
use pg_runtime::export::{self, Provenance};
use pg_runtime::session::Session;
use pg_testing::commands::{SMALL, Scratch, TINY};
use serde_json::Value;

/// For a second.
const OWN: [&str; 9] = [
    "--set",
    "DIM=24",
    "--batch-tokens",
    "256",
    "--no-validate",
    "--no-full-size",
    "--quiet",
    "--steps",
    "6",
];

struct Dir(Scratch);

impl Deref for Dir {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.0
    }
}

impl Dir {
    fn new() -> Dir {
        Dir(Scratch::new(env!("CARGO_BIN_EXE_pg")))
    }

    #[track_caller]
    fn run(&self, out: &str, more: &[&str]) {
        let output = self.pg(&[&["run", TINY, "--out", out], &SMALL[..], &OWN, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether an audit passes, and its findings that are not proven.
    #[track_caller]
    fn audit(&self, args: &[&str]) -> (bool, String) {
        let output = self.pg(&[&["audit", "--json", "--quiet"], args].concat());
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let findings = report["findings"].as_array().unwrap().iter();
        let line = |f: &Value| format!("{} {}: {}\n", f["check"], f["verdict"], f["what"]);
        let open: String = findings.filter(|f| f["verdict"] != "proven").map(line).collect();
        (output.status.success(), open)
    }

    #[track_caller]
    fn violated(&self, args: &[&str], sentence: &str) {
        let (passes, findings) = self.audit(args);
        assert!(!passes && findings.contains(sentence), "{findings}");
    }
}

#[test]
fn an_honest_run_passes_and_its_parts_are_those_of_one_run() {
    let dir = Dir::new();
    let limit = ["--set", "eval.max_targets=511"];
    dir.run("run", &limit);
    let (passes, findings) = dir.audit(&["run"]);
    assert!(passes, "{findings}");
    assert!(findings.contains("511 of") && !findings.contains("violated"), "{findings}");
    assert!(dir.audit(&["run/artifact.pg"]).0, "an artifact alone");

    // Another run's artifact.
    dir.run("other", &[&limit[..], &["--seed", "7"]].concat());
    let own = std::fs::read(dir.path("run/artifact.pg")).unwrap();
    std::fs::copy(dir.path("other/artifact.pg"), dir.path("run/artifact.pg")).unwrap();
    dir.violated(&["run"], "it was changed after the run");
    std::fs::write(dir.path("run/artifact.pg"), own).unwrap();

    // A report that was edited.
    let path = dir.path("run/report.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut report: Value = serde_json::from_str(&text).unwrap();
    report["bpb"]["sliding"] = 1.0.into();
    std::fs::write(&path, report.to_string()).unwrap();
    dir.violated(&["run"], "the report says 1.0000 bits per byte");
    // As training on a chunk before scoring it would give.
    let mut report: Value = serde_json::from_str(&text).unwrap();
    report["bpb"]["ttt"] = 0.5.into();
    std::fs::write(&path, report.to_string()).unwrap();
    dir.violated(&["run"], "test-time score\" \"violated\": \"the report says 0.5000 bits per byte");
    let mut report: Value = serde_json::from_str(&text).unwrap();
    report["text"]["bytes"] = 9_999_999.into();
    std::fs::write(&path, report.to_string()).unwrap();
    dir.violated(&["run"], "the number of bytes behind the targets is another");
    std::fs::write(&path, "{").unwrap();
    let output = dir.pg(&["audit", "run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not the report of a run"));
}

/// An artifact that no run of pg would write: of a model that it refuses.
fn write_artifact(path: &Path, logits: &str) {
    let text = format!(
        r#"pg_macros::model! {{
    wrong {{
        fn forward(tokens) {{
            let x = gather(param("emb.weight", [1024, 8], normal(0.5)), tokens);
            let y = linear(x, param("head.weight", [1024, 8], normal(0.5)));
            {logits}
        }}
        optim {{ "*" => adamw(lr = 0.01) }}
        train {{ batch_tokens = 512; seq_len = 128; steps = 3; }}
        eval {{ seq_len = 128; stride = 64; max_targets = 1024; }}
    }}
}}
"#
    );
    let none = |_: &str| Err("it derives from nothing".to_string());
    let source = Source::parse("wrong.rs", &text, &none).unwrap_or_else(|e| panic!("{e}"));
    let options = Options::default();
    let model = elaborate(&source, &options).unwrap_or_else(|e| panic!("{e}"));
    let session = Session::on(Default::default(), Arc::new(model.clone()), Default::default());
    let weights = session.initial_weights(1).unwrap();
    export::write(path, &model, &weights, &Provenance { source, options, seed: 1 }).unwrap();
}

#[test]
fn an_artifact_that_no_run_would_write_is_found() {
    let dir = Dir::new();
    write_artifact(&dir.path("sound.pg"), "y");
    let (passes, findings) = dir.audit(&["sound.pg"]);
    assert!(passes, "{findings}");
    write_artifact(&dir.path("peeks.pg"), "y - mean(y, 1)");
    dir.violated(&["peeks.pg"], "causal\" \"violated\": \"wrong.rs:6:17: program `score`");
    for offset in ["y + 1.0e9", "y - 3.0e38"] {
        write_artifact(&dir.path("offset.pg"), offset);
        dir.violated(&["offset.pg"], "scores\" \"violated\": \"the largest logit before target");
    }
}

#[test]
fn a_tail_that_is_scored_twice_is_found() {
    let dir = Dir::new();
    dir.run("run", &["--set", "eval.max_targets=511", "--set", "eval.rescore_tail=true"]);
    dir.violated(&["run"], "targets at the end are scored twice");
}

#[test]
fn text_that_was_trained_on_is_found() {
    let dir = Dir::new();
    let tokens: Vec<u16> = (0..3000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 22) as u16).collect();
    std::fs::write(dir.path("train.bin"), pg_runtime::data::shard_bytes(&tokens)).unwrap();
    // A copy of a part, under another name.
    std::fs::write(dir.path("val.bin"), pg_runtime::data::shard_bytes(&tokens[700..1700])).unwrap();
    dir.run("run", &["--data", "train.bin", "--val", "val.bin"]);
    let report: Value = serde_json::from_slice(&std::fs::read(dir.path("run/report.json")).unwrap()).unwrap();
    assert_eq!(report["text"]["overlap"]["found"], report["text"]["overlap"]["windows"]);
    dir.violated(&["run"], "100.0 % of the scored text stands in the training text");
}

#[test]
fn what_is_stored_on_another_grid_is_found() {
    let dir = Dir::new();
    let model = dir.path("other_grid.rs");
    let tiny = std::fs::read_to_string(TINY).unwrap();
    std::fs::write(dir.path("tiny.rs"), tiny).unwrap();
    let text = r#"pg_macros::model! {
    other_grid from "tiny.rs" {
        export { "blocks.*.mlp.*.weight" => clip_search(clip = 5, per_matrix = true) }
    }
}
"#;
    std::fs::write(&model, text).unwrap();
    let args = [&["run", "other_grid.rs", "--out", "run", "--set", "eval.max_targets=511"], &SMALL[..], &OWN]
        .concat();
    let output = dir.pg(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    dir.violated(&["run"], "and is stored as Int");
}

#[test]
fn byte_counts_are_those_of_the_tokens() {
    let dir = Dir::new();
    let sample = pg_runtime::data::sample::val();
    let tokenizer = pg_runtime::data::sample::tokenizer();
    let tokens: Vec<u16> = sample.scan(0, |all| all.take(2000).collect()).unwrap();
    let own = tokenizer.tables().target_bytes(tokens.iter().copied());
    let mut counts: Vec<u16> = std::iter::once(0).chain(own.iter().map(|&bytes| bytes as u16)).collect();
    std::fs::write(dir.path("val.bin"), pg_runtime::data::shard_bytes(&tokens)).unwrap();
    std::fs::write(dir.path("counts.bin"), pg_runtime::data::shard_bytes(&counts)).unwrap();
    let text = ["--val", "val.bin", "--val-bytes", "counts.bin"];
    dir.run("run", &text);
    let (passes, findings) = dir.audit(&["run"]);
    assert!(passes && findings.contains("bytes are the counts in `counts.bin`"), "{findings}");
    // Counts that are too many would make the score too good.
    counts[77] += 1;
    std::fs::write(dir.path("counts.bin"), pg_runtime::data::shard_bytes(&counts)).unwrap();
    for args in
        [&["audit", "run"][..], &["eval", "run/artifact.pg", "--val", "val.bin", "--val-bytes", "counts.bin"]]
    {
        let output = dir.pg(args);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(message.contains("count 77 is"), "{message}");
    }
}

#[test]
fn bytes_are_held_to_the_text_where_it_is_there() {
    let dir = Dir::new();
    let documents = [
        "The night was cold, and nobody came.",
        "A second document: 3.14 \u{2264} 22/7!",
        "The third is the last.",
    ];
    let lines: String =
        documents.iter().map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect();
    std::fs::write(dir.path("docs.jsonl"), &lines).unwrap();
    let tokenizer = dir.path("sample.model");
    std::fs::write(&tokenizer, pg_runtime::data::sample::TOKENIZER).unwrap();
    let output = dir.pg(&[
        "data",
        "tokenize",
        "docs.jsonl",
        "--tokenizer",
        "sample.model",
        "--out",
        "shards",
        "--val-docs",
        "3",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let val = ["--val", "shards/text_val_*.bin"];
    let text = [&val[..], &["--tokenizer", "sample.model"]].concat();
    dir.run("run", &text);
    let (passes, findings) = dir.audit(&["run"]);
    assert!(passes && findings.contains("give it with --val-text"), "{findings}");
    let (passes, findings) = dir.audit(&["run", "--val-text", "docs.jsonl"]);
    assert!(passes && !findings.contains("text bytes"), "proven: {findings}");
    // Another text, and one that ends before its tokens.
    std::fs::write(dir.path("other.jsonl"), lines.replace("second", "sixth")).unwrap();
    dir.violated(&["run", "--val-text", "other.jsonl"], "of document 2: another text, or another tokenizer");
    std::fs::write(dir.path("first.jsonl"), lines.lines().next().unwrap()).unwrap();
    dir.violated(&["run", "--val-text", "first.jsonl"], "the text has 1 documents;");

    // A tokenizer that says of a token which occurs that it stands for far more.
    let shard = std::fs::read(dir.path("shards/text_val_000000.bin")).unwrap();
    let first = usize::from(u16::from_le_bytes([shard[1026], shard[1027]]));
    std::fs::write(&tokenizer, with_longest_piece_at(first)).unwrap();
    dir.run("lies", &text);
    assert!(dir.audit(&["lies"]).0, "without the text nobody can tell");
    dir.violated(&["lies", "--val-text", "docs.jsonl"], "another text, or another tokenizer");
}

/// The sample's tokenizer with the longest of its pieces in the place of another.
fn with_longest_piece_at(id: usize) -> Vec<u8> {
    let model = pg_runtime::data::sample::TOKENIZER;
    // Pieces come first, each with the tag of field 1 and a length below 128.
    let mut pieces = Vec::new();
    let mut at = 0;
    while model[at] == 0x0a {
        let end = at + 2 + usize::from(model[at + 1]);
        pieces.push(&model[at..end]);
        at = end;
    }
    let longest = (0..pieces.len()).max_by_key(|&i| pieces[i].len()).unwrap();
    pieces.swap(id, longest);
    [&pieces.concat(), &model[at..]].concat()
}

#[test]
fn documents_are_separate_where_the_model_promises_it() {
    let dir = Dir::new();
    let tokens: Vec<u16> =
        (0..3000u32).map(|i| if i % 37 == 0 { 1 } else { 4 + (i * i % 1019) as u16 }).collect();
    std::fs::write(dir.path("val.bin"), pg_runtime::data::shard_bytes(&tokens)).unwrap();
    for (name, mix, promised) in
        [("own", "x", true), ("smear", "smear_gate(x)", true), ("free", "smear_gate(x)", false)]
    {
        let text = format!(
            r#"pg_macros::model! {{
    {name} {{
        fn forward(tokens) {{
            let x = gather(param("emb.weight", [1024, 8], normal(0.5)), tokens);
            linear({mix}, param("head.weight", [1024, 8], normal(0.5)))
        }}
        optim {{ "*" => adamw(lr = 0.01) }}
        train {{ batch_tokens = 512; seq_len = 128; steps = 3; }}
        eval {{ seq_len = 128; stride = 64; max_targets = 1024; separate_documents = {promised}; }}
    }}
}}
"#
        );
        std::fs::write(dir.path(&format!("{name}.rs")), text).unwrap();
        let file = format!("{name}.rs");
        let output = dir.pg(&["run", &file, "--val", "val.bin", "--out", name, "--no-validate", "--quiet"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let documents = |run: &str| {
        let output = dir.pg(&["audit", "--json", "--quiet", run]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["findings"].as_array().unwrap().iter().find(|f| f["check"] == "documents").cloned()
    };
    assert_eq!(documents("own").unwrap()["verdict"], "proven");
    assert_eq!(documents("free"), None);
    dir.violated(&["smear"], "depends on the document before its own");
}

#[test]
fn what_has_no_score_gets_none() {
    let dir = Dir::new();
    std::fs::write(dir.path("bos.bin"), pg_runtime::data::shard_bytes(&[1; 2000])).unwrap();
    let refused = |args: &[&str]| {
        let output = dir.pg(args);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let message = refused(&["run", TINY, "--val", "bos.bin"]);
    assert!(message.contains("there are no bits per byte"), "{message}");
    assert!(!dir.path("runs").join("tiny-1").exists(), "a run that did not begin leaves nothing");
    // All logits are equal but for an offset: a uniform guess, which float32 must not turn into certainty.
    for offset in ["1000000000.0", "-3.0e38"] {
        let text = format!(
            r#"pg_macros::model! {{
    offset {{
        fn forward(tokens) {{
            let x = gather(param("emb.weight", [1024, 8], normal(0.02)), tokens);
            linear(x, param("head.weight", [1024, 8], normal(0.02))) + {offset}
        }}
        optim {{ "*" => adamw(lr = 0.01) }}
        train {{ batch_tokens = 512; seq_len = 128; steps = 3; }}
        eval {{ seq_len = 128; stride = 64; max_targets = 1024; }}
    }}
}}
"#
        );
        std::fs::write(dir.path("offset.rs"), text).unwrap();
        let message = refused(&["run", "offset.rs", "--no-validate"]);
        assert!(message.contains("the largest logit before target 0"), "{message}");
    }
}
