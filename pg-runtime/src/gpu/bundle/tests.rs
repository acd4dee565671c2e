//! What is compiled ahead of time is what a run asks for: a whole run, watched at the seam to its device, asks for
//! the kernels that its request names, no more and no fewer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pg_codegen::kernels::Generated;
use pg_codegen::machine::{H100, Machine};
use pg_codegen::plan::Plan;
use pg_ir::lang::layout::Layout;

use super::*;
use crate::device::{Device, DeviceName};
use crate::executor::{Backend, Cpu, ExecError, Executor};
use crate::gpu::offline;
use crate::run::{JobOptions, RunOptions, requests, run};

/// An H100 in the eyes of a run: its plans are noted, and run on the CPU.
#[derive(Debug)]
struct Watched {
    target: Machine,
    cpu: Cpu,
    plans: Arc<Mutex<Vec<Arc<Plan>>>>,
}

impl Backend for Watched {
    fn prepare(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        self.plans.lock().unwrap().push(plan.clone());
        self.cpu.prepare(plan)
    }

    fn machine(&self) -> &Machine {
        &self.target
    }
}

fn keys<'a>(kernels: impl IntoIterator<Item = &'a Arc<Generated>>) -> BTreeSet<(String, u128)> {
    kernels.into_iter().map(|k| (k.name().to_string(), k.cache_key())).collect()
}

#[test]
fn a_run_asks_for_the_kernels_that_are_compiled_ahead_of_time() {
    let plans = Arc::new(Mutex::new(Vec::new()));
    let backend = Watched { target: H100, cpu: Cpu::default(), plans: plans.clone() };
    let folder = tempfile::tempdir().unwrap();
    // Two micro-batches a step; three chunks of test-time training, the last one short.
    let set = |name: &str, value: &str| (name.to_string(), value.to_string());
    let options = RunOptions {
        job: JobOptions {
            model: Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny.rs"),
            overrides: vec![
                set("LAYERS", "2"),
                set("DIM", "64"),
                set("HEADS", "2"),
                set("KV_HEADS", "1"),
                set("eval.max_targets", "4500"),
                set("eval.stride", "128"),
            ],
            steps: Some(2),
            batch_tokens: Some(1024),
            micro_batch_tokens: Some(512),
            ..JobOptions::default()
        },
        device: Device::new(DeviceName::Cuda(0), "watched".into(), Arc::new(backend)),
        out: Some(folder.path().join("run")),
        ..RunOptions::default()
    };
    let requests = requests(&options, &mut |_| {}).unwrap();
    assert!(plans.lock().unwrap().is_empty(), "asking compiles nothing");
    let ahead = recipe(&requests.iter().map(|r| (&r.session, &r.programs[..])).collect::<Vec<_>>()).unwrap();
    let session = &requests[0].session;
    assert_eq!(ahead.built_for["precision"], "bf16");
    insta::assert_snapshot!(ahead.built_for["programs"], @"grad.first.qat 4 × 128, grad.next.qat 4 × 128, update, score 36 × 128, score 16 × 128, grad.first 16 × 128, adapt, score 4 × 128, grad.first.qat 2 × 128, grad.next.qat 2 × 128, score 2 × 128, grad.first 2 × 128, update, adapt");

    run(&options, &mut |_| {}).unwrap();
    let layout = Layout::new(&session.model);
    let mut asked = BTreeSet::new();
    for plan in plans.lock().unwrap().iter() {
        let made = offline(plan, &layout, &H100).unwrap();
        asked.extend(keys(made.launches.iter().map(|g| &g.stage.kernel)));
    }
    assert_eq!(asked, keys(&ahead.kernels));
    assert!(asked.iter().any(|(name, _)| name.starts_with("mma_")), "tensor cores: {asked:?}");
    assert!(asked.iter().any(|(name, _)| name.starts_with("flash_")), "tensor cores: {asked:?}");
}

#[test]
fn what_a_copy_of_a_bundle_gains_is_what_was_compiled() {
    use pg_codegen::cuda::Tools;

    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(e) => {
            assert!(std::env::var_os("PG_REQUIRE_CUDA_TOOLS").is_none_or(|v| v != "1"), "{e}");
            return eprintln!("NOT RUN: {e}");
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let made = Roof::plans().map(|plan| generate(&plan, &extents(&plan, |_| None), &H100).unwrap());
    let kernels: Vec<_> = made.iter().map(|made| made.launches[0].stage.kernel.clone()).collect();
    let [first, second] =
        [0, 1].map(|i| Recipe { kernels: vec![kernels[i].clone()], built_for: BTreeMap::new() });
    let write = |name: &str, recipe: &Recipe| {
        let builds = tools.build_all(&recipe.kernels, &mut |_| {}).unwrap();
        Bundle::write(&folder.path().join(name), recipe, &builds, tools.version()).unwrap()
    };
    let bundle = write("bundle", &first);
    let ahead = LoadedBundle::load(bundle.folder()).unwrap();
    assert_eq!((ahead.report().kernels, ahead.report().compiled), (1, Some(0)));
    // As CubeCL would that compiles a second kernel: lines and chunks are appended.
    let other = write("other", &second);
    for file in ["toc.json.log", "chunk0.cbor"] {
        let at = |root: &Path| find(root, file).unwrap_or_else(|| panic!("no {file} in {}", root.display()));
        let mut bytes = std::fs::read(at(ahead.cache_root())).unwrap();
        bytes.extend(std::fs::read(at(&other.cache_root())).unwrap());
        std::fs::write(at(ahead.cache_root()), bytes).unwrap();
    }
    assert_eq!(ahead.report().compiled, Some(1));
    assert!(ahead.report().to_string().contains("and 1 were compiled"), "{}", ahead.report());
    assert_eq!(Bundle::cached(&bundle.cache_root()), Some(1), "the bundle itself stays as it was");
    assert!(bundle.check(&first).is_ok() && bundle.check(&second).is_err());
}

/// A file of a name, anywhere under a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.map(|e| e.unwrap().path()).collect();
    let here = entries.iter().find(|p| p.is_file() && p.ends_with(name)).cloned();
    here.or_else(|| entries.iter().find_map(|p| find(p, name)))
}
