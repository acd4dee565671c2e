//! What a search has met: op records, library functions, kernel families and region instructions, rewrites of the
//! compiler's passes. A search that misses one of them is no search, so tests assert that none is missing.

use std::collections::BTreeSet;

use pg_codegen::passes::rewrites::Rewrite;
use pg_codegen::plan::{Kernel, Matmul, Member, Plan};
use pg_codegen::region::Instr;
use pg_ir::graph::Graph;
use pg_ir::lang::model::Model;
use pg_ir::lang::reference;
use pg_ir::op::Op;

/// Names of what was met.
#[derive(Clone, Default, Debug)]
pub struct Coverage(BTreeSet<String>);

/// Instructions of regions that every search must meet, by [`instruction`].
pub const INSTRUCTIONS: [&str; 14] = [
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
    "Permute",
    "FakeQuant",
    "Store",
    "Accumulate",
];

/// Kernel families, in all their forms, that every search must meet.
pub const FORMS: [&str; 9] = [
    "region",
    "contraction",
    "contraction with epilogue",
    "contraction of several",
    "contraction over segments",
    "attention",
    "attention_grad",
    "scatter_add",
    "copy",
];

/// A kernel's family, and of a contraction which of its forms.
pub fn form(kernel: &Kernel) -> &'static str {
    let Kernel::Contraction(contraction) = kernel else { return kernel.family() };
    match contraction.single() {
        None => "contraction of several",
        Some(Member { segments, .. }) if !segments.is_empty() => "contraction over segments",
        Some(Member { epilogue: Some(_), .. }) => "contraction with epilogue",
        Some(_) => "contraction",
    }
}

/// The product of a contraction that is nothing else.
pub fn stored(kernel: &Kernel) -> Option<&Matmul> {
    let Kernel::Contraction(contraction) = kernel else { return None };
    contraction.single().filter(|m| m.epilogue.is_none() && m.segments.is_empty()).map(|m| &m.matmul)
}

/// Rewrites that no program of a model needs: front end and autodiff drop axes of size 1 before they reduce, and no
/// program writes one slot with what it reads of another. The random graphs have both.
const UNREACHABLE: [Rewrite; 2] = [Rewrite::DropReduction, Rewrite::SaveSlot];

impl Coverage {
    /// Adds what another search met.
    pub fn extend(&mut self, other: Coverage) {
        self.0.extend(other.0);
    }

    /// A graph's ops.
    pub(crate) fn graph(&mut self, graph: &Graph) {
        for (_, node) in graph.nodes() {
            self.0.insert(format!("op {}", node.op.record().name));
            if matches!(node.op, Op::FakeQuant(_)) {
                self.0.insert("op fake_quant".into());
            }
        }
    }

    /// Library functions that a model calls.
    pub(crate) fn model(&mut self, model: &Model) {
        for source in model.sources.iter().filter(|s| s.file.starts_with("std/")) {
            for line in source.text.lines().filter_map(|l| l.strip_prefix("fn ")) {
                self.0.insert(format!("fn {}", line.split('(').next().unwrap_or_default()));
            }
        }
    }

    /// A plan's kernels.
    pub(crate) fn plan(&mut self, plan: &Plan) {
        for kernel in &plan.kernels {
            self.0.insert(format!("kernel {}", form(kernel)));
            if let Some(m) = stored(kernel) {
                let moved = m.n > 1 && m.c.col != 1;
                self.0.insert(format!("matmul accumulate {} moved {moved}", m.accumulate));
            }
            for (region, _) in kernel.regions() {
                let tile = if matches!(kernel, Kernel::Region(_)) { "" } else { " on a tile" };
                self.0.extend(region.body.iter().map(|i| format!("instruction {}{tile}", instruction(i))));
            }
        }
    }

    /// What was not met of all that there is. Rewrites of the compiler's passes are counted by the process.
    pub fn missing(&self) -> Vec<String> {
        let ops = pg_ir::ops::all().iter().map(|r| format!("op {}", r.name));
        let functions =
            reference().into_iter().filter(|f| f.text.is_some()).map(|f| format!("fn {}", f.name));
        let instructions = INSTRUCTIONS.iter().map(|i| format!("instruction {i}"));
        let on_tiles = ["RowReduce", "Permute", "Unary", "Binary", "Store"];
        let on_tiles = on_tiles.iter().map(|i| format!("instruction {i} on a tile"));
        let families = FORMS.iter().map(|f| format!("kernel {f}"));
        let matmuls = [(false, false), (false, true), (true, false), (true, true)];
        let matmuls = matmuls.iter().map(|(a, m)| format!("matmul accumulate {a} moved {m}"));
        let all = ops.chain(functions).chain(instructions).chain(on_tiles).chain(families).chain(matmuls);
        let unmet = all.filter(|name| !self.0.contains(name));
        let not_taken = Rewrite::ALL.iter().filter(|r| r.count() == 0 && !UNREACHABLE.contains(r));
        let not_taken = not_taken.map(|r| format!("rewrite {r:?}"));
        unmet.chain(not_taken).collect()
    }
}

/// An instruction's name.
pub fn instruction(instr: &Instr) -> String {
    let text = format!("{instr:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().into()
}
