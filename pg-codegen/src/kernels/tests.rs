//! What can be seen of kernels without a device: their source, their identity, their limits.

use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::ty::DType;

use super::*;
use crate::machine::{CUDA, H100, Limits, VULKAN_CPU};
use crate::plan::{AttentionShape, Contraction, Matmul, MatrixView, Side};

fn affine(strides: &[i64]) -> Affine {
    Affine { offset: 0, strides: strides.iter().copied().collect() }
}

fn load(arg: u32, strides: &[i64]) -> Instr {
    Instr::Load { arg, map: IndexMap { at: affine(strides), guards: vec![] } }
}

/// RMS norm of rows, quantised, with the column sums of what came in.
fn norm(rows: usize, columns: usize) -> Region {
    let l = columns as i64;
    let grid = Grid { clip: 7, rule: ScaleRule::Amax };
    Region {
        rows: vec![rows],
        reduced: 1,
        columns,
        body: vec![
            load(0, &[l, 1]),
            Instr::Binary(Binary::Mul, 0, 0),
            Instr::RowReduce(Reduction::Sum, 1),
            Instr::Unary(Unary::Rsqrt, 2),
            Instr::Binary(Binary::Mul, 0, 3),
            Instr::FakeQuant(grid, 4),
            Instr::Store { arg: 1, value: 5, at: affine(&[l, 1]) },
            Instr::Accumulate { arg: 2, value: 0, kind: Reduction::Sum, at: affine(&[0, 1]) },
        ],
        args: vec![DType::F32; 3],
    }
}

fn whole(lens: &[usize]) -> Vec<ArgInfo> {
    lens.iter().map(|&len| ArgInfo::whole(DType::F32, len)).collect()
}

fn product(m: usize, n: usize, k: usize) -> Matmul {
    let view = |row| MatrixView { offset: 0, batch: 0, row, col: 1 };
    Matmul { batch: 1, m, n, k, a: view(k), b: view(n), c: view(n), accumulate: false, symmetric: false }
}

fn matmul(m: usize, n: usize, k: usize) -> (Kernel, Vec<ArgInfo>) {
    (Kernel::from(product(m, n, k)), whole(&[m * k, k * n, m * n]))
}

/// Two products that share their left operand.
fn sharing(m: usize, [n, other]: [usize; 2], k: usize) -> Kernel {
    let members = [n, other].map(|n| product(m, n, k).into()).to_vec();
    Kernel::Contraction(Contraction { shared: Some(Side::Left), members })
}

/// One launch of every family.
fn every_family() -> Vec<(Kernel, Vec<ArgInfo>)> {
    let shape = AttentionShape { batch: 2, time: 40, heads: 4, kv_heads: 2, dim: 64, scale: 0.125 };
    let (q, kv, lse) = (2 * 40 * 4 * 64, 2 * 40 * 2 * 64, 2 * 40 * 4);
    let ids = ArgInfo::whole(DType::I32, 100);
    vec![
        (Kernel::Region(norm(1000, 512)), whole(&[512_000, 512_000, 512])),
        (Kernel::Region(norm(30, 9)), whole(&[270, 270, 9])),
        matmul(128, 96, 64),
        matmul(7, 5, 3),
        (sharing(7, [5, 2], 3), whole(&[21, 15, 35, 6, 14])),
        (Kernel::Attention(shape), whole(&[q, kv, kv, q, lse])),
        (Kernel::AttentionGrad(shape), whole(&[q, kv, kv, q, lse, q, q, kv, kv])),
        (
            Kernel::ScatterAdd { rows: 50, width: 8, count: 100 },
            vec![ids, ArgInfo::whole(DType::F32, 800), ArgInfo::whole(DType::F32, 400)],
        ),
        (Kernel::Copy { len: 1000 }, whole(&[1000, 1000])),
    ]
}

#[test]
fn every_family_becomes_cuda_and_fits_portable_limits() {
    for (kernel, args) in every_family() {
        let launches = lower(&kernel, &args, &VULKAN_CPU).unwrap();
        assert!(!launches.stages.is_empty());
        for stage in &launches.stages {
            let source = emit_cuda(&stage.kernel).unwrap();
            assert!(source.contains(stage.kernel.name()), "{source}");
            assert!(source.contains("__grid_constant__"), "another ABI than the server's:\n{source}");
            assert!(!source.contains("atomic"), "{source}");
            assert!(stage.grid.iter().all(|&g| (1..=65_535).contains(&g)));
            #[cfg(feature = "wgsl")]
            assert!(emit_wgsl(&stage.kernel).unwrap().contains("@compute"));
        }
    }
}

