//! The executor of CUDA on the CPU finds what it claims to find: a fault of each kind, planted in a small
//! kernel of the form that CubeCL emits, is reported, and the same kernel without it is not.

use pg_ir::ty::DType;

use crate::host::{Allocation, Kernels, Order, Source};

/// A kernel of 64 threads over two buffers of 64 and 256 floats and a shared array of as many.
fn kernel(body: &str) -> Source {
    let text = format!(
        "#include <cuda_runtime.h>
typedef unsigned int uint32;
typedef unsigned char uint8;
struct __align__(16) float_4 {{
    float i_0;
    float i_1;
    float i_2;
    float i_3;
}};
struct info_st {{
    uint32 static_meta[4];
}};


extern \"C\" __global__ void __launch_bounds__(64)planted (
    const float* __restrict__ buffer_0, float* buffer_1, const float_4* __restrict__ buffer_2, const __grid_constant__ info_st info
) {{
extern __shared__ __align__(16) uint8 dynamic_shared_mem[];
// Shared array size: 64, 256 bytes
float *shared_memory_0 = reinterpret_cast<float*>(&dynamic_shared_mem[0]);
// Shared array size: 16, 256 bytes
float_4 *shared_memory_1 = reinterpret_cast<float_4*>(&dynamic_shared_mem[256]);
const uint32 me = threadIdx.x;
{body}
}}"
    );
    Source { name: "planted".into(), text, threads: 64, shared_bytes: 512 }
}

/// The first fault of a kernel, under both orders of its threads, and what it wrote.
fn run(body: &str) -> (Result<(), String>, Vec<f64>) {
    let kernels = Kernels::compile(&[kernel(body)]);
    let from = Allocation::holding(DType::F32, &(0..64).map(f64::from).collect::<Vec<_>>());
    let to = Allocation::new(256);
    let mut vectors = Allocation::holding(DType::F32, &[0.5; 256]).whole().read(DType::F32);
    vectors.truncate(128);
    let vectors = Allocation::holding(DType::F32, &vectors);
    // At an address that is no multiple of 16: a width of 4 is a fault.
    let mut args = [from.whole(), to.whole(), vectors.whole()];
    args[2].offset = 8;
    args[2].bytes = 256;
    let forward = kernels.run(0, &args, [2, 1, 1], Order::Forward);
    to.whole().forget();
    let backward = kernels.run(0, &args, [2, 1, 1], Order::Backward);
    (forward.and(backward), to.whole().read(DType::F32))
}

fn fault(body: &str) -> String {
    run(body).0.expect_err(body)
}

#[test]
fn a_kernel_without_a_fault_runs_and_computes() {
    let body = "shared_memory_0[me] = buffer_0[me];
__syncthreads();
const float l_1 = shared_memory_0[63 - me];
__syncthreads();
shared_memory_0[me] = l_1 * float(2.0);
if (blockIdx.x == 0) {
buffer_1[me] = shared_memory_0[me];
}";
    let (result, written) = run(body);
    assert_eq!(result, Ok(()));
    assert_eq!(written, (0..64).map(|i| f64::from(2 * (63 - i))).collect::<Vec<_>>());
}

#[test]
fn accesses_out_of_bounds_are_found() {
    let error = fault("const float l_1 = buffer_0[me + 1];");
    assert!(error.contains("reads buffer 0 out of bounds: bytes 256 to 260 of 256"), "{error}");
    let error = fault("if (me == 63) { buffer_1[me - 64] = float(1.0); }");
    assert!(error.contains("writes buffer 1 out of bounds"), "{error}");
    let error = fault("shared_memory_0[me * 2] = float(1.0);");
    assert!(error.contains("writes shared memory from 0 out of bounds"), "{error}");
}

#[test]
fn a_misaligned_vector_is_found() {
    let error = fault("const float_4 l_1 = buffer_2[0];");
    assert!(error.contains("misaligned: 16 bytes at byte 0 of buffer 2"), "{error}");
}

#[test]
fn reads_of_memory_that_nobody_wrote_are_found() {
    let error = fault("const float l_1 = buffer_1[me];");
    assert!(error.contains("reads byte 0 of buffer 1, which nobody has written"), "{error}");
    let error = fault(
        "if (me < 63) { shared_memory_0[me] = float(1.0); }
__syncthreads();
const float l_1 = shared_memory_0[63 - me];",
    );
    assert!(error.contains("of shared memory from 0, which nobody has written"), "{error}");
}

