//! Golden plans of small programs: what fuses, where the boundaries are and why. Re-bless with
//! `INSTA_UPDATE=always cargo test -p pg-codegen --test plans`.

mod common;

use pg_codegen::plan::Plan;
use pg_codegen::target::FEWEST_BINDINGS;
use pg_codegen::{Options, compile};
use pg_ir::graph::{Builder, Loc, Origin, ValueId};
use pg_ir::interp::Environment;
use pg_ir::op::{DotDims, Reduction, Unary};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axis, DType, Role, Type};

fn at(b: &mut Builder, line: u32, scope: &str) {
    b.set_origin(Origin {
        loc: Loc::new("model.rs", line, 1),
        call: None,
        scope: scope.into(),
        backward: false,
    });
}

fn input(b: &mut Builder, name: &str, axes: &[Axis]) -> ValueId {
    b.input(Slot::new(Space::Param, name), Type::new(DType::F32, axes.iter().copied()))
}

fn rms_norm(b: &mut Builder, x: ValueId) -> ValueId {
    let square = b.mul(x, x);
    let last = b.ty(x).rank() - 1;
    let sum = b.reduce(Reduction::Sum, square, &[last]);
    let mean = b.scale(1.0 / 64.0, sum);
    let r = b.unary(Unary::Rsqrt, mean);
    b.mul(x, r)
}

fn plan(name: &str, b: Builder, fuse: bool) -> Plan {
    let graph = b.finish();
    let plan = compile(name, &graph, &Options { fuse, ..Options::default() }).unwrap();
    let mut rng = common::random::Rng::new(1);
    let env: Environment = graph
        .inputs()
        .map(|(slot, v)| (slot.clone(), (0..graph.ty(v).len()).map(|_| rng.float()).collect()))
        .collect();
    common::compare(&graph, &env, &plan, name);
    plan
}

/// A residual sum, its norm as a matmul's operand, and the sum again afterwards.
fn block() -> Builder {
    let mut b = Builder::default();
    let tokens = [Axis::new(2, Role::Batch), Axis::new(8, Role::Time)];
    at(&mut b, 3, "block");
    let x = input(&mut b, "x", &[tokens[0], tokens[1], Axis::channel(64)]);
    let y = input(&mut b, "y", &[tokens[0], tokens[1], Axis::channel(64)]);
    let gain = input(&mut b, "gain", &[Axis::channel(64)]);
    let weight = input(&mut b, "weight", &[Axis::channel(64), Axis::channel(64)]);
    at(&mut b, 4, "block");
    let scaled = b.mul(y, gain);
    let sum = b.add(x, scaled);
    at(&mut b, 5, "block.norm");
    let normed = rms_norm(&mut b, sum);
    at(&mut b, 6, "block.linear");
    let z = b.dot(DotDims::contract(2, 1), normed, weight);
    at(&mut b, 7, "block");
    let out = b.add(sum, z);
    b.output(Slot::new(Space::Result, "out"), out);
    b
}

#[test]
fn a_residual_block_is_three_launches() {
    let fused = plan("block", block(), true);
    assert_eq!(fused.launches.len(), 3, "{fused}");
    assert_eq!(plan("block", block(), false).launches.len(), 9);
    insta::assert_snapshot!(fused);
}

/// Cross-entropy over a vocabulary and its gradient.
#[test]
fn a_loss_and_its_gradient_read_the_logits_once() {
    let mut b = Builder::default();
    at(&mut b, 9, "loss");
    let logits =
        input(&mut b, "logits", &[Axis::new(2, Role::Batch), Axis::new(8, Role::Time), Axis::channel(64)]);
    let top = b.reduce(Reduction::Max, logits, &[2]);
    let below = b.sub(logits, top);
    let e = b.unary(Unary::Exp, below);
    let total = b.reduce(Reduction::Sum, e, &[2]);
    let log = b.unary(Unary::Log, total);
    let nll = b.add(log, top);
    let p = b.div(e, total);
    b.output(Slot::new(Space::Result, "nll"), nll);
    b.output(Slot::new(Space::Result, "gradient"), p);
    let plan = plan("loss", b, true);
    assert_eq!(plan.launches.len(), 1, "{plan}");
    insta::assert_snapshot!(plan);
}

/// A gradient that is added where it lies, and a parameter that is overwritten in place.
#[test]
fn state_is_updated_in_place() {
    let mut b = Builder::default();
    at(&mut b, 12, "update");
    let x = input(&mut b, "x", &[Axis::channel(32), Axis::channel(16)]);
    let dy = input(&mut b, "dy", &[Axis::channel(32), Axis::channel(8)]);
    let grad = Slot::new(Space::Grad, "weight");
    let old = b.input(grad.clone(), Type::channels(&[8, 16]));
    let dot = b.dot(DotDims::contract(0, 0), dy, x);
    let sum = b.add(old, dot);
    b.output(grad, sum);
    let rate = b.scalar("lr");
    let step = b.mul(sum, rate);
    let weight = Slot::new(Space::Param, "weight");
    let w = b.input(weight.clone(), Type::channels(&[8, 16]));
    let new = b.sub(w, step);
    b.output(weight, new);
    let plan = plan("update", b, true);
    assert_eq!((plan.launches.len(), plan.arena_bytes), (2, 0), "{plan}");
    insta::assert_snapshot!(plan);
}

/// The sum of many tensors: more than a kernel can bind.
#[test]
fn no_kernel_binds_more_than_every_target_has() {
    let mut b = Builder::default();
    at(&mut b, 3, "sum");
    let terms: Vec<ValueId> =
        (0..100).map(|i| input(&mut b, &format!("x{i}"), &[Axis::channel(64), Axis::channel(8)])).collect();
    let sum = terms[1..].iter().fold(terms[0], |sum, &x| b.add(sum, x));
    b.output(Slot::new(Space::Result, "sum"), sum);
    let plan = plan("sum", b, true);
    let most = plan.launches.iter().map(|l| l.args.len()).max();
    assert!(most.is_some_and(|n| (20..FEWEST_BINDINGS).contains(&n)), "{plan}");
    assert!(plan.launches.len() <= 5, "{plan}");
    assert!(plan.buffers.iter().any(|b| b.why == "its reader would bind too many buffers"));
}

/// Small regions that read nothing in common.
#[test]
fn small_regions_share_launches() {
    let mut b = Builder::default();
    at(&mut b, 3, "accumulate");
    for i in 0..12 {
        let slot = Slot::new(Space::Grad, format!("gain{i}"));
        let old = b.input(slot.clone(), Type::channels(&[512]));
        let new = input(&mut b, &format!("x{i}"), &[Axis::channel(512)]);
        let sum = b.add(old, new);
        b.output(slot, sum);
    }
    let plan = plan("accumulate", b, true);
    // A slot counts twice, as read and as written, while launches are joined.
    assert_eq!((plan.launches.len(), plan.arena_bytes), (2, 0), "{plan}");
}
