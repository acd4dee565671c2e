//! A training step's programs allocate nothing from their second run on: memory is laid out before step 0. The
//! exception is not ours: without tensor cores, the `gemm` crate allocates to pack a product's operands.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use pg_codegen::plan::Plan;
use pg_ir::ty::DType;
use pg_runtime::session::Key;
use pg_runtime::train::schedule::Schedule;
use pg_runtime::train::{spaces, update_scalars};
use pg_testing::models::{SMALL, session};

/// The system's allocator, counting.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: by the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: by the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: by the caller's promise.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Wide enough for every product to be worth the tensor cores.
const WIDE: &[&str] = &["DIM=64", "ROPE_DIMS=16", "BIGRAM_DIM=32", "VE_DIM=32"];
const BATCH: usize = 2;
const SEQ: usize = 64;

/// What the `gemm` crate may allocate for a product: memory to pack each operand, and a list of what is packed.
const GEMM: usize = 3;

/// Whether products run on tensor cores here.
fn has_units() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("amx_bf16"))
}

/// Allocations of each of some steps, two micro-batches and the update; and the products of a step.
fn allocations(storage: DType, steps: usize) -> (Vec<usize>, usize) {
    let mut session = session("int4mlp_12l.rs", &[SMALL, WIDE].concat()).storing(storage);
    let grad = |accumulate| Key::Grad { phase: 0, batch: BATCH, seq: SEQ, qat: true, accumulate };
    let keys = [grad(false), grad(true), Key::Update];
    let products_of = |plan: &Plan| -> usize {
        let products = plan.launches.iter().flat_map(|l| plan.kernels[l.kernel.0 as usize].products());
        products.map(|m| m.batch).sum()
    };
    let products = keys.iter().map(|&key| products_of(session.plan(key).unwrap())).sum();
    let weights = session.initial_weights(1).unwrap();
    let mut state = session.state_with(&weights, &spaces(&session.model.train)).unwrap();
    let tokens: Vec<i32> = (0..=BATCH * SEQ).map(|i| (i * 37 % session.model.vocab) as i32).collect();
    let data = [("tokens", &tokens[..BATCH * SEQ]), ("targets", &tokens[1..])];
    let schedule = Schedule::spec(&session.model.train);
    let scalars = update_scalars(&session, &schedule, 0, 1.0);
    let mut scalars: Vec<(&str, f32)> = scalars.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();
    scalars.push(("inv_accum", 0.5));
    let mut step = || {
        let before = COUNT.load(Ordering::Relaxed);
        for key in keys {
            session.run(key, &mut state, &data, &scalars).unwrap();
        }
        COUNT.load(Ordering::Relaxed) - before
    };
    ((0..steps).map(|_| step()).collect(), products)
}

#[test]
fn steps_allocate_nothing_from_the_second_on() {
    // Inside a pool: entering one from outside queues a job, for which rayon allocates now and then.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for storage in [DType::F32, DType::BF16] {
        let (counts, products) = pool.install(|| allocations(storage, 5));
        let most = if has_units() { 0 } else { GEMM * products };
        assert!(counts[1..].iter().all(|&n| n <= most), "{storage}: {counts:?}, {products} products");
    }
}
