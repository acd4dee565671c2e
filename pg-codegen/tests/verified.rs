//! Every plan passes the verifier: of every model at its own size and at small ones, of every program, for every target,
//! fused and unfused. Random graphs pass in `differential`, which compiles them.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::programs::{ODD, SMALL, programs};
use pg_codegen::target::{ALL, CPU, H100, Target};
use pg_codegen::{Options, compile_for, lower_for, verify};

/// Compiles every program of a model, verifying each plan.
fn check(path: &Path, settings: &[(&str, &str)], shape: (usize, usize), targets: &[Target], fused: &[bool]) {
    for program in programs(path, settings, shape) {
        for target in targets {
            for &fuse in fused {
                let options = Options { fuse, ..Options::default() }.of(&program);
                let plan = compile_for(&program.name, &program.graph, &options, target);
                if let Err(e) = plan {
                    panic!("{} at {shape:?}, fuse {fuse}, on {}: {e}", path.display(), target.name);
                }
            }
        }
    }
}

#[test]
fn every_model_at_its_own_size() {
    for path in common::model_files() {
        check(&path, &[], (4, 512), &[CPU, H100], &[true]);
    }
}

#[test]
fn every_model_at_small_sizes_on_every_target() {
    for path in common::model_files() {
        check(&path, SMALL, (2, 8), &[CPU, H100], &[true, false]);
        check(&path, ODD, (3, 7), &[CPU, H100], &[true]);
    }
    check(&common::model_file("tiny.rs"), ODD, (2, 5), &ALL, &[true, false]);
}

#[test]
fn every_model_at_the_least_sizes() {
    for path in common::model_files() {
        check(&path, SMALL, (1, 1), &[CPU, H100], &[true, false]);
        check(&path, ODD, (1, 2), &[CPU, H100], &[true, false]);
    }
}

/// The quickest of several runs: other processes only add to it.
fn least(mut run: impl FnMut()) -> Duration {
    let timed = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..9).map(timed).min().unwrap_or_default()
}

/// What verifying costs beside compiling; a table for MEASURED.md.
#[test]
#[ignore = "measures; run alone in release with --nocapture"]
fn cost() {
    let path: PathBuf = common::model_file("int4mlp_12l.rs");
    for target in [CPU, H100] {
        for program in programs(&path, &[], (4, 512)) {
            let options = Options::default().of(&program);
            let lower = || lower_for(&program.name, &program.graph, &options, &target);
            let lowered = lower().unwrap_or_else(|e| panic!("{e}"));
            let lowering = least(|| drop(lower()));
            let plan = least(|| drop(verify::all_findings(&lowered)));
            let graph = least(|| _ = pg_ir::verify::verify(&lowered.graph));
            let launches = lowered.plan.launches.len();
            println!(
                "{:<6} {:<12} {launches:>5} launches, lowered in {lowering:>9.2?}, plan verified in {plan:>9.2?} ({:.1} %), \
                 one graph in {graph:>9.2?} ({:.1} %)",
                target.name,
                program.name,
                100.0 * plan.as_secs_f64() / lowering.as_secs_f64(),
                100.0 * graph.as_secs_f64() / lowering.as_secs_f64(),
            );
        }
    }
}
