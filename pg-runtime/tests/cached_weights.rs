//! Cached weights in a run: micro-batches that find what the first one left compute the same bits as
//! those that compute it for themselves, and none runs on what nobody left.

use std::sync::Arc;

use pg_codegen::machine::Machine;
use pg_codegen::{Options, compile_for};
use pg_ir::slot::Space;
use pg_ir::ty::DType;
use pg_runtime::device::Device;
use pg_runtime::executor::Inputs;
use pg_runtime::session::{Key, Session, SessionError};
use pg_runtime::state::State;
use pg_runtime::train::spaces;
use pg_runtime::weights::Weights;
use pg_testing::models::{SMALL, model, noisy_weights};

const BATCH: usize = 2;
const SEQ: usize = 16;

fn grad(accumulate: bool) -> Key {
    Key::Grad { phase: 0, batch: BATCH, seq: SEQ, qat: true, accumulate }
}

fn session(storage: DType, fuse: bool) -> (Session, State) {
    let model = Arc::new(model("int4mlp_12l.rs", SMALL));
    let session = Session::new(model, Options { fuse, ..Options::default() }).storing(storage);
    let state = session.state_with(&noisy_weights(&session, 1), &spaces(&session.model.train)).unwrap();
    (session, state)
}

fn tokens() -> Vec<i32> {
    (0..=BATCH * SEQ).map(|i| (i * 37 % 1024) as i32).collect()
}

/// The gradients of two micro-batches, the second of which finds cached weights or computes its own.
fn gradients(storage: DType, fuse: bool, finds: bool) -> Weights {
    let (mut session, mut state) = session(storage, fuse);
    let tokens = tokens();
    let data: [(&str, &[i32]); 2] = [("tokens", &tokens[..BATCH * SEQ]), ("targets", &tokens[1..])];
    let scalars = [("inv_accum", 0.5)];
    session.run(grad(false), &mut state, &data, &scalars).unwrap();
    if finds {
        session.run(grad(true), &mut state, &data, &scalars).unwrap();
    } else {
        let program = session.program(grad(true)).unwrap();
        let machine = Machine { storage, ..session.device().machine().clone() };
        let options = Options { fuse, ..Options::default() };
        let plan = compile_for(&program.name, &program.graph, &options, &machine).unwrap();
        let mut executor = Device::cpu().prepare(Arc::new(plan)).unwrap();
        executor.run(&mut state, Inputs { data: &data, scalars: &scalars }, None).unwrap();
    }
    session.read_weights(&state, Space::Grad).unwrap()
}

#[test]
fn what_is_found_gives_the_bits_of_what_is_computed() {
    for storage in [DType::F32, DType::BF16] {
        for fuse in [true, false] {
            let (found, own) = (gradients(storage, fuse, true), gradients(storage, fuse, false));
            for (name, values) in &found {
                assert!(values.iter().any(|v| *v != 0.0), "{name}");
                let same = values.iter().zip(&own[name]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{storage} fuse {fuse}: {name}");
            }
        }
    }
}

#[test]
fn gradients_are_added_only_to_what_was_begun() {
    let (mut session, mut state) = session(DType::BF16, true);
    let tokens = tokens();
    let data: [(&str, &[i32]); 2] = [("tokens", &tokens[..BATCH * SEQ]), ("targets", &tokens[1..])];
    let scalars = [("inv_accum", 0.5)];
    let refused =
        |session: &mut Session, state: &mut State| match session.run(grad(true), state, &data, &scalars) {
            Err(SessionError::NotBegun(program)) => assert_eq!(program, "grad.next.qat"),
            Err(e) => panic!("{e}"),
            Ok(_) => panic!("it ran"),
        };
    refused(&mut session, &mut state);
    session.run(grad(false), &mut state, &data, &scalars).unwrap();
    session.run(grad(true), &mut state, &data, &scalars).unwrap();
    session.run(grad(true), &mut state, &data, &scalars).unwrap();

    // In another state nobody has begun, nor in this one with quantisers off.
    let weights = session.initial_weights(1).unwrap();
    let mut other = session.state_with(&weights, &spaces(&session.model.train)).unwrap();
    refused(&mut session, &mut other);
    session.run(grad(false), &mut state, &data, &scalars).unwrap();
    let raw = |accumulate| Key::Grad { phase: 0, batch: BATCH, seq: SEQ, qat: false, accumulate };
    assert!(session.run(raw(true), &mut state, &data, &scalars).is_err());

    // What was left is of weights that change.
    session.run(grad(false), &mut state, &data, &scalars).unwrap();
    let schedule = pg_runtime::train::schedule::Schedule::spec(&session.model.train);
    let update = pg_runtime::train::update_scalars(&session, &schedule, 0, 1.0);
    let update: Vec<(&str, f32)> = update.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();
    session.run(Key::Update, &mut state, &[], &update).unwrap();
    refused(&mut session, &mut state);
}

/// Cached weights take what their element type says, and a state that has them gives them to no other storage.
#[test]
fn cached_weights_are_stored_as_operands_are() {
    let mut bytes = Vec::new();
    for storage in [DType::F32, DType::BF16] {
        let (mut session, mut state) = session(storage, true);
        let before = state.bytes();
        let tokens = tokens();
        let data: [(&str, &[i32]); 2] = [("tokens", &tokens[..BATCH * SEQ]), ("targets", &tokens[1..])];
        session.run(grad(false), &mut state, &data, &[("inv_accum", 1.0)]).unwrap();
        let quantised: usize =
            session.model.quantised_in(0).iter().map(|(name, _)| session.model.params[*name].len()).sum();
        assert!(state.bytes() - before >= storage.size() * quantised);
        bytes.push(state.bytes());
        if storage == DType::BF16 {
            let mut other = session.storing(DType::F32);
            other.forget(|_| true);
            let error = other.run(grad(false), &mut state, &data, &[("inv_accum", 1.0)]).err().unwrap();
            assert!(error.to_string().contains("holds elements of bf16, not of f32"), "{error}");
        }
    }
    assert!(bytes[1] < bytes[0]);
}
