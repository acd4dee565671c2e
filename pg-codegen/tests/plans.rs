//! Golden plans of small programs: what fuses, where the boundaries are and why. Re-bless with
//! `INSTA_UPDATE=always cargo test -p pg-codegen --test plans`.

use pg_codegen::machine::{CPU, Epilogues, FEWEST_BINDINGS, Machine};
use pg_codegen::plan::{Kernel, Plan, Side};
use pg_codegen::{Options, compile, compile_for};
use pg_ir::graph::{Builder, Loc, Origin, ValueId};
use pg_ir::interp::Environment;
use pg_ir::op::{DotDims, Op, Reduction, Unary};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axis, DType, Role, Type};
use pg_testing::plans::compare;

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
    let mut rng = pg_fuzz::rng::Rng::new(1);
    let env: Environment = graph
        .inputs()
        .map(|(slot, v)| (slot.clone(), (0..graph.ty(v).len()).map(|_| rng.float()).collect()))
        .collect();
    compare(&graph, &env, &plan, name);
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

/// The groups of products of a plan for a target that runs them side by side: which operand each shares, and the
/// sizes of its members. The plan's numbers are held to the interpreter.
fn products(b: Builder) -> Vec<(Side, Vec<[usize; 3]>)> {
    let graph = b.finish();
    let target = Machine { fuse_horizontally: true, ..CPU };
    let plan = compile_for("products", &graph, &Options::default(), &target).unwrap();
    let mut rng = pg_fuzz::rng::Rng::new(3);
    let values = |len| (0..len).map(|_| rng.float()).collect();
    let values: Vec<_> = graph.inputs().map(|(_, v)| graph.ty(v).len()).map(values).collect();
    let env: Environment = graph.inputs().map(|(slot, _)| slot.clone()).zip(values).collect();
    compare(&graph, &env, &plan, "products");
    let apart = compile("apart", &graph, &Options::default()).unwrap();
    assert!(plan.bytes() <= apart.bytes() && plan.flops() == apart.flops());
    let groups = plan.kernels.iter().filter_map(|k| match k {
        Kernel::Contraction(all) => {
            Some((all.shared?, all.members.iter().map(|m| &m.matmul).map(|m| [m.m, m.n, m.k]).collect()))
        }
        _ => None,
    });
    groups.collect()
}

/// The sum of three products is one contraction; what is read elsewhere, and what is no product, is not part of one.
#[test]
fn sums_of_products_are_segments_of_k() {
    let mut b = Builder::default();
    at(&mut b, 3, "gradient");
    let term = |b: &mut Builder, i: usize, k: usize| {
        let (x, w) = (matrix(b, &format!("x{i}"), 12, k), matrix(b, &format!("w{i}"), 16, k));
        b.dot(DotDims::contract(1, 1), x, w)
    };
    let terms: Vec<ValueId> = [8, 6, 10].iter().enumerate().map(|(i, &k)| term(&mut b, i, k)).collect();
    let two = b.add(terms[0], terms[1]);
    let three = b.add(two, terms[2]);
    let plain = matrix(&mut b, "plain", 12, 16);
    let sum = b.add(three, plain);
    result(&mut b, "sum", sum);
    // Each of these is read twice.
    let (once, twice) = (term(&mut b, 3, 4), term(&mut b, 4, 4));
    let other = b.add(once, twice);
    result(&mut b, "other", other);
    let squared = b.mul(twice, twice);
    result(&mut b, "squared", squared);
    let graph = b.finish();
    let machine = Machine { concatenate_k: true, ..CPU };
    let plan = compile_for("sums", &graph, &Options::default(), &machine).unwrap();
    let segments = plan.kernels.iter().filter_map(|k| match k {
        Kernel::Contraction(c) => Some(c.members[0].products().map(|m| m.k).collect::<Vec<_>>()),
        _ => None,
    });
    let mut segments: Vec<Vec<usize>> = segments.collect();
    segments.sort();
    assert_eq!(segments, [vec![4], vec![8, 6, 10]], "{plan}");
    let mut rng = pg_fuzz::rng::Rng::new(5);
    let values = |len| (0..len).map(|_| rng.float()).collect();
    let values: Vec<_> = graph.inputs().map(|(_, v)| graph.ty(v).len()).map(values).collect();
    let env: Environment = graph.inputs().map(|(slot, _)| slot.clone()).zip(values).collect();
    compare(&graph, &env, &plan, "sums");
}

fn matrix(b: &mut Builder, name: &str, rows: usize, columns: usize) -> ValueId {
    input(b, name, &[Axis::channel(rows), Axis::channel(columns)])
}

fn result(b: &mut Builder, name: &str, value: ValueId) {
    b.output(Slot::new(Space::Result, name), value);
}

