//! Where the workspace's files are.

use std::path::PathBuf;

/// The workspace's root, whichever package's test this is.
pub fn root() -> PathBuf {
    // Cargo sets it when it runs a test, and `scripts/gpu-check` for tests that were carried to another machine.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    if package.join("models").exists() { package } else { package.join("..") }
}

/// The blocks of a document that are fenced with this info string, in order.
pub fn fenced(document: &str, info: &str) -> Vec<String> {
    let path = root().join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let fence = format!("```{info}\n");
    let blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// A model file by name.
pub fn model_file(name: &str) -> PathBuf {
    root().join("models").join(name)
}

/// Every model file, ideas included, by name.
pub fn model_files() -> Vec<PathBuf> {
    let root = model_file("");
    let list = |folder: PathBuf| {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "rs"))
    };
    let mut all: Vec<PathBuf> = list(root.clone()).chain(list(root.join("ideas"))).collect();
    all.retain(|p| p.file_name().is_some_and(|n| n != "lib.rs"));
    // A model before its ideas.
    all.sort_by_key(|p| (p.components().count(), p.clone()));
    assert!(all.len() >= 5, "{all:?}");
    all
}
