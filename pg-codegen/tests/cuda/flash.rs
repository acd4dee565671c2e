//! Attention on tensor cores: its numbers on the CPU at small and odd sizes, and what it became for Hopper at the
//! sizes of int4mlp_12l.

use pg_codegen::cuda::Sass;
use pg_codegen::kernels::{ArgInfo, emit_cuda, lower};
use pg_codegen::machine::{H100, Machine};
use pg_codegen::plan::{AttentionShape, Kernel};
use pg_ir::ty::DType;

use crate::device::Device;
use crate::executed::{compare, inputs, single, slot};
use crate::matrix::between_barriers;
use crate::offline::tools;
use pg_fuzz::exec;

fn buffers(s: &AttentionShape) -> [(DType, usize); 5] {
    let (rows, kv) = (s.batch * s.time * s.heads, s.batch * s.time * s.kv_heads * s.dim);
    let half = |len| (DType::BF16, len);
    [half(rows * s.dim), half(kv), half(kv), half(rows * s.dim), (DType::F32, rows)]
}

fn check_attention([batch, time, heads, kv_heads, dim]: [usize; 5], target: &Machine) {
    let shape = AttentionShape { batch, time, heads, kv_heads, dim, scale: 0.7 };
    let plan = single(Kernel::Attention(shape), &buffers(&shape));
    let env = inputs(&plan, &[0, 1, 2], 23);
    let found = Device::new(&plan, target).run_both(&env);
    let expected = exec::run(&plan, &env);
    let only = |i: usize| [(slot(i), expected[&slot(i)].clone())].into_iter().collect();
    // Probabilities and results are rounded to bfloat16; sums of exact products are not.
    compare(&found, &only(3), 1.0 / 128.0, &format!("{shape:?}"));
    compare(&found, &only(4), 1e-5, &format!("{shape:?}"));
}

#[test]
fn attention_of_odd_sizes_and_every_width() {
    // One block of queries and of keys; several of both, not full; groups of heads; one position.
    for size in
        [[1, 70, 2, 1, 64], [2, 133, 2, 2, 32], [1, 1, 4, 2, 64], [1, 200, 1, 1, 128], [2, 37, 2, 1, 48]]
    {
        check_attention(size, &H100);
    }
}

/// Numbers of the tuning table change the kernel, and not what it computes.
#[test]
fn attention_in_blocks_of_other_sizes() {
    let tuning = H100.tuning.with("flash.keys = 32\nflash.queries = 64", "h100").unwrap();
    check_attention([1, 133, 2, 1, 64], &Machine { tuning, ..H100 });
}

/// Attention of another width than those of tensor cores is the portable kernel's.
#[test]
fn other_widths_are_portable() {
    for (dim, name) in
        [(32, "flash_"), (64, "flash_"), (128, "flash_"), (48, "attention_"), (256, "attention_")]
    {
        let shape = AttentionShape { batch: 1, time: 16, heads: 2, kv_heads: 1, dim, scale: 0.7 };
        let infos = buffers(&shape).map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let made = lower(&Kernel::Attention(shape), &infos, &H100).unwrap();
        let main = made.stages.iter().find(|s| s.share > 0.0).unwrap();
        assert!(main.kernel.name().starts_with(name), "{dim}: {}", main.kernel.name());
        let infos = gradient_buffers(&shape, DType::BF16).map(|(dtype, len)| ArgInfo::whole(dtype, len));
        let made = lower(&Kernel::AttentionGrad(shape), &infos, &H100).unwrap();
        let main: Vec<&str> = made.stages.iter().filter(|s| s.share > 0.0).map(|s| s.kernel.name()).collect();
        assert!(main.len() == 2 && main.iter().all(|n| n.starts_with(name)), "{dim}: {main:?}");
    }
}

