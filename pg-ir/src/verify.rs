//! The verifier: what must hold of every graph, checked between passes.
//!
//! Types follow from operands, operands come before their users, every output's type fits its slot, and
//! quantisation is really there: see [`quantised`]. It must never repair anything.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::causality::{prove_causal, prove_pointwise};
use crate::graph::{Graph, ValueId};
use crate::lang::Diagnostics;
use crate::lang::model::Model;
use crate::op::Op;
use crate::programs::{self, Program};
use crate::quant::Grid;
use crate::refusal::Refusal;
use crate::slot::{Slot, Space};

/// Checks a graph's invariants. The error names the node and what is wrong with it.
pub fn verify(graph: &Graph) -> Result<(), Refusal> {
    for (_, node) in graph.nodes() {
        let at = |e: String| Refusal::new(format!("{} = {}: {e}", node.first, node.op)).at(node);
        if node.operands.iter().any(|v| *v >= node.first) {
            return Err(at("an operand comes after its user".into()));
        }
        let inferred = (node.op.record().infer)(&node.op, &graph.operand_types(node)).map_err(at)?;
        if graph.result_types(node).iter().copied().ne(&inferred) {
            return Err(at(format!("the recorded result types are not {inferred:?}")));
        }
    }
    let mut written: FxHashMap<&Slot, ValueId> = FxHashMap::default();
    for output in &graph.outputs {
        let ty = graph.ty(output.value);
        let space = output.slot.space;
        if !space.holds(ty.dtype) || matches!(space, Space::Data | Space::Scalar) {
            return Err(Refusal::new(format!("output {} of type {ty} cannot be written", output.slot)));
        }
        if written.insert(&output.slot, output.value).is_some() {
            return Err(Refusal::new(format!("output {} is written twice", output.slot)));
        }
    }
    let mut read: FxHashSet<&Slot> = FxHashSet::default();
    for (slot, value) in graph.inputs() {
        // A proof about a slot must not miss a second way in.
        if !read.insert(slot) {
            return Err(Refusal::new(format!("{slot} is an input twice")));
        }
        let fits = written.get(slot).is_none_or(|w| graph.ty(*w).len() == graph.ty(value).len());
        if !fits {
            return Err(Refusal::new(format!("{slot} is read and written with different sizes")));
        }
    }
    Ok(())
}

/// Proves that every use of the parameter `name` goes through the straight-through quantiser with
/// `grid`: no path reaches it any other way.
///
/// A quantiser read as a run-time flag can be folded away by a compiler (PR #549 lost its QAT so);
/// an op cannot disappear without this proof failing.
pub fn quantised(graph: &Graph, name: &str, grid: Grid) -> Result<(), Refusal> {
    let slot = Slot::new(Space::Param, name);
    let params: Vec<ValueId> = graph.inputs().filter(|(s, _)| **s == slot).map(|(_, v)| v).collect();
    for (_, node) in graph.nodes().filter(|(_, n)| n.operands.iter().any(|v| params.contains(v))) {
        let what = match node.op {
            Op::FakeQuant(g) if g == grid => continue,
            Op::FakeQuant(g) => format!("`{name}` is quantised to {g:?} instead of {grid:?}"),
            ref op => format!("`{name}` must be quantised ({grid:?}) but `{op}` reads it raw"),
        };
        return Err(Refusal::new(what).at(node));
    }
    Ok(())
}

/// Proves that a program that scores reads no parameter that the artifact lacks. A model may read other parameters at
/// another length of text, or of another number of sequences.
pub fn stored(model: &Model, program: &Program) -> Result<(), Refusal> {
    let graph = &program.graph;
    let mut seen = vec![false; graph.value_count()];
    let mut open: Vec<ValueId> = graph.outputs.iter().map(|output| output.value).collect();
    while let Some(value) = open.pop() {
        if !std::mem::replace(&mut seen[value.index()], true) {
            open.extend(graph.producer(value).operands.iter().copied());
        }
    }
    let lacking = |slot: &Slot| {
        slot.space == Space::Param && model.params.get(&slot.name).is_some_and(|param| !param.in_artifact)
    };
    match graph.inputs().find(|(slot, value)| seen[value.index()] && lacking(slot)) {
        None => Ok(()),
        Some((slot, value)) => {
            let what = format!(
                "`{}` is read here and is not in the artifact: no score of the lengths in the file depends on it",
                slot.name
            );
            Err(Refusal::new(what).at(graph.producer(value)))
        }
    }
}

/// All that must hold of a program that runs the model in `phase`, with its quantisers or without: the graph
/// is well formed, every parameter that trains on a grid is read through its quantiser (and nothing is
/// quantised without `qat`), and in this very graph the logits are causal and each target reaches its own
/// likelihood alone. A loss of the model's own may do with logits and targets what it likes; `score` never
/// uses it.
pub fn prove(model: &Model, phase: usize, qat: bool, program: &Program) -> Result<(), Refusal> {
    let graph = &program.graph;
    verify(graph)?;
    if qat {
        for (name, grid) in model.quantised_in(phase) {
            quantised(graph, name, grid)?;
        }
    } else if let Some((_, node)) = graph.nodes().find(|(_, n)| matches!(n.op, Op::FakeQuant(_))) {
        let what = "a program without quantisation-aware training holds a quantiser";
        return Err(Refusal::new(what).at(node));
    }
    let written = |name: &str| graph.output(&Slot::new(Space::Result, name));
    for logits in [program.logits, written("logits")].into_iter().flatten() {
        prove_causal(graph, logits)?;
    }
    for nll in [program.nll, written("nll")].into_iter().flatten() {
        prove_pointwise(graph, nll)?;
    }
    if written("nll").is_some() && program.logits.is_none() {
        return Err(Refusal::new("the likelihoods come from no logits that are known"));
    }
    Ok(())
}

impl Model {
    /// [Proves](prove) the programs of every phase, with and without quantisers, at the sizes of the file: a model may
    /// ask for the number of its sequences or their length, and leak at some alone.
    pub fn prove(&self) -> Result<(), Diagnostics> {
        let (train, eval) = (&self.train, &self.eval);
        let step = train.micro_batch_tokens.min(train.batch_tokens) / train.seq_len.max(1);
        // Two sequences at least, so that one cannot leak into the other unseen.
        let mut shapes = vec![(2, eval.seq_len), (2, train.seq_len), (step.max(2), train.seq_len)];
        shapes.dedup();
        for phase in 0..self.phases.len() {
            for qat in [false, true] {
                shapes.iter().try_for_each(|&shape| self.prove_phase(phase, qat, shape))?;
            }
        }
        Ok(())
    }

    fn prove_phase(&self, phase: usize, qat: bool, shape: (usize, usize)) -> Result<(), Diagnostics> {
        let scores = [programs::score(self, phase, shape, qat)?, programs::logits(self, phase, shape, qat)?];
        let grad = programs::grad(self, phase, shape, qat, false)?;
        let is_last = phase + 1 == self.phases.len();
        let refused =
            |program: &Program, refusal: &Refusal| self.refused(&program.name, Some(shape), refusal);
        for program in scores.iter().chain([&grad]) {
            prove(self, phase, qat, program).map_err(|refusal| refused(program, &refusal))?;
        }
        for program in scores.iter().filter(|_| is_last) {
            stored(self, program).map_err(|refusal| refused(program, &refusal))?;
        }
        Ok(())
    }
}
