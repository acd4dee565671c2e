//! The commands of README and of docs/ are typed as they stand there, in their order, in one folder that holds what they
//! name. What is changed is below, and nothing else: shapes and steps are small, and what needs a GPU or CUDA's tools is
//! refused with its remedy.

use std::process::{Command, Output};

use pg_runtime::data::{sample, shard_bytes};
use pg_testing::commands::{Scratch, wait_for};
use pg_testing::files::{fenced, model_file, root};

/// Documents, in the order in which a newcomer reads them: a later one uses the runs of an earlier one.
const DOCUMENTS: [&str; 5] =
    ["README.md", "docs/RUNS.md", "docs/KERNELS.md", "docs/LANGUAGE.md", "docs/PARAMETER_GOLF.md"];

/// A model of two layers.
const LAYERS: &str = "--set LAYERS=2";
/// A narrow one.
const NARROW: &str = "--set VE_LAYERS=[1] --set DIM=64 --set HEADS=2 --set KV_HEADS=1";
/// Small batches of it, and few scores.
const SMALL: &str = "--no-full-size --set eval.max_targets=256 --batch-tokens 128 --seq-len 64";

/// Words of a command, and what stands in their place here.
const REPLACED: [(&str, &str); 8] = [
    ("LAYERS=10,12", "LAYERS=2,3"),
    ("LAYERS=12", "LAYERS=3"),
    ("cargo run --release -- ", "pg "),
    // What it would ask of a device is asked of the CPU.
    (" --device cuda --seconds", " --seconds"),
    (" --profile full --device cuda", " --profile quick"),
    (" --profile full", " --profile quick"),
    // Scores of part of the text are no submission.
    ("pg submit ", "pg submit --draft "),
    (" …", " --data \"$D/fineweb_train_*.bin\" --val \"$D/fineweb_val_*.bin\""),
];

/// Commands that end here before they have done their work, with what they must say.
const REFUSED: &[(&str, &str)] = &[
    #[cfg(not(feature = "vulkan"))]
    ("pg run models/tiny.rs --device vulkan", "--features vulkan"),
    ("pg build models/int4mlp_12l.rs", "scripts/cuda-tools"),
    ("pg run models/int4mlp_12l.rs --device cuda --bundle bundle", "`pg build FILE --out DIR` makes one"),
];

/// Lines of the documents that are no commands of `pg`; this file does not run them.
const OTHERS: [&str; 5] =
    ["cargo test", "cargo bench", "cargo build", "scripts/cuda-tools", "cargo +nightly"];

struct Folder {
    scratch: Scratch,
    /// Variables that a document sets.
    shell: String,
}

#[test]
fn every_documented_command_does_what_is_said() {
    let mut folder = Folder::new();
    let mut run = 0;
    for document in DOCUMENTS {
        for line in commands(document) {
            if OTHERS.iter().any(|other| line.starts_with(other)) {
                continue;
            }
            folder.prepare(&line);
            folder.type_in(document, &line);
            run += 1;
        }
    }
    assert!(run > 40, "only {run} commands were found");
}

/// No document has commands that nobody runs.
#[test]
fn every_document_with_commands_is_listed() {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for path in docs.filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let name = format!("docs/{}", path.file_name().unwrap().to_str().unwrap());
        let runs_pg = commands(&name).iter().any(|line| line.starts_with("pg "));
        assert!(!runs_pg || DOCUMENTS.contains(&&*name), "{name}");
    }
}

