//! Regions whose columns meet, on a product's result: heads of a projection that are normed and rotated where they are
//! projected. One kernel, and the numbers of the two that it stands for.

use std::sync::Arc;

use pg_codegen::kernels::{ArgInfo, extents, generate, lower};
use pg_codegen::machine::H100;
use pg_codegen::plan::{Contraction, Kernel, Matmul, Member, Side};
use pg_codegen::region::{Affine, Instr, Region};
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::ty::DType;

use crate::epilogue::load;
use crate::executed::{check, inputs, single};
use crate::matrix::{LAYOUTS, buffers, matmul};
use crate::models;
use crate::offline::FULL;

/// Each head over its root mean square, stored; then rotated by a table of the columns, times a number of the head, and
/// stored. Also the heads as they were, and what each was divided by.
fn norm_and_rotate(m: &Matmul, columns: usize, perm: Vec<u32>) -> Region {
    let (heads, rows) = (m.n / columns, m.batch * m.m);
    let at = |strides: [i64; 3]| Affine { offset: 0, strides: strides.into_iter().collect() };
    let own = || at([m.n as i64, columns as i64, 1]);
    let body = vec![
        load(0, own()),
        Instr::Binary(Binary::Mul, 0, 0),
        Instr::RowReduce(Reduction::Sum, 1),
        Instr::Const(1.0 / columns as f32),
        Instr::Binary(Binary::Mul, 2, 3),
        Instr::Const(1e-2),
        Instr::Binary(Binary::Add, 4, 5),
        Instr::Unary(Unary::Rsqrt, 6),
        Instr::Binary(Binary::Mul, 0, 7),
        Instr::Permute(Arc::from(perm), 8),
        load(1, at([0, 0, 1])),
        Instr::Binary(Binary::Mul, 9, 10),
        Instr::Binary(Binary::Add, 8, 11),
        load(2, at([0, 1, 0])),
        Instr::Binary(Binary::Mul, 12, 13),
        Instr::Cast(DType::BF16, 14),
        Instr::Store { arg: 3, value: 15, at: own() },
        Instr::Store { arg: 4, value: 0, at: own() },
        Instr::Store { arg: 5, value: 7, at: at([heads as i64, 1, 0]) },
    ];
    let args = vec![DType::BF16, DType::F32, DType::F32, DType::BF16, DType::BF16, DType::F32];
    Region { rows: vec![rows, heads], reduced: 0, columns, body, args }
}

/// The arguments of a product with that region.
fn heads_buffers(m: &Matmul, columns: usize) -> [(DType, usize); 7] {
    let [a, b, (_, len)] = buffers(m, DType::F32);
    let heads = m.n / columns;
    let half = (DType::BF16, len);
    [a, b, (DType::F32, columns), (DType::F32, heads), half, half, (DType::F32, m.batch * m.m * heads)]
}

/// Chunks of eight columns: the first two change places.
fn swapped(columns: usize) -> Vec<u32> {
    (0..columns as u32).map(|i| if i < 16 { i ^ 8 } else { i }).collect()
}

/// Each half in place of the other.
fn halves(columns: usize) -> Vec<u32> {
    (0..columns as u32).map(|i| (i + columns as u32 / 2) % columns as u32).collect()
}

/// Chunks in another order, over threads and their chunks.
fn reversed(columns: usize) -> Vec<u32> {
    (0..columns as u32).map(|i| columns as u32 - 8 - i / 8 * 8 + i % 8).collect()
}

/// Stages and workspaces of the kernels that a launch becomes on Hopper, after its numbers are checked.
fn proven(m: &Matmul, columns: usize, perm: Vec<u32>, what: &str) -> (usize, usize) {
    let kernel =
        Kernel::Contraction(Contraction::with_epilogue(m.clone(), norm_and_rotate(m, columns, perm)));
    let buffers = heads_buffers(m, columns);
    let infos = buffers.map(|(dtype, len)| ArgInfo::whole(dtype, len));
    let made = lower(&kernel, &infos, &H100).unwrap();
    let plan = single(kernel, &buffers);
    check(&plan, &inputs(&plan, &[0, 1, 2, 3], 53), &H100, 1.0 / 64.0, what);
    (made.stages.len(), made.workspaces.len())
}

#[test]
fn heads_are_normed_and_rotated_where_they_are_projected() {
    // Heads of the widths that a tile holds whole; matrices of less than a tile, of more, and several.
    for (columns, size, perm) in [
        (32, [1, 40, 96, 48], swapped(32)),
        (64, [1, 130, 192, 33], swapped(64)),
        (64, [2, 17, 64, 40], reversed(64)),
        (128, [3, 9, 256, 16], halves(128)),
        (128, [1, 9, 128, 16], reversed(128)),
    ] {
        let m = matmul(size, LAYOUTS[0], false);
        assert_eq!(proven(&m, columns, perm, &format!("{size:?} in heads of {columns}")), (1, 0));
    }
}

