//! A kernel's hash is its identity, in caches and in bundles: what has one hash must have one source.

use std::collections::HashMap;
use std::sync::Arc;

use pg_codegen::kernels::{Generated, emit_cuda};
use pg_codegen::machine::H100;

use crate::models;
use crate::offline::FULL;

/// A kernel's source without where its shared arrays lie, which CubeCL decides anew every time.
fn source(kernel: &Generated) -> String {
    let is_placed = |l: &&str| !l.contains("dynamic_shared_mem[") && !l.contains("// Shared array size");
    let text = emit_cuda(kernel).unwrap_or_else(|e| panic!("{e}"));
    text.lines().filter(is_placed).collect::<Vec<_>>().join("\n")
}

/// Kernels that were made apart, for launches of different programs and models, and have one hash. Of each hash one
/// pair is compared: more would take minutes.
#[test]
fn kernels_of_one_hash_have_one_source() {
    let mut known: HashMap<[u64; 4], (Arc<Generated>, bool)> = HashMap::new();
    let mut compared = 0;
    models::for_each_program(FULL, &H100, |name, plan, made| {
        let made = made.unwrap_or_else(|e| panic!("{name} {}: {e}", plan.program));
        for kernel in made.launches.into_iter().map(|g| g.stage.kernel) {
            let (first, done) = known.entry(kernel.hash()).or_insert_with(|| (kernel.clone(), false));
            if !*done && !Arc::ptr_eq(first, &kernel) {
                (*done, compared) = (true, compared + 1);
                let what = format!("{} of {name} {}", kernel.name(), plan.program);
                assert_eq!(source(first), source(&kernel), "{what}");
                assert_eq!(first.shared_bytes(), kernel.shared_bytes(), "{what}");
            }
        }
    });
    println!("{} kernels, {compared} pairs compared", known.len());
    assert!(compared > known.len() / 4, "{compared} pairs of {} kernels", known.len());
}
