//! The compiler is CubeCL's server's, its report is read rightly, and what is missing is said.

use super::compile::report;
use super::*;
use crate::kernels::CUBECL;

/// The tools, or nothing if the test cannot run here.
fn tools() -> Option<Tools> {
    match Tools::find() {
        Ok(tools) => Some(tools),
        Err(e) if std::env::var_os("PG_REQUIRE_CUDA_TOOLS").is_some_and(|v| v == "1") => {
            panic!("PG_REQUIRE_CUDA_TOOLS=1, but {e}")
        }
        Err(e) => {
            eprintln!("NOT RUN: {e}");
            None
        }
    }
}

const SCALE: &str = "
#include <cuda_runtime.h>
#include <cuda_bf16.h>
extern \"C\" __global__ void __launch_bounds__(256) scale(const float4* __restrict__ from, float4* __restrict__ to) {
    extern __shared__ float4 tile[];
    unsigned at = blockIdx.x * 256 + threadIdx.x;
    tile[threadIdx.x] = from[at];
    __syncthreads();
    float4 x = tile[255 - threadIdx.x];
    for (int i = 0; i < 1000; i++) x.x = __expf(x.x) * x.y;
    to[at] = x;
}";

#[test]
fn a_kernel_becomes_ptx_a_cubin_and_instructions() {
    let Some(tools) = tools() else { return };
    assert_eq!(tools.version().0, 13);
    let compiled = tools.compile(SCALE).unwrap();
    assert!(compiled.ptx.contains(".target sm_90a"), "{}", compiled.ptx);
    assert!(compiled.cubin.starts_with(b"\x7fELF"));
    let r = compiled.resources;
    assert!((8..64).contains(&r.registers), "{r:?}");
    assert_eq!((r.spill_bytes, r.stack_bytes, r.shared_bytes, r.barriers), (0, 0, 0, 1), "{}", compiled.log);
    let sass = compiled.sass().unwrap();
    assert_eq!((sass.count("LDG.E.128"), sass.count("STG.E.128")), (1, 1), "{}", sass.text);
    assert_eq!((sass.count("LDS.128"), sass.count("STS.128"), sass.count("BAR.SYNC")), (1, 1, 1));
    let loops = sass.loops();
    assert_eq!(loops.len(), 1, "{}", sass.text);
    let exponentials = sass.instructions[loops[0].clone()].iter().filter(|i| i.name.starts_with("MUFU.EX2"));
    assert!(exponentials.count() > 0, "{}", sass.text);
}

#[test]
fn the_report_changes_no_instruction() {
    let Some(tools) = tools() else { return };
    // The binary names its options in a note; its code is the same.
    let reported = tools.compile(SCALE).unwrap().sass().unwrap();
    assert_eq!(reported, tools.compile_plainly(SCALE).unwrap());
}

#[test]
fn a_kernel_that_spills_is_seen_to() {
    let Some(tools) = tools() else { return };
    let greedy = "
extern \"C\" __global__ void __launch_bounds__(1024) greedy(const float* from, float* to) {
    float x[96];
    for (int i = 0; i < 96; i++) x[i] = from[threadIdx.x + i * 1024];
    for (int turn = 0; turn < 96; turn++)
        #pragma unroll
        for (int i = 0; i < 96; i++) x[i] = x[i] * x[(i * 7 + 1) % 96] + x[(i * 5 + 3) % 96];
    for (int i = 0; i < 96; i++) to[threadIdx.x + i * 1024] = x[i];
}";
    let compiled = tools.compile(greedy).unwrap();
    assert!(compiled.resources.spill_bytes > 0, "{}", compiled.log);
    assert!(compiled.resources.stack_bytes > 0, "{}", compiled.log);
}

#[test]
fn a_source_that_is_wrong_is_an_error_with_the_log() {
    let Some(tools) = tools() else { return };
    let error = tools.compile("extern \"C\" __global__ void k() { nothing(); }").unwrap_err().to_string();
    assert!(error.contains("identifier \"nothing\" is undefined"), "{error}");
}

#[test]
fn a_missing_tool_is_one_message_with_the_remedy() {
    let error = Tools::at(std::path::Path::new("/nowhere")).unwrap_err().to_string();
    insta::assert_snapshot!(error, @"CUDA's compiler (libnvrtc.so.13) was not found under /nowhere; run scripts/cuda-tools, or set PG_CUDA_TOOLS to a CUDA 13 toolkit");
}

#[test]
fn the_report_is_read_in_full() {
    let log = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k' for 'sm_90a'
ptxas info    : Function properties for k
    72 bytes stack frame, 52 bytes spill stores, 48 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 72 bytes cumulative stack size, 512 bytes smem
ptxas info    : Compile time = 3.1 ms
";
    let expected =
        Resources { registers: 40, spill_bytes: 100, stack_bytes: 72, shared_bytes: 512, barriers: 1 };
    assert_eq!(report(log), Some(expected));
    assert_eq!(report("nothing of the kind"), None);
}

#[test]
fn occupancy_is_the_least_of_three_limits() {
    let uses = |registers, shared_bytes| Resources { registers, shared_bytes, ..Resources::default() };
    // 40 registers: 6 thread blocks of 8 warps are 48 warps. Shared memory: 228 KiB, each thread block with 1 KiB more.
    let o = uses(40, 512).occupancy(256, 32 * 1024);
    assert_eq!((o.blocks, o.warps, o.limited_by), (6, 48, Limit::Registers));
    assert_eq!((o.by_registers, o.by_shared_memory, o.by_threads), (6, 6, 8));
    let o = uses(40, 0).occupancy(256, 64 * 1024);
    assert_eq!((o.blocks, o.limited_by), (3, Limit::SharedMemory));
    assert_eq!((uses(32, 0).occupancy(1024, 0).blocks, uses(16, 0).occupancy(32, 0).blocks), (2, 32));
    // 65,536 registers are not enough for 1024 threads with 65 each, and no thread block takes all shared memory twice.
    assert_eq!(uses(65, 0).occupancy(1024, 0).blocks, 0);
    assert_eq!(
        (uses(32, 0).occupancy(128, 227 * 1024).blocks, uses(32, 0).occupancy(128, 228 * 1024).blocks),
        (1, 0)
    );
}

