//! The programs of the models in `models/`, and the generated kernels that they become.

use std::collections::BTreeMap;

use pg_codegen::kernels::{Entry, Generations, LaunchError, extents, generate, inventory};
use pg_codegen::machine::{H100, Machine};
use pg_codegen::plan::Plan;
use pg_codegen::{Options, compile_for};
use pg_ir::lang::layout::Layout;
use pg_ir::lang::model::Model;
use pg_ir::programs::{self, Program};
pub(crate) use pg_testing::files::model_file as file;
use pg_testing::files::model_files;
pub(crate) use pg_testing::models::model_with as model;

/// Every program of a model, whose micro-batches have so many tokens.
pub(crate) fn programs(model: &Model, tokens: usize) -> Vec<Program> {
    let layout = Layout::new(model);
    let shape = ((tokens / model.train.seq_len).max(1), model.train.seq_len);
    let mut all = Vec::new();
    for phase in 0..model.phases.len() {
        for (qat, accumulate) in [(false, false), (false, true), (true, false), (true, true)] {
            let program = programs::grad(model, phase, shape, qat, accumulate);
            all.push(program.unwrap_or_else(|e| panic!("{e}")));
        }
    }
    let last = model.phases.len() - 1;
    all.push(programs::score(model, last, shape, false).unwrap_or_else(|e| panic!("{e}")));
    all.push(programs::logits(model, last, shape, false).unwrap_or_else(|e| panic!("{e}")));
    all.push(programs::update(&layout, &model.train));
    all.extend(model.eval.ttt.as_ref().map(|ttt| programs::adapt(model, &layout, ttt)));
    all
}

/// A program's plan for an H100.
pub(crate) fn plan(program: &Program) -> Plan {
    compile_for(&program.name, &program.graph, &Options::default().of(program), &H100)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Calls `f` with every program of every model: the model's name, the plan, and its launches as generated.
pub(crate) fn for_each_program(
    tokens: usize,
    target: &Machine,
    mut f: impl FnMut(&str, &Plan, Result<Generations, LaunchError>),
) {
    for file in model_files() {
        let model = model(&file, &[]);
        let is_idea = file.parent().is_some_and(|p| p.ends_with("ideas"));
        let folder = if is_idea { "ideas/" } else { "" };
        let name = format!("{folder}{}", file.file_stem().unwrap_or_default().display());
        for program in programs(&model, tokens) {
            let plan = plan(&program);
            f(&name, &plan, generate(&plan, &extents(&plan, |_| None), target));
        }
    }
}

/// What a test hears of a kernel: itself with its launches in the first plan that uses it, and where that is.
pub(crate) type Used = (Entry, String);

/// Every distinct generated kernel of every model, and the launches that could not be generated.
pub(crate) fn distinct_kernels(tokens: usize, target: &Machine) -> (Vec<Used>, Vec<String>) {
    let mut all: BTreeMap<[u64; 4], Used> = BTreeMap::new();
    let mut failures = Vec::new();
    for_each_program(tokens, target, |name, plan, made| {
        let place = |launch: usize| {
            let note = plan.launches[launch].note();
            format!("{name} {}: {}", plan.program, note.split(" — ").next().unwrap_or_default())
        };
        match made {
            Ok(made) => inventory(plan, &made, target).into_iter().for_each(|entry| {
                // Models come before ideas, so a kernel's first use is a model's if it has one there.
                let place = place(entry.launches[0]);
                all.entry(entry.kernel.hash()).or_insert((entry, place));
            }),
            Err(e) => failures.push(format!("{}: {}", place(e.launch), e.error)),
        }
    });
    failures.sort();
    failures.dedup();
    (all.into_values().collect(), failures)
}
