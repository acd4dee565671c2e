//! Matrix products on matrix units: their numbers on the CPU at small and odd sizes, and what they became for
//! Hopper at the sizes of int4mlp_12l.

use std::sync::Arc;

use pg_codegen::cube::{ArgInfo, Generated, Target, emit_cuda, extents, generate, lower};
use pg_codegen::cuda::{Sass, Tools};
use pg_codegen::plan::{Kernel, Matmul, Matmuls, MatrixView, Side};
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Region};
use pg_ir::op::{Binary, Reduction};
use pg_ir::ty::DType;

use crate::executed::{check, inputs, single};
use crate::models;
use crate::offline::{FULL, tools};

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

/// Numbers of the tuning table change the kernel, and not what it computes.
#[test]
fn other_slices_and_parts() {
    for (text, layout) in
        [("mma.depth = 64\nmma.stages = 3", LAYOUTS[0]), ("mma.stages = 6\nmma.part = 64", LAYOUTS[2])]
    {
        let tuning = Target::hopper().tuning.with(text, "h100").unwrap();
        let target = Target { tuning, ..Target::hopper() };
        run(matmul([1, 40, 72, 392], layout, false), DType::BF16, &target);
        run(matmul([1, 17, 5, 33], layout, true), DType::F32, &target);
    }
    let tuning = Target::hopper().tuning.with("mma.depth = 64\nmma.stages = 8", "h100").unwrap();
    let m = matmul([1, 40, 72, 48], LAYOUTS[0], false);
    let infos = buffers(&m, DType::F32).map(|(dtype, len)| ArgInfo::whole(dtype, len));
    let error = lower(&Kernel::Matmul(m), &infos, &Target { tuning, ..Target::hopper() }).unwrap_err();
    assert!(error.to_string().contains("bytes of shared memory"), "{error}");
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
    let stage = lower(kernel, infos, &Target::hopper()).unwrap().stages.remove(0);
    (stage.kernel, stage.grid)
}

