//! Hostile files, by whole commands: each ends soon, within a bound of memory, with exit code 1 and one message.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use pg_runtime::artifact::{self, Tensor};
use pg_runtime::data::shard_bytes;

const MODEL: &str = r#"pg_macros::model! {
    small {
        const VOCAB = 1024;
        const DIM = 8;
        fn forward(tokens) {
            let x = gather(param("emb.weight", [VOCAB, DIM], normal(0.02)), tokens);
            linear(x, param("head.weight", [VOCAB, DIM], normal(0.02)))
        }
        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 64; seq_len = 32; steps = 1; }
        eval { seq_len = 32; stride = 16; }
    }
}
"#;

/// Address space of a command in KiB. pg itself and two threads take a third of it.
const MEMORY: &str = "1000000";
/// Seconds, on a machine that does much else.
const SECONDS: &str = "20";

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        let dir = Dir(tempfile::tempdir().unwrap());
        std::fs::write(dir.path("small.rs"), MODEL).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    fn pg(&self, args: &str) -> (Option<i32>, String) {
        let limited = format!("ulimit -v {MEMORY}; exec timeout {SECONDS} \"$0\" {args}");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_pg")]).current_dir(self.0.path());
        // Each thread's arena takes address space.
        command
            .env("RAYON_NUM_THREADS", "2")
            .env("MALLOC_ARENA_MAX", "2")
            .env("PG_CACHE", self.path("cache"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[track_caller]
    fn refuses(&self, args: &str, want: &str) {
        let (code, message) = self.pg(args);
        assert_eq!(code, Some(1), "pg {args}: {message}");
        assert!(message.contains(want), "pg {args}: {message}");
        assert_eq!(message.matches(want).count(), 1, "pg {args}: said once: {message}");
        assert_eq!(message.matches("error: ").count(), 1, "pg {args}: one message: {message}");
    }
}

#[test]
fn what_may_not_end_is_not_read() {
    let dir = Dir::new();
    dir.fifo("pipe.rs");
    std::fs::create_dir(dir.path("run")).unwrap();
    dir.fifo("run/report.json");
    std::fs::create_dir(dir.path("shards")).unwrap();
    dir.fifo("shards/x_000000.bin");
    let tokenize = "data tokenize --out out --name x";
    for endless in ["pipe.rs", "/dev/zero"] {
        let commands = [
            format!("check {endless}"),
            format!("run {endless}"),
            format!("data stats --data 'shards/*' --tokenizer {endless}"),
            format!("{tokenize} small.rs --tokenizer {endless}"),
            format!("{tokenize} {endless} --tokenizer {}", sample_model()),
            format!("run small.rs --tuning {endless}"),
            format!("run small.rs --init {endless}"),
            format!("eval {endless}"),
        ];
        for command in commands {
            dir.refuses(&command, "it is a pipe or a device");
        }
    }
    dir.refuses("compare run run", "it is a pipe or a device");
    dir.refuses("run small.rs --data 'shards/*'", "it is a pipe or a device");
}

#[test]
fn long_files_are_not_read_to_their_end() {
    let dir = Dir::new();
    let sparse = |name: &str| {
        let file = std::fs::File::create(dir.path(name)).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    let names = ["long.rs", "long.model", "long.pg", "long.safetensors", "long.txt", "x_000000.bin"];
    names.into_iter().for_each(sparse);
    dir.refuses("check long.rs", "a model file has at most 1048576 bytes");
    dir.refuses("run small.rs --tokenizer long.model", "a tokenizer has at most 8388608 bytes");
    dir.refuses("run small.rs --tuning long.rs", "a tuning file has at most");
    dir.refuses("run small.rs --init long.safetensors", "weights in float32 has at most");
    dir.refuses("run small.rs --data 'x_*.bin'", "not a token shard");
    dir.refuses("eval long.pg", "an artifact has at most");
    let tokenize = format!("data tokenize --out out --name x --tokenizer {}", sample_model());
    dir.refuses(&format!("{tokenize} long.txt"), "long.txt:1: the file is over");
    dir.refuses(&format!("{tokenize} long.txt --split line"), "long.txt:1: the line is over");

    // No space in 100 MB, and a bomb: 600 kB that are 150 MB.
    std::fs::write(dir.path("word.txt"), vec![b'a'; 100_000_000]).unwrap();
    dir.refuses(&format!("{tokenize} word.txt"), "bytes without a space");
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(&vec![b'a'; 150_000_000]).unwrap();
    std::fs::write(dir.path("bomb.jsonl.gz"), zip.finish().unwrap()).unwrap();
    dir.refuses(&format!("{tokenize} bomb.jsonl.gz"), "bomb.jsonl.gz:1: the line is over");
}

#[test]
fn an_artifact_is_held_to_its_model_before_its_values_are_made() {
    let dir = Dir::new();
    let (code, message) = dir.pg("export small.rs --artifact good.pg");
    assert_eq!(code, Some(0), "{message}");
    let good = artifact::read(&dir.path("good.pg")).unwrap();
    // A byte stands for each stream of 128 million values.
    let rest = Tensor::half("more.weight", &[1 << 27], &vec![0.0; 1 << 27]).unwrap();
    let [first, _] = &good.tensors[..] else { panic!("two parameters") };
    artifact::write(&dir.path("bad.pg"), &good.manifest, &[first.clone(), rest]).unwrap();
    assert!(std::fs::metadata(dir.path("bad.pg")).unwrap().len() < 20_000);
    dir.refuses("eval bad.pg", "the model has no parameter `more.weight`");
}

#[test]
fn parameters_that_memory_cannot_hold_are_refused() {
    let dir = Dir::new();
    // Four terabytes in float32, and an artifact that is just within the largest cap.
    let text = MODEL.replace("DIM = 8", "DIM = 500000000");
    let text = text.replace("train {", "export { cap_bytes = 1099511627776; }\n        train {");
    std::fs::write(dir.path("huge.rs"), text).unwrap();
    for command in [
        "run huge.rs --steps 1 --no-validate --no-full-size",
        "run huge.rs --steps 1 --no-full-size",
        "export huge.rs --safetensors huge.safetensors",
    ] {
        dir.refuses(command, "4096000000000 bytes of memory are needed at once");
    }
}

#[test]
fn a_shard_that_is_cut_under_its_reader_ends_no_process() {
    let dir = Dir::new();
    std::fs::write(dir.path("x_000000.bin"), &shard_bytes(&[1; 5000])[..2000]).unwrap();
    dir.refuses("run small.rs --data 'x_*.bin'", "it is truncated");
}

fn sample_model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample/sample_1024_bpe.model").display().to_string()
}
