//! Bundles: built, found whole, asked for what CubeCL asks for, and refused with a reason when they are not.

use std::path::Path;
use std::sync::Arc;

use cubecl::prelude::KernelMetadata;
use pg_codegen::cuda::{Bundle, BundleError, Manifest, Recipe, Tools};
use pg_codegen::kernels::{Generated, Launchable, extents, generate};
use pg_codegen::machine::H100;
use pg_ir::programs::Program;

use crate::models;
use crate::offline::tools;

/// Builds a bundle of kernels.
fn build(folder: &Path, kernels: &[Arc<Generated>], tools: &Tools) -> Result<Bundle, BundleError> {
    let recipe = recipe(kernels, "8 × 256");
    let builds = tools.build_all(&recipe.kernels, &mut |_| {}).unwrap();
    Bundle::write(folder, &recipe, &builds, tools.version())
}

fn recipe(kernels: &[Arc<Generated>], shape: &str) -> Recipe {
    let built_for = [("programs".to_string(), format!("score {shape}"))].into();
    Recipe { kernels: kernels.to_vec(), built_for }
}

/// The kernels of two programs of tiny.
fn kernels() -> Vec<Arc<Generated>> {
    let model = models::model(&models::file("tiny.rs"), &[("LAYERS", "1")]);
    let all = models::programs(&model, 256);
    let programs = all.iter().filter(|p| ["score", "adapt"].contains(&p.name.as_str()));
    programs.flat_map(kernels_of).collect()
}

fn kernels_of(program: &Program) -> Vec<Arc<Generated>> {
    let plan = models::plan(program);
    let made = generate(&plan, &extents(&plan, |_| None), &H100).unwrap();
    made.launches.into_iter().map(|g| g.stage.kernel).collect()
}

fn edit(folder: &Path, change: impl Fn(&mut Manifest)) {
    let path = folder.join("manifest.json");
    let mut manifest: Manifest = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(path, serde_json::to_string(&manifest).unwrap()).unwrap();
}

/// Files under a folder, by size, the largest last.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() { all.extend(files(&entry)) } else { all.push(entry) }
    }
    all.sort_by_key(|p| p.metadata().unwrap().len());
    all
}

#[test]
fn a_bundle_holds_every_kernel_under_the_key_that_is_asked_for() {
    let Some(tools) = tools() else { return };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("bundle");
    let kernels = kernels();
    let built = build(&folder, &kernels, &tools).unwrap();
    let opened = Bundle::open(&folder).unwrap();
    assert_eq!(opened.manifest(), built.manifest());
    opened.check(&recipe(&kernels, "8 × 256")).unwrap();
    let mut names: Vec<&str> = kernels.iter().map(|k| k.name()).collect();
    names.sort();
    names.dedup();
    let listed: Vec<&str> = opened.manifest().kernels.iter().map(|k| k.name.as_str()).collect();
    assert_eq!(listed, names, "each once");
    for kernel in &kernels {
        // The id that the executor launches with, as the server changes it before it looks.
        let mut id = Launchable(kernel.clone()).id();
        id.mode(cubecl::prelude::ExecutionMode::Unchecked);
        assert_eq!(id.stable_hash(), kernel.cache_key());
    }
    for entry in &opened.manifest().kernels {
        let kernel = kernels.iter().find(|k| k.name() == entry.name).unwrap();
        assert!(entry.shared_bytes <= kernel.shared_bytes(), "{}", entry.name);
    }

    // Another model's kernels are not in it.
    let other = models::model(&models::file("tiny.rs"), &[("LAYERS", "1"), ("DIM", "256")]);
    let score = models::programs(&other, 256).into_iter().find(|p| p.name == "score").unwrap();
    let wanted = recipe(&kernels_of(&score), "2 × 512");
    let error = opened.check(&wanted).unwrap_err().to_string();
    for part in
        ["kernels are missing (`", "programs: score 8 × 256 there, score 2 × 512 here", "build it again"]
    {
        assert!(error.contains(part), "{error}");
    }

    // The same content is found again; another does not replace it unless asked to.
    let content = recipe(&kernels, "another word for it").content(tools.version());
    assert_eq!(content, built.manifest().content);
    assert!(Bundle::existing(&folder, &content, false).unwrap().is_some());
    let other = wanted.content(tools.version());
    let error = Bundle::existing(&folder, &other, false).unwrap_err().to_string();
    assert!(error.contains("holds a bundle of other kernels; --force replaces it"), "{error}");
    assert!(Bundle::existing(&folder, &other, true).unwrap().is_none());
    assert!(folder.is_dir(), "asking replaces nothing");
    refused(&folder);
}

/// What is wrong with a bundle is found when it is opened.
fn refused(folder: &Path) {
    let generator = Bundle::open(folder).unwrap().manifest().generator.clone();
    let refusal = || Bundle::open(folder).unwrap_err().to_string();
    edit(folder, |m| m.cubecl = "0.9.0".into());
    assert!(refusal().contains("CubeCL is 0.9.0 there and 0.10.0 here"), "{}", refusal());
    edit(folder, |m| (m.cubecl, m.architecture) = ("0.10.0".into(), "sm_80".into()));
    assert!(refusal().contains("the architecture is sm_80 there and sm_90a here"), "{}", refusal());
    edit(folder, |m| (m.architecture, m.generator) = ("sm_90a".into(), "0".into()));
    assert!(refusal().contains("the kernel generator is 0 there and "), "{}", refusal());
    edit(folder, |m| m.generator = generator.clone());
    Bundle::open(folder).unwrap();
    edit(folder, |m| m.kernels[0].key = "1".into());
    assert!(refusal().contains("is missing"), "{}", refusal());
    std::fs::write(folder.join("manifest.json"), "{").unwrap();
    assert!(refusal().contains("its manifest cannot be read"), "{}", refusal());
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    assert!(refusal().contains("there is no bundle in"), "{}", refusal());
}

#[test]
fn a_damaged_binary_is_refused() {
    let Some(tools) = tools() else { return };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("bundle");
    let kernels = kernels();
    build(&folder, &kernels[..2], &tools).unwrap();
    Bundle::open(&folder).unwrap();
    let chunk = files(&folder).pop().unwrap();
    let mut bytes = std::fs::read(&chunk).unwrap();
    // A byte of code: numbers below 24 are one byte of the file, and stay one.
    let at = (bytes.len() / 2..bytes.len()).find(|&i| bytes[i] == 1 && bytes[i - 1] == 0).unwrap();
    bytes[at] = 2;
    std::fs::write(&chunk, &bytes).unwrap();
    let error = Bundle::open(&folder).unwrap_err().to_string();
    assert!(error.contains("is not the manifest's") || error.contains("cannot be read"), "{error}");
    std::fs::write(&chunk, &bytes[..bytes.len() / 3]).unwrap();
    let error = Bundle::open(&folder).unwrap_err().to_string();
    assert!(error.contains("build it again"), "{error}");
}
