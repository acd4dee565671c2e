//! `pg data tokenize`: the ids of SentencePiece, the shards of the challenge, and what a stopped run leaves.

use std::path::{Path, PathBuf};

use pg_runtime::data::tokenize::{
    Encoder, Format, Split, TokenizeError, TokenizeOptions, TokenizeReport, tokenize,
};
use pg_runtime::data::{HEADER_BYTES, sample};
use pg_runtime::report::Event;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenize").join(name)
}

fn sample_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample/sample_1024_bpe.model")
}

fn run(options: &TokenizeOptions) -> Result<TokenizeReport, TokenizeError> {
    tokenize(options, &mut |_| {})
}

/// Cases made by `tests/tokenize/make_cases.py` with SentencePiece itself.
#[derive(serde::Deserialize)]
struct Cases {
    strings: Vec<String>,
    ids: std::collections::BTreeMap<String, Vec<Vec<u16>>>,
    code_points: Vec<u32>,
}

fn cases() -> Cases {
    serde_json::from_slice(&std::fs::read(file("cases.json")).unwrap()).unwrap()
}

#[test]
fn ids_are_sentencepieces() {
    let cases = cases();
    assert_eq!(cases.ids.len(), 8);
    for (model, ids) in &cases.ids {
        let path = if model == "sample" { sample_model() } else { file(&format!("{model}.model")) };
        let encoder = Encoder::open(&path).unwrap();
        assert_eq!(ids.len(), cases.strings.len());
        for (text, want) in cases.strings.iter().zip(ids) {
            assert_eq!(encoder.encode(text).unwrap(), *want, "{model}: {text:?}");
            assert_eq!(encoder.encode(text).unwrap(), *want, "{model}, from memory: {text:?}");
        }
    }
}

#[test]
fn every_code_point_is_encoded_as_by_sentencepiece() {
    let encoder = Encoder::open(&sample_model()).unwrap();
    let blocks = (0..0x30).chain([0xe0]);
    let mut checked = 0;
    for (block, want) in blocks.zip(cases().code_points) {
        let mut crc = flate2::Crc::new();
        for c in (block << 12..(block + 1) << 12).filter_map(char::from_u32) {
            for text in [c.to_string(), format!("wor{c}ld the")] {
                let bytes: Vec<u8> =
                    encoder.encode(&text).unwrap().iter().flat_map(|i| i.to_le_bytes()).collect();
                crc.update(&bytes);
            }
        }
        assert_eq!(crc.sum(), want, "between U+{block:X}000 and U+{block:X}FFF");
        checked += 1;
    }
    assert_eq!(checked, 0x31);
}

#[test]
fn long_words_take_no_quadratic_time() {
    let encoder = Encoder::open(&sample_model()).unwrap();
    let started = std::time::Instant::now();
    for text in ["a".repeat(1_000_000), "the".repeat(300_000), "é".repeat(300_000), " ".repeat(1_000_000)] {
        encoder.encode(&text).unwrap();
    }
    // Quadratic would be hours.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn the_shipped_documents_become_the_shipped_shards() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/folder");
    let inputs = vec![file("documents.jsonl.gz")];
    let mut options = TokenizeOptions::new(inputs, sample_model(), out.clone(), "sample");
    options.val_docs = 175;
    let (mut total, mut last, mut ended) = (0, 0, false);
    let report = tokenize(&options, &mut |event| match event {
        Event::Begin { total: bytes, .. } => total = bytes,
        Event::Progress(bytes) => {
            assert!(last <= bytes && bytes <= total);
            last = bytes;
        }
        Event::End(_) => ended = true,
        _ => {}
    })
    .unwrap();
    assert!(std::fs::read(out.join("sample_val_000000.bin")).unwrap() == sample::VAL);
    assert!(std::fs::read(out.join("sample_train_000000.bin")).unwrap() == sample::TRAIN);
    assert_eq!(files(&out), ["sample_tokenize.json", "sample_train_000000.bin", "sample_val_000000.bin"]);
    assert_eq!((report.val.shards, report.val.documents, report.val.tokens), (1, 175, 166_011));
    assert_eq!((report.train.shards, report.train.documents, report.train.tokens), (1, 1754, 1_579_228));
    assert_eq!(report.text_bytes, 4_450_985);
    assert!(report.val.pattern.ends_with("new/folder/sample_val_*.bin"), "{}", report.val.pattern);
    assert!(ended && last == total);
}

