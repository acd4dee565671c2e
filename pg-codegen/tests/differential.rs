//! Random graphs: the interpreter, the fused plan and the unfused plan agree, and every op, instruction
//! and kernel family is covered.

mod common;

use std::collections::BTreeSet;

use pg_codegen::plan::Kernel;
use pg_codegen::precision::store_as;
use pg_codegen::region::Instr;
use pg_codegen::target::{CPU, Epilogues, H100, Target};
use pg_codegen::{Options, compile, compile_for};
use pg_ir::graph::{Builder, Graph, Origin, ValueId};
use pg_ir::ty::DType;

/// Lengths of rows.
const ANY: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn instr_name(instr: &Instr) -> String {
    let text = format!("{instr:?}");
    text.split(['(', ' ', '{']).next().unwrap().into()
}

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
        for fuse in [false, true] {
            let what = format!("seed {seed}, fuse {fuse}");
            let plan = compile("random", &graph, &Options { fuse, ..Options::default() })
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            for kernel in &plan.kernels {
                covered.insert(format!("{} kernel", kernel.family()));
                match kernel {
                    Kernel::Region(region) => covered.extend(region.body.iter().map(instr_name)),
                    Kernel::Matmul(m) => {
                        let moved = m.n > 1 && m.c.col != 1;
                        covered.insert(format!("matmul accumulate {} moved {moved}", m.accumulate));
                    }
                    _ => {}
                }
            }
            common::compare(&graph, &env, &plan, &what);
        }
        // Graphs are small here, so rows of any length meet.
        let anywhere = Epilogues { rows: &ANY, of: DType::F32, chunk: 1 };
        for target in [Target { epilogues: Some(anywhere), side_by_side: true, ..CPU }, H100] {
            let what = format!("seed {seed}, as matrix units want it, on {}", target.name);
            let plan = compile_for("random", &graph, &Options::default(), &target);
            let plan = plan.unwrap_or_else(|e| panic!("{what}: {e}"));
            for kernel in &plan.kernels {
                covered.insert(format!("{} kernel", kernel.family()));
                if let Kernel::MatmulRegion(_, region) = kernel {
                    covered.extend(region.body.iter().map(|i| format!("{} on a tile", instr_name(i))));
                }
            }
            let stored = store_as(&graph, target.storage).unwrap_or_else(|e| panic!("{what}: {e}"));
            common::compare(&stored, &env, &plan, &what);
        }
        let rounded = store_as(&graph, DType::BF16).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        for fuse in [false, true] {
            let what = format!("seed {seed}, stored as bf16, fuse {fuse}");
            let plan = compile("random", &rounded, &Options { fuse, ..Options::default() })
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            common::compare(&rounded, &env, &plan, &what);
        }
        let halves = with_backward(&graph);
        let plan = compile("halves", &halves, &Options::default());
        let plan = plan.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        common::compare(&halves, &env, &plan, &format!("seed {seed}, with a backward half"));
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
    for name in [
        "Load",
        "Gather",
        "Const",
        "ConstInt",
        "Index",
        "Unary",
        "Binary",
        "Select",
        "Cast",
        "RowReduce",
        "Lanes",
        "FakeQuant",
        "Store",
        "Accumulate",
    ] {
        assert!(covered.contains(name), "{name} is not covered");
    }
    for name in ["RowReduce", "Lanes"] {
        assert!(covered.contains(&format!("{name} on a tile")), "{name} is not covered on a tile");
    }
    for (accumulate, moved) in [(false, false), (false, true), (true, false), (true, true)] {
        let name = format!("matmul accumulate {accumulate} moved {moved}");
        assert!(covered.contains(&name), "{name} is not covered");
    }
    assert!(covered.contains("recomputation"), "nothing was computed again");
    for family in
        ["region", "matmul", "matmul_region", "matmuls", "attention", "attention_grad", "scatter_add", "copy"]
    {
        assert!(covered.contains(&format!("{family} kernel")), "{family} is not covered");
    }
}