/// Rows that are parts of the result's, though their columns do not meet: each head times its number, times a table of
/// the columns.
#[test]
fn heads_whose_columns_do_not_meet_are_heads_all_the_same() {
    let (columns, m) = (64, matmul([1, 40, 192, 48], LAYOUTS[0], false));
    let at = |strides: [i64; 3]| Affine { offset: 0, strides: strides.into_iter().collect() };
    let own = || at([m.n as i64, columns as i64, 1]);
    let body = vec![
        load(0, own()),
        load(1, at([3, 1, 0])),
        Instr::Binary(Binary::Mul, 0, 1),
        load(2, at([0, 0, 1])),
        Instr::Binary(Binary::Mul, 2, 3),
        Instr::Cast(DType::BF16, 4),
        Instr::Store { arg: 3, value: 5, at: own() },
    ];
    let args = vec![DType::BF16, DType::F32, DType::F32, DType::BF16];
    let region = Region { rows: vec![40, 3], reduced: 0, columns, body, args };
    let [a, b, (_, len)] = buffers(&m, DType::BF16);
    let buffers = [a, b, (DType::F32, 120), (DType::F32, columns), (DType::BF16, len)];
    let kernel = Kernel::Contraction(Contraction::with_epilogue(m.clone(), region));
    let infos = buffers.map(|(dtype, len)| ArgInfo::whole(dtype, len));
    assert_eq!(lower(&kernel, &infos, &H100).unwrap().stages.len(), 1);
    let plan = single(kernel, &buffers);
    check(&plan, &inputs(&plan, &[0, 1, 2, 3], 61), &H100, 1.0 / 64.0, "heads");
}

#[test]
fn heads_of_a_split_sum_are_normed_in_its_second_pass() {
    let m = matmul([1, 24, 128, 2100], LAYOUTS[2], false);
    assert_eq!(proven(&m, 64, swapped(64), "split"), (2, 1));
}

/// Rows that a tile does not hold whole, and columns that move alone.
#[test]
fn what_a_tile_cannot_do_is_a_second_launch() {
    let m = matmul([1, 24, 256, 48], LAYOUTS[0], false);
    assert_eq!(proven(&m, 256, swapped(256), "rows of two tiles"), (2, 1));
    let m = matmul([1, 24, 80, 48], LAYOUTS[0], false);
    assert_eq!(proven(&m, 16, swapped(16), "rows of two chunks"), (2, 1));
    let m = matmul([1, 24, 128, 48], LAYOUTS[0], false);
    let pairs = (0..64).map(|i| i ^ 1).collect();
    assert_eq!(proven(&m, 64, pairs, "pairs of columns"), (2, 1));
}

/// Projections of one input, of which two are normed and rotated and the third is not, are one launch.
#[test]
fn projections_of_one_input_are_one_launch_with_their_norms() {
    let [q, k, v] = [128, 64, 64].map(|n| matmul([1, 40, n, 48], LAYOUTS[0], false));
    let (mut members, mut buffers) = (Vec::new(), Vec::new());
    for m in [&q, &k] {
        let epilogue = Some(norm_and_rotate(m, 64, swapped(64)));
        members.push(Member { epilogue, ..m.clone().into() });
        buffers.extend(heads_buffers(m, 64).into_iter().skip(usize::from(!buffers.is_empty())));
    }
    buffers.extend(crate::matrix::buffers(&v, DType::BF16).into_iter().skip(1));
    members.push(v.into());
    let kernel = Kernel::Contraction(Contraction { shared: Some(Side::Left), members });
    assert_eq!(kernel.arg_count(), buffers.len());
    let written: Vec<usize> = (0..buffers.len()).filter(|&at| kernel.writes(at)).collect();
    assert_eq!(written, [4, 5, 6, 10, 11, 12, 14]);
    let infos: Vec<ArgInfo> = buffers.iter().map(|&(dtype, len)| ArgInfo::whole(dtype, len)).collect();
    let made = lower(&kernel, &infos, &H100).unwrap();
    assert_eq!((made.stages.len(), made.workspaces.len()), (1, 0));
    let plan = single(kernel, &buffers);
    let read: Vec<usize> = (0..buffers.len()).filter(|at| !written.contains(at)).collect();
    check(&plan, &inputs(&plan, &read, 59), &H100, 1.0 / 64.0, "projections");
}

/// What the planner attaches is one kernel: no product of a model's step on Hopper falls back to two launches, but for
/// those whose sum is split.
#[test]
fn products_with_regions_of_a_step_are_one_kernel_each() {
    let model = models::model(&models::file("int4mlp_12l.rs"), &[]);
    let mut meeting = 0;
    for program in models::programs(&model, FULL).iter().filter(|p| p.name == "grad.next.qat") {
        let plan = models::plan(program);
        let made = generate(&plan, &extents(&plan, |_| None), &H100).unwrap();
        for (i, launch) in plan.launches.iter().enumerate() {
            let kernel = &plan.kernels[launch.kernel.0 as usize];
            let Kernel::Contraction(contraction) = kernel else { continue };
            let stages = made.launches.iter().filter(|g| g.launch == i).count();
            for member in &contraction.members {
                let Member { matmul: m, epilogue: Some(region), .. } = member else { continue };
                meeting += usize::from(region.body.iter().any(|i| matches!(i, Instr::RowReduce(..))));
                assert!(stages == 1 || m.k > 2048, "{stages} launches of {}", launch.note());
            }
        }
    }
    assert!(meeting >= 24, "{meeting} products whose heads are normed");
}
