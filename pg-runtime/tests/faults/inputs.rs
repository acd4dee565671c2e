//! A folder with all that a short run reads, and commands in it.

use std::path::Path;
use std::process::{Command, Output};

use pg_testing::commands::Scratch;

/// Two parameters and their averages, with test-time training: every part of a run, for some milliseconds.
const MODEL: &str = r#"pg_macros::model! {
    small {
        const VOCAB = 1024;
        const DIM = 4;
        fn forward(tokens) {
            let x = gather(param("emb.weight", [VOCAB, DIM], normal(0.02)), tokens);
            linear(x, param("head.weight", [VOCAB, DIM], normal(0.02)))
        }
        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 32; seq_len = 16; steps = 4; ema_decay = 0.9; }
        eval { seq_len = 16; stride = 8; ttt { chunk = 32; lr = 0.002; epochs = 1; batch_seqs = 2; } }
    }
}
"#;

pub(crate) const RUN: [&str; 18] = [
    "run",
    "small.rs",
    "--out",
    "run",
    "--quiet",
    "--no-validate",
    "--checkpoint-every",
    "2",
    "--data",
    "train_*.bin",
    "--val",
    "val_0.bin",
    "--tokenizer",
    "bpe.model",
    "--init",
    "init.safetensors",
    "--seed",
    "7",
];
pub(crate) const RESUME: [&str; 6] = ["run", "--resume", "run", "--quiet", "--checkpoint-every", "2"];

fn scratch() -> Scratch {
    Scratch::new(env!("CARGO_BIN_EXE_pg"))
}

pub(crate) fn pg(dir: &Scratch, args: &[&str]) -> Command {
    let mut command = dir.command(args);
    // Two runs at a time, each on one core.
    command.env("RAYON_NUM_THREADS", "1");
    command
}

#[track_caller]
pub(crate) fn succeeds(dir: &Scratch, args: &[&str]) {
    let output = pg(dir, args).output().unwrap();
    assert!(output.status.success(), "{}", message(&output));
}

pub(crate) fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with all that a run reads.
pub(crate) fn inputs() -> Scratch {
    let dir = scratch();
    let shard = |name: &str, seed: u32, tokens: u32| {
        let tokens: Vec<u16> = (0..tokens).map(|i| ((i * i + seed * i) % 1021) as u16).collect();
        std::fs::write(dir.path(name), pg_runtime::data::shard_bytes(&tokens)).unwrap();
    };
    shard("train_0.bin", 1, 50);
    shard("train_1.bin", 2, 100);
    shard("val_0.bin", 3, 100);
    std::fs::write(dir.path("small.rs"), MODEL).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample/sample_1024_bpe.model");
    std::fs::copy(tokenizer, dir.path("bpe.model")).unwrap();
    succeeds(&dir, &["export", "small.rs", "--safetensors", "init.safetensors", "--quiet"]);
    dir
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

pub(crate) fn copied(from: &Scratch) -> Scratch {
    let dir = scratch();
    copy(&from.path(""), &dir.path(""));
    dir
}
