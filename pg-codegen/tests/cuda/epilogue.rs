//! Element-wise regions on a product's result: one kernel, and the numbers of the two that it stands for.

use pg_codegen::kernels::{ArgInfo, extents, generate, lower};
use pg_codegen::machine::H100;
use pg_codegen::plan::{Contraction, Kernel, Matmul, Member};
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Region};
use pg_ir::op::{Binary, Reduction};
use pg_ir::ty::DType;

use crate::executed::{check, inputs, single};
use crate::matrix::{LAYOUTS, accesses_of_16_bytes, buffers, is_what_tensor_cores_want, matmul, names};
use crate::models;
use crate::offline::{FULL, tools};

fn own(m: &Matmul) -> Affine {
    Affine { offset: 0, strides: [m.n as i64, 1].into_iter().collect() }
}

pub(crate) fn load(arg: u32, at: Affine) -> Instr {
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
    Region { rows: vec![m.batch * m.m], reduced: 0, columns: m.n, body, args }
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
        let kernel = Kernel::Contraction(Contraction::with_epilogue(m.clone(), epilogue(&m, tile)));
        let buffers = epilogue_buffers(&m);
        let infos = buffers.map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let made = lower(&kernel, &infos, &H100).unwrap();
        assert_eq!((made.stages.len(), made.workspaces.len()), (1, 0), "{size:?}");
        let plan = single(kernel, &buffers);
        let env = inputs(&plan, &[0, 1, 2, 3, 4, 5], 37);
        check(&plan, &env, &H100, 1.0 / 128.0, &format!("{size:?} {tile}"));
    }
}

/// What belongs to a row is stored by one of the threads that share it.
#[test]
fn an_element_a_row_is_stored_once() {
    let sizes =
        [[1, 40, 64, 48], [1, 17, 16, 40], [2, 9, 128, 33], [1, 18, 4, 5], [1, 18, 8, 5], [1, 18, 32, 5]];
    for (size, tile) in sizes.into_iter().flat_map(|s| [(s, DType::BF16), (s, DType::F32)]) {
        let m = matmul(size, LAYOUTS[0], false);
        let (rows, a_row) = (m.batch * m.m, [1, 0].into_iter().collect());
        let a_row = Affine { offset: 0, strides: a_row };
        let body = vec![
            load(0, own(&m)),
            load(1, a_row.clone()),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Store { arg: 2, value: 2, at: own(&m) },
            Instr::Store { arg: 3, value: 1, at: a_row },
        ];
        let args = vec![tile, DType::F32, DType::F32, DType::F32];
        let region = Region { rows: vec![rows], reduced: 0, columns: m.n, body, args };
        let [a, b, (_, len)] = buffers(&m, DType::F32);
        let buffers = [a, b, (DType::F32, rows), (DType::F32, len), (DType::F32, rows)];
        let plan = single(Kernel::Contraction(Contraction::with_epilogue(m, region)), &buffers);
        let env = inputs(&plan, &[0, 1, 2], 37);
        check(&plan, &env, &H100, 1.0 / 128.0, &format!("{size:?} {tile}"));
    }
}

/// Where k is split, the region runs on the sum of the parts.
#[test]
fn a_region_on_a_split_sum_is_in_its_second_pass() {
    for tile in [DType::BF16, DType::F32] {
        let m = matmul([1, 24, 40, 2100], LAYOUTS[2], false);
        let kernel = Kernel::Contraction(Contraction::with_epilogue(m.clone(), epilogue(&m, tile)));
        let buffers = epilogue_buffers(&m);
        let infos = buffers.map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let made = lower(&kernel, &infos, &H100).unwrap();
        assert_eq!((made.stages.len(), made.workspaces.len()), (2, 1));
        let plan = single(kernel, &buffers);
        let env = inputs(&plan, &[0, 1, 2, 3, 4, 5], 41);
        check(&plan, &env, &H100, 1.0 / 128.0, &format!("{tile}"));
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
    let region =
        Region { rows: vec![24], reduced: 0, columns: 40, body, args: vec![DType::BF16, DType::F32] };
    let kernel = Kernel::Contraction(Contraction::with_epilogue(m.clone(), region));
    let buffers = buffers(&m, DType::F32);
    let made = lower(&kernel, &buffers.map(|(t, len)| ArgInfo::whole(t, len)), &H100).unwrap();
    assert_eq!((made.stages.len(), made.workspaces.len()), (2, 1));
    let plan = single(kernel, &buffers);
    check(&plan, &inputs(&plan, &[0, 1], 43), &H100, 1.0 / 64.0, "row sums");
}

/// Every product with a region of a step of int4mlp_12l at full size: what plain products are, and nothing of the
/// result in memory but what the plan stores.
#[test]
fn full_size_products_with_regions_are_what_tensor_cores_want() {
    let Some(tools) = tools() else { return };
    let model = models::model(&models::file("int4mlp_12l.rs"), &[]);
    let mut seen = Vec::new();
    let mut rounded = 0;
    for program in models::programs(&model, FULL) {
        if !["grad.next.qat", "update", "score"].contains(&program.name.as_str()) {
            continue;
        }
        let plan = models::plan(&program);
        let made = generate(&plan, &extents(&plan, |_| None), &H100).unwrap();
        for (i, launch) in plan.launches.iter().enumerate() {
            let Kernel::Contraction(contraction) = &plan.kernels[launch.kernel.0 as usize] else { continue };
            let Some(Member { matmul: m, epilogue: Some(region), .. }) = contraction.single() else {
                continue;
            };
            let stages: Vec<_> = made.launches.iter().filter(|g| g.launch == i).map(|g| &g.stage).collect();
            if seen.contains(&stages[0].kernel.hash()) {
                continue;
            }
            seen.push(stages[0].kernel.hash());
            let all = std::slice::from_ref(m);
            let sass = is_what_tensor_cores_want(&tools, all, &stages[0].kernel, stages[0].grid);
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
