//! Matrix products on tensor cores: their numbers on the CPU at small and odd sizes, and what they became for
//! Hopper at the sizes of int4mlp_12l.

use std::sync::Arc;

use pg_codegen::cuda::{Sass, Tools};
use pg_codegen::kernels::{ArgInfo, Generated, emit_cuda, lower};
use pg_codegen::machine::{H100, Machine};
use pg_codegen::plan::{Kernel, Matmul, MatrixView};
use pg_ir::ty::DType;

use crate::executed::{check, inputs, single};
use crate::offline::tools;

/// Which operands lie with their summed axis contiguous.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    a_along_k: bool,
    b_along_k: bool,
}

/// Forward, gradient of the input, gradient of the weight, and the fourth.
pub(crate) const LAYOUTS: [Layout; 4] = [
    Layout { a_along_k: true, b_along_k: true },
    Layout { a_along_k: true, b_along_k: false },
    Layout { a_along_k: false, b_along_k: false },
    Layout { a_along_k: false, b_along_k: true },
];

pub(crate) fn matmul([batch, m, n, k]: [usize; 4], layout: Layout, accumulate: bool) -> Matmul {
    let view = |rows: usize, cols: usize, by_rows: bool| {
        let (row, col) = if by_rows { (cols, 1) } else { (1, rows) };
        MatrixView { offset: 0, batch: rows * cols, row, col }
    };
    let (a, b) = (view(m, k, layout.a_along_k), view(k, n, !layout.b_along_k));
    Matmul { batch, m, n, k, a, b, c: view(m, n, true), accumulate, symmetric: false }
}

/// Types and lengths of a, b and c.
pub(crate) fn buffers(m: &Matmul, out: DType) -> [(DType, usize); 3] {
    let len = |rows, cols| m.batch * rows * cols;
    [(DType::BF16, len(m.m, m.k)), (DType::BF16, len(m.k, m.n)), (out, len(m.m, m.n))]
}

/// Arguments that are whole buffers of these types and lengths.
pub(crate) fn whole(arguments: &[(DType, usize)]) -> Vec<ArgInfo> {
    arguments.iter().map(|&(dtype, len)| ArgInfo::whole(dtype, len)).collect()
}

fn run(m: Matmul, out: DType, target: &Machine) {
    let what = format!("{m:?} into {out}");
    let buffers = buffers(&m, out);
    let accumulate = m.accumulate;
    let plan = single(Kernel::from(m), &buffers);
    let env = inputs(&plan, if accumulate { &[0, 1, 2] } else { &[0, 1] }, 17);
    let tolerance = if out == DType::BF16 { 1.0 / 256.0 } else { 1e-5 };
    check(&plan, &env, target, tolerance, &what);
}

#[test]
fn every_layout_at_aligned_and_odd_sizes() {
    let hopper = H100;
    for layout in LAYOUTS {
        run(matmul([1, 40, 72, 48], layout, false), DType::F32, &hopper);
        run(matmul([1, 17, 5, 33], layout, true), DType::F32, &hopper);
    }
}

#[test]
fn batches_tiles_and_bfloat16_results() {
    let hopper = H100;
    // More than a tile along both axes, and a batch.
    run(matmul([2, 136, 200, 160], LAYOUTS[0], false), DType::BF16, &hopper);
    run(matmul([2, 3, 130, 1], LAYOUTS[2], false), DType::BF16, &hopper);
    // Columns of c are far apart.
    let mut moved = matmul([1, 24, 40, 16], LAYOUTS[1], true);
    moved.c = MatrixView { offset: 0, batch: 0, row: 1, col: 24 };
    run(moved, DType::F32, &hopper);
}