/// CUDA's own occupancy calculator is a header of plain C++: it must give the same.
#[test]
fn occupancy_is_that_of_cudas_header() {
    let Some(tools) = tools() else { return };
    const PROGRAM: &str = r#"
#include <cstdio>
#include <climits>
#include <cuda_occupancy.h>
int main() {
    cudaOccDeviceProp p;
    p.computeMajor = 9; p.computeMinor = 0; p.warpSize = 32; p.numSms = 132;
    p.maxThreadsPerBlock = 1024; p.maxThreadsPerMultiprocessor = 2048;
    p.regsPerBlock = 65536; p.regsPerMultiprocessor = 65536;
    p.sharedMemPerBlock = 48 << 10; p.sharedMemPerMultiprocessor = 228 << 10;
    p.sharedMemPerBlockOptin = 227 << 10; p.reservedSharedMemPerBlock = 1 << 10;
    cudaOccDeviceState state;
    for (int units = 32; units <= 1024; units += 32)
        for (int registers = 16; registers <= 255; registers += 7)
            for (int kib = 0; kib <= 227; kib += 11) {
                cudaOccFuncAttributes f;
                f.maxThreadsPerBlock = 1024; f.numRegs = registers; f.sharedSizeBytes = 0;
                f.partitionedGCConfig = PARTITIONED_GC_OFF;
                f.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN; f.maxDynamicSharedSizeBytes = kib << 10;
                cudaOccResult r;
                int status = cudaOccMaxActiveBlocksPerMultiprocessor(&r, &p, &f, &state, units, kib << 10);
                std::printf("%d %d %d %d %d\n", units, registers, kib, status, r.activeBlocksPerMultiprocessor);
            }
}
"#;
    let folder = tempfile::tempdir().unwrap();
    let (source, binary) = (folder.path().join("occupancy.cpp"), folder.path().join("occupancy"));
    std::fs::write(&source, PROGRAM).unwrap();
    let mut compiler = std::process::Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()));
    let Ok(output) = compiler.arg("-I").arg(&tools.include).arg(&source).arg("-o").arg(&binary).output()
    else {
        assert!(std::env::var_os("PG_REQUIRE_CUDA_TOOLS").is_none(), "there is no C++ compiler");
        eprintln!("NOT RUN: there is no C++ compiler");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = std::process::Command::new(&binary).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut compared = 0;
    for line in text.lines() {
        let n: Vec<u32> = line.split(' ').map(|w| w.parse().unwrap()).collect();
        let [threads, registers, kib, status, blocks] = n[..] else { panic!("{line}") };
        assert_eq!(status, 0, "{line}");
        let uses = Resources { registers, ..Resources::default() };
        assert_eq!(uses.occupancy(threads, kib as usize * 1024).blocks, blocks, "{line}");
        compared += 1;
    }
    assert_eq!(compared, 32 * 35 * 21);
}

/// A binary made here is only the server's if the options are: this reads what the server asks for.
#[test]
fn the_compilers_options_are_those_of_the_server() {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|h| std::path::Path::new(&h).join(".cargo")));
    let registries = home.and_then(|h| std::fs::read_dir(h.join("registry/src")).ok());
    let folder = format!("cubecl-cuda-{CUBECL}/src");
    let found = registries.into_iter().flatten().flatten().map(|r| r.path().join(&folder));
    let Some(found) = found.into_iter().find(|p| p.is_dir()) else {
        assert!(std::env::var_os("PG_REQUIRE_CUDA_TOOLS").is_none(), "cubecl-cuda is not in the registry");
        eprintln!("NOT RUN: the sources of cubecl-cuda {CUBECL} are not in the registry");
        return;
    };
    let context = std::fs::read_to_string(found.join("compute/context.rs")).unwrap();
    let options: Vec<&str> = (context.lines().map(str::trim))
        .filter(|l| l.contains("options") && (l.starts_with("let mut") || l.contains("push")))
        .collect();
    assert_eq!(
        options,
        [
            "let mut options = vec![arch.as_str(), include_option.as_str(), \"-lineinfo\"];",
            "options.push(&cccl_include_option);"
        ]
    );
    assert!(context.contains("format!(\"--gpu-architecture=sm_{}a\", self.arch)"));
    assert!(context.contains("create_program(source.as_c_str(), None)"));
    assert_eq!(context.matches("format!(\"--include-path={}\"").count(), 2);
    let install = std::fs::read_to_string(found.join("lib.rs")).unwrap();
    assert!(install.contains("path.push(\"include\")") && install.contains("path.push(\"cccl\")"));
    assert_eq!(
        server_options(std::path::Path::new("/cuda/include")),
        [
            "--gpu-architecture=sm_90a",
            "--include-path=/cuda/include",
            "-lineinfo",
            "--include-path=/cuda/include/cccl"
        ]
    );
}

/// Says in the output of `cargo test` what it leaves out.
#[test]
#[ignore = "minutes: `scripts/cuda-tools`, then `cargo test --release --test cuda`"]
fn every_kernel_for_hopper() {
    panic!("a test of its own: cargo test --release --test cuda");
}
