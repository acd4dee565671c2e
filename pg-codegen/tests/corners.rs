//! Graphs that random ones seldom meet: for each there is a small fault of a pass that nothing else notices.

use pg_codegen::passes::precision::store_as;
use pg_codegen::plan::{Buffer, Kernel, Place};
use pg_codegen::{Options, compile};
use pg_ir::graph::{Builder, ValueId};
use pg_ir::interp;
use pg_ir::op::{Bits, DotDims, Op, Unary};
use pg_ir::programs::WeightCache;
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axis, DType, Role, Type};
use pg_testing::plans::{compare, environment, everywhere};

/// Compiles a graph in every way; all agree with the interpreter.
fn agrees(build: impl Fn(&mut Builder)) {
    let mut b = Builder::default();
    build(&mut b);
    let graph = b.finish();
    let env = environment(&graph);
    for (what, stored, plan) in everywhere(&graph) {
        compare(&stored, &env, &plan, &what);
    }
}

fn param(b: &mut Builder, name: &str, shape: &[usize]) -> ValueId {
    b.input(Slot::new(Space::Param, name), Type::channels(shape))
}

fn result(b: &mut Builder, name: &str, value: ValueId) {
    b.output(Slot::new(Space::Result, name), value);
}

/// [m, k] · [k, n]
fn product(b: &mut Builder, m: usize, k: usize, n: usize) -> ValueId {
    let (x, y) = (param(b, "x", &[m, k]), param(b, "y", &[k, n]));
    b.dot(DotDims::contract(1, 0), x, y)
}

#[test]
fn a_slot_is_added_to_and_read() {
    agrees(|b| {
        let slot = Slot::new(Space::Grad, "w");
        let old = b.input(slot.clone(), Type::channels(&[4, 3]));
        let dot = product(b, 4, 5, 3);
        let sum = b.add(old, dot);
        b.output(slot, sum);
        let read = b.unary(Unary::Tanh, old);
        result(b, "old", read);
    });
}

#[test]
fn an_output_stays_float32_where_a_product_reads_it_rounded() {
    let mut b = Builder::default();
    let x = param(&mut b, "x", &[4, 5]);
    let y = param(&mut b, "y", &[5, 3]);
    let hidden = b.unary(Unary::Tanh, x);
    let dot = b.dot(DotDims::contract(1, 0), hidden, y);
    result(&mut b, "hidden", hidden);
    result(&mut b, "dot", dot);
    let graph = b.finish();
    let env = environment(&graph);
    let hidden = Slot::new(Space::Result, "hidden");
    let want = &interp::run(&graph, &env).unwrap()[&hidden];
    for (what, stored, _) in everywhere(&graph) {
        let found = &interp::run(&stored, &env).unwrap()[&hidden];
        assert_eq!(found, want, "{what}");
    }
}

#[test]
fn of_two_cached_forms_one_is_written() {
    let mut b = Builder::default();
    let table = param(&mut b, "table", &[5, 4]);
    let grid = Grid { clip: 7, rule: ScaleRule::Floored };
    let quantised = b.op(Op::FakeQuant(grid), &[table]);
    let ids = b.input(Slot::new(Space::Data, "tokens"), Type { dtype: DType::I32, ..Type::channels(&[3]) });
    let rows = b.op(Op::Gather, &[quantised, ids]);
    let rounded = b.op(Op::Cast(DType::BF16), &[table]);
    let x = b.input(Slot::new(Space::Momentum, "x"), Type::channels(&[3, 4]));
    let narrow = b.op(Op::Cast(DType::BF16), &[x]);
    let dot = b.dot(DotDims::contract(1, 1), narrow, rounded);
    result(&mut b, "rows", rows);
    result(&mut b, "dot", dot);
    let graph = b.finish();
    let options = Options { weight_cache: WeightCache::Write, ..Options::default() };
    let plan = compile("test", &graph, &options).unwrap();
    let is_left = |b: &&Buffer| matches!(&b.place, Place::External(s) if s.space == Space::CachedWeight);
    assert_eq!(plan.buffers.iter().filter(is_left).count(), 1, "{plan}");
}

#[test]
fn a_product_leaves_turned_and_is_read_as_it_is() {
    agrees(|b| {
        let dot = product(b, 4, 5, 3);
        let turned = b.op(Op::Transpose([1, 0].into_iter().collect()), &[dot]);
        result(b, "turned", turned);
        let read = b.unary(Unary::Tanh, dot);
        result(b, "read", read);
    });
}

#[test]
fn a_product_leaves_many_times() {
    agrees(|b| {
        let dot = product(b, 4, 5, 3);
        let many = b.broadcast(dot, Type::channels(&[2, 4, 3]).axes);
        result(b, "many", many);
    });
}