/// Products with a vector, and of two: what a model with one head or one output asks for.
#[test]
fn a_column_is_a_row_of_the_transpose() {
    let hopper = H100;
    for (size, out) in
        [([2, 40, 1, 48], DType::BF16), ([1, 130, 1, 33], DType::F32), ([3, 1, 1, 40], DType::BF16)]
    {
        run(matmul(size, LAYOUTS[0], out == DType::F32), out, &hopper);
        let infos =
            buffers(&matmul(size, LAYOUTS[0], false), out).map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let made = lower(&Kernel::from(matmul(size, LAYOUTS[0], false)), &infos, &hopper).unwrap();
        let is_product = |name: &str| made.stages.iter().any(|s| s.kernel.name().starts_with(name));
        assert!(is_product(if size[1] > 1 { "mma_" } else { "matmul_" }), "{size:?}");
    }
}

#[test]
fn a_split_sum_is_the_sum() {
    // k is long, and one tile would leave a device idle.
    for accumulate in [false, true] {
        let m = matmul([1, 24, 40, 2100], LAYOUTS[2], accumulate);
        let infos = buffers(&m, DType::F32).map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let stages = lower(&Kernel::from(m.clone()), &infos, &H100).unwrap();
        assert_eq!(stages.stages.len(), 2, "partial sums, and their sum");
        assert!(stages.workspaces[0] > 4 * 24 * 40);
        run(m, DType::F32, &H100);
    }
}

/// Numbers of the tuning table change the kernel, and not what it computes.
#[test]
fn other_slices_and_parts() {
    for (text, layout) in
        [("mma.depth = 64\nmma.stages = 3", LAYOUTS[0]), ("mma.stages = 6\nmma.part = 64", LAYOUTS[2])]
    {
        let tuning = H100.tuning.with(text, "h100").unwrap();
        let target = Machine { tuning, ..H100 };
        run(matmul([1, 40, 72, 392], layout, false), DType::BF16, &target);
        run(matmul([1, 17, 5, 33], layout, true), DType::F32, &target);
    }
    let tuning = H100.tuning.with("mma.depth = 64\nmma.stages = 8", "h100").unwrap();
    let m = matmul([1, 40, 72, 48], LAYOUTS[0], false);
    let infos = buffers(&m, DType::F32).map(|(dtype, len)| ArgInfo::whole(dtype, len));
    let error = lower(&Kernel::from(m), &infos, &Machine { tuning, ..H100 }).unwrap_err();
    assert!(error.to_string().contains("bytes of shared memory"), "{error}");
}

