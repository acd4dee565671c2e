//! What an executor launches on a device is what is generated for such a device without one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use pg_codegen::kernels::Generated;
use pg_ir::lang::{Options, Override, Source, elaborate};
use pg_ir::slot::Space;

use super::super::{CubeExecutor, offline};
use super::device;
use crate::executor::{Executor, Inputs};
use crate::session::{Key, Session};
use crate::train::schedule::Schedule;
use crate::train::update_scalars;

const BATCH: usize = 2;
const SEQ: usize = 8;

fn names<'a>(kernels: impl IntoIterator<Item = &'a Arc<Generated>>) -> BTreeSet<(String, [u64; 4])> {
    kernels.into_iter().map(|k| (k.name().to_string(), k.hash())).collect()
}

#[test]
fn an_executor_launches_what_is_generated_without_a_device() {
    let Some(device) = device() else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny.rs");
    let source = Source::load(file.to_str().unwrap()).unwrap();
    // Small, and two layers: parameters then begin in the middle of their banks.
    let small = [("LAYERS", "2"), ("DIM", "32"), ("HEADS", "2"), ("KV_HEADS", "1"), ("VOCAB", "64")];
    let overrides = small.map(|(name, value)| Override::set(name, value)).to_vec();
    let model = elaborate(&source, &Options { overrides, profile: None }).unwrap_or_else(|e| panic!("{e}"));
    let session = Session::new(Arc::new(model), Default::default());
    let weights = session.initial_weights(1).unwrap();
    let kept = |space: &Space| space.is_state() && *space != Space::CachedWeight;
    let spaces: Vec<Space> = Space::all().filter(kept).collect();
    let mut state = session.state_with(&weights, &spaces).unwrap();
    let tokens = vec![1; BATCH * SEQ];
    let data: [(&str, &[i32]); 2] = [("tokens", &tokens), ("targets", &tokens)];
    let schedule = Schedule::spec(&session.model.train);
    let mut scalars = update_scalars(&session, &schedule, 0, 1.0);
    scalars.extend([("inv_accum".into(), 1.0), ("ttt_lr".into(), 0.01)]);
    let scalars: Vec<(&str, f32)> = scalars.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();

    let grad = |accumulate| Key::Grad { phase: 0, batch: BATCH, seq: SEQ, qat: true, accumulate };
    let score = Key::Score { batch: BATCH, seq: SEQ, qat: false };
    for key in [grad(false), grad(true), Key::Update, score, Key::Adapt] {
        let plan = Arc::new(session.lower(key).unwrap());
        let expected = offline(&plan, &session.layout, device.machine()).unwrap();
        if key == grad(false) {
            state.allocate_cached_weights(&plan).unwrap();
        }
        let mut executor = CubeExecutor::new(plan, &device).unwrap();
        executor.run(&mut state, Inputs { data: &data, scalars: &scalars }, None).unwrap();
        let expected = names(expected.launches.iter().map(|g| &g.stage.kernel));
        assert_eq!(names(&executor.kernels()), expected, "{key:?}");
        assert!(!expected.is_empty());
    }
}
