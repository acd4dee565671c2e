//! Every kernel of every model compiles for Hopper at full size, without spills or stack, fits a multiprocessor, and
//! issues no more instructions than its work explains.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pg_codegen::cuda::{Resources, Tools};
use pg_codegen::kernels::{Entry, emit_cuda};
use pg_codegen::machine::H100;

use crate::{models, predicted};

/// Tokens of a micro-batch at full size: an eighth of a step of 786,432.
pub(crate) const FULL: usize = 98_304;

/// The tools, or nothing if the test cannot run here.
pub(crate) fn tools() -> Option<Tools> {
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

/// What is wrong with a kernel, if anything.
fn fault(tools: &Tools, entry: &Entry, place: &str) -> Result<Resources, String> {
    let kernel = &entry.kernel;
    let source = emit_cuda(kernel).map_err(|e| e.to_string())?;
    let compiled = tools.compile(&source).map_err(|e| format!("{e}\n{source}"))?;
    let r = compiled.resources;
    if r.spill_bytes + r.stack_bytes > 0 {
        return Err(format!("{} bytes spilled, {} bytes of stack", r.spill_bytes, r.stack_bytes));
    }
    if r.occupancy(kernel.threads(), kernel.shared_bytes()).blocks == 0 {
        return Err(format!("it does not fit a multiprocessor: {r:?}, {} bytes", kernel.shared_bytes()));
    }
    predicted::fault(entry, place, &compiled)?;
    Ok(r)
}

#[test]
fn every_kernel_of_every_model_compiles_for_hopper_without_spills() {
    let Some(tools) = tools() else { return };
    let (kernels, failures) = models::distinct_kernels(FULL, &H100);
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(failures);
    let registers = Mutex::new(BTreeMap::<String, u32>::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((entry, place)) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let kernel = &entry.kernel;
                    let family = kernel.name().rsplit_once('_').map_or("", |(family, _)| family);
                    match fault(&tools, entry, place) {
                        Ok(r) => {
                            let mut all = registers.lock().unwrap();
                            let most = all.entry(family.into()).or_default();
                            *most = r.registers.max(*most);
                        }
                        Err(e) => failures.lock().unwrap().push(format!("{} ({place}): {e}", kernel.name())),
                    }
                }
            });
        }
    });
    println!("{} kernels; most registers by family: {:?}", kernels.len(), registers.into_inner().unwrap());
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), kernels.len(), failures.join("\n"));
}
