//! Cached weights: what the first micro-batch of a step leaves is what the others would compute.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pg_codegen::machine::{CPU, H100, Machine};
use pg_codegen::pipeline::Pass;
use pg_codegen::plan::Place;
use pg_codegen::{Options, compile_for, graph_after};
use pg_ir::graph::Graph;
use pg_ir::interp;
use pg_ir::lang::{Options as Settings, Override, Source, elaborate};
use pg_ir::op::Op;
use pg_ir::programs::{self, Program};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use pg_testing::files::{model_file, model_files};
use pg_testing::plans::{distance, environment};
use pg_testing::programs::{SMALL, small_model};

/// The gradients of a step's first micro-batch and of the others, of int4mlp_12l made small.
fn gradients(qat: bool) -> [Program; 2] {
    let model = small_model(&model_file("int4mlp_12l.rs"), SMALL);
    [false, true].map(|next| programs::grad(&model, 0, (2, 8), qat, next).unwrap_or_else(|e| panic!("{e}")))
}

/// What values compute, as numbers: equal for equal expressions, in whatever graph and order they stand.
#[derive(Default)]
struct Numbers(HashMap<(Op, Vec<usize>, usize), usize>);

impl Numbers {
    /// The number of every output; inputs of slots in `known` are what `known` says.
    fn of(&mut self, graph: &Graph, known: &BTreeMap<Slot, usize>) -> BTreeMap<Slot, usize> {
        let mut numbers: Vec<usize> = Vec::new();
        for (_, node) in graph.nodes() {
            let given = match &node.op {
                Op::Input(slot, _) => known.get(slot),
                _ => None,
            };
            let operands: Vec<usize> = node.operands.iter().map(|v| numbers[v.index()]).collect();
            for result in 0..node.results as usize {
                let next = self.0.len();
                let key = (node.op.clone(), operands.clone(), result);
                let number = given.copied().unwrap_or_else(|| *self.0.entry(key).or_insert(next));
                numbers.push(number);
            }
        }
        graph.outputs.iter().map(|o| (o.slot.clone(), numbers[o.value.index()])).collect()
    }
}

fn canonical(program: &Program, options: &Options, target: &Machine) -> Graph {
    let graph = graph_after(Pass::Canonicalize, &program.graph, options, target);
    graph.unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn what_the_first_leaves_is_what_the_others_would_compute() {
    for (target, qat) in [(&CPU, true), (&H100, true), (&H100, false)] {
        let [first, next] = gradients(qat);
        let own = Options::default();
        let mut numbers = Numbers::default();
        let nothing = BTreeMap::new();
        let mut of_first = numbers.of(&canonical(&first, &own.of(&first), target), &nothing);
        let (left, results): (BTreeMap<_, _>, _) = std::mem::take(&mut of_first)
            .into_iter()
            .partition(|(slot, _)| slot.space == Space::CachedWeight);
        assert_eq!(results, numbers.of(&canonical(&first, &own, target), &nothing));

        let found = canonical(&next, &own.of(&next), target);
        let cached = found.inputs().filter(|(slot, _)| slot.space == Space::CachedWeight);
        assert_eq!(cached.map(|(slot, _)| slot).collect::<BTreeSet<_>>(), left.keys().collect());
        assert_eq!(numbers.of(&found, &left), numbers.of(&canonical(&next, &own, target), &nothing));
        assert!(!left.is_empty());
    }
}

/// First and next are programs of their own, and each finds its forms by itself: in every model, phase and way to
/// store they must be the same, or a step would end with its first micro-batch.
#[test]
fn every_model_leaves_what_it_finds() {
    let mut seen = 0;
    for path in model_files() {
        let source = Source::load(&path).unwrap_or_else(|e| panic!("{e}"));
        let settings = Settings { overrides: vec![Override::set("LAYERS", "4")], profile: None };
        let model = elaborate(&source, &settings);
        let model = model.or_else(|_| elaborate(&source, &Settings::default()));
        let model = model.unwrap_or_else(|e| panic!("{e}"));
        for (phase, qat) in (0..model.phases.len()).flat_map(|phase| [(phase, false), (phase, true)]) {
            for target in [&CPU, &H100] {
                let forms = |next: bool| -> BTreeSet<Slot> {
                    let program = programs::grad(&model, phase, (1, 16), qat, next);
                    let program = program.unwrap_or_else(|e| panic!("{e}"));
                    let options = Options::default().of(&program);
                    let graph = graph_after(Pass::CachedWeights, &program.graph, &options, target).unwrap();
                    let read = graph.inputs().map(|(slot, _)| slot.clone());
                    let slots = read.chain(graph.outputs.iter().map(|o| o.slot.clone()));
                    slots.filter(|slot| slot.space == Space::CachedWeight).collect()
                };
                let (left, found) = (forms(false), forms(true));
                assert_eq!(left, found, "{} phase {phase} qat {qat} on {}", path.display(), target.name);
                seen += left.len();
            }
        }
    }
    assert!(seen > 100, "{seen} cached weights");
}

/// Every matrix is read as it was left, and nothing is left of what small parameters become on the way.
#[test]
fn operands_are_plain_loads() {
    let [_, next] = gradients(true);
    for target in [&CPU, &H100] {
        let graph = canonical(&next, &Options::default().of(&next), target);
        assert!(!graph.nodes().any(|(_, n)| matches!(n.op, Op::FakeQuant(_))));
        for (slot, value) in graph.inputs() {
            let is_cast = |op: &Op| *op == Op::Cast(DType::BF16);
            let rounds = graph.nodes().any(|(_, n)| is_cast(&n.op) && n.operands[0] == value);
            assert!(slot.space != Space::Param || !rounds, "{slot} is rounded for every micro-batch");
        }
    }
}

/// Without quantisers and in float32, parameters are read as they are: nothing is left and nothing is found.
#[test]
fn nothing_is_cached_of_what_is_read_as_it_is() {
    for program in gradients(false) {
        let options = Options::default();
        assert_eq!(canonical(&program, &options.of(&program), &CPU), canonical(&program, &options, &CPU));
    }
}

#[test]
fn plans_of_both_compute_what_the_interpreter_does() {
    let [first, next] = gradients(true);
    // A last bit of float64 may turn a rounding to bf16 the other way, rarely.
    for (target, bound) in [(&CPU, 1e-5), (&H100, 2f64.powi(-8))] {
        for fuse in [true, false] {
            let options = Options { fuse, ..Options::default() };
            let compile = |program: &Program| {
                let plan = compile_for(&program.name, &program.graph, &options.of(program), target);
                plan.unwrap_or_else(|e| panic!("{e}"))
            };
            let env = environment(&next.graph);
            let mut found = pg_fuzz::exec::run(&compile(&first), &env);
            found.retain(|slot, _| slot.space == Space::CachedWeight);
            let plan = compile(&next);
            let is_read = |slot: &Slot| plan.buffers.iter().any(|b| b.place == Place::External(slot.clone()));
            assert!(found.len() > 10 && found.keys().all(is_read));
            let found = pg_fuzz::exec::run(&plan, &env.clone().into_iter().chain(found).collect());
            let stored = pg_codegen::stored(&next.graph, target).unwrap();
            for (slot, want) in &interp::run(&stored, &env).unwrap() {
                let apart = distance(&found[slot], want);
                assert!(apart <= bound, "{} fuse {fuse}, {slot}: {apart}", target.name);
            }
        }
    }
}
