//! What the fuzz targets do: each gives bytes to a reader, which answers or says what is wrong, and never panics. The
//! programs of `fuzz_targets` call these with what libFuzzer makes, `pg-runtime/tests/bytes.rs` with `fuzz/seeds`.

use std::path::Path;
use std::sync::LazyLock;

use indexmap::IndexMap;
use pg_codegen::machine::H100;
use pg_ir::graph::Graph;
use pg_ir::lang::model::Param;
use pg_ir::lang::{Options, Source, elaborate};
use pg_runtime::artifact::{ArtifactError, FORMAT_VERSION, Opened};
use pg_runtime::checkpoint;
use pg_runtime::data::tokenize::{Encoder, Format, Split, for_each_text};
use pg_runtime::data::{Shard, Tokenizer};
use pg_runtime::report::{RunReport, StepMetrics};
use pg_runtime::validate::ValidationReport;
use pg_runtime::weights;

/// A target and its name.
type Target = (&'static str, fn(&[u8]));

/// Every target.
pub(crate) const TARGETS: [Target; 10] = [
    ("shard", shard),
    ("tokenizer", tokenizer),
    ("safetensors", safetensors),
    ("artifact", artifact),
    ("checkpoint", checkpoint),
    ("jsonl", jsonl),
    ("report", report),
    ("tuning", tuning),
    ("graph", graph),
    ("model", model),
];

/// Token shards: opened, checked, and read in pieces.
pub(crate) fn shard(bytes: &[u8]) {
    let Ok(shard) = Shard::embedded("fuzzed", bytes.to_vec()) else { return };
    let _ = shard.check_vocabulary(1024);
    let mut tokens = Vec::new();
    for start in [0, 1, shard.len() / 2, shard.len(), usize::MAX] {
        shard.read(start, 7, 1 << 16, &mut tokens).unwrap();
        assert_eq!(tokens.len(), shard.len().saturating_sub(start).min(7));
    }
}

/// SentencePiece models: read for scoring, and for encoding some text.
pub(crate) fn tokenizer(bytes: &[u8]) {
    let path = Path::new("fuzzed.model");
    if let Ok(tokenizer) = Tokenizer::from_bytes(path, bytes) {
        // Every piece after another, and every byte of it counted.
        let tokens = (0..tokenizer.vocab_size()).map(|id| id as u16);
        assert_eq!(tokenizer.tables().target_bytes(tokens).len() + 1, tokenizer.vocab_size());
    }
    let Ok(encoder) = Encoder::from_bytes(path, bytes) else { return };
    for text in ["", " ", "the cat  sat", "a\u{2581}b \u{fdfa} ①\u{0}", "aaaaaaaaaaaaaaaa"] {
        if let Ok(tokens) = encoder.encode(text) {
            assert!(tokens.iter().all(|t| usize::from(*t) < encoder.tokenizer().vocab_size()));
        }
    }
}

/// Weights of a small model.
pub(crate) fn safetensors(bytes: &[u8]) {
    static PARAMS: LazyLock<IndexMap<String, Param>> = LazyLock::new(|| {
        let text = "pg_macros::model! { m { const VOCAB = 4; fn forward(tokens) {
            linear(gather(param(\"a\", [VOCAB, 2], normal(1.0)), tokens), param(\"b\", [VOCAB, 2], normal(1.0))) }
            optim { \"*\" => adamw(lr = 0.1) } train { batch_tokens = 4; seq_len = 4; steps = 1; } } }";
        let source = Source::parse("m.rs", text, &|_| Err(String::new())).unwrap();
        elaborate(&source, &Options::default()).unwrap().params
    });
    if let Ok(weights) = weights::from_bytes(Path::new("fuzzed.safetensors"), bytes, &PARAMS) {
        assert!(weights.iter().all(|(name, values)| values.len() == PARAMS[name].len()));
    }
}

/// Artifacts. The bytes are the length of a manifest, the manifest as JSON, and streams; compression of the manifest
/// and the hash, which no fuzzer finds, are put around them.
pub(crate) fn artifact(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (json, body) = rest.split_at(length);
    let params = brotli::enc::BrotliEncoderParams { quality: 1, ..Default::default() };
    let mut coded = Vec::new();
    brotli::BrotliCompress(&mut &json[..], &mut coded, &params).unwrap();
    let mut file = b"\x89PGA\r\n\x1a\n".to_vec();
    file.extend(FORMAT_VERSION.to_le_bytes());
    file.extend((coded.len() as u32).to_le_bytes());
    file.extend((60 + coded.len() as u64 + body.len() as u64).to_le_bytes());
    file.extend((json.len() as u32).to_le_bytes());
    let hash = *blake3::Hasher::new().update(&file).update(&coded).update(body).finalize().as_bytes();
    let file = [&file, &hash[..], &coded, body].concat();
    match Opened::new(file.into()) {
        Ok(opened) => {
            // A reader compares these with a model: one of a million values is none of this model's.
            let values =
                |shape: &[usize]| shape.iter().fold(1, |n: usize, axis| n.saturating_mul((*axis).max(1)));
            let all = opened.shapes().fold(0, |n: usize, (_, shape)| n.saturating_add(values(shape)));
            if all < 1 << 20 {
                let _ = opened.decode();
            }
        }
        Err(error) => assert!(!matches!(error, ArtifactError::Damaged), "the hash is right"),
    }
}

/// Checkpoints. The bytes are the length of a header, the header as JSON, and values; the magic and the hash are put around
/// them.
pub(crate) fn checkpoint(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let length = u64::from(u16::from_le_bytes(*length)).min(rest.len() as u64);
    let file = [b"PGCK", &1u32.to_le_bytes()[..], &length.to_le_bytes(), rest].concat();
    let file = [&file[..], blake3::hash(&file).as_bytes()].concat();
    if let Ok(read) = checkpoint::from_bytes(Path::new("fuzzed.checkpoint"), &file) {
        let values = read.banks.iter().map(|(_, values)| values.len()).sum::<usize>();
        assert_eq!(4 * values as u64 + length, rest.len() as u64, "every byte is a header's or a value's");
    }
}

/// Documents of text and of JSON Lines, zipped or not. The first byte chooses how they are read.
pub(crate) fn jsonl(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let format = if how & 1 == 0 { Format::Jsonl } else { Format::Text };
    let split = [Split::File, Split::Line, Split::BlankLine][usize::from(how >> 1) % 3];
    let name = Path::new("fuzzed");
    let _ = for_each_text(name, rest.to_vec(), (format, split), "text", |text| drop(text));
}

/// JSON that pg wrote and reads: reports, metrics, validations.
pub(crate) fn report(bytes: &[u8]) {
    let _ = RunReport::from_json(bytes);
    let _ = serde_json::from_slice::<StepMetrics>(bytes);
    let _ = serde_json::from_slice::<ValidationReport>(bytes);
}

/// Tuning files.
pub(crate) fn tuning(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = H100.tuning.with(text, &H100.name);
    }
}

/// The text form of graphs.
pub(crate) fn graph(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Graph::parse(text);
    }
}

/// Model files, up to the model.
pub(crate) fn model(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Source::parse("fuzzed.rs", text, &|_| Err("a fuzzed model stands alone".into()));
    if let Ok(source) = source {
        let _ = elaborate(&source, &Options::default());
    }
}