/// Names in a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Names and contents of the shards in a folder.
fn shards(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let names = files(folder).into_iter().filter(|n| n.ends_with(".bin"));
    names.map(|n| (n.clone(), std::fs::read(folder.join(n)).unwrap())).collect()
}

/// Forty documents of 1 to 121 letters.
fn lines() -> Vec<String> {
    let words =
        "When in the course of human events it becomes necessary for one people to dissolve ".repeat(2);
    (0..40).map(|i| format!("{{\"text\": \"{}\"}}", &words[..1 + i * 3])).collect()
}

struct Job {
    folder: tempfile::TempDir,
    options: TokenizeOptions,
}

impl Job {
    fn new() -> Job {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in.jsonl");
        let out = folder.path().join("out");
        let mut options = TokenizeOptions::new(vec![input], sample_model(), out, "x");
        options.val_docs = 10;
        options.shard_tokens = 100;
        let job = Job { folder, options };
        job.write(&lines());
        job
    }

    fn write(&self, lines: &[String]) {
        std::fs::write(&self.options.inputs[0], lines.join("\n") + "\n").unwrap();
    }

    fn out(&self) -> &Path {
        &self.options.out
    }

    fn fails(&self) -> String {
        let message = run(&self.options).unwrap_err().to_string();
        message.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[test]
fn shards_are_cut_where_they_are_full() {
    let job = Job::new();
    let report = run(&job.options).unwrap();
    let encoder = Encoder::open(&sample_model()).unwrap();
    let mut want = [Vec::new(), Vec::new()];
    for (i, line) in lines().iter().enumerate() {
        let to = &mut want[usize::from(i >= 10)];
        to.push(1);
        encoder.encode_into(&line[10..line.len() - 2], to).unwrap();
    }
    assert_eq!((report.val.tokens, report.train.tokens), (want[0].len() as u64, want[1].len() as u64));
    assert!(report.val.shards == 1 && report.train.shards > 5);
    for (part, want) in ["val", "train"].iter().zip(&want) {
        for (i, tokens) in want.chunks(100).enumerate() {
            let bytes = std::fs::read(job.out().join(format!("x_{part}_{i:06}.bin"))).unwrap();
            assert!(bytes == pg_runtime::data::shard_bytes(tokens), "{part} {i}");
        }
    }
}

#[test]
fn a_stopped_run_continues() {
    let whole = Job::new();
    run(&whole.options).unwrap();
    let want = shards(whole.out());

    // A bad line, wherever it is, keeps what is before it.
    let mut resumed = 0;
    for bad in [0, 5, 10, 11, 20, 39] {
        let job = Job::new();
        let mut lines = lines();
        let good = std::mem::replace(&mut lines[bad], "{\"text\": 3}".into());
        job.write(&lines);
        let message = job.fails();
        assert!(
            message.starts_with(&format!("in.jsonl:{}: invalid type: integer `3`", bad + 1)),
            "{message}"
        );
        if job.out().exists() {
            assert!(files(job.out()).iter().all(|n| !n.ends_with(".partial")));
        }
        lines[bad] = good;
        job.write(&lines);
        let report = run(&job.options).unwrap();
        resumed = resumed.max(report.resumed_shards);
        assert_eq!(shards(job.out()), want, "a bad line {bad}");
    }
    assert!(resumed > 5);

    // A shard that is gone or cut, a killed run's longer left-over, a run that is complete.
    let job = whole;
    let last = run(&job.options).unwrap().resumed_shards;
    assert_eq!(shards(job.out()), want);
    for index in [0, 3] {
        std::fs::remove_file(job.out().join(format!("x_train_{index:06}.bin"))).unwrap();
        std::fs::write(job.out().join(format!("x_train_{index:06}.bin.partial")), [7; 5000]).unwrap();
        assert_eq!(run(&job.options).unwrap().resumed_shards, 1 + index);
        assert_eq!(shards(job.out()), want);
    }
    std::fs::write(job.out().join("x_val_000000.bin"), &want[want.len() - 1].1[..HEADER_BYTES + 10]).unwrap();
    assert_eq!(run(&job.options).unwrap().resumed_shards, 0);
    assert_eq!((shards(job.out()), last > 5), (want.clone(), true));

    // More documents than before continue the last shard.
    let mut more = lines();
    more.push(more[30].clone());
    job.write(&more);
    assert_eq!(run(&job.options).unwrap().resumed_shards, last);
    let longer = shards(job.out());
    assert!(longer.len() >= want.len() && longer != want);
    let fresh = Job::new();
    fresh.write(&more);
    run(&fresh.options).unwrap();
    assert_eq!(longer, shards(fresh.out()));

    // Fewer, with everything redone, leave no shard of before.
    job.write(&lines()[..12]);
    std::fs::remove_file(job.out().join("x_val_000000.bin")).unwrap();
    run(&job.options).unwrap();
    assert!(shards(job.out()).len() < want.len());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_loses_nothing() {
    let whole = Job::new();
    run(&whole.options).unwrap();
    let job = Job::new();
    std::fs::create_dir(job.out()).unwrap();
    // The third training shard's file is on a device without room.
    std::os::unix::fs::symlink("/dev/full", job.out().join("x_train_000002.bin.partial")).unwrap();
    // A file that nobody has a record of is in the way.
    assert!(job.fails().contains("x_train_000002.bin.partial: is in the way"));
    std::fs::remove_file(job.out().join("x_train_000002.bin.partial")).unwrap();
    let mut lines = lines();
    lines[11] = String::from("{}");
    job.write(&lines);
    assert!(job.fails().starts_with("in.jsonl:12: the object has no field `text`"));
    job.write(&self::lines());
    std::os::unix::fs::symlink("/dev/full", job.out().join("x_train_000002.bin.partial")).unwrap();
    let message = job.fails();
    assert!(message.starts_with("out/x_train_000002.bin"), "{message}");
    assert!(message.contains("No space left on device") && message.contains("the 3 shards"), "{message}");
    assert_eq!(shards(job.out())[..], {
        let all = shards(whole.out());
        let kept = ["x_train_000000.bin", "x_train_000001.bin", "x_val_000000.bin"];
        all.into_iter().filter(|(n, _)| kept.contains(&n.as_str())).collect::<Vec<_>>()
    });
    assert_eq!(run(&job.options).unwrap().resumed_shards, 3);
    assert_eq!(shards(job.out()), shards(whole.out()));
}

#[test]
fn nothing_is_taken_for_another_jobs_work() {
    let mut job = Job::new();
    run(&job.options).unwrap();
    let before = shards(job.out());
    let kept = |job: &Job, want: &str| {
        let message = job.fails();
        assert!(message.contains(want), "{message}");
        assert_eq!(shards(job.out()), before);
    };
    let good = job.options.clone();
    job.options.val_docs = 3;
    kept(&job, "out/x_tokenize.json: the shards beside it were made with 10 validation documents, not 3");
    job.options = TokenizeOptions { shard_tokens: 99, ..good.clone() };
    kept(&job, "with 100 tokens a shard, not 99");
    job.options = TokenizeOptions { tokenizer: file("prefix.model"), ..good.clone() };
    kept(&job, "with another tokenizer");
    job.options = TokenizeOptions { field: "body".into(), ..good.clone() };
    kept(&job, "from the field `text`, not `body`");
    job.options = TokenizeOptions { split: Split::Line, ..good.clone() };
    kept(&job, "cut into documents in another way");
    job.options = TokenizeOptions { split: Split::File, format: Format::Text, ..good.clone() };
    kept(&job, "than there are now");
    job.options = good;
    job.write(&lines()[1..]);
    kept(&job, "from other documents");
    job.write(&lines()[..5]);
    kept(&job, "from more documents than there are now");
    std::fs::write(job.out().join("x_tokenize.json"), "{}").unwrap();
    kept(&job, "not a record of tokenizing");
    std::fs::remove_file(job.out().join("x_tokenize.json")).unwrap();
    kept(&job, "out/x_train_000000.bin: is in the way");
    job.options.overwrite = true;
    run(&job.options).unwrap();
    assert_eq!(files(job.out()), ["x_tokenize.json", "x_val_000000.bin"]);
}

#[test]
fn bad_input_has_one_message() {
    let mut job = Job::new();
    let good = job.options.clone();
    let mut fails = |options: TokenizeOptions, want: &str| {
        job.options = options;
        let message = job.fails();
        assert!(message.contains(want), "{message}");
        assert!(!job.out().exists(), "nothing is written");
    };
    let with = |change: &dyn Fn(&mut TokenizeOptions)| {
        let mut options = good.clone();
        change(&mut options);
        options
    };
    fails(
        with(&|o| o.tokenizer = file("unigram.model")),
        "a SentencePiece model of kind `unigram`, expected `bpe`",
    );
    fails(with(&|o| o.tokenizer = file("unknown.model")), "has no BOS token");
    fails(with(&|o| o.tokenizer = file("cases.json")), "not a SentencePiece model");
    fails(with(&|o| o.tokenizer = "/none".into()), "/none: No such file");
    fails(with(&|o| o.inputs.clear()), "no input file is named");
    fails(with(&|o| o.inputs.push("/none".into())), "/none: No such file");
    fails(with(&|o| o.inputs = vec![std::env::temp_dir()]), "it is a folder");
    fails(with(&|o| o.inputs = vec![file("unigram.model")]), "unigram.model:");
    fails(with(&|o| o.inputs = vec![sample_model().with_file_name("sample_val_000000.bin")]), ".bin:1: ");
    fails(with(&|o| o.name = "a/b".into()), "name: expected the beginning of a file name");
    fails(with(&|o| o.shard_tokens = 0), "shard tokens: expected 1 to");
    fails(with(&|o| o.shard_tokens = 1 << 31), "shard tokens: expected 1 to");
    std::fs::write(&good.inputs[0], "\n").unwrap();
    fails(with(&|_| ()), "no document in in.jsonl");
    std::fs::write(&good.inputs[0], "[{\"text\": \"a\"}]").unwrap();
    fails(with(&|_| ()), "in.jsonl:1: invalid type: sequence, expected an object");
}

#[test]
fn plain_text_is_one_document_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let inputs: Vec<_> = ["one.txt", "two.md"].iter().map(|n| folder.path().join(n)).collect();
    std::fs::write(&inputs[0], "a b\n\nc").unwrap();
    std::fs::write(&inputs[1], "d").unwrap();
    let mut options = TokenizeOptions::new(inputs, sample_model(), folder.path().join("out"), "x");
    let report = run(&options).unwrap();
    assert_eq!((report.val.documents, report.val.shards, report.train.documents), (0, 0, 2));
    options.split = Split::BlankLine;
    options.overwrite = true;
    assert_eq!(run(&options).unwrap().train.documents, 3);
    let mut warned = false;
    options.val_docs = 5;
    let report = tokenize(&options, &mut |e| warned |= matches!(e, Event::Warning(_))).unwrap();
    assert!(warned && report.val.documents == 3 && report.train.shards == 0);
}
