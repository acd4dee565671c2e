//! The CPU executor: runs plans on all cores, without fast paths that change the numbers.
//!
//! A [`CpuExecutor`] is made once for a plan: kernels are compiled, every argument of every launch is
//! checked against what its kernel touches, and memory for temporaries and results is allocated. A run
//! then only looks up pointers and launches; from the second on it allocates nothing. All work is cut by
//! shapes alone and partial results are combined in order, so the bits are the same for any number of
//! threads of the rayon pool that it runs in.

pub(crate) mod aligned;
#[cfg_attr(not(target_arch = "x86_64"), path = "amx/absent.rs")]
mod amx;
mod attention;
mod attention_kernel;
mod bind;
mod contraction;
mod error;
mod kernel;
mod machine;
mod math;
mod matmul;
mod narrow;
mod parallel;
mod raw;
mod region;
mod scatter;
mod simd;
mod workspace;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pg_codegen::plan::{Launch, Plan};
use pg_ir::ty::DType;

pub use self::error::{CallError, CpuError, Problem};
#[cfg(feature = "cube")]
pub(crate) use self::{
    bind::check_place,
    error::{check_length, supplied},
};

use self::bind::Buffers;
use self::kernel::Compiled;
use self::machine::Machine;
use crate::state::State;

/// One launch of a run, when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Timed<'a> {
    /// Position among the plan's launches.
    pub index: usize,
    /// The launch.
    pub launch: &'a Launch,
    /// When it began, from the start of the run.
    pub start: Duration,
    /// How long it took.
    pub duration: Duration,
}

/// Memory that executors share: one arena for temporaries and one set of scratch buffers, as large as the
/// greediest of them needs. Executors that share it run one at a time. Clones are handles of the same.
/// Nothing is allocated before a program runs.
#[derive(Clone, Default, Debug)]
pub struct SharedMemory(Arc<Mutex<Machine>>);

impl SharedMemory {
    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // A program that panicked leaves nothing behind that the next one reads.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// How each launch of a plan runs here, as far as sizes decide it: on which units, and how it is cut.
pub(crate) fn ways(plan: &Plan) -> Vec<String> {
    let compiled: Vec<Option<Compiled>> = plan.kernels.iter().map(|k| Compiled::new(k).ok()).collect();
    let way = |launch: &Launch| {
        let dtypes: Vec<DType> = launch.args.iter().map(|b| plan.buffers[b.0 as usize].dtype).collect();
        // What does not compile is refused where it is prepared.
        compiled[launch.kernel.0 as usize].as_ref().map_or(String::new(), |kernel| kernel.in_words(&dtypes))
    };
    plan.launches.iter().map(way).collect()
}

/// What kernels may choose by on this machine, beside sizes.
pub(crate) fn features() -> String {
    format!("{:?} {:?}", simd::Isa::detect(), amx::Amx::detect())
}

/// Runs one plan on the CPU.
#[derive(Debug)]
pub struct CpuExecutor {
    plan: Arc<Plan>,
    kernels: Vec<Compiled>,
    buffers: Buffers,
    memory: SharedMemory,
}

impl CpuExecutor {
    /// Compiles a plan's kernels and checks its launches. Its memory is its own.
    pub fn new(plan: Arc<Plan>) -> Result<Self, CpuError> {
        CpuExecutor::sharing(plan, &SharedMemory::default())
    }

    /// [`Self::new`] with memory that other executors use, too. Results are always an executor's own.
    pub fn sharing(plan: Arc<Plan>, memory: &SharedMemory) -> Result<Self, CpuError> {
        let buffers = Buffers::new(&plan)?;
        let compile = |(i, kernel)| {
            // A kernel's own faults are reported at its first launch.
            let launch = plan.launches.iter().position(|l| l.kernel.0 as usize == i).unwrap_or(0);
            Compiled::new(kernel).map_err(|problem| bind::launch_error(&plan, launch, problem))
        };
        let kernels = plan.kernels.iter().enumerate().map(compile).collect::<Result<Vec<_>, _>>()?;
        buffers.check_launches(&plan, &kernels)?;
        let mut machine = memory.lock();
        machine.reserve_arena(plan.arena_bytes);
        for launch in &plan.launches {
            let args = launch.args.iter().map(|b| &plan.buffers[b.0 as usize]).map(|b| (b.dtype, b.len));
            kernels[launch.kernel.0 as usize].reserve(&args.collect::<Vec<_>>(), &mut machine);
        }
        drop(machine);
        Ok(CpuExecutor { plan, kernels, buffers, memory: memory.clone() })
    }

    /// The plan that it runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Runs the program once. `data` are token ids by name, `scalars` the run-time scalars; what the
    /// program does not read is ignored.
    pub fn run(
        &mut self,
        state: &mut State,
        data: &[(&str, &[i32])],
        scalars: &[(&str, f32)],
    ) -> Result<(), CpuError> {
        self.run_with(state, data, scalars, None)
    }

    /// [`Self::run`], calling `observe` after each launch.
    pub fn run_timed(
        &mut self,
        state: &mut State,
        data: &[(&str, &[i32])],
        scalars: &[(&str, f32)],
        observe: &mut (dyn FnMut(Timed<'_>) + Send),
    ) -> Result<(), CpuError> {
        self.run_with(state, data, scalars, Some(observe))
    }

    /// What the last run gave back under a name: `loss`, `nll`, `logits`, …
    pub fn result(&self, name: &str) -> Option<&[f32]> {
        self.buffers.result(name)
    }

    /// Bytes of results, scalars and constants: what is not shared.
    pub fn bytes(&self) -> usize {
        self.buffers.bytes()
    }

    fn run_with(
        &mut self,
        state: &mut State,
        data: &[(&str, &[i32])],
        scalars: &[(&str, f32)],
        observe: Option<&mut (dyn FnMut(Timed<'_>) + Send)>,
    ) -> Result<(), CpuError> {
        let memory = self.memory.clone();
        let mut machine = memory.lock();
        let short = |bytes| CpuError::Memory { program: self.plan.program.clone(), bytes };
        machine.allocate(rayon::current_num_threads()).map_err(short)?;
        self.buffers.bind(&self.plan, &self.kernels, machine.arena(), state, data, scalars)?;
        let machine = &mut *machine;
        if rayon::current_thread_index().is_some() {
            self.launch_all(machine, observe)
        } else {
            // Enter the pool once, not at every launch.
            rayon::join(|| self.launch_all(machine, observe), || ()).0
        }
    }

    fn launch_all(
        &self,
        machine: &mut Machine,
        mut observe: Option<&mut (dyn FnMut(Timed<'_>) + Send)>,
    ) -> Result<(), CpuError> {
        let begin = Instant::now();
        let outside = AtomicBool::new(false);
        for (index, launch) in self.plan.launches.iter().enumerate() {
            let start = observe.is_some().then(|| begin.elapsed());
            let kernel = &self.kernels[launch.kernel.0 as usize];
            kernel.run(self.buffers.args(index), machine, &outside);
            if outside.load(Ordering::Relaxed) {
                return Err(CpuError::Index { program: self.plan.program.clone(), note: launch.note() });
            }
            if let (Some(observe), Some(start)) = (&mut observe, start) {
                observe(Timed { index, launch, start, duration: begin.elapsed() - start });
            }
        }
        Ok(())
    }
}
