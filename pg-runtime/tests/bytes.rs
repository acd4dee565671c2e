//! The fuzz targets on `fuzz/seeds`: inputs of every kind, and what once was wrong.

use std::path::Path;

#[path = "../../fuzz/targets.rs"]
mod targets;

#[test]
fn every_seed_is_read_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, target) in targets::TARGETS {
        let entries = std::fs::read_dir(folder.join(name)).unwrap();
        let seeds: Vec<_> = entries.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect();
        assert!(seeds.len() > 1, "{name}: no seeds");
        for seed in &seeds {
            target(seed);
            // Ends early, and one byte is another.
            for at in 0..seed.len().min(300) {
                target(&seed[..at]);
                let mut changed = seed.clone();
                changed[at] ^= 0x55;
                target(&changed);
            }
        }
    }
}

/// Every target is a program, and every folder of seeds a target's.
#[test]
fn programs_and_seeds_are_the_targets() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let names = |sub: &str| -> Vec<String> {
        let entries = std::fs::read_dir(folder.join(sub)).unwrap().map(|e| e.unwrap().path());
        let mut names: Vec<_> =
            entries.map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let mut targets = targets::TARGETS.map(|(name, _)| name);
    targets.sort_unstable();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("seeds"), targets);
}