#[test]
fn what_tensor_cores_do_not_take_stays_portable() {
    let m = matmul([1, 64, 64, 64], LAYOUTS[0], false);
    let infos = buffers(&m, DType::F32).map(|(_, len)| ArgInfo::whole(DType::F32, len));
    let stages = lower(&Kernel::from(m), &infos, &H100).unwrap().stages;
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

/// How often the outer loop of an emitted product runs: it is the first loop, and the only one before results leave.
fn trips(source: &str) -> usize {
    let is_loop = |l: &&str| l.starts_with("for (");
    let bound = source.lines().find(is_loop).and_then(|l| l.split_once(" < uint32(")).expect("a loop").1;
    let products = |text: &str| text.matches("__mma_m16n8k16").count();
    let (_, after) = source.split_once(" < uint32(").unwrap();
    assert_eq!(
        products(after),
        products(source.split_once("extern \"C\"").unwrap().1),
        "a product before it"
    );
    bound.split(')').next().unwrap().parse().unwrap()
}

/// The first kernel of a launch: the product, without the second pass of a split one.
fn product(kernel: &Kernel, infos: &[ArgInfo]) -> (Arc<Generated>, [u32; 3]) {
    let stage = lower(kernel, infos, &H100).unwrap().stages.remove(0);
    (stage.kernel, stage.grid)
}

/// Asserts what a kernel of products for Hopper must be, whatever becomes of their results, and gives its
/// instructions.
pub(crate) fn is_what_tensor_cores_want(
    tools: &Tools,
    all: &[Matmul],
    kernel: &Generated,
    grid: [u32; 3],
) -> Sass {
    let source = emit_cuda(kernel).unwrap();
    let compiled = tools.compile(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let what = format!("{all:?}: {:?}", compiled.resources);
    let r = compiled.resources;
    let sass = compiled.sass().unwrap();
    if let Ok(folder) = std::env::var("PG_CUDA_DUMP") {
        std::fs::write(format!("{folder}/{}.cu", kernel.name()), &source).unwrap();
        std::fs::write(format!("{folder}/{}.sass", kernel.name()), &sass.text).unwrap();
    }
    assert_eq!((r.spill_bytes, r.stack_bytes), (0, 0), "{what}");
    assert!(r.occupancy(kernel.threads(), kernel.shared_bytes()).blocks >= 2, "{what}");
    let (least, in_loop) = between_barriers(&sass);
    assert!(least >= 32, "{least} HMMA between barriers: {what}");
    // Every operation is in the loop, which all products share, and nothing is done twice: what the instructions of
    // all trips of all warps do is the products' size, but for parts of k that are cut to whole trips.
    assert_eq!(sass.count("HMMA.16816.F32.BF16"), in_loop, "{what}");
    let blocks: u32 = grid.iter().product();
    let warps = f64::from(blocks) * f64::from(kernel.threads() / 32);
    let done = warps * trips(&source) as f64 * in_loop as f64 * 2.0 * (16 * 8 * 16) as f64;
    let wanted: f64 = all.iter().map(|m| 2.0 * (m.batch * m.m * m.n) as f64 * m.k as f64).sum();
    assert!((1.0..1.01).contains(&(done / wanted)), "{done} operations for {wanted}: {what}");
    println!("{} grid {grid:?}: {in_loop} HMMA, {least} between barriers, {r:?}", kernel.name());
    let copies: Vec<&str> = names(&sass, "LDGSTS").collect();
    assert!(!copies.is_empty() && copies.iter().all(|n| n.contains("128")), "asynchronous copies: {what}");
    let loads: Vec<&str> = names(&sass, "LDSM").collect();
    assert!(!loads.is_empty() && loads.iter().all(|n| n.ends_with(".4")), "{what}");
    let last = sass.instructions.iter().rposition(|i| i.name.starts_with("HMMA")).unwrap();
    let early = sass.instructions[..last].iter().filter(|i| i.name.starts_with("LDS."));
    assert_eq!(early.count(), 0, "operands are read through LDSM alone: {what}");
    sass
}

/// Names of the instructions that begin so.
pub(crate) fn names<'a>(sass: &'a Sass, start: &'a str) -> impl Iterator<Item = &'a str> {
    sass.instructions.iter().map(|i| i.name.as_str()).filter(move |n| n.starts_with(start))
}

/// Asserts that every global access but the asynchronous copies is of 16 bytes; how many loads and stores that is.
pub(crate) fn accesses_of_16_bytes(sass: &Sass, what: &str) -> [usize; 2] {
    ["LDG.", "STG."].map(|kind| {
        let all: Vec<&str> = names(sass, kind).collect();
        assert!(all.iter().all(|n| n.contains(".128")), "{what}: {all:?}");
        all.len()
    })
}

#[test]
fn full_size_products_are_what_tensor_cores_want() {
    let Some(tools) = tools() else { return };
    for m in full_size() {
        let infos = buffers(&m, if m.accumulate { DType::F32 } else { DType::BF16 });
        let (kernel, grid) =
            product(&Kernel::from(m.clone()), &infos.map(|(dtype, len)| ArgInfo::whole(dtype, len)));
        let sass = is_what_tensor_cores_want(&tools, std::slice::from_ref(&m), &kernel, grid);
        let [loads, stores] = accesses_of_16_bytes(&sass, kernel.name());
        assert!(loads == 0 && stores > 0, "results leave in 16 bytes, and nothing else moves");
    }
}
