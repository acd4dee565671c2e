//! What the command line looks like in a terminal of 80 columns, and what scripts get of it.

use std::ops::Deref;
use std::process::Output;

use pg_testing::commands::{Scratch, TINY};
use pg_testing::files::model_file;
use serde_json::Value;

struct Dir(Scratch);

impl Deref for Dir {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.0
    }
}

impl Dir {
    /// With both models, under short names.
    fn new() -> Dir {
        let dir = Dir(Scratch::new(env!("CARGO_BIN_EXE_pg")));
        std::fs::create_dir(dir.path("models")).unwrap();
        for name in ["tiny.rs", "int4mlp_12l.rs"] {
            std::fs::copy(model_file(name), dir.path("models").join(name)).unwrap();
        }
        dir
    }

    /// Standard output in a terminal of 80 columns; not of `cargo run`, which is a longer command.
    #[track_caller]
    fn narrow(&self, args: &str) -> String {
        let args = shlex::split(args).unwrap();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = self.command(&args).env("COLUMNS", "80").env_remove("CARGO").output().unwrap();
        String::from_utf8(succeeds(output).stdout).unwrap()
    }
}

#[track_caller]
fn succeeds(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn fits(args: &str, text: &str) {
    for line in text.lines() {
        let columns = line.chars().count();
        assert!(columns <= 80, "pg {args}: {columns} columns: {line}\n{text}");
    }
}

const SWEEP: &str = "sweep models/tiny.rs --seeds 1,2 --grid MLP_DIM=48,96 --set DIM=24 --set LAYERS=1 --set HEADS=3 --set KV_HEADS=1 \
                     --set eval.max_targets=127 --set eval.stride=16 --seq-len 32 --batch-tokens 64 --micro-batch-tokens 64 --steps 1 \
                     --no-validate --out sweep -q";

#[test]
fn no_line_is_wider_than_a_terminal_of_80_columns() {
    let dir = Dir::new();
    for model in ["models/tiny.rs", "models/int4mlp_12l.rs"] {
        for command in ["plan", "kernels --no-compile", "check", "ir"] {
            let args = format!("{command} {model}");
            fits(&args, &dir.narrow(&args));
        }
        let args = format!("plan {model} --program score --buffers --target h100");
        fits(&args, &dir.narrow(&args));
    }
    fits("ops", &dir.narrow("ops"));
    let profile = "profile models/tiny.rs --batch 1 --seq-len 32 --steps 1";
    fits(profile, &dir.narrow(profile));
    fits("sweep", &dir.narrow(SWEEP));
    for compare in [
        "compare sweep/MLP_DIM=48/seed-1 sweep/MLP_DIM=96/seed-2",
        "compare sweep/MLP_DIM=48 -- sweep/MLP_DIM=96",
        "compare models/tiny.rs models/int4mlp_12l.rs",
    ] {
        fits(compare, &dir.narrow(compare));
    }
}

#[test]
fn wide_tables_are_whole_and_so_are_piped_ones() {
    let dir = Dir::new();
    let args = ["plan", "models/tiny.rs", "--program", "score"];
    let piped = succeeds(dir.command(&args).env_remove("COLUMNS").output().unwrap()).stdout;
    let wide =
        succeeds(dir.command(&[&args[..], &["--wide"]].concat()).env("COLUMNS", "80").output().unwrap())
            .stdout;
    assert!(piped == wide);
    let (wide, narrow) =
        (String::from_utf8(wide).unwrap(), dir.narrow("plan models/tiny.rs --program score"));
    assert!(wide.contains("what it writes is in memory because"), "{wide}");
    assert!(!wide.contains("--wide") && narrow.contains("(--wide shows: "), "{narrow}");
    // Numbers are whole in both.
    for line in wide.lines().filter(|line| line.contains(" ms ")) {
        let time = line.split(" ms ").next().unwrap().split_whitespace().last().unwrap();
        assert!(narrow.contains(&format!("{time} ms")), "{time}: {narrow}");
    }
}

#[test]
fn usage_errors_are_an_object_too() {
    let dir = Dir::new();
    for usage in [
        &["run"][..],
        &["nonsense"],
        &["check"],
        &["check", TINY, "--set", "DIM"],
        &["sweep", "--out", "x", "--seeds", "1"],
    ] {
        let output = dir.pg(&[&["--json"], usage].concat());
        assert_eq!(output.status.code(), Some(2), "{usage:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{usage:?}: {text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        assert!(
            error["error"].as_str().is_some_and(|error| !error.is_empty() && !error.contains('\x1b')),
            "{error}"
        );
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "), "{usage:?}");
    }
    // Without --json, and where it is no argument of ours, there is none; help is no mistake.
    assert!(dir.pg(&["nonsense"]).stdout.is_empty());
    assert!(dir.pg(&["nonsense", "--", "--json"]).stdout.is_empty());
    assert!(dir.pg(&["--json", "--help"]).status.success());
}

#[test]
fn shells_and_readers_get_what_they_need() {
    let dir = Dir::new();
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef pg"), ("fish", "complete -c pg")] {
        let text = succeeds(dir.pg(&["completions", shell])).stdout;
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(part) && text.contains("checkpoint-every"), "{shell}");
    }
    assert_eq!(dir.pg(&["completions", "nosuch"]).status.code(), Some(2));
    let page = String::from_utf8(succeeds(dir.pg(&["man"])).stdout).unwrap();
    assert!(page.contains(".TH pg") && page.contains("checkpoint\\-every"), "{}", &page[..500]);
}