#[test]
fn rows_of_matrices_times_themselves_are_not_their_own_transpose() {
    agrees(|b| {
        let x = param(b, "x", &[2, 3, 4]);
        // [2, 3, 2, 3]: as a matrix of six rows it is its own transpose, with only its last two axes turned it is not.
        let gram = b.dot(DotDims::contract(2, 2), x, x);
        let y = param(b, "y", &[2, 5]);
        let dot = b.dot(DotDims::contract(2, 0), gram, y);
        result(b, "dot", dot);
    });
}

#[test]
fn attention_reads_what_hopper_stores() {
    let mut b = Builder::default();
    let roles = [Role::Batch, Role::Time, Role::Head, Role::Channel];
    let input = |b: &mut Builder, name: &str, sizes: &[usize]| {
        let axes = sizes.iter().zip(roles).map(|(&n, role)| Axis::new(n, role));
        b.input(Slot::new(Space::Momentum, name), Type::new(DType::F32, axes))
    };
    let wide = ["q", "k", "v", "o"].map(|name| input(&mut b, name, &[1, 5, 2, 4]));
    let lse = input(&mut b, "lse", &[1, 5, 2]);
    let d_o = input(&mut b, "d_o", &[1, 5, 2, 4]);
    let operands = [&wide[..], &[lse, d_o]].concat();
    let grads = b.push(Op::AttentionGrad { scale: Bits::new(0.5) }, &operands).unwrap();
    for (name, grad) in ["dq", "dk", "dv"].into_iter().zip(grads) {
        result(&mut b, name, grad);
    }
    let stored = store_as(&b.finish(), DType::BF16).unwrap();
    let (_, node) = stored.nodes().find(|(_, n)| matches!(n.op, Op::AttentionGrad { .. })).unwrap();
    let found: Vec<DType> = stored.operand_types(node).iter().map(|t| t.dtype).collect();
    let mut want = [DType::BF16; 6];
    // It is exponentiated.
    want[4] = DType::F32;
    assert_eq!(found, want);
}

#[test]
fn a_padded_number_is_not_one_number() {
    agrees(|b| {
        let two = b.constant(2.0);
        let twos = b.broadcast(two, Type::channels(&[3, 4]).axes);
        let padded = b.op(Op::Pad { axis: 1, before: 2, after: 1 }, &[twos]);
        let x = param(b, "x", &[3, 7]);
        let masked = b.mul(padded, x);
        result(b, "masked", masked);
    });
}

#[test]
fn part_of_a_row_is_cut_from_groups_of_another_size() {
    agrees(|b| {
        let x = param(b, "x", &[4, 6]);
        let squared = b.mul(x, x);
        let regrouped = b.reshape(squared, Type::channels(&[3, 8]).axes);
        let cut = b.op(Op::Slice { axis: 1, start: 0, len: 2 }, &[regrouped]);
        let y = param(b, "y", &[3, 2]);
        let sum = b.add(cut, y);
        result(b, "cut", sum);
    });
}

#[test]
fn part_of_a_row_is_cut_after_its_columns_are_permuted() {
    agrees(|b| {
        let x = param(b, "x", &[4, 6]);
        let squared = b.mul(x, x);
        let turned = b.op(Op::Permute([5, 4, 3, 2, 1, 0].into_iter().collect()), &[squared]);
        let cut = b.op(Op::Slice { axis: 1, start: 0, len: 3 }, &[turned]);
        let y = param(b, "y", &[4, 3]);
        let sum = b.add(cut, y);
        result(b, "cut", sum);
    });
}

/// Each shift doubles the elements that a sum is of: one region of all of them would have a million loads.
#[test]
fn sums_by_doubled_shifts_are_cut_into_kernels() {
    let mut b = Builder::default();
    let axes = [Axis::new(1 << 20, Role::Time), Axis::channel(1)];
    let x = b.input(Slot::new(Space::Momentum, "x"), Type::new(DType::F32, axes));
    let mut sum = b.unary(Unary::Tanh, x);
    for k in 0..20 {
        let shifted = b.op(Op::Shift { axis: 0, by: 1 << k }, &[sum]);
        sum = b.add(sum, shifted);
    }
    result(&mut b, "sum", sum);
    let graph = b.finish();
    for fuse in [false, true] {
        let plan = compile("test", &graph, &Options { fuse, ..Options::default() }).unwrap();
        for kernel in &plan.kernels {
            let Kernel::Region(region) = kernel else { continue };
            assert!(region.body.len() < 500, "{} instructions, fuse {fuse}", region.body.len());
        }
    }
}

#[test]
fn rows_by_position_are_shifted() {
    agrees(|b| {
        let table = param(b, "table", &[5, 3]);
        let positions = b.op(Op::Iota(Axis::new(5, Role::Time)), &[]);
        let rows = b.op(Op::Gather, &[table, positions]);
        let before = b.op(Op::Shift { axis: 0, by: 1 }, &[rows]);
        let gains = param(b, "g", &[3]);
        let (before, gains) = b.try_align(before, gains).unwrap();
        let scaled = b.mul(before, gains);
        assert_eq!(b.ty(scaled).dtype, DType::F32);
        result(b, "rows", scaled);
    });
}
