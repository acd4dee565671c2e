//! A plan run kernel by kernel on the executor of CUDA on the CPU, as an executor on a device would: its
//! buffers, the arena, generated launches with their workspaces.

use std::collections::HashMap;
use std::sync::Arc;

use pg_codegen::kernels::{Extent, Generated, Generations, StageArg, emit_cuda, extents, generate};
use pg_codegen::machine::Machine;
use pg_codegen::plan::{Place, Plan};
use pg_ir::interp::Environment;
use pg_ir::ty::DType;

use crate::host::{Allocation, Buffer, Kernels, Order, Source};

/// A plan's launches, generated and compiled for the CPU.
pub(crate) struct Device<'a> {
    plan: &'a Plan,
    extents: Vec<Extent>,
    generations: Generations,
    /// Position of a kernel in `kernels`, by its hash.
    index: HashMap<[u64; 4], usize>,
    kernels: Kernels,
}

/// The emitted source of a kernel.
pub(crate) fn source(kernel: &Generated) -> Source {
    let text = emit_cuda(kernel).unwrap_or_else(|e| panic!("{e}"));
    let (threads, shared_bytes) = (kernel.threads(), kernel.shared_bytes());
    Source { name: kernel.name().into(), text, threads, shared_bytes }
}

impl<'a> Device<'a> {
    /// Generates and compiles every kernel of a plan.
    pub(crate) fn new(plan: &'a Plan, target: &Machine) -> Device<'a> {
        let extents = extents(plan, |_| None);
        let generations = generate(plan, &extents, target).unwrap_or_else(|e| {
            panic!("{e}: {}", plan.launches[e.launch].note());
        });
        let mut all: Vec<Arc<Generated>> = Vec::new();
        let mut index = HashMap::new();
        for launch in &generations.launches {
            let kernel = &launch.stage.kernel;
            index.entry(kernel.hash()).or_insert_with(|| {
                all.push(kernel.clone());
                all.len() - 1
            });
        }
        let sources: Vec<Source> = all.iter().map(|k| source(k)).collect();
        Device { plan, extents, generations, index, kernels: Kernels::compile(&sources) }
    }

    /// Runs the plan; what it leaves in every external buffer.
    pub(crate) fn run(&self, env: &Environment, order: Order) -> Result<Environment, String> {
        let plan = self.plan;
        let mut memory: HashMap<u64, Allocation> = HashMap::new();
        for (buffer, extent) in plan.buffers.iter().zip(&self.extents) {
            let bytes = match buffer.place {
                Place::Temp { .. } => plan.arena_bytes.max(extent.end),
                _ => extent.end,
            };
            memory.entry(extent.allocation).or_insert_with(|| Allocation::new(bytes));
        }
        let buffer = |i: usize| -> Buffer<'_> {
            let at = self.extents[i];
            Buffer { allocation: &memory[&at.allocation], offset: at.start, bytes: at.end - at.start }
        };
        for (i, b) in plan.buffers.iter().enumerate() {
            match &b.place {
                Place::External(slot) => {
                    env.get(slot).into_iter().for_each(|values| buffer(i).write(b.dtype, values));
                }
                Place::Constant(bits) => buffer(i).write(b.dtype, &constants(b.dtype, bits)),
                Place::Temp { .. } => {}
            }
        }
        let mut begun = vec![false; plan.buffers.len()];
        let mut workspaces: Vec<Allocation> = Vec::new();
        let mut last = usize::MAX;
        for generation in &self.generations.launches {
            let (launch, stage) = (&plan.launches[generation.launch], &generation.stage);
            if last != generation.launch {
                last = generation.launch;
                workspaces = self.generations.workspaces.iter().map(|&n| Allocation::new(n)).collect();
                // What lay in the arena before a buffer's first use is not that buffer's.
                let args: Vec<usize> = launch.args.iter().map(|id| id.0 as usize).collect();
                for &i in &args {
                    let is_temp = matches!(plan.buffers[i].place, Place::Temp { .. });
                    let shares = |&o: &usize| o != i && begun[o] && self.overlap(o, i);
                    if is_temp && !begun[i] && !args.iter().any(shares) {
                        buffer(i).forget();
                    }
                    begun[i] = true;
                }
            }
            let argument = |a: &StageArg| match *a {
                StageArg::Arg(i) => buffer(launch.args[i].0 as usize),
                StageArg::Workspace(i) => workspaces[i].whole(),
            };
            let args: Vec<Buffer<'_>> = stage.args.iter().map(argument).collect();
            let kernel = self.index[&stage.kernel.hash()];
            self.kernels.run(kernel, &args, stage.grid, order).map_err(|e| {
                let text = source(&stage.kernel).text;
                format!("{e}: {} of {}, {order:?}\n{text}", stage.kernel.name(), launch.note())
            })?;
        }
        let externals = plan.buffers.iter().enumerate().filter_map(|(i, b)| match &b.place {
            Place::External(slot) => Some((slot.clone(), buffer(i).read(b.dtype))),
            _ => None,
        });
        Ok(externals.collect())
    }

    fn overlap(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.extents[a], self.extents[b]);
        a.allocation == b.allocation && a.start < b.end && b.start < a.end
    }

    /// Runs the plan under both orders of threads, which must agree in every bit.
    pub(crate) fn run_both(&self, env: &Environment) -> Environment {
        let forward = self.run(env, Order::Forward).unwrap_or_else(|e| panic!("{e}"));
        let backward = self.run(env, Order::Backward).unwrap_or_else(|e| panic!("{e}"));
        for (slot, values) in &forward {
            let same = values.iter().zip(&backward[slot]).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{slot} depends on the order of threads");
        }
        forward
    }
}

fn constants(dtype: DType, bits: &[u32]) -> Vec<f64> {
    let decode = |&b: &u32| match dtype {
        DType::I32 => f64::from(b as i32),
        _ => f64::from(f32::from_bits(b)),
    };
    bits.iter().map(decode).collect()
}