#[test]
fn a_new_model_needs_no_base_and_no_folder() {
    let dir = Dir(Scratch::new(env!("CARGO_BIN_EXE_pg")));
    succeeds(dir.pg(&["new", "mine"]));
    let report: Value =
        serde_json::from_slice(&succeeds(dir.pg(&["--json", "check", "mine.rs"])).stdout).unwrap();
    assert_eq!(
        (&report["models"][0]["model"], &report["models"][0]["params"]),
        (&"mine".into(), &722_960.into())
    );
    assert_eq!(dir.pg(&["new", "mine"]).status.code(), Some(1));
    std::fs::create_dir(dir.path("models")).unwrap();
    succeeds(dir.pg(&["new", "mine"]));
    assert!(dir.path("models/mine.rs").is_file());
}

#[test]
fn what_to_try_next_works_as_it_is_printed() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("my models")).unwrap();
    std::fs::rename(dir.path("models/tiny.rs"), dir.path("my models/tiny.rs")).unwrap();
    let shard = |tokens: u32| {
        let mut bytes = Vec::new();
        for word in [20_240_520u32, 1, tokens].into_iter().chain([0; 253]) {
            bytes.extend(word.to_le_bytes());
        }
        (0..tokens).for_each(|i| bytes.extend((300 + (i * i % 97) as u16).to_le_bytes()));
        bytes
    };
    std::fs::write(dir.path("a train.bin"), shard(3000)).unwrap();
    std::fs::write(dir.path("a val.bin"), shard(700)).unwrap();
    let text = dir.narrow(
        "run 'my models/tiny.rs' --data 'a train*.bin' --val 'a val*.bin' --set DIM=24 --set LAYERS=1 --set HEADS=3 --set KV_HEADS=1 \
         --set eval.stride=16 --set eval.ttt.chunk=64 --seq-len 32 --batch-tokens 64 --micro-batch-tokens 64 --steps 1 --no-validate \
         --out 'a run' -q",
    );
    assert!(text.contains("1 step, 64 tokens"), "{text}");
    let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  pg ")).collect();
    assert_eq!(commands.len(), 3, "{text}");
    assert!(commands[1].contains("--val 'a val*.bin'"), "{text}");
    for command in commands {
        let words = shlex::split(command).unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        succeeds(dir.pg(&words));
    }
    let report: Value =
        serde_json::from_slice(&std::fs::read(dir.path("a run/report.json")).unwrap()).unwrap();
    let eval = dir.pg(&["--json", "eval", "a run/artifact.pg", "--ttt", "--val", "a val*.bin"]);
    let again: Value = serde_json::from_slice(&succeeds(eval).stdout).unwrap();
    assert_eq!(again["bpb"]["ttt"], report["bpb"]["ttt"]);
}
