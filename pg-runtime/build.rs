//! A hash of everything that decides what programs compute: sources of the front end, the passes, the kernels and the
//! executors, dependencies, compiler. What was validated by one pg is not taken for another's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> io::Result<()> {
    let mut files = vec![PathBuf::from("../Cargo.lock")];
    for folder in ["src", "../pg-codegen/src", "../pg-ir/src", "../pg-ir/library"] {
        list(Path::new(folder), &mut files)?;
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
    Ok(())
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