/// Lines of a document's shell blocks, without their comments.
fn commands(document: &str) -> Vec<String> {
    let text = fenced(document, "sh").concat().replace("\\\n", " ");
    let lines = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

impl Folder {
    fn new() -> Folder {
        let scratch = Scratch::new(env!("CARGO_BIN_EXE_pg"));
        std::fs::create_dir(scratch.path("models")).unwrap();
        for model in ["int4mlp_12l.rs", "tiny.rs"] {
            std::fs::copy(model_file(model), scratch.path("models").join(model)).unwrap();
        }
        // The challenge's files, by name; pg's own text lies in them.
        let data = scratch.path("data/datasets/fineweb10B_sp1024");
        std::fs::create_dir_all(&data).unwrap();
        for (name, text, from) in [
            ("train_000001", sample::train(), 0),
            ("train_000002", sample::train(), 8192),
            ("val_000000", sample::val(), 0),
        ] {
            let tokens: Vec<u16> = text.scan(0, |all| all.skip(from).take(8192).collect()).unwrap();
            std::fs::write(data.join(format!("fineweb_{name}.bin")), shard_bytes(&tokens)).unwrap();
        }
        let tokenizers = scratch.path("data/tokenizers");
        std::fs::create_dir_all(&tokenizers).unwrap();
        std::fs::write(tokenizers.join("fineweb_1024_bpe.model"), sample::TOKENIZER).unwrap();
        Folder { scratch, shell: String::new() }
    }

    /// What a document takes for granted where it shows this command.
    fn prepare(&mut self, line: &str) {
        let train = |folder: &Folder, out: &str, more: &str| {
            let line = format!("pg run models/int4mlp_12l.rs --out {out} {more}");
            folder.succeeds("preparation", &line, &format!("{LAYERS} {NARROW} {SMALL} --steps 2"));
        };
        if line.starts_with("pg check models/my_idea.rs") {
            let examples = fenced("README.md", "rust,ignore");
            let idea = examples.iter().find(|block| block.contains("my_idea from")).unwrap();
            std::fs::write(self.scratch.path("models/my_idea.rs"), idea).unwrap();
        } else if line.starts_with("pg compare runs/a-1") {
            for (out, seed) in [("a-1", 1), ("a-2", 2), ("b-1", 3), ("b-2", 4)] {
                train(self, &format!("runs/{out}"), &format!("--no-validate --seed {seed}"));
            }
        } else if line.starts_with("pg run --resume") {
            self.stop_a_run(line.split_whitespace().nth(3).unwrap());
        } else if line.starts_with("pg kernels --diff") {
            let line = "pg kernels models/int4mlp_12l.rs --set LAYERS=11 --dump after";
            self.succeeds("preparation", line, "");
        } else if line.starts_with("pg sweep --resume") {
            let line = "pg sweep models/int4mlp_12l.rs --no-validate --seeds 1,2 --out sweeps/base";
            self.succeeds("preparation", line, &format!("{LAYERS} {NARROW} {SMALL} --steps 2"));
        }
    }

    /// Kills a run of the folder's name after some steps.
    fn stop_a_run(&self, out: &str) {
        std::fs::remove_dir_all(self.scratch.path(out)).unwrap();
        let args = format!("--no-validate --out {out} --checkpoint-every 4 --steps 200");
        let line = format!("exec \"$PG\" run models/int4mlp_12l.rs {args}");
        let mut command = self.shell(&line, &format!("{LAYERS} {NARROW} {SMALL} -q"));
        let mut child = command.spawn().unwrap();
        wait_for(&self.scratch.path(out).join(".unfinished/metrics.jsonl"), 10, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn type_in(&mut self, document: &str, line: &str) {
        if !line.starts_with("pg ") && line.contains('=') {
            self.shell += &format!("{line}\n");
            return;
        }
        let refusal = REFUSED.iter().find(|(start, _)| line.starts_with(start));
        let replace = |line: String, (from, to): &(&str, &str)| line.replace(from, to);
        let here =
            if refusal.is_some() { line.into() } else { REPLACED.iter().fold(line.to_string(), replace) };
        let more = match here.split_whitespace().nth(1).unwrap() {
            "run" | "sweep" if here.contains("--resume") || here.contains("--replay") => String::new(),
            "sweep" if here.contains("--grid LAYERS") => format!("{NARROW} {SMALL} --steps 2"),
            "run" | "sweep" => format!("{LAYERS} {NARROW} {SMALL} --steps 2"),
            "profile" => format!("{LAYERS} {NARROW}"),
            _ => String::new(),
        };
        match refusal {
            Some((_, remedy)) => {
                let output = self.shell(&here, "").output().unwrap();
                let said = said(&output);
                assert!(
                    output.status.code() == Some(1) && said.contains(remedy),
                    "{document}: {here}\n{said}"
                );
            }
            None => self.succeeds(document, &here, &more),
        }
    }

    #[track_caller]
    fn succeeds(&self, document: &str, line: &str, more: &str) {
        let start = std::time::Instant::now();
        let output = self.shell(line, more).output().unwrap();
        println!("{:6.2} s  {line} {more}", start.elapsed().as_secs_f64());
        assert!(output.status.success(), "{document}: {line} {more}\n{}", said(&output));
    }

    /// A shell in the folder that knows `pg`.
    fn shell(&self, line: &str, more: &str) -> Command {
        let mut command = Command::new("sh");
        let shell = &self.shell;
        command
            .args(["-c", &format!("pg() {{ \"$PG\" \"$@\"; }}\n{shell}{line} {more}")])
            .current_dir(self.scratch.path(""))
            .env("PG", env!("CARGO_BIN_EXE_pg"))
            .env("PG_CACHE", self.scratch.path("cache"))
            // Whether CUDA's tools are here decides nothing.
            .env("PG_CUDA_TOOLS", "/nowhere");
        command
    }
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}
