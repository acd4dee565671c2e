//! Regions that stream: what they read and write most of moves in accesses of 16 bytes, in the generator's choice
//! and in what the assembler made of it.

use pg_codegen::kernels::{ArgSpec, StageArg, element_bytes, emit_cuda, extents, generate};
use pg_codegen::machine::H100;

use crate::models;
use crate::offline::{FULL, tools};

/// A buffer with at least this part of the bytes of a launch's largest is a stream.
const STREAM: usize = 16;

#[test]
fn streams_of_regions_move_in_16_bytes() {
    let Some(tools) = tools() else { return };
    let model = models::model(&models::file("int4mlp_12l.rs"), &[]);
    let mut seen = Vec::new();
    let mut faults = Vec::new();
    for program in models::programs(&model, FULL) {
        if !["grad.next.qat", "update", "score"].contains(&program.name.as_str()) {
            continue;
        }
        let plan = models::plan(&program);
        let made = generate(&plan, &extents(&plan, |_| None), &H100).unwrap();
        for g in &made.launches {
            let (kernel, launch) = (&g.stage.kernel, &plan.launches[g.launch]);
            if !kernel.name().starts_with("region_") || seen.contains(&kernel.hash()) {
                continue;
            }
            seen.push(kernel.hash());
            let what = format!("{} of {}: {}", kernel.name(), program.name, launch.note());
            // Launches share workspaces: their sizes say nothing of this one.
            let bytes = |arg: &StageArg| match *arg {
                StageArg::Arg(i) => {
                    let b = &plan.buffers[launch.args[i].0 as usize];
                    b.len * element_bytes(b.dtype)
                }
                StageArg::Workspace(_) => 0,
            };
            let largest = g.stage.args.iter().map(bytes).max().unwrap();
            let is_wide = |s: &ArgSpec| s.width * element_bytes(s.dtype) == 16;
            for (spec, arg) in kernel.args().iter().zip(&g.stage.args) {
                if bytes(arg) * STREAM >= largest && largest > 1 << 20 && !is_wide(spec) {
                    faults.push(format!("{what}: {spec:?} of {} bytes", bytes(arg)));
                }
            }
            let compiled = tools.compile(&emit_cuda(kernel).unwrap()).unwrap_or_else(|e| panic!("{e}"));
            let sass = compiled.sass().unwrap();
            let accesses = |wide: bool| {
                let is_access = |n: &str| n.starts_with("LDG") || n.starts_with("STG");
                let all = sass.instructions.iter().map(|i| i.name.as_str()).filter(|n| is_access(n));
                all.filter(|n| n.contains(".128") == wide).count()
            };
            // Narrow accesses are of narrow arguments, and where there is a wide argument there are wide ones.
            let narrow = kernel.args().iter().filter(|s| !is_wide(s)).count();
            if (narrow == 0 && accesses(false) > 0) || (narrow < kernel.args().len() && accesses(true) == 0) {
                faults.push(format!("{what}: {} narrow accesses, {} wide", accesses(false), accesses(true)));
            }
        }
    }
    assert!(seen.len() > 50, "{} regions", seen.len());
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), seen.len(), faults.join("\n"));
    println!("{} regions", seen.len());
}
