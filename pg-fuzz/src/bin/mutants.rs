//! Mutation test of the compiler: each entry of `pg-fuzz/mutants.toml` is a small deliberate fault in a pass, an
//! executor or a proof, and the suites that are named below must notice every one of them.
//!
//! All faults are compiled into one copy of the sources, each behind a switch that the environment sets, so that the
//! sources themselves hold no trace of them and the whole takes one build. A fault that no suite notices names a
//! missing test: the command fails and says which. It must never count a fault as noticed that a suite without any
//! fault would notice, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Random models that look for each fault: those that find none take their time, and most that find one are early.
const SEEDS: &str = "0..60";

/// The variable that chooses a fault, by its position in the list, from 1.
const SWITCH: &str = "PG_MUTANT";

/// What must notice the faults, the quickest first: a package, its test target (`lib` for its unit tests), and
/// arguments of the test binary.
const SUITES: &[(&str, &str, &[&str])] = &[
    ("pg-fuzz", "seeds", &[]),
    ("pg-codegen", "corners", &[]),
    ("pg-fuzz", "causality", &[]),
    ("pg-ir", "gradients", &[]),
    ("pg-codegen", "differential", &[]),
    ("pg-runtime", "differential", &[]),
    ("pg-runtime", "lib", &["cpu::"]),
    ("pg-codegen", "precision", &[]),
    ("pg-codegen", "cached_weights", &[]),
];

/// A suite that takes longer has noticed by not ending.
const LIMIT: Duration = Duration::from_secs(240);

/// A fault. `find` is an expression that stands once in `file`; `replace` is another of its type.
#[derive(Debug, Deserialize)]
struct Mutant {
    file: PathBuf,
    find: String,
    replace: String,
}

#[derive(Debug, Deserialize)]
struct Mutants {
    mutant: Vec<Mutant>,
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let text = fs::read_to_string(root.join("pg-fuzz/mutants.toml"))?;
    let all: Mutants = toml::from_str(&text).context("pg-fuzz/mutants.toml")?;
    let copy = root.join("target/mutants");
    let only: Vec<usize> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    write_copy(root, &copy)?;
    apply(&copy, &all.mutant)?;
    let suites = build(root, &copy)?;
    for suite in &suites {
        ensure!(run(suite, 0, root)?.is_none(), "{} fails without any fault", suite.name);
    }
    let chosen: Vec<usize> = (1..=all.mutant.len()).filter(|n| only.is_empty() || only.contains(n)).collect();
    let survivors = run_all(&chosen, &suites, &all.mutant, root)?;
    println!("{} passed, {} failed", chosen.len() - survivors.len(), survivors.len());
    ensure!(survivors.is_empty(), "no suite noticed: {survivors:?}");
    Ok(())
}

/// Copies the sources that git knows, and leaves alone what is the same already: cargo builds what changed.
fn write_copy(root: &Path, copy: &Path) -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "-co", "--exclude-standard"])
        .current_dir(root)
        .output()?;
    ensure!(listed.status.success(), "git ls-files failed");
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (from, to) = (root.join(name), copy.join(name));
        // A file that is deleted but not yet committed is listed.
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
            fs::write(&to, bytes)?;
        }
    }
    Ok(())
}

/// Puts every fault behind its switch.
fn apply(copy: &Path, mutants: &[Mutant]) -> Result<()> {
    let mut edits: BTreeMap<&Path, Vec<(usize, usize, String)>> = BTreeMap::new();
    for (i, m) in mutants.iter().enumerate() {
        let text = fs::read_to_string(copy.join(&m.file)).with_context(|| m.file.display().to_string())?;
        let places: Vec<usize> = text.match_indices(&m.find).map(|(at, _)| at).collect();
        let &[at] = &places[..] else {
            bail!("mutant {}: `{}` stands {} times in {}", i + 1, m.find, places.len(), m.file.display());
        };
        let home = if m.file.starts_with("pg-ir") { "crate" } else { "pg_ir" };
        let switched =
            format!("(if {home}::mutant::is({}) {{ {} }} else {{ {} }})", i + 1, m.replace, m.find);
        edits.entry(&m.file).or_default().push((at, at + m.find.len(), switched));
    }
    for (file, mut edits) in edits {
        edits.sort();
        let clash = edits.windows(2).find(|e| e[0].1 > e[1].0);
        ensure!(clash.is_none(), "two mutants of {} overlap: {clash:?}", file.display());
        let path = copy.join(file);
        let mut text = fs::read_to_string(&path)?;
        for (from, to, switched) in edits.into_iter().rev() {
            text.replace_range(from..to, &switched);
        }
        fs::write(&path, text)?;
    }
    let lib = copy.join("pg-ir/src/lib.rs");
    let switch = format!(
        "\n/// Which fault is on.\npub mod mutant {{\n    use std::sync::LazyLock;\n    static ON: LazyLock<usize> = \
         LazyLock::new(|| std::env::var(\"{SWITCH}\").ok().and_then(|n| n.parse().ok()).unwrap_or(0));\n    \
         /// Whether it is this one.\n    #[inline]\n    pub fn is(n: usize) -> bool {{\n        *ON == n\n    }}\n}}\n"
    );
    fs::write(&lib, fs::read_to_string(&lib)? + &switch)?;
    // Cargo knows a package by its name, its version and its place in the workspace: with one version, a build here
    // would pass for a build of the sources without faults.
    let manifest = copy.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    let version = env!("CARGO_PKG_VERSION");
    let of_workspace = format!("version = \"{version}\"");
    ensure!(text.matches(&of_workspace).count() == 1, "Cargo.toml has no {of_workspace} of the workspace");
    let faulty = [of_workspace, format!("version = \"={version}\"")]
        .iter()
        .fold(text, |text, v| text.replace(v, &v.replace(version, &format!("{version}-faults"))));
    fs::write(&manifest, faulty)?;
    // Lints are for people.
    for package in ["pg-ir", "pg-codegen", "pg-runtime"] {
        let lib = copy.join(package).join("src/lib.rs");
        fs::write(&lib, format!("#![allow(warnings)]\n{}", fs::read_to_string(&lib)?))?;
    }
    Ok(())
}

