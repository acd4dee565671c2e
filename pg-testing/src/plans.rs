//! Plans of a graph, and whether they compute what the graph says.

use pg_codegen::machine::{CPU, Epilogues, H100, Machine};
use pg_codegen::{Options, compile_for};
use pg_fuzz::exec;
use pg_ir::graph::Graph;
use pg_ir::interp::{Environment, Tensor};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

/// Compares what a plan wrote with what the interpreter says. Both compute in float64; constants are
/// float32 in plans.
pub fn compare(graph: &Graph, env: &Environment, plan: &pg_codegen::plan::Plan, what: &str) {
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

/// Every way to compile a graph, with the graph that each is held to: unfused, fused, with products side by side and
/// regions on their results, as Hopper stores it, and as bfloat16 on a CPU.
pub fn everywhere(graph: &Graph) -> Vec<(String, Graph, pg_codegen::plan::Plan)> {
    // Graphs are small in tests, so rows of any length meet.
    let anywhere = Epilogues { rows: &ANY, of: DType::F32, chunk: 1 };
    let joined = Machine { epilogues: Some(anywhere), fuse_horizontally: true, concatenate_k: true, ..CPU };
    let rounded = Machine { storage: DType::BF16, ..CPU };
    let ways = [
        ("unfused", false, CPU),
        ("fused", true, CPU),
        ("joined", true, joined),
        ("on Hopper", true, H100),
        ("as bfloat16, unfused", false, rounded.clone()),
        ("as bfloat16", true, rounded),
    ];
    let compiled = |(what, fuse, target): (&str, bool, Machine)| {
        let options = Options { fuse, ..Options::default() };
        let stored = pg_codegen::stored(graph, &target).unwrap_or_else(|e| panic!("{what}: {e}"));
        let plan = compile_for("test", graph, &options, &target).unwrap_or_else(|e| panic!("{what}: {e}"));
        (what.to_string(), stored, plan)
    };
    ways.into_iter().map(compiled).collect()
}

/// Lengths of rows.
const ANY: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// Numbers for every input, of the size that training starts with.
pub fn environment(graph: &Graph) -> Environment {
    let mut rng = pg_fuzz::rng::Rng::new(7);
    let mut fill = |slot: &Slot, len: usize| -> Tensor {
        match slot.space {
            Space::Data => (0..len).map(|i| ((i * 7 + 3) % 48) as f64).collect(),
            Space::Scalar => vec![1.0; len],
            _ => (0..len).map(|_| rng.float() * 0.3).map(|x| f64::from(x as f32)).collect(),
        }
    };
    graph.inputs().map(|(slot, v)| (slot.clone(), fill(slot, graph.ty(v).len()))).collect()
}

/// |a − b| / |b| as vectors.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(x, y)| x - y));
    apart / norm(&mut b.iter().copied()).max(1e-12)
}
