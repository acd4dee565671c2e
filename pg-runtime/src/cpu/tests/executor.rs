//! Whole plans: binding, state, results, errors.

use std::sync::Arc;

use pg_codegen::plan::{Buffer, BufferId, Kernel, KernelId, Launch, Place, Plan};
use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_codegen::report::provenance::Provenance;
use pg_ir::op::{Binary, Reduction};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use super::super::{CallError, CpuError, CpuExecutor, Problem};
use crate::state::{Segment, State};

fn load(arg: u32, stride: i64) -> Instr {
    let at = Affine { offset: 0, strides: [stride].as_slice().into() };
    Instr::Load { arg, map: IndexMap { at, guards: vec![] } }
}

fn store(arg: u32, value: u32, stride: i64) -> Instr {
    Instr::Store { arg, value, at: Affine { offset: 0, strides: [stride].as_slice().into() } }
}

/// w ← w − lr · w, through a temporary; result `sum` = Σ tokens as floats · 2.
fn plan() -> Plan {
    let n = 300;
    let buffer = |dtype, len, place, label: &str| Buffer {
        dtype,
        len,
        place,
        label: label.into(),
        why: "the test says so",
    };
    let slot = |space, name: &str| Place::External(Slot::new(space, name));
    let buffers = vec![
        buffer(DType::F32, n, slot(Space::Param, "w"), "w"),
        buffer(DType::F32, 1, slot(Space::Scalar, "lr"), "lr"),
        buffer(DType::F32, n, Place::Temp { offset: 64 }, "step"),
        buffer(DType::I32, 5, slot(Space::Data, "tokens"), "tokens"),
        buffer(DType::F32, 1, Place::Constant(Arc::new([2.0f32.to_bits()])), "two"),
        buffer(DType::F32, 1, slot(Space::Result, "sum"), "sum"),
    ];
    let region = |columns, args: &[DType], body| {
        Kernel::Region(Region { rows: vec![], reduced: 0, columns, body, args: args.to_vec() })
    };
    let f = DType::F32;
    let kernels = vec![
        region(n, &[f; 3], vec![load(0, 1), load(1, 0), Instr::Binary(Binary::Mul, 0, 1), store(2, 2, 1)]),
        region(n, &[f; 2], vec![load(0, 1), load(1, 1), Instr::Binary(Binary::Sub, 0, 1), store(0, 2, 1)]),
        region(
            5,
            &[DType::I32, f, f],
            vec![
                load(0, 1),
                Instr::Cast(DType::F32, 0),
                Instr::RowReduce(Reduction::Sum, 1),
                load(1, 0),
                Instr::Binary(Binary::Mul, 2, 3),
                store(2, 4, 0),
            ],
        ),
    ];
    let launch = |kernel, args: &[u32]| Launch {
        kernel: KernelId(kernel),
        args: args.iter().map(|&b| BufferId(b)).collect(),
        provenance: Provenance::task(format!("launch of kernel {kernel}")),
        flops: 0.0,
        bytes: 0.0,
    };
    let launches = vec![launch(0, &[0, 1, 2]), launch(1, &[0, 2]), launch(2, &[3, 4, 5])];
    Plan { program: "test".into(), buffers, kernels, launches, arena_bytes: 64 + 4 * n, ..Plan::default() }
}

fn state() -> State {
    let at = Segment { bank: "bank".into(), offset: 10, len: 300 };
    let mut state = State::new([("w".to_owned(), at)]);
    state.allocate(Space::Param, "bank", 400).unwrap();
    state.get_mut(&Slot::new(Space::Param, "bank")).unwrap().fill(1.0);
    state
}

const TOKENS: [i32; 5] = [1, 2, 3, 4, 5];

#[test]
fn a_plan_runs_on_state_again_and_again() {
    let mut executor = CpuExecutor::new(Arc::new(plan())).unwrap();
    let mut state = state();
    let data: [(&str, &[i32]); 1] = [("tokens", &TOKENS)];
    let mut seen = Vec::new();
    executor.run(&mut state, &data, &[("lr", 0.5)]).unwrap();
    let mut observe = |t: super::super::Timed<'_>| seen.push((t.index, t.launch.note()));
    executor.run_timed(&mut state, &data, &[("lr", 0.25), ("unused", 1.0)], &mut observe).unwrap();
    assert_eq!(seen.len(), 3);
    assert_eq!(executor.result("sum"), Some(&[30.0][..]));
    assert_eq!(executor.result("loss"), None);
    let bank = state.get(&Slot::new(Space::Param, "bank")).unwrap();
    assert!(bank[..10].iter().chain(&bank[310..]).all(|&x| x == 1.0));
    assert!(bank[10..310].iter().all(|&x| x == 0.375));
    // Another state is another memory.
    let mut other = self::state();
    executor.run(&mut other, &data, &[("lr", 1.0)]).unwrap();
    assert_eq!(other.get(&Slot::new(Space::Param, "w")).unwrap(), [0.0; 300]);
    assert_eq!(state.get(&Slot::new(Space::Param, "w")).unwrap(), [0.375; 300]);
}

#[test]
fn bad_calls_are_errors() {
    let mut executor = CpuExecutor::new(Arc::new(plan())).unwrap();
    let mut state = state();
    let data: [(&str, &[i32]); 1] = [("tokens", &TOKENS)];
    let lr = [("lr", 1.0)];
    assert!(matches!(executor.run(&mut state, &[], &lr), Err(CpuError::Call(CallError::NoInput { .. }))));
    assert!(matches!(executor.run(&mut state, &data, &[]), Err(CpuError::Call(CallError::NoInput { .. }))));
    let short = executor.run(&mut state, &[("tokens", &TOKENS[1..])], &lr);
    assert!(matches!(short, Err(CpuError::Call(CallError::Length { want: 5, have: 4, .. }))), "{short:?}");
    assert!(matches!(
        executor.run(&mut State::new([]), &data, &lr),
        Err(CpuError::Call(CallError::State { .. }))
    ));
    executor.run(&mut state, &data, &lr).unwrap();
}

#[test]
fn bad_plans_are_errors() {
    let new = |change: &dyn Fn(&mut Plan)| {
        let mut plan = plan();
        change(&mut plan);
        CpuExecutor::new(Arc::new(plan)).map(|_| ())
    };
    let problem = |change: &dyn Fn(&mut Plan)| match new(change) {
        Err(CpuError::Launch { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert!(matches!(problem(&|p| p.launches[0].kernel = KernelId(9)), Problem::NoKernel(9)));
    assert!(matches!(problem(&|p| p.launches[0].args[1] = BufferId(9)), Problem::NoBuffer(9)));
    assert!(matches!(problem(&|p| p.launches[0].args.truncate(2)), Problem::ArgCount { .. }));
    assert!(matches!(problem(&|p| p.launches[2].args[0] = BufferId(1)), Problem::ArgType { arg: 0, .. }));
    assert!(matches!(problem(&|p| p.launches[2].args[2] = BufferId(1)), Problem::ReadOnly { arg: 2 }));
    // In place, but through two arguments.
    let twice = problem(&|p| p.launches[2].args[2] = BufferId(4));
    assert!(matches!(twice, Problem::Hazard { written: 2, read: 1 }), "{twice:?}");
    assert!(matches!(problem(&|p| p.buffers[2].len = 299), Problem::ArgRange { arg: 2, .. }));
    assert!(matches!(new(&|p| p.arena_bytes = 64), Err(CpuError::Buffer { .. })));
    assert!(matches!(new(&|p| p.buffers[2].place = Place::Temp { offset: 4 }), Err(CpuError::Buffer { .. })));
}
