//! Texts that failed once, kept as files. Each says in its first lines what went wrong and what is right: `expect:
//! agrees`, or `expect: refused: WORDS` with words of pg's own message.

use std::path::{Path, PathBuf};

use crate::harness::{self, Failure, Kind, Settings};
use crate::rules;
use crate::shrink::shrink;
use crate::text::Text;

/// Texts that a shrinking may try: each is a whole check.
const TRIALS: usize = 2000;

/// Where they lie.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// The seed of a case's numbers: that of the command in its first lines, if there is one.
pub fn seed(text: &str) -> u64 {
    let command = |line: &str| line.strip_prefix("//! ")?.split_once("--seed ")?.1.trim().parse().ok();
    text.lines().find_map(command).unwrap_or(0)
}

/// What a case asks for; `Err` says what is wrong with it or with pg.
pub fn hold(text: &str, settings: &Settings) -> Result<(), String> {
    let asks = text.lines().find_map(|l| l.strip_prefix("//! expect: "));
    let report = harness::check(text, seed(text), settings);
    let failures = || report.failures.iter().map(Failure::to_string).collect::<Vec<_>>().join("\n");
    match asks {
        Some("agrees") if report.failures.is_empty() && report.compared > 0 => Ok(()),
        Some("agrees") => Err(format!("{} tensors compared\n{}", report.compared, failures())),
        Some(asks) => {
            let words =
                asks.strip_prefix("refused: ").ok_or_else(|| format!("`{asks}` is no expectation"))?;
            let all_refuse = report.failures.iter().all(|f| f.kind == Kind::Refused);
            let says_so = report.failures.iter().any(|f| f.message.contains(words));
            if all_refuse && says_so {
                Ok(())
            } else {
                Err(format!("it should be refused: {words}\n{}", failures()))
            }
        }
        None => Err("a case says `//! expect: …`".into()),
    }
}

/// What failures have in common that are one fault: what is wrong, and of words the first without numbers.
fn likeness(failure: &Failure) -> (bool, String) {
    let is_number = matches!(failure.kind, Kind::Wrong | Kind::Lost);
    let words = failure.message.chars().filter(|c| !c.is_ascii_digit()).take(40).collect();
    (is_number, if is_number { String::new() } else { words })
}

/// The least text that fails as this one does.
pub fn least(text: &Text, seed: u64, failure: &Failure, settings: &Settings) -> Text {
    let wanted = likeness(failure);
    let settled = |candidate: &Text| {
        let mut settled = candidate.clone();
        rules::settle(&mut settled).ok().map(|()| settled)
    };
    let fails = |candidate: &Text| {
        // What no longer elaborates is no smaller failure of anything else.
        let candidate = match failure.kind {
            Kind::Refused => candidate.clone(),
            _ => match settled(candidate) {
                Some(settled) => settled,
                None => return false,
            },
        };
        let report = harness::check(&candidate.to_string(), seed, settings);
        report.failures.iter().any(|f| likeness(f) == wanted)
    };
    let least = shrink(text, TRIALS, fails);
    settled(&least).unwrap_or(least)
}

/// Writes a case; where it is.
pub fn write(name: &str, text: &Text, failure: &Failure, command: &str) -> std::io::Result<PathBuf> {
    let first = failure.to_string().lines().next().unwrap_or_default().to_string();
    let text = format!("//! {command}\n//! {first}\n//! expect: agrees\n\n{text}");
    let path = folder().join(format!("{name}.rs"));
    std::fs::write(&path, text)?;
    Ok(path)
}