/// Asserts what a kernel of products for Hopper must be, whatever becomes of their results, and gives its
/// instructions.
fn is_what_matrix_units_want(tools: &Tools, all: &[Matmul], kernel: &Generated, grid: [u32; 3]) -> Sass {
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
    assert!(r.resident_cubes(kernel.units(), kernel.shared_bytes()) >= 2, "{what}");
    let (least, in_loop) = between_barriers(&sass);
    assert!(least >= 32, "{least} HMMA between barriers: {what}");
    // Every operation is in the loop, which all products share, and nothing is done twice: what the instructions of
    // all trips of all warps do is the products' size, but for parts of k that are cut to whole trips.
    assert_eq!(sass.count("HMMA.16816.F32.BF16"), in_loop, "{what}");
    let cubes: u32 = grid.iter().product();
    let warps = f64::from(cubes) * f64::from(kernel.units() / 32);
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
fn names<'a>(sass: &'a Sass, start: &'a str) -> impl Iterator<Item = &'a str> {
    sass.instructions.iter().map(|i| i.name.as_str()).filter(move |n| n.starts_with(start))
}

/// Asserts that every global access but the asynchronous copies is of 16 bytes; how many loads and stores that is.
fn accesses_of_16_bytes(sass: &Sass, what: &str) -> [usize; 2] {
    ["LDG.", "STG."].map(|kind| {
        let all: Vec<&str> = names(sass, kind).collect();
        assert!(all.iter().all(|n| n.contains(".128")), "{what}: {all:?}");
        all.len()
    })
}

#[test]
fn full_size_products_are_what_matrix_units_want() {
    let Some(tools) = tools() else { return };
    for m in full_size() {
        let infos = buffers(&m, if m.accumulate { DType::F32 } else { DType::BF16 });
        let (kernel, grid) =
            product(&Kernel::Matmul(m.clone()), &infos.map(|(dtype, len)| ArgInfo::whole(dtype, len)));
        let sass = is_what_matrix_units_want(&tools, std::slice::from_ref(&m), &kernel, grid);
        let [loads, stores] = accesses_of_16_bytes(&sass, kernel.name());
        assert!(loads == 0 && stores > 0, "results leave in 16 bytes, and nothing else moves");
    }
}

fn own(m: &Matmul) -> Affine {
    Affine { offset: 0, strides: [m.n as i64, 1].into_iter().collect() }
}

fn load(arg: u32, at: Affine) -> Instr {
    Instr::Load { arg, map: IndexMap { at, guards: vec![] } }
}

/// An MLP's gradient with more to it: the result times a function of what is in memory, a scale for each column, one
/// for each row, and one for all; stored twice, once rounded, and once where the row before it lies.
fn epilogue(m: &Matmul, tile: DType) -> Region {
    let at = |strides: [i64; 2], offset| Affine { offset, strides: strides.into_iter().collect() };
    let n = m.n as i64;
    let guard = Guard { expr: at([1, 0], -1), size: (m.batch * m.m) as i64 };
    let before = IndexMap { at: at([n, 1], -n), guards: vec![guard] };
    let body = vec![
        load(1, own(m)),
        load(0, own(m)),
        Instr::Binary(Binary::Mul, 0, 1),
        load(2, at([0, 1], 0)),
        Instr::Binary(Binary::Mul, 2, 3),
        load(3, at([1, 0], 0)),
        Instr::Binary(Binary::Add, 4, 5),
        Instr::Load { arg: 1, map: before },
        Instr::Binary(Binary::Add, 6, 7),
        load(4, at([0, 0], 0)),
        Instr::Binary(Binary::Mul, 8, 9),
        Instr::Cast(DType::BF16, 10),
        Instr::Store { arg: 5, value: 11, at: own(m) },
        Instr::Store { arg: 6, value: 1, at: own(m) },
    ];
    let args = vec![tile, DType::BF16, DType::F32, DType::F32, DType::F32, DType::BF16, DType::F32];
    Region { rows: vec![m.batch * m.m], reduced: 0, lanes: m.n, body, args }
}

/// The arguments of a product with that epilogue.
fn epilogue_buffers(m: &Matmul) -> [(DType, usize); 8] {
    let [a, b, (_, len)] = buffers(m, DType::F32);
    let (rows, f) = (m.batch * m.m, DType::F32);
    [a, b, (DType::BF16, len), (f, m.n), (f, rows), (f, 1), (DType::BF16, len), (f, len)]
}

/// A region on a product's result is one kernel, and computes what the two would, at even and odd sizes.
#[test]
fn a_region_on_a_result_is_one_kernel() {
    let sizes = [[1, 40, 72, 48], [1, 130, 136, 33], [2, 17, 20, 40], [1, 9, 5, 16], [3, 128, 128, 32]];
    for (size, tile) in sizes.into_iter().flat_map(|s| [(s, DType::BF16), (s, DType::F32)]) {
        let m = matmul(size, LAYOUTS[0], false);
        let kernel = Kernel::MatmulRegion(m.clone(), epilogue(&m, tile));
        let buffers = epilogue_buffers(&m);
        let infos = buffers.map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let made = lower(&kernel, &infos, &Target::hopper()).unwrap();
        assert_eq!((made.stages.len(), made.workspaces.len()), (1, 0), "{size:?}");
        let plan = single(kernel, &buffers);
        let env = inputs(&plan, &[0, 1, 2, 3, 4, 5], 37);
        check(&plan, &env, &Target::hopper(), 1.0 / 128.0, &format!("{size:?} {tile}"));
    }
}

/// Where k is split, the region runs on the sum of the parts.
#[test]
fn a_region_on_a_split_sum_is_in_its_second_pass() {
    for tile in [DType::BF16, DType::F32] {
        let m = matmul([1, 24, 40, 2100], LAYOUTS[2], false);
        let kernel = Kernel::MatmulRegion(m.clone(), epilogue(&m, tile));
        let buffers = epilogue_buffers(&m);
        let infos = buffers.map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let made = lower(&kernel, &infos, &Target::hopper()).unwrap();
        assert_eq!((made.stages.len(), made.workspaces.len()), (2, 1));
        let plan = single(kernel, &buffers);
        let env = inputs(&plan, &[0, 1, 2, 3, 4, 5], 41);
        check(&plan, &env, &Target::hopper(), 1.0 / 128.0, &format!("{tile}"));
    }
}

/// A sum over a whole row is more than a tile has.
#[test]
fn a_region_that_a_tile_cannot_run_is_a_second_launch() {
    let m = matmul([1, 24, 40, 48], LAYOUTS[0], false);
    let body = vec![
        load(0, own(&m)),
        Instr::RowReduce(Reduction::Sum, 0),
        Instr::Binary(Binary::Mul, 0, 1),
        Instr::Store { arg: 1, value: 2, at: own(&m) },
    ];
    let region = Region { rows: vec![24], reduced: 0, lanes: 40, body, args: vec![DType::BF16, DType::F32] };
    let kernel = Kernel::MatmulRegion(m.clone(), region);
    let buffers = buffers(&m, DType::F32);
    let made = lower(&kernel, &buffers.map(|(t, len)| ArgInfo::whole(t, len)), &Target::hopper()).unwrap();
    assert_eq!((made.stages.len(), made.workspaces.len()), (2, 1));
    let plan = single(kernel, &buffers);
    check(&plan, &inputs(&plan, &[0, 1], 43), &Target::hopper(), 1.0 / 64.0, "row sums");
}

/// Every product with a region of a step of int4mlp_12l at full size: what plain products are, and nothing of the
/// result in memory but what the plan stores.
#[test]
fn full_size_products_with_regions_are_what_matrix_units_want() {
    let Some(tools) = tools() else { return };
    let model = models::model(&models::file("int4mlp_12l.rs"), &[]);
    let mut seen = Vec::new();
    let mut rounded = 0;
    for program in models::programs(&model, FULL) {
        if !["grad.next.qat", "update", "score"].contains(&program.name.as_str()) {
            continue;
        }
        let plan = models::plan(&program);
        let made = generate(&plan, &extents(&plan, |_| None), &Target::hopper()).unwrap();
        for (i, launch) in plan.launches.iter().enumerate() {
            let Kernel::MatmulRegion(m, region) = &plan.kernels[launch.kernel.0 as usize] else { continue };
            let stages: Vec<_> = made.launches.iter().filter(|g| g.launch == i).map(|g| &g.stage).collect();
            if seen.contains(&stages[0].kernel.hash()) {
                continue;
            }
            seen.push(stages[0].kernel.hash());
            let all = std::slice::from_ref(m);
            let sass = is_what_matrix_units_want(&tools, all, &stages[0].kernel, stages[0].grid);
            if stages.len() > 1 {
                continue;
            }
            let what = format!("{} of {}", stages[0].kernel.name(), launch.note());
            let count = |f: &dyn Fn(&Instr) -> bool| region.body.iter().filter(|i| f(i)).count();
            let stores = count(&|i| matches!(i, Instr::Store { .. }));
            assert_eq!(launch.args.len() - 2, region.args.len() - 1, "{what}");
            if region.args.iter().all(|&t| t == DType::BF16) {
                rounded += 1;
                let loads = count(&|i| matches!(i, Instr::Load { arg, .. } if *arg > 0));
                let [loaded, stored] = accesses_of_16_bytes(&sass, &what);
                assert!(loaded >= loads && (loads > 0 || loaded == 0), "{what}: {loaded} loads");
                assert!(stored >= stores, "{what}: {stored} stores");
                assert!(names(&sass, "STSM").all(|n| n.ends_with(".4")) && sass.count("STSM") > 0, "{what}");
            }
        }
    }
    assert!(seen.len() >= 8 && rounded >= 2, "{} kernels, {rounded} of bfloat16 alone", seen.len());
}

/// Products of one operand, and the types and lengths of their arguments. `own` are the sizes that members do not share.
fn beside(
    shared: Side,
    [batch, same, k]: [usize; 3],
    own: &[(usize, DType, bool)],
    layout: Layout,
) -> (Matmuls, Vec<(DType, usize)>) {
    let (mut members, mut arguments) = (Vec::new(), Vec::new());
    for &(own, out, accumulate) in own {
        let [m, n] = if shared == Side::Left { [same, own] } else { [own, same] };
        let member = matmul([batch, m, n, k], layout, accumulate);
        let [a, b, c] = buffers(&member, out);
        let (common, other) = if shared == Side::Left { (a, b) } else { (b, a) };
        if arguments.is_empty() {
            arguments.push(common);
        }
        arguments.extend([other, c]);
        members.push(Kernel::Matmul(member));
    }
    (Matmuls { shared, members }, arguments)
}

fn whole(arguments: &[(DType, usize)]) -> Vec<ArgInfo> {
    arguments.iter().map(|&(dtype, len)| ArgInfo::whole(dtype, len)).collect()
}

/// Products of one operand are one launch, on either side, with results that leave in every way, and compute what they
/// would alone.
#[test]
fn products_of_one_operand_are_one_launch() {
    let (f, h) = (DType::F32, DType::BF16);
    let cases = [
        (Side::Left, [1, 40, 48], vec![(72, h, false), (5, f, true), (36, h, false)], LAYOUTS[0], 1),
        (Side::Left, [2, 130, 33], vec![(136, h, false), (8, h, false)], LAYOUTS[0], 1),
        (Side::Left, [1, 17, 40], vec![(130, f, false), (7, h, false), (2, f, true)], LAYOUTS[1], 1),
        (Side::Right, [1, 72, 48], vec![(40, f, true), (136, f, false), (8, h, false)], LAYOUTS[2], 1),
        (Side::Right, [2, 5, 31], vec![(3, f, false), (129, f, true)], LAYOUTS[3], 1),
        // k is long, and few tiles would leave a device idle: each sum of parts is a second pass.
        (Side::Right, [1, 40, 2100], vec![(24, f, true), (16, h, false)], LAYOUTS[2], 3),
    ];
    for (shared, size, own, layout, stages) in cases {
        let (all, arguments) = beside(shared, size, &own, layout);
        let what = format!("{all:?}");
        let made = lower(&Kernel::Matmuls(all.clone()), &whole(&arguments), &Target::hopper()).unwrap();
        assert_eq!(made.stages.len(), stages, "{what}");
        let cubes: u32 = made.stages[0].grid.iter().product();
        let tiles: usize = all.products().map(|m| m.batch * m.m.div_ceil(128) * m.n.div_ceil(128)).sum();
        assert!(stages > 1 || cubes as usize == tiles, "{cubes} cubes: {what}");
        let plan = single(Kernel::Matmuls(all.clone()), &arguments);
        let olds = all.products().enumerate().filter(|(_, m)| m.accumulate).map(|(i, _)| all.args(i)[2]);
        let read: Vec<usize> = (0..arguments.len()).filter(|i| i % 2 == 1 || *i == 0).chain(olds).collect();
        let tolerance = if own.iter().any(|o| o.1 == h) { 1.0 / 256.0 } else { 1e-5 };
        check(&plan, &inputs(&plan, &read, 47), &Target::hopper(), tolerance, &what);
    }
}

/// Operands that lie in other ways do not pass through the same shared memory, and none may be overwritten.
#[test]
fn products_that_do_not_go_together_are_launches_of_their_own() {
    let stages = |all: &Matmuls, infos: &[ArgInfo]| {
        let made = lower(&Kernel::Matmuls(all.clone()), infos, &Target::hopper()).unwrap();
        assert_eq!(made.stages.iter().map(|s| s.share).sum::<f64>(), 1.0);
        made.stages.len()
    };
    let own = [(40, DType::F32, false), (5, DType::F32, false)];
    let (unaligned, arguments) = beside(Side::Right, [1, 72, 48], &own, LAYOUTS[2]);
    assert_eq!(stages(&unaligned, &whole(&arguments)), 2);
    let plan = single(Kernel::Matmuls(unaligned.clone()), &arguments);
    check(&plan, &inputs(&plan, &[0, 1, 3], 53), &Target::hopper(), 1e-5, "apart");
    assert!(lower(&Kernel::Matmuls(unaligned), &whole(&arguments[..4]), &Target::hopper()).is_err());
    let (all, arguments) = beside(Side::Left, [1, 72, 48], &[own[0]; 2], LAYOUTS[0]);
    let mut infos = whole(&arguments);
    assert_eq!(stages(&all, &infos), 1);
    let mut turned = all.clone();
    turned.members[1] = Kernel::Matmul(matmul([1, 72, 40, 48], LAYOUTS[1], false));
    assert_eq!(stages(&turned, &infos), 2);
    infos[3].aliased = true;
    assert_eq!(stages(&all, &infos), 2);
}

/// The projections of an input and the gradients of their weights, at full size: one kernel each, as good as those of
/// single products.
#[test]
fn full_size_products_of_one_operand_are_what_matrix_units_want() {
    let Some(tools) = tools() else { return };
    let model = models::model(&models::file("int4mlp_12l.rs"), &[]);
    let programs = models::programs(&model, FULL);
    let plan =
        models::plan(programs.iter().find(|p| p.name == "grad.next.qat").expect("a program of training"));
    let made = generate(&plan, &extents(&plan, |_| None), &Target::hopper()).unwrap();
    let mut seen = Vec::new();
    for (i, launch) in plan.launches.iter().enumerate() {
        let Kernel::Matmuls(all) = &plan.kernels[launch.kernel.0 as usize] else { continue };
        let stage = &made.launches.iter().find(|g| g.launch == i).expect("a launch").stage;
        assert_eq!(stage.args.len(), launch.args.len());
        if seen.contains(&stage.kernel.hash()) {
            continue;
        }
        seen.push(stage.kernel.hash());
        let products: Vec<Matmul> = all.products().cloned().collect();
        let sass = is_what_matrix_units_want(&tools, &products, &stage.kernel, stage.grid);
        // Regions read what they like, tables of a few elements among it.
        if products.len() == all.members.iter().filter(|m| matches!(m, Kernel::Matmul(_))).count() {
            let [loads, stores] = accesses_of_16_bytes(&sass, stage.kernel.name());
            assert!(loads == 0 && stores > 0, "results leave in 16 bytes, and nothing else moves");
        }
    }
    assert!(seen.len() >= 2, "{} kernels", seen.len());
}