/// An input's projections are one launch, and so are the gradients of their weights, of which one is added.
#[test]
fn products_of_one_operand_are_one_launch() {
    let mut b = Builder::default();
    let x = matrix(&mut b, "x", 96, 32);
    for (name, width) in [("q", 32), ("k", 16), ("v", 5)] {
        let w = matrix(&mut b, name, width, 32);
        let y = b.dot(DotDims::contract(1, 1), x, w);
        result(&mut b, name, y);
        let dy = matrix(&mut b, &format!("d{name}"), 96, width);
        let grad = Slot::new(Space::Grad, name);
        let mut dw = b.dot(DotDims::contract(0, 0), dy, x);
        if name == "k" {
            let old = b.input(grad.clone(), Type::channels(&[width, 32]));
            dw = b.add(old, dw);
        }
        b.output(grad, dw);
    }
    let forward = (Side::Left, vec![[96, 32, 32], [96, 16, 32], [96, 5, 32]]);
    let gradients = (Side::Right, vec![[32, 32, 96], [16, 32, 96], [5, 32, 96]]);
    assert_eq!(products(b), [forward, gradients]);
}

#[test]
fn a_product_that_waits_for_another_does_not_join_it() {
    let mut b = Builder::default();
    let x = matrix(&mut b, "x", 96, 32);
    let [u, v] = [("u", 32), ("v", 16)].map(|(name, n)| matrix(&mut b, name, n, 32));
    let first = b.dot(DotDims::contract(1, 1), x, u);
    let other = b.dot(DotDims::contract(1, 1), x, v);
    let last = b.dot(DotDims::contract(1, 1), x, first);
    result(&mut b, "other", other);
    result(&mut b, "last", last);
    assert_eq!(products(b), [(Side::Left, vec![[96, 32, 32], [96, 16, 32]])]);
}

/// Of each operand one product waits for one of the other's: joining both pairs would make them wait for each other.
#[test]
fn joined_products_do_not_wait_for_each_other() {
    let mut b = Builder::default();
    let [x, y] = ["x", "y"].map(|name| matrix(&mut b, name, 48, 48));
    let mut late = Vec::new();
    for (name, own) in [("u", x), ("v", y)] {
        let w = matrix(&mut b, name, 48, 48);
        let z = b.dot(DotDims::contract(1, 1), own, w);
        result(&mut b, name, z);
        late.push(z);
    }
    for (name, own, waits) in [("x last", x, late[1]), ("y last", y, late[0])] {
        let z = b.dot(DotDims::contract(1, 1), own, waits);
        result(&mut b, name, z);
    }
    assert_eq!(products(b), [(Side::Left, vec![[48; 3]; 2])]);
}

#[test]
fn products_that_gain_nothing_stay_alone() {
    let mut b = Builder::default();
    let x = matrix(&mut b, "x", 512, 32);
    let w = matrix(&mut b, "w", 32, 32);
    // One triangle is computed.
    let square = b.dot(DotDims::contract(1, 1), x, x);
    result(&mut b, "square", square);
    let y = b.dot(DotDims::contract(1, 1), x, w);
    result(&mut b, "y", y);
    // A small operand costs nothing to read again.
    let other = matrix(&mut b, "other", 512, 32);
    let z = b.dot(DotDims::contract(1, 1), other, w);
    result(&mut b, "z", z);
    assert_eq!(products(b), []);
}

/// What counts once is what is read, not the buffer that it lies in.
#[test]
fn a_shared_part_of_a_buffer_counts_once() {
    let mut b = Builder::default();
    let whole = matrix(&mut b, "x", 192, 32);
    let x = b.op(Op::Slice { axis: 0, start: 96, len: 96 }, &[whole]);
    for (name, n) in [("u", 32), ("v", 16)] {
        let w = matrix(&mut b, name, n, 32);
        let y = b.dot(DotDims::contract(1, 1), x, w);
        result(&mut b, name, y);
    }
    let target = Machine { fuse_horizontally: true, ..CPU };
    let plan = compile_for("slice", &b.finish(), &Options::default(), &target).unwrap();
    let [launch] = &plan.launches[..] else { panic!("one launch: {plan}") };
    assert_eq!(launch.bytes, 4.0 * (96 * 32 + (32 + 16) * 32 + 96 * (32 + 16)) as f64);
}

/// A product leaves the program as a reshape, and a region reads it, too: it stays in memory.
#[test]
fn a_result_that_leaves_as_a_view_is_kept() {
    let mut b = Builder::default();
    let (x, w) = (matrix(&mut b, "x", 24, 16), matrix(&mut b, "w", 8, 16));
    let y = b.dot(DotDims::contract(1, 1), x, w);
    let flat = b.reshape(y, [Axis::channel(192)].into_iter().collect());
    result(&mut b, "flat", flat);
    let sin = b.unary(Unary::Sin, y);
    result(&mut b, "sin", sin);
    let graph = b.finish();
    let epilogues = Some(Epilogues { rows: &[], of: DType::F32, chunk: 1 });
    let plan = compile_for("view", &graph, &Options::default(), &Machine { epilogues, ..CPU }).unwrap();
    let mut rng = pg_fuzz::rng::Rng::new(5);
    let mut value = |len| (0..len).map(|_| rng.float()).collect();
    let env: Environment = graph.inputs().map(|(slot, v)| (slot.clone(), value(graph.ty(v).len()))).collect();
    compare(&graph, &env, &plan, "view");
}