/// A compiled suite.
struct Suite {
    name: String,
    binary: PathBuf,
    folder: PathBuf,
    args: &'static [&'static str],
}

fn build(root: &Path, copy: &Path) -> Result<Vec<Suite>> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // All packages together, so that dependencies have the features that a build of the workspace gives them.
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.args(["test", "--release", "--no-run", "--message-format", "json-render-diagnostics", "--lib"]);
    for (_, test, _) in SUITES.iter().filter(|s| s.1 != "lib") {
        cargo.args(["--test", test]);
    }
    cargo.current_dir(copy).env("CARGO_TARGET_DIR", &target).stderr(Stdio::inherit());
    let output = cargo.output()?;
    ensure!(output.status.success(), "the sources do not compile with the faults in them");
    let messages: Vec<serde_json::Value> = String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let suite = |&(package, target, args): &(&str, &'static str, &'static [&'static str])| {
        let name = if target == "lib" { package.replace('-', "_") } else { target.to_string() };
        let manifest = copy.join(package).join("Cargo.toml");
        let is_it = |m: &&serde_json::Value| {
            m["executable"].is_string()
                && m["target"]["name"] == *name
                && m["manifest_path"].as_str() == manifest.to_str()
        };
        let made =
            messages.iter().find(is_it).with_context(|| format!("cargo names no {target} of {package}"))?;
        let binary = PathBuf::from(made["executable"].as_str().context("a path")?);
        Ok(Suite { name: format!("{package} {target}"), binary, folder: copy.join(package), args })
    };
    SUITES.iter().map(suite).collect()
}

/// How a suite notices a fault, `None` if it passes.
fn run(suite: &Suite, mutant: usize, root: &Path) -> Result<Option<&'static str>> {
    let mut child = Command::new(&suite.binary)
        .args(suite.args)
        .current_dir(&suite.folder)
        .env(SWITCH, mutant.to_string())
        .env("CARGO_MANIFEST_DIR", &suite.folder)
        .env("PG_FUZZ_FIRST", "1")
        .env("PG_FUZZ_SEEDS", SEEDS)
        .env("INSTA_WORKSPACE_ROOT", root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((!status.success()).then_some("fails"));
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(Some("does not end"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Tries faults on all cores; gives those that nothing noticed.
fn run_all(chosen: &[usize], suites: &[Suite], mutants: &[Mutant], root: &Path) -> Result<Vec<usize>> {
    let (queue, survivors) = (Mutex::new(chosen.iter()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            loop {
                let Some(&n) = queue.lock().expect("no worker panics").next() else { return Ok(()) };
                let start = Instant::now();
                let mut noticed = None;
                for suite in suites {
                    if let Some(how) = run(suite, n, root)? {
                        noticed = Some(format!("{} {how}", suite.name));
                        break;
                    }
                }
                let m = &mutants[n - 1];
                let place = format!("{}: {}", m.file.display(), m.replace.trim());
                let seconds = start.elapsed().as_secs_f64();
                match noticed {
                    Some(by) => println!("mutant {n:3} noticed in {seconds:5.1} s: {by}  ({place})"),
                    None => {
                        println!("mutant {n:3} SURVIVES  ({place})");
                        survivors.lock().expect("no worker panics").push(n);
                    }
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|w| w.join().expect("no worker panics"))
    })?;
    Ok(survivors.into_inner().expect("no worker panics"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a later step of CI would find after half an hour: a fault whose text is gone, or a copy that cargo refuses.
    #[test]
    fn every_fault_stands_in_the_sources_and_cargo_takes_the_copy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let all: Mutants =
            toml::from_str(&fs::read_to_string(root.join("pg-fuzz/mutants.toml")).unwrap()).unwrap();
        let copy = tempfile::tempdir().unwrap();
        write_copy(root, copy.path()).unwrap();
        apply(copy.path(), &all.mutant).unwrap();
        let resolved = Command::new(env!("CARGO"))
            .args(["update", "--workspace", "--offline", "--quiet"])
            .current_dir(copy.path())
            .output()
            .unwrap();
        assert!(resolved.status.success(), "{}", String::from_utf8_lossy(&resolved.stderr));
    }
}