#[test]
fn a_generated_region_is_readable() {
    let launches = lower(&Kernel::Region(norm(1000, 512)), &whole(&[512_000, 512_000, 512]), &CUDA);
    let launches = launches.unwrap();
    assert_eq!(launches.stages.len(), 2, "columns over many rows are summed in two passes");
    let source = emit_cuda(&launches.stages[0].kernel).unwrap();
    for line in ["%0 = load arg0[512·i0 + column]", "%2 = row sum %1", "scale of int(clip=7, rule=amax)"] {
        assert!(source.contains(line), "no comment `{line}` in\n{source}");
    }
    assert!(source.contains("float_4"), "rows of 512 are read as vectors\n{source}");
    assert!(source.contains("rint("), "codes round half to even\n{source}");
}

/// A change of the generator should be seen where it ends: in the source.
#[test]
fn golden_sources() {
    let (matmul, args) = matmul(7, 5, 3);
    let cases = [
        ("norm", Kernel::Region(norm(30, 8)), whole(&[240, 240, 8])),
        ("matmul", matmul, args),
        ("copy", Kernel::Copy { len: 1000 }, whole(&[1000, 1000])),
    ];
    for (name, kernel, args) in cases {
        let stage = lower(&kernel, &args, &CUDA).unwrap().stages.swap_remove(0);
        let text = formatted(&stage.kernel.describe(), &emit_cuda(&stage.kernel).unwrap());
        // CubeCL places shared arrays in another order every time.
        let is_placed = |l: &&str| !l.contains("&dynamic_shared_mem[") && !l.contains("// Shared array size");
        let text = text.lines().filter(is_placed).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(name, text);
    }
}

/// One launch of every kernel for tensor cores, and of what else differs on Hopper.
fn every_family_of_hopper() -> Vec<(Kernel, Vec<ArgInfo>)> {
    let half = |len| ArgInfo::whole(DType::BF16, len);
    let float = |len| ArgInfo::whole(DType::F32, len);
    let wide = product(256, 136, 64);
    let [a, b, c] = [256 * 64, 64 * 136, 256 * 136];
    let square = |tile| Region {
        rows: vec![256],
        reduced: 0,
        columns: 136,
        body: vec![
            load(0, &[136, 1]),
            Instr::Binary(Binary::Mul, 0, 0),
            Instr::Store { arg: 1, value: 1, at: affine(&[136, 1]) },
        ],
        args: vec![tile, DType::BF16],
    };
    // Heads that are normed and whose first two chunks of eight columns change places.
    let heads = Region {
        rows: vec![256, 2],
        columns: 64,
        body: vec![
            load(0, &[128, 64, 1]),
            Instr::RowReduce(Reduction::Sum, 0),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Permute((0..64).map(|i| if i < 16 { i ^ 8 } else { i }).collect(), 2),
            Instr::Store { arg: 1, value: 3, at: affine(&[128, 64, 1]) },
        ],
        ..square(DType::BF16)
    };
    let shape = AttentionShape { batch: 2, time: 200, heads: 4, kv_heads: 2, dim: 64, scale: 0.125 };
    let [q, kv, lse] = [2 * 200 * 4 * 64, 2 * 200 * 2 * 64, 2 * 200 * 4];
    let mut narrow = norm(30, 64);
    narrow.args[0] = DType::BF16;
    vec![
        (Kernel::from(wide.clone()), vec![half(a), half(b), half(c)]),
        (Kernel::from(Matmul { accumulate: true, ..wide.clone() }), vec![half(a), half(b), float(c)]),
        (
            Kernel::Contraction(Contraction::with_epilogue(wide.clone(), square(DType::BF16))),
            vec![half(a), half(b), half(c)],
        ),
        (
            Kernel::Contraction(Contraction::with_epilogue(wide, square(DType::F32))),
            vec![half(a), half(b), half(c)],
        ),
        (
            Kernel::Contraction(Contraction::with_epilogue(product(256, 128, 64), heads.clone())),
            vec![half(a), half(64 * 128), half(256 * 128)],
        ),
        (Kernel::Region(heads), vec![half(256 * 128), half(256 * 128)]),
        (Kernel::from(product(24, 40, 2104)), vec![half(24 * 2104), half(40 * 2104), float(24 * 40)]),
        (sharing(256, [136, 12], 64), vec![half(a), half(b), half(c), half(64 * 12), float(256 * 12)]),
        (Kernel::Attention(shape), vec![half(q), half(kv), half(kv), half(q), float(lse)]),
        (
            Kernel::AttentionGrad(shape),
            vec![half(q), half(kv), half(kv), half(q), float(lse), half(q), half(q), half(kv), half(kv)],
        ),
        (Kernel::Region(norm(1000, 512)), whole(&[512_000, 512_000, 512])),
        (Kernel::Region(narrow), vec![half(30 * 64), float(30 * 64), float(64)]),
    ]
}

