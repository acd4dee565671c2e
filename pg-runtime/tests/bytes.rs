//! The fuzz targets on `fuzz/seeds`: inputs of every kind, and what once was wrong. And on what becomes of them at random, without
//! libFuzzer's guidance: PG_BYTES=FROM..TO are the numbers of these inputs, of each target.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use pg_fuzz::rng::Rng;

#[path = "../../fuzz/targets.rs"]
mod targets;

#[test]
fn every_seed_is_read_or_refused() {
    for (name, target) in targets::TARGETS {
        let seeds = seeds(name);
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

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A seed in which some bytes are others, missing, repeated, or another seed's.
fn mutated(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'"', b'{'];
    let mut bytes = rng.pick(seeds);
    for _ in 0..=rng.below(8) {
        let at = rng.below(bytes.len() + 1);
        let most = rng.pick(&[2, 9, 300]);
        let to = (at + rng.below(most)).min(bytes.len());
        match rng.below(6) {
            0 => bytes[at..to].fill(rng.pick(&EDGES)),
            1 => bytes[at..to].iter_mut().for_each(|byte| *byte ^= 1 << rng.below(8)),
            2 => drop(bytes.drain(at..to)),
            3 => bytes.splice(to..to, bytes[at..to].to_vec()).for_each(drop),
            4 => {
                let other = rng.pick(seeds);
                let from = rng.below(other.len() + 1);
                let upto = (from + rng.below(64)).min(other.len());
                bytes.splice(at..to, other[from..upto].iter().copied()).for_each(drop);
            }
            _ => bytes.truncate(bytes.len() - rng.below(bytes.len() / 8 + 1)),
        }
    }
    bytes
}

/// What `PG_BYTES` asks for, or some for every run of the tests.
fn numbers() -> Range<u64> {
    let Ok(text) = std::env::var("PG_BYTES") else { return 0..2_000 };
    let ends = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    ends.unwrap_or_else(|| panic!("PG_BYTES={text}: expected FROM..TO"))
}

#[test]
fn what_seeds_become_at_random_is_read_or_refused() {
    for (name, target) in targets::TARGETS {
        let (seeds, start) = (seeds(name), std::time::Instant::now());
        for number in numbers() {
            let bytes = mutated(&seeds, &mut Rng::of(number, name));
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                panic!("{name}: PG_BYTES={number}..{} shows it", number + 1);
            }
        }
        eprintln!("{name}: {} inputs, {:.1} s", numbers().count(), start.elapsed().as_secs_f64());
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
