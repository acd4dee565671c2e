//! What the tests of plans share.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod exec;
pub(crate) mod random;

use pg_ir::graph::Graph;
use pg_ir::interp::{Environment, Tensor};

/// Compares what a plan wrote with what the interpreter says. Both compute in float64; constants are
/// float32 in plans.
pub(crate) fn compare(graph: &Graph, env: &Environment, plan: &pg_codegen::plan::Plan, what: &str) {
    let expected = pg_ir::interp::run(graph, env).unwrap();
    let found = exec::run(plan, env);
    for (slot, want) in &expected {
        let got: &Tensor =
            found.get(slot).or(env.get(slot)).unwrap_or_else(|| panic!("{what}: {slot} was not written"));
        assert_eq!(got.len(), want.len(), "{what}: {slot}");
        let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let same = (g - w).abs() <= 1e-5 * scale || g == w || (g.is_nan() && w.is_nan());
            assert!(same, "{what}: {slot}[{i}] is {g}, should be {w}\n{plan}");
        }
    }
}
