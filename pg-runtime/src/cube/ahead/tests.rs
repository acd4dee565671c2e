//! What is compiled ahead of time is what a run asks for: a whole run, watched at the seam to its device, asks for
//! the kernels that its request names, no more and no fewer.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pg_codegen::cube::Generated;
use pg_codegen::plan::Plan;
use pg_ir::layout::Layout;

use super::*;
use crate::cube::offline;
use crate::device::{Device, DeviceName};
use crate::executor::{Backend, Cpu, ExecError, Executor};
use crate::run::{RunOptions, requests, run};

/// An H100 in the eyes of a run: its plans are noted, and run on the CPU.
#[derive(Debug)]
struct Watched {
    target: Target,
    cpu: Cpu,
    plans: Arc<Mutex<Vec<Arc<Plan>>>>,
}

impl Backend for Watched {
    fn prepare(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        self.plans.lock().unwrap().push(plan.clone());
        self.cpu.prepare(plan)
    }

    fn target(&self) -> Option<&Target> {
        Some(&self.target)
    }
}

fn keys<'a>(kernels: impl IntoIterator<Item = &'a Arc<Generated>>) -> BTreeSet<(String, u128)> {
    kernels.into_iter().map(|k| (k.name().to_string(), k.cache_key())).collect()
}

#[test]
fn a_run_asks_for_the_kernels_that_are_compiled_ahead_of_time() {
    let plans = Arc::new(Mutex::new(Vec::new()));
    let backend = Watched { target: Target::hopper(), cpu: Cpu::default(), plans: plans.clone() };
    let folder = tempfile::tempdir().unwrap();
    // Two micro-batches a step; three chunks of test-time training, the last one short.
    let set = |name: &str, value: &str| (name.to_string(), value.to_string());
    let options = RunOptions {
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
        device: Device::new(DeviceName::Cuda(0), "watched".into(), Arc::new(backend)),
        out: Some(folder.path().join("run")),
        ..RunOptions::default()
    };
    let requests = requests(&options, &mut |_| {}).unwrap();
    assert!(plans.lock().unwrap().is_empty(), "asking compiles nothing");
    let ahead = recipe(&requests.iter().map(|r| (&r.session, &r.programs[..])).collect::<Vec<_>>()).unwrap();
    let session = &requests[0].session;
    assert_eq!(ahead.built_for["precision"], "bf16");
    insta::assert_snapshot!(ahead.built_for["programs"], @"grad.first.qat 4 × 128, grad.next.qat 4 × 128, update, score 36 × 128, score 16 × 128, grad.first 16 × 128, adapt, score 4 × 128");

    run(&options, &mut |_| {}).unwrap();
    let layout = Layout::new(&session.model);
    let mut asked = BTreeSet::new();
    for plan in plans.lock().unwrap().iter() {
        let made = offline(plan, &layout, &Target::hopper()).unwrap();
        asked.extend(keys(made.launches.iter().map(|g| &g.stage.kernel)));
    }
    assert_eq!(asked, keys(&ahead.kernels));
    assert!(asked.iter().any(|(name, _)| name.starts_with("mma_")), "matrix units: {asked:?}");
    assert!(asked.iter().any(|(name, _)| name.starts_with("flash_")), "matrix units: {asked:?}");
}
