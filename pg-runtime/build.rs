//! A hash of everything that decides what programs compute: sources of the front end, the passes, the kernels and the
//! executors, dependencies, compiler. What was validated by one pg is not taken for another's. And the commit of those sources.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> io::Result<()> {
    let mut files = Vec::new();
    list(Path::new("src"), &mut files)?;
    // Outside of the workspace, as a package of a registry, this version is of those of exactly the same version.
    if Path::new("../pg-ir").is_dir() {
        files.push(PathBuf::from("../Cargo.lock"));
        for folder in ["../pg-codegen/src", "../pg-ir/src", "../pg-ir/library"] {
            list(Path::new(folder), &mut files)?;
        }
    } else if Path::new("Cargo.lock").is_file() {
        files.push(PathBuf::from("Cargo.lock"));
    }
    files.sort();
    // FNV-1a, 64 bits: it separates versions of a text, and needs no dependency.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        bytes.iter().for_each(|b| hash = (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    };
    for file in files {
        println!("cargo:rerun-if-changed={}", file.display());
        add(&fs::read(file)?);
    }
    add(variable("CARGO_PKG_VERSION").as_bytes());
    let rustc = Command::new(variable("RUSTC")).arg("-vV").output()?;
    add(&rustc.stdout);
    for name in ["TARGET", "OPT_LEVEL", "CARGO_ENCODED_RUSTFLAGS"] {
        println!("cargo:rerun-if-env-changed={name}");
        add(variable(name).as_bytes());
    }
    let features = std::env::vars().map(|v| v.0).filter(|name| name.starts_with("CARGO_FEATURE_"));
    let mut features: Vec<String> = features.collect();
    features.sort();
    features.iter().for_each(|name| add(name.as_bytes()));
    println!("cargo:rustc-env=PG_SOURCES={hash:016x}");
    println!("cargo:rerun-if-env-changed=PG_COMMIT");
    let commit = Some(variable("PG_COMMIT")).filter(|commit| !commit.is_empty()).or_else(commit);
    if let Some(commit) = commit {
        println!("cargo:rustc-env=PG_COMMIT={commit}");
    }
    Ok(())
}

/// The commit that is checked out, `-dirty` where a file that decides what programs compute is another; none where this is no
/// checkout of pg. It is asked for when such a file changes and at no other time: a new commit rebuilds nothing, and what was
/// built before it says so.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(["-C", ".."]).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Sources that were unpacked inside of another repository are not of its commits.
    let root = fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()?;
    if root != fs::canonicalize("..").ok()? {
        return None;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--", "Cargo.lock", "pg-runtime", "pg-codegen", "pg-ir"])?;
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Every source under a folder but tests and the command line, which compute nothing.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_source = path.extension().is_some_and(|e| e == "rs" || e == "pg" || e == "txt");
        if path.is_dir() {
            if !path.ends_with("cli") && !path.ends_with("tests") {
                list(&path, files)?;
            }
        } else if is_source && !path.ends_with("tests.rs") && !path.ends_with("main.rs") {
            files.push(path);
        }
    }
    Ok(())
}
