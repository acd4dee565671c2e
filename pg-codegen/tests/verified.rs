//! Every good plan passes the verifier: of every model at its own size and at small ones, of every program, for every
//! target, fused and unfused; and of random graphs, more of them than `differential` has time to run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pg_codegen::machine::{ALL, CPU, Epilogues, H100, Machine};
use pg_codegen::{Options, compile_for, lower_for, verify};
use pg_ir::ty::DType;
use pg_testing::files::{model_file, model_files};
use pg_testing::programs::{ODD, SMALL, programs};

/// Compiles every program of a model, verifying each plan.
fn check(path: &Path, settings: &[(&str, &str)], shape: (usize, usize), targets: &[Machine], fused: &[bool]) {
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
    for path in model_files() {
        // For the CPU: tests/models.rs.
        check(&path, &[], (4, 512), &[H100], &[true]);
    }
}

#[test]
fn every_model_at_small_sizes_on_every_target() {
    for path in model_files() {
        check(&path, SMALL, (2, 8), &[CPU, H100], &[true, false]);
        check(&path, ODD, (3, 7), &[CPU, H100], &[true]);
    }
    check(&model_file("tiny.rs"), ODD, (2, 5), ALL, &[true, false]);
}

#[test]
fn every_model_at_the_least_sizes() {
    for path in model_files() {
        check(&path, SMALL, (1, 1), &[CPU, H100], &[true, false]);
        check(&path, ODD, (1, 2), &[CPU, H100], &[true, false]);
    }
}

#[test]
fn random_graphs() {
    let seeds = std::env::var("PG_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1000);
    let rows: Vec<usize> = (1..=16).collect();
    let anywhere = Epilogues { rows: rows.leak(), of: DType::F32, chunk: 1 };
    let any = Machine { name: "any".into(), epilogues: Some(anywhere), fuse_horizontally: true, ..CPU };
    for seed in 0..seeds {
        let (graph, _) = pg_fuzz::graphs::graph(seed);
        for (target, fuse) in [(&CPU, false), (&CPU, true), (&H100, false), (&H100, true), (&any, true)] {
            let options = Options { fuse, ..Options::default() };
            if let Err(e) = compile_for("random", &graph, &options, target) {
                panic!("seed {seed} on {}, fuse {fuse}: {e}", target.name);
            }
        }
    }
}

/// Time on a processor of this thread, which other processes do not add to.
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_else(|e| panic!("{e}"));
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// What one of several runs takes.
fn each(mut run: impl FnMut()) -> Duration {
    const RUNS: u32 = 20;
    let start = on_processor();
    (0..RUNS).for_each(|_| run());
    (on_processor() - start) / RUNS
}

/// What verifying costs beside compiling; a table for MEASURED.md.
#[test]
#[ignore = "measures; run alone in release with --nocapture"]
fn cost() {
    let path: PathBuf = model_file("int4mlp_12l.rs");
    for target in [CPU, H100] {
        let mut total = [Duration::ZERO; 3];
        for program in programs(&path, &[], (4, 512)) {
            let options = Options::default().of(&program);
            let lower = || lower_for(&program.name, &program.graph, &options, &target);
            let lowered = lower().unwrap_or_else(|e| panic!("{e}"));
            let lowering = each(|| drop(lower()));
            let plan = each(|| drop(verify::all_findings(&lowered)));
            let graph = each(|| _ = pg_ir::verify::verify(&lowered.graph));
            let launches = lowered.plan.launches.len();
            let part = |time: Duration| 100.0 * time.as_secs_f64() / lowering.as_secs_f64();
            println!(
                "{:<4} {:<14} {launches:>3} launches, lowered in {lowering:>7.1?}; plan {plan:>7.2?} ({:.1} %), a graph \
                 {graph:>7.0?} ({:.2} %)",
                target.name,
                program.name,
                part(plan),
                part(graph),
            );
            (0..3).zip([lowering, plan, graph]).for_each(|(i, time)| total[i] += time);
        }
        // What compiling a model takes before it comes to lowering: its text, programs and gradients.
        let building = each(|| drop(programs(&path, &[], (4, 512))));
        let part = |i: usize| 100.0 * total[i].as_secs_f64() / (building + total[0]).as_secs_f64();
        println!(
            "{}: {building:.1?} to build, {:.1?} to lower; plans {:.1} % of both, a graph of each {:.2} %",
            target.name,
            total[0],
            part(1),
            part(2)
        );
    }
}
