//! Products that share an operand: one launch, and the numbers of each alone.

use pg_codegen::kernels::{ArgInfo, extents, generate, lower};
use pg_codegen::machine::H100;
use pg_codegen::plan::{Contraction, Kernel, Matmul, Side};
use pg_ir::ty::DType;

use crate::executed::{check, inputs, single};
use crate::matrix::{
    LAYOUTS, Layout, accesses_of_16_bytes, buffers, is_what_tensor_cores_want, matmul, whole,
};
use crate::models;
use crate::offline::{FULL, tools};

/// Products of one operand, and the types and lengths of their arguments. `own` are the sizes that members do not share.
fn beside(
    shared: Side,
    [batch, same, k]: [usize; 3],
    own: &[(usize, DType, bool)],
    layout: Layout,
) -> (Contraction, Vec<(DType, usize)>) {
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
        members.push(member.into());
    }
    (Contraction { shared: Some(shared), members }, arguments)
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
        let made = lower(&Kernel::Contraction(all.clone()), &whole(&arguments), &H100).unwrap();
        assert_eq!(made.stages.len(), stages, "{what}");
        let blocks: u32 = made.stages[0].grid.iter().product();
        let tiles: usize = all.products().map(|m| m.batch * m.m.div_ceil(128) * m.n.div_ceil(128)).sum();
        assert!(stages > 1 || blocks as usize == tiles, "{blocks} blocks: {what}");
        let plan = single(Kernel::Contraction(all.clone()), &arguments);
        let olds = all.products().enumerate().filter(|(_, m)| m.accumulate).map(|(i, _)| all.args(i)[2]);
        let read: Vec<usize> = (0..arguments.len()).filter(|i| i % 2 == 1 || *i == 0).chain(olds).collect();
        let tolerance = if own.iter().any(|o| o.1 == h) { 1.0 / 256.0 } else { 1e-5 };
        check(&plan, &inputs(&plan, &read, 47), &H100, tolerance, &what);
    }
}

/// Operands that lie in other ways do not pass through the same shared memory, and none may be overwritten.
#[test]
fn products_that_do_not_go_together_are_launches_of_their_own() {
    let stages = |all: &Contraction, infos: &[ArgInfo]| {
        let made = lower(&Kernel::Contraction(all.clone()), infos, &H100).unwrap();
        assert_eq!(made.stages.iter().map(|s| s.share).sum::<f64>(), 1.0);
        made.stages.len()
    };
    let own = [(40, DType::F32, false), (5, DType::F32, false)];
    let (unaligned, arguments) = beside(Side::Right, [1, 72, 48], &own, LAYOUTS[2]);
    assert_eq!(stages(&unaligned, &whole(&arguments)), 2);
    let plan = single(Kernel::Contraction(unaligned.clone()), &arguments);
    check(&plan, &inputs(&plan, &[0, 1, 3], 53), &H100, 1e-5, "apart");
    assert!(lower(&Kernel::Contraction(unaligned), &whole(&arguments[..4]), &H100).is_err());
    // Those that go together do, whatever stands beside them.
    let (some, arguments) = beside(Side::Right, [1, 72, 48], &[own[0], own[1], own[0]], LAYOUTS[2]);
    assert_eq!(stages(&some, &whole(&arguments)), 2);
    let plan = single(Kernel::Contraction(some), &arguments);
    check(&plan, &inputs(&plan, &[0, 1, 3, 5], 53), &H100, 1e-5, "two together");
    let (all, arguments) = beside(Side::Left, [1, 72, 48], &[own[0]; 2], LAYOUTS[0]);
    let mut infos = whole(&arguments);
    assert_eq!(stages(&all, &infos), 1);
    let mut turned = all.clone();
    turned.members[1] = matmul([1, 72, 40, 48], LAYOUTS[1], false).into();
    assert_eq!(stages(&turned, &infos), 2);
    infos[3].aliased = true;
    assert_eq!(stages(&all, &infos), 2);
}

/// The projections of an input and the gradients of their weights, at full size: one kernel each, as good as those of
/// single products.
#[test]
fn full_size_products_of_one_operand_are_what_tensor_cores_want() {
    let Some(tools) = tools() else { return };
    let model = models::model(&models::file("int4mlp_12l.rs"), &[]);
    let programs = models::programs(&model, FULL);
    let plan =
        models::plan(programs.iter().find(|p| p.name == "grad.next.qat").expect("a program of training"));
    let made = generate(&plan, &extents(&plan, |_| None), &H100).unwrap();
    let mut seen = Vec::new();
    for (i, launch) in plan.launches.iter().enumerate() {
        let Kernel::Contraction(all) = &plan.kernels[launch.kernel.0 as usize] else { continue };
        if all.shared.is_none() {
            continue;
        }
        let stage = &made.launches.iter().find(|g| g.launch == i).expect("a launch").stage;
        assert_eq!(stage.args.len(), launch.args.len());
        if seen.contains(&stage.kernel.hash()) {
            continue;
        }
        seen.push(stage.kernel.hash());
        let products: Vec<Matmul> = all.products().collect();
        let sass = is_what_tensor_cores_want(&tools, &products, &stage.kernel, stage.grid);
        // Regions read what they like, tables of a few elements among it.
        if products.len() == all.members.iter().filter(|m| m.epilogue.is_none()).count() {
            let [loads, stores] = accesses_of_16_bytes(&sass, stage.kernel.name());
            assert!(loads == 0 && stores > 0, "results leave in 16 bytes, and nothing else moves");
        }
    }
    assert!(seen.len() >= 2, "{} kernels", seen.len());
}