/// All arguments of the gradient: q, k, v, o, lse, do, and results in `out`.
fn gradient_buffers(s: &AttentionShape, out: DType) -> [(DType, usize); 9] {
    let [q, k, v, o, lse] = buffers(s);
    [q, k, v, o, lse, q, (out, q.1), (out, k.1), (out, v.1)]
}

#[test]
fn gradients_of_odd_sizes_and_every_width() {
    for (batch, time, heads, kv_heads, dim, out) in [
        (1, 70, 2, 1, 64, DType::F32),
        (2, 133, 2, 2, 32, DType::BF16),
        (1, 1, 4, 2, 64, DType::F32),
        (1, 130, 1, 1, 128, DType::F32),
        // Widths that tensor cores do not take: portable kernels, in float32 between.
        (1, 37, 2, 1, 48, DType::BF16),
        (1, 9, 2, 2, 20, DType::F32),
    ] {
        let shape = AttentionShape { batch, time, heads, kv_heads, dim, scale: 0.7 };
        let forward = single(Kernel::Attention(shape), &buffers(&shape));
        let mut env = inputs(&forward, &[0, 1, 2], 29);
        let results = exec::run(&forward, &env);
        let plan = single(Kernel::AttentionGrad(shape), &gradient_buffers(&shape, out));
        env.extend(inputs(&plan, &[5], 31));
        env.insert(slot(3), results[&slot(3)].clone());
        env.insert(slot(4), results[&slot(4)].iter().map(|&x| f64::from(x as f32)).collect());
        let found = Device::new(&plan, &H100).run_both(&env);
        let expected = exec::run(&plan, &env);
        for i in 6..9 {
            // Probabilities and their gradients are rounded to bfloat16 before they are summed.
            let only = [(slot(i), expected[&slot(i)].clone())].into_iter().collect();
            compare(&found, &only, 1.0 / 64.0, &format!("{shape:?}"));
        }
    }
}

/// Whether there are instructions that begin so, all with a part in their name.
fn all(sass: &Sass, name: &str, part: &str) -> bool {
    let mut found = sass.instructions.iter().filter(|i| i.name.starts_with(name)).peekable();
    found.peek().is_some() && found.all(|i| i.name.contains(part))
}

/// Asserts that so many HMMA of all warps are the operations of causal attention's products, but for what blocks on
/// the diagonal do for nothing.
fn operations_are_done_once(s: &AttentionShape, products: usize, hmma: usize) {
    let pairs = s.batch * s.heads * s.time * (s.time + 1) / 2;
    let (done, wanted) = ((hmma * 2 * 16 * 8 * 16) as f64, (products * 2 * s.dim * pairs) as f64);
    assert!((1.0..1.07).contains(&(done / wanted)), "{done} operations for {wanted}");
}

#[test]
fn full_size_gradients_are_what_tensor_cores_want() {
    let Some(tools) = tools() else { return };
    let shape = AttentionShape { batch: 48, time: 2048, heads: 8, kv_heads: 4, dim: 64, scale: 0.125 };
    let infos = gradient_buffers(&shape, DType::BF16).map(|(dtype, len)| ArgInfo::whole(dtype, len));
    let launches = lower(&Kernel::AttentionGrad(shape), &infos, &H100).unwrap();
    // Products of a block of 64 by 64 and 16 rows a warp: three for dq, four for dk and dv.
    for (stage, products) in launches.stages[1..].iter().zip([3, 4]) {
        let compiled = tools.compile(&emit_cuda(&stage.kernel).unwrap()).unwrap_or_else(|e| panic!("{e}"));
        let r = compiled.resources;
        let resident = r.occupancy(stage.kernel.threads(), stage.kernel.shared_bytes()).blocks;
        let sass = compiled.sass().unwrap();
        let (least, in_loop) = between_barriers(&sass);
        println!(
            "{}: {in_loop} HMMA, {least} between barriers, {resident} blocks, {r:?}",
            stage.kernel.name()
        );
        assert_eq!((r.spill_bytes, r.stack_bytes), (0, 0), "{r:?}");
        assert!(resident >= 2, "{r:?}");
        assert_eq!(in_loop, products * (64 / 8) * (64 / 16));
        assert_eq!(sass.count("HMMA.16816.F32.BF16"), in_loop);
        assert!(least >= 32, "{least}");
        assert!(all(&sass, "LDGSTS", "128"), "asynchronous copies of 16 bytes");
        assert!(all(&sass, "LDSM", ".4"), "four matrices a load");
        // Blocks of 64 rows meet those of 64 up to the diagonal; keys meet the queries of two heads.
        let blocks = 2048 / 64;
        let trips = shape.batch * shape.heads * (blocks * (blocks + 1) / 2);
        operations_are_done_once(&shape, products, trips * 4 * in_loop);
    }
}