/// Cached and bundled binaries are found by a kernel's hash, which has the generator's version and not its code. So
/// what the code makes is held to its version here: each line of `generator.txt` is a version and the digest of the
/// sources that it made.
#[test]
fn another_source_is_another_version_of_the_generator() {
    let mut digest = blake3::Hasher::new();
    let portable = every_family().into_iter().map(|k| (k, CUDA));
    let hopper = every_family_of_hopper().into_iter().map(|k| (k, H100));
    let mut count = 0;
    for ((kernel, args), machine) in portable.chain(hopper) {
        for stage in lower(&kernel, &args, &machine).unwrap().stages {
            let source = emit_cuda(&stage.kernel).unwrap().replace(stage.kernel.name(), "kernel");
            // CubeCL places shared arrays in another order every time.
            let is_placed =
                |l: &&str| !l.contains("dynamic_shared_mem[") && !l.contains("// Shared array size");
            source.lines().filter(is_placed).for_each(|l| {
                digest.update(l.as_bytes());
            });
            count += 1;
        }
    }
    assert!(count >= 20, "{count} sources");
    let digest = digest.finalize().to_hex().to_string();
    let known: Vec<(&str, &str)> =
        include_str!("generator.txt").lines().filter_map(|l| l.split_once(' ')).collect();
    let versions: Vec<u32> = known.iter().map(|(v, _)| v.parse().unwrap()).collect();
    assert!(versions.windows(2).all(|w| w[0] < w[1]), "a version has two lines: {versions:?}");
    let (version, last) = known.last().unwrap();
    assert_eq!(*version, GENERATOR.to_string(), "the last line of generator.txt is GENERATOR's");
    assert_eq!(
        *last,
        digest,
        "the generator makes other sources than version {GENERATOR} did: raise GENERATOR in kernel.rs, and add \
         the line `{} {digest}` to generator.txt",
        GENERATOR + 1
    );
}

#[test]
fn equal_kernels_are_one() {
    let (kernel, args) = matmul(64, 64, 64);
    let make = |args: &[ArgInfo]| lower(&kernel, args, &VULKAN_CPU).unwrap().stages[0].kernel.clone();
    assert_eq!(make(&args).hash(), make(&args).hash());
    let mut shifted = args.clone();
    shifted[0].shift = 4;
    assert_ne!(make(&args).hash(), make(&shifted).hash());
}

#[test]
fn what_does_not_fit_is_one_error() {
    let limits = Limits { shared_bytes: 1024, ..VULKAN_CPU.limits };
    let small = Machine { limits, ..VULKAN_CPU };
    let (kernel, args) = matmul(128, 128, 64);
    let error = lower(&kernel, &args, &small).unwrap_err().to_string();
    assert!(error.contains("bytes of shared memory, vulkan-cpu has 1024"), "{error}");
    let error = lower(&Kernel::Copy { len: 4 }, &whole(&[4]), &small).unwrap_err().to_string();
    assert!(error.contains("`copy` is malformed: takes 2 arguments, not 1"), "{error}");
    let mut region = norm(4, 8);
    region.body[1] = Instr::Binary(Binary::Mul, 0, 9);
    let error = lower(&Kernel::Region(region), &whole(&[32, 32, 8]), &small).unwrap_err().to_string();
    assert!(error.contains("instruction 1, Mul r0 r9: r9 comes later"), "{error}");
}

/// Offline sources are only those of the server if the options are. CubeCL sets them one by one for a
/// device of compute capability 9.0; this reads how.
#[test]
fn cuda_options_are_those_of_the_server() {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|h| std::path::Path::new(&h).join(".cargo")));
    let registries = home.and_then(|h| std::fs::read_dir(h.join("registry/src")).ok());
    let file = format!("cubecl-cuda-{CUBECL}/src/runtime.rs");
    let found = registries.into_iter().flatten().flatten().map(|r| r.path().join(&file)).find(|p| p.exists());
    let Some(found) = found else {
        let required = std::env::var_os("PG_REQUIRE_CUDA_TOOLS").is_some_and(|v| v == "1");
        assert!(
            !required,
            "PG_REQUIRE_CUDA_TOOLS=1, but the registry has no {file}: run `cargo fetch --locked`"
        );
        eprintln!("NOT RUN: the sources of cubecl-cuda {CUBECL} are not in the registry");
        return;
    };
    let text = std::fs::read_to_string(found).unwrap();
    let set: Vec<&str> = (text.lines())
        .filter_map(|l| l.trim().strip_prefix("comp_opts.supports_features."))
        .filter_map(|l| l.split_once(" = ").map(|(name, _)| name))
        .collect();
    assert_eq!(set, ["grid_constants", "fast_tanh", "clusters", "elect_sync"]);
    assert_eq!(text.matches("fast_math: true").count(), 1);
    let options = cuda_options();
    let f = &options.supports_features;
    assert!(f.grid_constants && f.fast_tanh && f.clusters && f.elect_sync && f.fast_math);
    assert_eq!(options.warp_size, 32);
}
