//! Matrix products on matrix units: their numbers on the CPU at small and odd sizes, and what they became for
//! Hopper at the sizes of int4mlp_12l.

use pg_codegen::cube::{ArgInfo, Generated, Target, emit_cuda, lower};
use pg_codegen::cuda::Sass;
use pg_codegen::plan::{Kernel, Matmul, MatrixView};
use pg_ir::ty::DType;

use crate::executed::{check, inputs, single};
use crate::offline::tools;

/// Which operands lie with their summed axis contiguous.
#[derive(Clone, Copy, Debug)]
struct Layout {
    a_along_k: bool,
    b_along_k: bool,
}

/// Forward, gradient of the input, gradient of the weight, and the fourth.
const LAYOUTS: [Layout; 4] = [
    Layout { a_along_k: true, b_along_k: true },
    Layout { a_along_k: true, b_along_k: false },
    Layout { a_along_k: false, b_along_k: false },
    Layout { a_along_k: false, b_along_k: true },
];

fn matmul([batch, m, n, k]: [usize; 4], layout: Layout, accumulate: bool) -> Matmul {
    let view = |rows: usize, cols: usize, by_rows: bool| {
        let (row, col) = if by_rows { (cols, 1) } else { (1, rows) };
        MatrixView { offset: 0, batch: rows * cols, row, col }
    };
    let (a, b) = (view(m, k, layout.a_along_k), view(k, n, !layout.b_along_k));
    Matmul { batch, m, n, k, a, b, c: view(m, n, true), accumulate, symmetric: false }
}

/// Types and lengths of a, b and c.
fn buffers(m: &Matmul, out: DType) -> [(DType, usize); 3] {
    let len = |rows, cols| m.batch * rows * cols;
    [(DType::BF16, len(m.m, m.k)), (DType::BF16, len(m.k, m.n)), (out, len(m.m, m.n))]
}

fn run(m: Matmul, out: DType, target: &Target) {
    let what = format!("{m:?} into {out}");
    let buffers = buffers(&m, out);
    let accumulate = m.accumulate;
    let plan = single(Kernel::Matmul(m), &buffers);
    let env = inputs(&plan, if accumulate { &[0, 1, 2] } else { &[0, 1] }, 17);
    let tolerance = if out == DType::BF16 { 1.0 / 256.0 } else { 1e-5 };
    check(&plan, &env, target, tolerance, &what);
}

#[test]
fn every_layout_at_aligned_and_odd_sizes() {
    let hopper = Target::hopper();
    for layout in LAYOUTS {
        run(matmul([1, 40, 72, 48], layout, false), DType::F32, &hopper);
        run(matmul([1, 17, 5, 33], layout, true), DType::F32, &hopper);
    }
}

#[test]
fn batches_tiles_and_bfloat16_results() {
    let hopper = Target::hopper();
    // More than a tile along both axes, and a batch.
    run(matmul([2, 136, 200, 160], LAYOUTS[0], false), DType::BF16, &hopper);
    run(matmul([2, 3, 130, 1], LAYOUTS[2], false), DType::BF16, &hopper);
    // Columns of c are far apart.
    let mut moved = matmul([1, 24, 40, 16], LAYOUTS[1], true);
    moved.c = MatrixView { offset: 0, batch: 0, row: 1, col: 24 };
    run(moved, DType::F32, &hopper);
}

#[test]
fn a_split_sum_is_the_sum() {
    // k is long, and one tile would leave a device idle.
    for accumulate in [false, true] {
        let m = matmul([1, 24, 40, 2100], LAYOUTS[2], accumulate);
        let infos = buffers(&m, DType::F32).map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let stages = lower(&Kernel::Matmul(m.clone()), &infos, &Target::hopper()).unwrap();
        assert_eq!(stages.stages.len(), 2, "partial sums, and their sum");
        assert!(stages.workspaces[0] > 4 * 24 * 40);
        run(m, DType::F32, &Target::hopper());
    }
}

#[test]
fn what_matrix_units_do_not_take_stays_portable() {
    let m = matmul([1, 64, 64, 64], LAYOUTS[0], false);
    let infos = buffers(&m, DType::F32).map(|(_, len)| ArgInfo::whole(DType::F32, len));
    let stages = lower(&Kernel::Matmul(m), &infos, &Target::hopper()).unwrap().stages;
    assert!(stages[0].kernel.name().starts_with("matmul_"), "{}", stages[0].kernel.name());
}

