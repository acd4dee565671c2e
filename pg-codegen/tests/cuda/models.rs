//! The programs of the models in `models/`, and the generated kernels that they become.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pg_codegen::cube::{ArgInfo, CubeError, Generated, Launches, Target, lower};
use pg_codegen::plan::{Launch, Plan};
use pg_codegen::{Options, compile};
use pg_ir::dsl::{Options as Settings, Source, elaborate};
use pg_ir::layout::Layout;
use pg_ir::model::Model;
use pg_ir::programs::{self, Program};

/// Every model file, ideas included, by name.
pub(crate) fn files() -> Vec<PathBuf> {
    let root = file("");
    let list = |folder: PathBuf| {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "rs"))
    };
    let mut all: Vec<PathBuf> = list(root.clone()).chain(list(root.join("ideas"))).collect();
    all.retain(|p| p.file_name().is_some_and(|n| n != "lib.rs"));
    // A model before its ideas.
    all.sort_by_key(|p| (p.components().count(), p.clone()));
    assert!(all.len() >= 5, "{all:?}");
    all
}

/// A model, with some of its constants replaced.
pub(crate) fn model(file: &Path, overrides: &[(&str, &str)]) -> Model {
    let source = Source::load(file.to_str().unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let overrides = overrides.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    elaborate(&source, &Settings { overrides, profile: None }).unwrap_or_else(|e| panic!("{e}"))
}

/// A model file by name.
pub(crate) fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models")).join(name)
}

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

/// A program's plan.
pub(crate) fn plan(program: &Program) -> Plan {
    compile(&program.name, &program.graph, &Options::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// The generated launches of a launch, every buffer on its own.
pub(crate) fn launches(plan: &Plan, launch: &Launch, target: &Target) -> Result<Launches, CubeError> {
    let buffer = |id: &pg_codegen::plan::BufferId| &plan.buffers[id.0 as usize];
    let infos: Vec<ArgInfo> =
        launch.args.iter().map(buffer).map(|b| ArgInfo::whole(b.dtype, b.len)).collect();
    let kernel = &plan.kernels[launch.kernel.0 as usize];
    lower(kernel, &infos, target)
}

/// Every distinct generated kernel of every model, with where it is first used, and the launches that
/// could not be generated.
pub(crate) fn distinct_kernels(tokens: usize, target: &Target) -> (Vec<(Arc<Generated>, String)>, Vec<String>) {
    let mut all: BTreeMap<[u64; 4], (Arc<Generated>, String)> = BTreeMap::new();
    let mut failures = Vec::new();
    for file in files() {
        let model = model(&file, &[]);
        // Files are in order, so a kernel's first use is in a product's model if it has one there.
        for program in programs(&model, tokens) {
            let plan = plan(&program);
            for launch in &plan.launches {
                let is_idea = file.parent().is_some_and(|p| p.ends_with("ideas"));
                let folder = if is_idea { "ideas/" } else { "" };
                let name = format!("{folder}{}", file.file_stem().unwrap_or_default().display());
                let ops = launch.note.split(" — ").next().unwrap_or_default();
                let place = || format!("{name} {}: {ops}", plan.program);
                match launches(&plan, launch, target) {
                    Ok(launches) => launches.stages.into_iter().for_each(|stage| {
                        all.entry(stage.kernel.hash()).or_insert_with(|| (stage.kernel, place()));
                    }),
                    Err(e) => failures.push(format!("{}: {e}", place())),
                }
            }
        }
    }
    failures.sort();
    failures.dedup();
    (all.into_values().collect(), failures)
}
