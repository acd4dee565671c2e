//! What is wrong with a device, a plan or a call is one message.

use std::sync::Arc;

use pg_codegen::plan::{Kernel, Matmul, MatrixView, Place};
use pg_ir::slot::{Slot, Space};

use super::super::{CubeExecError, CubeExecutor, vulkan};
use super::{Arg, device, noise, plan_of};
use crate::cpu::CallError;
use crate::executor::{ExecError, Executor, Inputs};
use crate::state::State;

#[test]
fn a_missing_device_is_named_with_the_remedy() {
    let Err(error) = vulkan::device(1000) else { panic!("a thousand devices") };
    let text = error.to_string();
    assert!(text.contains("mesa-vulkan-drivers") || text.contains("see `pg devices`"), "{text}");
}

#[test]
fn malformed_plans_are_refused() {
    let Some(device) = device() else { return };
    let view = MatrixView { offset: 0, batch: 0, row: 8, col: 1 };
    let shape =
        Matmul { batch: 1, m: 8, n: 8, k: 8, a: view, b: view, c: view, accumulate: false, symmetric: false };
    let args = [Arg::Floats(noise(8, 1)), Arg::Floats(noise(64, 2)), Arg::Out(64)];
    let (plan, _) = plan_of(&Kernel::from(shape), &args);
    let error = CubeExecutor::new(Arc::new(plan), &device).unwrap_err();
    assert!(error.to_string().contains("reaches beyond its buffer"), "{error}");

    let (mut plan, _) = plan_of(&Kernel::Copy { len: 4 }, &[Arg::Floats(noise(4, 1)), Arg::Out(4)]);
    plan.launches[0].args.pop();
    let error = CubeExecutor::new(Arc::new(plan), &device).unwrap_err();
    assert!(error.to_string().contains("takes 2 arguments, not 1"), "{error}");
}

#[test]
fn missing_inputs_and_state_are_refused() {
    let Some(device) = device() else { return };
    let (mut plan, _) = plan_of(&Kernel::Copy { len: 4 }, &[Arg::Floats(noise(4, 1)), Arg::Out(4)]);
    let mut state = State::new([]);
    plan.buffers[0].place = Place::External(Slot::new(Space::Scalar, "lr"));
    let mut executor = CubeExecutor::new(Arc::new(plan.clone()), &device).unwrap();
    let error = executor.run(&mut state, Inputs::default(), None).unwrap_err();
    assert!(matches!(error, ExecError::Cube(CubeExecError::Call(CallError::NoInput { .. }))), "{error}");
    let scalars = [("lr", 2.5)];
    executor.run(&mut state, Inputs { data: &[], scalars: &scalars }, None).unwrap();
    assert_eq!(executor.result("out1"), Some(&[2.5; 4][..]));
    assert_eq!(executor.result("loss"), None);

    plan.buffers[0].place = Place::External(Slot::new(Space::Param, "w"));
    let mut executor = CubeExecutor::new(Arc::new(plan), &device).unwrap();
    let error = executor.run(&mut state, Inputs::default(), None).unwrap_err();
    assert!(matches!(error, ExecError::Cube(CubeExecError::Call(CallError::State { .. }))), "{error}");
}
