//! Contractions over segments of k: one launch on tensor cores where the operands lie alike, one a segment elsewhere, and
//! the same numbers.

use pg_codegen::kernels::{extents, generate, lower};
use pg_codegen::machine::{CUDA, H100};
use pg_codegen::plan::{Contraction, Kernel, Matmul, Member, Segment};
use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_ir::op::Binary;
use pg_ir::ty::DType;

use crate::executed::{check, inputs, single};
use crate::matrix::{LAYOUTS, Layout, is_what_tensor_cores_want, matmul, whole};
use crate::models;
use crate::offline::{FULL, tools};

/// A product over segments of k, each with its own operands, and the types and lengths of its arguments.
fn segmented(
    [batch, m, n]: [usize; 3],
    depths: &[usize],
    layouts: &[Layout],
    out: DType,
) -> (Member, Vec<(DType, usize)>) {
    let each: Vec<Matmul> =
        depths.iter().zip(layouts).map(|(&k, &layout)| matmul([batch, m, n, k], layout, false)).collect();
    let mut arguments = Vec::new();
    for product in &each {
        arguments.extend([(DType::BF16, batch * m * product.k), (DType::BF16, batch * product.k * n)]);
    }
    arguments.push((out, batch * m * n));
    let further = each[1..].iter().map(|p| Segment { k: p.k, a: p.a, b: p.b });
    (Member { segments: further.collect(), ..each[0].clone().into() }, arguments)
}

/// Sizes, depths of the segments, how each lies, type of the result; and how many kernels that is.
type Case<'a> = ([usize; 3], &'a [usize], Layout, DType, usize);

fn alone(member: Member) -> Kernel {
    Kernel::Contraction(Contraction { shared: None, members: vec![member] })
}

#[test]
fn segments_of_k_are_one_launch_where_they_lie_alike() {
    let (f, h) = (DType::F32, DType::BF16);
    let cases: [Case<'_>; 7] = [
        ([1, 40, 72], &[48, 40, 64], LAYOUTS[0], h, 1),
        // Slices of a segment that its k does not fill, in shared memory after those of another.
        ([1, 130, 136], &[8, 200, 16, 72], LAYOUTS[1], f, 1),
        ([2, 24, 40], &[136, 128], LAYOUTS[2], f, 1),
        ([1, 16, 24], &[40, 33], LAYOUTS[3], f, 1 + 2),
        ([1, 17, 5], &[33, 31], LAYOUTS[0], f, 1),
        // Few tiles and a long k: parts of it begin and end within segments.
        ([1, 24, 40], &[1000, 72, 1304], LAYOUTS[1], f, 2),
        ([1, 24, 40], &[2104, 1000], LAYOUTS[2], h, 2),
    ];
    for (size, depths, layout, out, stages) in cases {
        let layouts = vec![layout; depths.len()];
        let (member, arguments) = segmented(size, depths, &layouts, out);
        let what = format!("{size:?} over {depths:?}, {layout:?}");
        let kernel = alone(member);
        let made = lower(&kernel, &whole(&arguments), &H100).unwrap();
        assert_eq!(made.stages.len(), stages, "{what}");
        let plan = single(kernel, &arguments);
        let read: Vec<usize> = (0..2 * depths.len()).collect();
        let tolerance = if out == h { 1.0 / 256.0 } else { 1e-5 };
        check(&plan, &inputs(&plan, &read, 71), &H100, tolerance, &what);
        check(&plan, &inputs(&plan, &read, 71), &CUDA, tolerance, &what);
    }
}

#[test]
fn segments_that_lie_otherwise_are_added_one_by_one() {
    let (member, arguments) = segmented([1, 40, 72], &[48, 40], &[LAYOUTS[0], LAYOUTS[2]], DType::BF16);
    let kernel = alone(member);
    let made = lower(&kernel, &whole(&arguments), &H100).unwrap();
    assert_eq!(made.stages.len(), 3);
    let plan = single(kernel, &arguments);
    check(&plan, &inputs(&plan, &[0, 1, 2, 3], 73), &H100, 1.0 / 256.0, "two ways to lie");
}

/// An epilogue takes the sum over all segments, once.
#[test]
fn an_epilogue_takes_the_whole_sum() {
    let (member, mut arguments) = segmented([1, 40, 72], &[48, 64], &[LAYOUTS[0]; 2], DType::BF16);
    let at = Affine { offset: 0, strides: [72, 1].into_iter().collect() };
    let load = |arg| Instr::Load { arg, map: IndexMap { at: at.clone(), guards: vec![] } };
    let body = vec![
        load(0),
        load(1),
        Instr::Binary(Binary::Mul, 0, 1),
        Instr::Store { arg: 2, value: 2, at: at.clone() },
    ];
    let args = vec![DType::BF16; 3];
    let epilogue = Some(Region { rows: vec![40], reduced: 0, columns: 72, body, args });
    arguments.push((DType::BF16, 40 * 72));
    let kernel = alone(Member { epilogue, ..member });
    assert_eq!(lower(&kernel, &whole(&arguments), &H100).unwrap().stages.len(), 1);
    let plan = single(kernel, &arguments);
    for machine in [&H100, &CUDA] {
        check(&plan, &inputs(&plan, &[0, 1, 2, 3, 4], 79), machine, 1.0 / 64.0, "an epilogue");
    }
}

/// The gradient of what is projected to queries, keys and values, at full size: one kernel, with as many matrix
/// instructions as its three products have.
#[test]
fn a_layers_input_gradient_is_one_kernel() {
    let Some(tools) = tools() else { return };
    let model = models::model(&models::file("int4mlp_12l.rs"), &[]);
    let programs = models::programs(&model, FULL);
    let plan =
        models::plan(programs.iter().find(|p| p.name == "grad.next.qat").expect("a program of training"));
    let made = generate(&plan, &extents(&plan, |_| None), &H100).unwrap();
    let (mut launches, mut seen) = (0, Vec::new());
    for (i, launch) in plan.launches.iter().enumerate() {
        let Kernel::Contraction(contraction) = &plan.kernels[launch.kernel.0 as usize] else { continue };
        let Some(member) = contraction.single().filter(|m| !m.segments.is_empty()) else { continue };
        launches += 1;
        assert_eq!(member.segments.len(), 2, "{}", launch.note());
        let stages: Vec<_> = made.launches.iter().filter(|g| g.launch == i).map(|g| &g.stage).collect();
        assert_eq!(stages.len(), 1, "{}", launch.note());
        if !seen.contains(&stages[0].kernel.hash()) {
            seen.push(stages[0].kernel.hash());
            let products: Vec<Matmul> = contraction.products().collect();
            is_what_tensor_cores_want(&tools, &products, &stages[0].kernel, stages[0].grid);
        }
    }
    assert_eq!(launches, 12);
}
