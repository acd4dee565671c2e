//! Storage in bf16: the rounded graph against the float32 one on the interpreter, plans of it against the
//! interpreter, and what is stored how.

use pg_codegen::machine::{CPU, H100};
use pg_codegen::passes::precision::store_as;
use pg_codegen::plan::{Kernel, Place, Plan};
use pg_codegen::{Options, compile, compile_for};
use pg_ir::interp::run;
use pg_ir::lang::layout::Layout;
use pg_ir::lang::model::Model;
use pg_ir::op::Op;
use pg_ir::programs::{self, Program};
use pg_ir::slot::Space;
use pg_ir::ty::DType;
use pg_testing::files::model_file;
use pg_testing::models::model_with;
use pg_testing::plans::{distance, environment};

fn small() -> Model {
    model_with(
        &model_file("tiny.rs"),
        &[("LAYERS", "2"), ("DIM", "32"), ("HEADS", "2"), ("KV_HEADS", "1"), ("VOCAB", "48")],
    )
}

fn grad(model: &Model, shape: (usize, usize)) -> Program {
    programs::grad(model, 0, shape, true, true).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn the_rounded_graph_is_within_bf16_of_the_float32_one() {
    let program = grad(&small(), (2, 8));
    let rounded = store_as(&program.graph, DType::BF16).unwrap();
    let env = environment(&program.graph);
    let (exact, found) = (run(&program.graph, &env).unwrap(), run(&rounded, &env).unwrap());
    assert_eq!(exact.len(), found.len());
    let mut differ = 0;
    for (slot, want) in &exact {
        let apart = distance(&found[slot], want);
        differ += usize::from(apart > 0.0);
        // Gradients add up the roundings of a whole pass, each at most 2⁻⁹ of its value.
        let bound = if slot.space == Space::Result { 2f64.powi(-8) } else { 2f64.powi(-5) };
        assert!(apart <= bound, "{slot}: {apart}");
    }
    assert!(differ > exact.len() / 2, "only {differ} of {} results feel the rounding", exact.len());
}

#[test]
fn plans_of_the_rounded_graph_compute_what_the_interpreter_does() {
    let program = grad(&small(), (2, 8));
    let rounded = store_as(&program.graph, DType::BF16).unwrap();
    let env = environment(&rounded);
    let expected = run(&rounded, &env).unwrap();
    for fuse in [true, false] {
        let plan = compile("rounded", &rounded, &Options { fuse, ..Options::default() })
            .unwrap_or_else(|e| panic!("{e}"));
        let found = pg_fuzz::exec::run(&plan, &env);
        for (slot, want) in &expected {
            // A last bit of float64 may turn a rounding to bf16 the other way, rarely.
            let apart = distance(&found[slot], want);
            assert!(apart <= 2f64.powi(-9), "fuse {fuse}, {slot}: {apart}");
        }
    }
}

#[test]
fn float32_targets_keep_the_graph() {
    let program = grad(&small(), (2, 8));
    assert_eq!(store_as(&program.graph, CPU.storage).unwrap(), program.graph);
}

/// Element types of what matmuls and attention read, and what lives outside.
fn check_storage(plan: &Plan) {
    let dtype = |launch: &pg_codegen::plan::Launch, i: usize| plan.buffers[launch.args[i].0 as usize].dtype;
    for launch in &plan.launches {
        let operands = match &plan.kernels[launch.kernel.0 as usize] {
            Kernel::Contraction(all) => {
                (0..all.members.len()).flat_map(|i| all.args(i).into_iter().take(2)).collect()
            }
            Kernel::Attention(_) => vec![0, 1, 2, 3],
            Kernel::AttentionGrad(_) => vec![0, 1, 2, 3, 5, 6, 7, 8],
            _ => continue,
        };
        for i in operands {
            assert_eq!(dtype(launch, i), DType::BF16, "argument {i} of {}", launch.note());
        }
        // A matmul that gives a parameter's gradient sums in float32.
        let state = |b: &pg_codegen::plan::BufferId| match &plan.buffers[b.0 as usize].place {
            Place::External(slot) => slot.space.is_state(),
            _ => false,
        };
        assert!(
            launch.args.iter().filter(|b| state(b)).all(|b| plan.buffers[b.0 as usize].dtype == DType::F32)
        );
    }
    for buffer in &plan.buffers {
        if let Place::External(slot) = &buffer.place {
            assert_ne!(buffer.dtype, DType::BF16, "{slot}");
        }
    }
}

#[test]
fn operands_are_bf16_and_state_is_float32() {
    let model = model_with(&model_file("int4mlp_12l.rs"), &[]);
    let layout = Layout::new(&model);
    let score = programs::score(&model, 0, (2, 256), false).unwrap_or_else(|e| panic!("{e}"));
    for program in [grad(&model, (2, 256)), programs::update(&layout, &model.train), score] {
        let plan = compile_for(&program.name, &program.graph, &Options::default(), &H100);
        check_storage(&plan.unwrap_or_else(|e| panic!("{e}")));
    }
}

/// Results of matmuls are rounded by the matmul, not by a kernel after it.
#[test]
fn no_kernel_only_rounds_an_activation() {
    let model = model_with(&model_file("int4mlp_12l.rs"), &[]);
    let program = grad(&model, (2, 256));
    let plan = compile_for("grad", &program.graph, &Options::default(), &H100).unwrap();
    for launch in &plan.launches {
        let only_casts = launch.provenance.ops.iter().all(|(name, _)| *name == "cast");
        let Kernel::Region(region) = &plan.kernels[launch.kernel.0 as usize] else { continue };
        let is_weight = |b: &pg_codegen::plan::BufferId| matches!(&plan.buffers[b.0 as usize].place, Place::External(slot) if slot.space == Space::Param);
        let of_weights = launch.args.iter().any(is_weight);
        assert!(!only_casts || of_weights, "{} {region}", launch.note());
    }
    let rounds = store_as(&program.graph, DType::BF16).unwrap();
    assert!(rounds.nodes().any(|(_, n)| n.op == Op::Cast(DType::BF16)));
}
