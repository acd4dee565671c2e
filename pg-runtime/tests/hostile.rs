//! Whole commands on texts that ask for too much: each ends soon, in little memory, with one message and exit code 1.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use pg_testing::hostile::{chained_selects, model, nested, texts};

/// Most bytes that a refusal takes.
const MOST_BYTES: u64 = 200_000_000;
/// Most processor time that it takes, in hundredths of a second.
const MOST_TICKS: u64 = 200;

fn pg(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg"));
    command.args(args).current_dir(folder).env("PG_CACHE", folder.join("cache"));
    command
}

/// Peak memory and processor time of a running process, where the system tells.
fn usage(child: &Child) -> Option<(u64, u64)> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).ok();
    let status = read("status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().trim_end_matches("kB").trim().parse().ok()?;
    let stat = read("stat")?;
    // Behind the name, which is in parentheses, user and system time are fields 12 and 13.
    let fields: Vec<u64> =
        stat.rsplit_once(')')?.1.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    Some((kib * 1024, fields.get(11)? + fields.get(12)?))
}

/// Runs a command, held to its limits while it runs.
#[track_caller]
fn watched(name: &str, mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if let Some((bytes, ticks)) = usage(&child)
            && (bytes > MOST_BYTES || ticks > MOST_TICKS)
        {
            child.kill().unwrap();
            panic!("{name} takes {bytes} bytes and {ticks} hundredths of a second");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// The one message of a refusal.
#[track_caller]
fn refused(name: &str, command: Command, says: &str) {
    let output = watched(name, command);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{name}: {message}");
    assert_eq!(message.matches("error: ").count(), 1, "{name}: {message}");
    assert!(message.contains(says), "{name} should say {says}: {message}");
    assert!(message.len() < 20_000, "{name}: a message of {} bytes", message.len());
}

#[test]
fn texts_that_ask_for_too_much_are_refused_soon() {
    let folder = tempfile::tempdir().unwrap();
    for hostile in texts() {
        std::fs::write(folder.path().join("m.rs"), &hostile.text).unwrap();
        refused(hostile.name, pg(folder.path(), &["check", "m.rs"]), hostile.says);
    }
}

/// What stands in an argument goes through the same guards.
#[test]
fn arguments_that_ask_for_too_much_are_refused_soon() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.rs"), model("", "const A = 1; const S = \"x\";")).unwrap();
    for (name, value, says) in [
        ("parentheses", nested("(", "1", ")", 3000), "delimiters nest more than 128 deep"),
        ("signs", "-".repeat(3000) + "1", "expressions nest more than 128 deep"),
        ("digits", "1".repeat(100_000), "a number has at most 64 characters"),
    ] {
        refused(name, pg(folder.path(), &["check", "m.rs", "--set", &format!("A={value}")]), says);
        refused(name, pg(folder.path(), &["check", "m.rs", "--set", &format!("train.seed={value}")]), says);
    }
    let long = "1+".repeat(5000) + "1";
    let output = watched("a sum", pg(folder.path(), &["check", "m.rs", "--set", &format!("A={long}")]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A graph may be as deep as it is large.
#[test]
fn a_deep_graph_checks_and_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("deep.rs"), chained_selects(2000)).unwrap();
    let run = ["run", "deep.rs", "--no-validate", "--set", "eval.max_targets=128", "--out", "deep"];
    for args in [&["check", "deep.rs"][..], &run] {
        let output = pg(folder.path(), args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