/// tiny's: of its size the assembler makes room for a third cube, and has few registers to spare.
#[test]
fn attention_over_short_sequences_does_not_spill() {
    let Some(tools) = tools() else { return };
    let shape = AttentionShape { batch: 768, time: 128, heads: 4, kv_heads: 2, dim: 32, scale: 0.2 };
    let infos = buffers(&shape).map(|(dtype, len)| ArgInfo::whole(dtype, len));
    let launches = lower(&Kernel::Attention(shape), &infos, &H100).unwrap();
    let compiled = tools.compile(&emit_cuda(&launches.stages[0].kernel).unwrap());
    let compiled = compiled.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((compiled.resources.spill_bytes, compiled.resources.stack_bytes), (0, 0));
}

#[test]
fn full_size_attention_is_what_tensor_cores_want() {
    let Some(tools) = tools() else { return };
    let shape = AttentionShape { batch: 48, time: 2048, heads: 8, kv_heads: 4, dim: 64, scale: 0.125 };
    let infos = buffers(&shape).map(|(dtype, len)| ArgInfo::whole(dtype, len));
    let launches = lower(&Kernel::Attention(shape), &infos, &H100).unwrap();
    let [stage] = &launches.stages[..] else { panic!("one launch") };
    let source = emit_cuda(&stage.kernel).unwrap();
    let compiled = tools.compile(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
    let r = compiled.resources;
    let resident = r.occupancy(stage.kernel.threads(), stage.kernel.shared_bytes()).blocks;
    let sass = compiled.sass().unwrap();
    if let Ok(folder) = std::env::var("PG_CUDA_DUMP") {
        std::fs::write(format!("{folder}/{}.cu", stage.kernel.name()), &source).unwrap();
        std::fs::write(format!("{folder}/{}.sass", stage.kernel.name()), &sass.text).unwrap();
    }
    let (least, in_loop) = between_barriers(&sass);
    println!("{}: {in_loop} HMMA, {least} between barriers, {resident} blocks, {r:?}", stage.kernel.name());
    assert_eq!((r.spill_bytes, r.stack_bytes), (0, 0), "{r:?}");
    assert!(resident >= 2, "{r:?}");
    // A block of keys: 32 queries of a warp times 64 keys times 64 wide, twice, at 16 × 8 × 16 an instruction.
    assert_eq!(in_loop, 2 * (32 / 16) * (64 / 8) * (64 / 16));
    assert_eq!(sass.count("HMMA.16816.F32.BF16"), in_loop);
    assert!(least >= 32, "{least}");
    assert!(all(&sass, "LDGSTS", "128"), "asynchronous copies of 16 bytes");
    assert!(all(&sass, "LDSM", ".4"), "four matrices a load");
    // 128 queries meet blocks of 64 keys up to the diagonal.
    let blocks = 2048 / 128;
    let trips = shape.batch * shape.heads * (blocks * (blocks + 1));
    operations_are_done_once(&shape, 2, trips * 4 * in_loop);
    let wide = sass.instructions.iter().filter(|i| i.name.starts_with("STG") && i.name.contains("128"));
    assert!(wide.count() > 0, "results leave in 16 bytes");
}
