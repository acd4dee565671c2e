//! Random graphs: the interpreter, the fused plan and the unfused plan agree, and every op, instruction
//! and kernel family is covered.

use std::collections::BTreeSet;

use pg_codegen::plan::Kernel;
use pg_codegen::{Options, compile};
use pg_fuzz::coverage::{FORMS, INSTRUCTIONS, form, instruction, stored};
use pg_ir::graph::{Builder, Graph, Origin, ValueId};
use pg_testing::plans::{compare, everywhere};

/// The graph with its second half as the backward pass of its first, which lets plans compute again what they
/// do not keep.
fn with_backward(graph: &Graph) -> Graph {
    let mut b = Builder::default();
    let mut renamed = Vec::new();
    let half = graph.nodes().len() / 2;
    for (id, node) in graph.nodes() {
        b.set_origin(Origin { backward: id.index() >= half, ..node.origin.clone() });
        let operands: Vec<ValueId> = node.operands.iter().map(|v| renamed[v.index()]).collect();
        renamed.extend(b.push(node.op.clone(), &operands).unwrap());
    }
    for output in &graph.outputs {
        b.output(output.slot.clone(), renamed[output.value.index()]);
    }
    b.finish()
}

fn check(seeds: std::ops::Range<u64>) -> BTreeSet<String> {
    let mut covered = BTreeSet::new();
    for seed in seeds {
        let (graph, env) = pg_fuzz::graphs::graph(seed);
        for (_, node) in graph.nodes() {
            covered.insert(node.op.record().name.to_string());
        }
        for (what, graph, plan) in everywhere(&graph) {
            for kernel in &plan.kernels {
                covered.insert(format!("{} kernel", form(kernel)));
                for (region, _) in kernel.regions() {
                    let tile = if matches!(kernel, Kernel::Region(_)) { "" } else { " on a tile" };
                    covered.extend(region.body.iter().map(|i| format!("{}{tile}", instruction(i))));
                }
                if let Some(m) = stored(kernel) {
                    let moved = m.n > 1 && m.c.col != 1;
                    covered.insert(format!("matmul accumulate {} moved {moved}", m.accumulate));
                }
            }
            compare(&graph, &env, &plan, &format!("seed {seed}, {what}"));
        }
        let halves = with_backward(&graph);
        let plan = compile("halves", &halves, &Options::default());
        let plan = plan.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        compare(&halves, &env, &plan, &format!("seed {seed}, with a backward half"));
        let whole =
            compile("whole", &graph, &Options::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        // The halves matter to nothing else.
        if plan.kernels != whole.kernels {
            covered.insert("recomputation".into());
        }
    }
    covered
}

#[test]
fn random_graphs_agree_with_the_interpreter() {
    let seeds = std::env::var("PG_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(400);
    let covered = check(0..seeds);
    for record in pg_ir::ops::all() {
        assert!(covered.contains(record.name), "{} is not covered", record.name);
    }
    for name in INSTRUCTIONS {
        assert!(covered.contains(name), "{name} is not covered");
    }
    for name in ["RowReduce", "Permute"] {
        assert!(covered.contains(&format!("{name} on a tile")), "{name} is not covered on a tile");
    }
    for (accumulate, moved) in [(false, false), (false, true), (true, false), (true, true)] {
        let name = format!("matmul accumulate {accumulate} moved {moved}");
        assert!(covered.contains(&name), "{name} is not covered");
    }
    assert!(covered.contains("recomputation"), "nothing was computed again");
    for family in FORMS {
        assert!(covered.contains(&format!("{family} kernel")), "{family} is not covered");
    }
}