#[test]
fn missing_barriers_are_found() {
    // Forward, thread 0 reads too early what 63 writes; backward, 63 what 0 writes.
    let error = fault(
        "shared_memory_0[me] = float(1.0);
const float l_1 = shared_memory_0[me ^ 1];",
    );
    assert!(error.contains("nobody has written") || error.contains("no barrier between"), "{error}");
    let error = fault(
        "shared_memory_0[me] = float(1.0);
__syncthreads();
const float l_1 = shared_memory_0[63 - me];
shared_memory_0[me] = l_1;",
    );
    assert!(error.contains("no barrier between"), "{error}");
    // Blocks have no barrier at all.
    let error = fault("buffer_1[me] = float(blockIdx.x);");
    assert!(error.contains("writes what another thread writes, with no barrier between"), "{error}");
}

#[test]
fn a_barrier_that_some_threads_miss_is_found() {
    let error = fault("if (me < 32) { __syncthreads(); }");
    assert!(error.contains("not all threads come to one barrier"), "{error}");
}

/// Thread by thread: copy an element in 16-byte pieces, wait, and read another thread's.
fn pipeline(wait: &str, after: &str) -> String {
    format!(
        "cuda::barrier<cuda::thread_scope_block> bar{{0}};
if (me == 0) {{ init(&bar, 64); }}
__syncthreads();
unsigned token;
if (me < 16) {{ __cp_async_shared_global<16>(buffer_0 + me * 4, shared_memory_1 + me); }}
__cp_async_arrive(bar);
token = bar.arrive();
{wait}
const float_4 l_1 = shared_memory_1[me % 16];
{after}
if (blockIdx.x == 0) {{ buffer_1[me] = l_1.i_0; }}"
    )
}

#[test]
fn an_asynchronous_copy_lands_at_its_wait_only() {
    let (result, written) = run(&pipeline("bar.wait(std::move(token));", ""));
    assert_eq!(result, Ok(()));
    assert_eq!(written, (0..64).map(|i| f64::from(i % 16 * 4)).collect::<Vec<_>>());
    let error = fault(&pipeline("", "bar.wait(std::move(token));"));
    assert!(error.contains("asynchronous copy has not brought yet"), "{error}");
    // A barrier of threads does not wait for copies.
    let error = fault(&pipeline("__syncthreads();", "bar.wait(std::move(token));"));
    assert!(error.contains("asynchronous copy has not brought yet"), "{error}");
    // That others have waited is not enough.
    let some = "if (me != 5) { bar.wait(std::move(token)); }";
    let error = fault(&pipeline(some, ""));
    assert!(error.contains("no barrier between") || error.contains("not brought yet"), "{error}");
    // The next copy must not come while somebody may still read.
    let early = "if (me < 16) { __cp_async_shared_global<16>(buffer_0 + me * 4, shared_memory_1 + me); }
__cp_async_arrive(bar);
bar.arrive_and_wait();";
    let error = fault(&pipeline("bar.wait(std::move(token));", early));
    assert!(error.contains("no barrier between") || error.contains("not brought yet"), "{error}");
    let unwaited =
        fault("if (me < 16) { __cp_async_shared_global<16>(buffer_0 + me * 4, shared_memory_1 + me); }");
    assert!(unwaited.contains("never waited for"), "{unwaited}");
}

#[test]
fn a_warp_that_diverges_is_found() {
    let error = fault(
        "float l_1 = float(1.0);
if (me % 2 == 0) { l_1 = __shfl_xor_sync(0xffffffff, l_1, 1); }",
    );
    assert!(error.contains("threads wait for ever: one at __shfl_xor_sync"), "{error}");
    let (result, written) = run("float l_1 = float(me);
l_1 = l_1 + __shfl_xor_sync(0xffffffff, l_1, 1);
if (blockIdx.x == 0) { buffer_1[me] = l_1; }");
    assert_eq!(result, Ok(()));
    assert_eq!(written[..4], [1.0, 1.0, 5.0, 5.0]);
}