/// The matmuls of a micro-batch of int4mlp_12l, 98,304 tokens: forward, gradient of the input, gradient of the
/// weight; and Newton–Schulz of a bank.
fn full_size() -> Vec<Matmul> {
    let tokens = 98_304;
    let mut all = Vec::new();
    for (rows, columns) in [(512, 512), (256, 512), (1536, 512), (512, 1536)] {
        all.push(matmul([1, tokens, rows, columns], LAYOUTS[0], false));
        all.push(matmul([1, tokens, columns, rows], LAYOUTS[1], false));
        all.push(matmul([1, rows, columns, tokens], LAYOUTS[2], true));
    }
    all.push(matmul([24, 512, 512, 512], LAYOUTS[0], false));
    all.push(matmul([12, 512, 512, 1536], LAYOUTS[0], false));
    all
}

/// HMMA instructions between two barriers, at least, in the loop that has the most of them, with their number.
pub(crate) fn between_barriers(sass: &Sass) -> (usize, usize) {
    let count = |l: &std::ops::RangeInclusive<usize>| {
        sass.instructions[l.clone()].iter().filter(|i| i.name.starts_with("HMMA")).count()
    };
    let inner = sass.loops().into_iter().max_by_key(count).expect("a loop");
    let total = count(&inner);
    // From the first barrier on, so that no part is cut by the loop's ends.
    let mut parts = Vec::new();
    let mut part: Option<usize> = None;
    for i in &sass.instructions[inner] {
        if i.name.starts_with("BAR") {
            parts.extend(part);
            part = Some(0);
        } else if i.name.starts_with("HMMA") {
            part = part.map(|n| n + 1);
        }
    }
    parts.extend(part);
    (parts.into_iter().min().unwrap_or(0), total)
}

/// How often the outer loop of an emitted product runs: it is the one loop.
fn trips(source: &str) -> usize {
    let mut bounds = source.lines().filter(|l| l.starts_with("for (")).map(|l| {
        let bound = l.split_once(" < uint32(").unwrap().1.split(')').next().unwrap();
        bound.parse().unwrap()
    });
    let trips = bounds.next().expect("a loop");
    assert_eq!(bounds.next(), None, "a second loop");
    trips
}

/// The kernel of the product, without the second pass.
fn product(m: &Matmul) -> (std::sync::Arc<Generated>, [u32; 3]) {
    let infos = buffers(m, if m.accumulate { DType::F32 } else { DType::BF16 });
    let infos = infos.map(|(dtype, len)| ArgInfo::whole(dtype, len));
    let stage = lower(&Kernel::Matmul(m.clone()), &infos, &Target::hopper()).unwrap().stages.remove(0);
    (stage.kernel, stage.grid)
}

#[test]
fn full_size_products_are_what_matrix_units_want() {
    let Some(tools) = tools() else { return };
    for m in full_size() {
        let (kernel, grid) = product(&m);
        let source = emit_cuda(&kernel).unwrap();
        let compiled = tools.compile(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
        let what = format!("{m:?}: {:?}", compiled.resources);
        let r = compiled.resources;
        assert_eq!((r.spill_bytes, r.stack_bytes), (0, 0), "{what}");
        let sass = compiled.sass().unwrap();
        if let Ok(folder) = std::env::var("PG_CUDA_DUMP") {
            std::fs::write(format!("{folder}/{}.cu", kernel.name()), &source).unwrap();
            std::fs::write(format!("{folder}/{}.sass", kernel.name()), &sass.text).unwrap();
        }
        assert!(r.resident_cubes(kernel.units(), kernel.shared_bytes()) >= 2, "{what}");
        let (least, in_loop) = between_barriers(&sass);
        assert!(least >= 32, "{least} HMMA between barriers: {what}");
        // Every operation is in the loop, and nothing is done twice: what the instructions of all trips of all
        // warps do is the product's size, but for parts of k that are cut to whole trips.
        assert_eq!(sass.count("HMMA.16816.F32.BF16"), in_loop, "{what}");
        let cubes: u32 = grid.iter().product();
        let warps = f64::from(cubes) * f64::from(kernel.units() / 32);
        let done = warps * trips(&source) as f64 * in_loop as f64 * 2.0 * (16 * 8 * 16) as f64;
        let wanted = 2.0 * (m.batch * m.m * m.n) as f64 * m.k as f64;
        assert!((1.0..1.01).contains(&(done / wanted)), "{done} operations for {wanted}: {what}");
        println!("{} grid {grid:?}: {in_loop} HMMA, {least} between barriers, {r:?}", kernel.name());
        assert!(sass.count("LDGSTS") > 0, "no asynchronous copies: {what}");
        assert!(
            sass.instructions.iter().filter(|i| i.name.starts_with("LDGSTS")).all(|i| i.name.contains("128"))
        );
        let loads = sass.instructions.iter().filter(|i| i.name.starts_with("LDSM"));
        assert!(loads.clone().count() > 0 && loads.clone().all(|i| i.name.ends_with(".4")), "{what}");
        assert_eq!(sass.count("LDS."), 0, "shared memory is read through LDSM alone: {what}");
    }
}
