//! A plan run kernel by kernel on the executor of CUDA on the CPU, as an executor on a device would: its
//! buffers, the arena, generated launches with their workspaces.

use std::collections::HashMap;
use std::sync::Arc;

use pg_codegen::cube::{ArgInfo, Generated, Launches, StageArg, Target, emit_cuda, lower};
use pg_codegen::plan::{BufferId, Kernel, Place, Plan};
use pg_codegen::region::Instr;
use pg_ir::interp::Environment;
use pg_ir::ty::DType;

use crate::host::{Allocation, Buffer, Kernels, Order, Source, size};

/// A plan's launches, generated and compiled for the CPU.
pub(crate) struct Device<'a> {
    plan: &'a Plan,
    launches: Vec<Launches>,
    /// Position of a kernel in `kernels`, by its hash.
    index: HashMap<[u64; 4], usize>,
    kernels: Kernels,
}

/// The emitted source of a kernel.
pub(crate) fn source(kernel: &Generated) -> Source {
    let text = emit_cuda(kernel).unwrap_or_else(|e| panic!("{e}"));
    let (units, shared_bytes) = (kernel.units(), kernel.shared_bytes());
    Source { name: kernel.name().into(), text, units, shared_bytes }
}

/// The arguments that a kernel writes.
fn written(kernel: &Kernel) -> Vec<usize> {
    match kernel {
        Kernel::Region(region) => (region.body.iter())
            .filter_map(|i| match i {
                Instr::Store { arg, .. } | Instr::Accumulate { arg, .. } => Some(*arg as usize),
                _ => None,
            })
            .collect(),
        Kernel::Matmul(_) | Kernel::ScatterAdd { .. } => vec![2],
        Kernel::Attention(_) => vec![3, 4],
        Kernel::AttentionGrad(_) => vec![6, 7, 8],
        Kernel::Copy { .. } => vec![1],
    }
}

/// Whether two buffers of a plan share memory.
fn overlap(plan: &Plan, a: BufferId, b: BufferId) -> bool {
    let range = |id: BufferId| match plan.buffers[id.0 as usize] {
        ref buffer if matches!(buffer.place, Place::Temp { .. }) => {
            let Place::Temp { offset } = buffer.place else { unreachable!("a temporary") };
            Some((offset, offset + buffer.len * size(buffer.dtype)))
        }
        _ => None,
    };
    a == b || matches!((range(a), range(b)), (Some(x), Some(y)) if x.0 < y.1 && y.0 < x.1)
}

impl<'a> Device<'a> {
    /// Generates and compiles every kernel of a plan.
    pub(crate) fn new(plan: &'a Plan, target: &Target) -> Device<'a> {
        let mut launches = Vec::new();
        let mut all: Vec<Arc<Generated>> = Vec::new();
        let mut index = HashMap::new();
        for launch in &plan.launches {
            let kernel = &plan.kernels[launch.kernel.0 as usize];
            let writes: Vec<BufferId> = written(kernel).into_iter().map(|i| launch.args[i]).collect();
            let info = |(i, id): (usize, &BufferId)| {
                let b = &plan.buffers[id.0 as usize];
                let others = written(kernel).into_iter().zip(&writes).filter(|(w, _)| *w != i);
                let aliased = others.into_iter().any(|(_, w)| overlap(plan, *w, *id));
                ArgInfo { aliased, ..ArgInfo::whole(b.dtype, b.len) }
            };
            let infos: Vec<ArgInfo> = launch.args.iter().enumerate().map(info).collect();
            let made = lower(kernel, &infos, target).unwrap_or_else(|e| panic!("{}: {e}", launch.note));
            for stage in &made.stages {
                index.entry(stage.kernel.hash()).or_insert_with(|| {
                    all.push(stage.kernel.clone());
                    all.len() - 1
                });
            }
            launches.push(made);
        }
        let sources: Vec<Source> = all.iter().map(|k| source(k)).collect();
        Device { plan, launches, index, kernels: Kernels::compile(&sources) }
    }

    /// Runs the plan; what it leaves in every external buffer, as bits of doubles that hold the elements
    /// exactly.
    pub(crate) fn run(&self, env: &Environment, order: Order) -> Result<Environment, String> {
        let plan = self.plan;
        let arena = Allocation::new(plan.arena_bytes);
        let own: Vec<Option<Allocation>> = (plan.buffers.iter())
            .map(|b| match &b.place {
                Place::Temp { .. } => None,
                Place::External(slot) => Some(match env.get(slot) {
                    Some(values) => Allocation::holding(b.dtype, values),
                    None => Allocation::new(size(b.dtype) * b.len),
                }),
                Place::Constant(bits) => Some(Allocation::holding(b.dtype, &constants(b.dtype, bits))),
            })
            .collect();
        let buffer = |id: BufferId| -> Buffer<'_> {
            let b = &plan.buffers[id.0 as usize];
            match (&b.place, &own[id.0 as usize]) {
                (Place::Temp { offset }, _) => {
                    Buffer { allocation: &arena, offset: *offset, bytes: size(b.dtype) * b.len }
                }
                (_, Some(own)) => own.whole(),
                _ => unreachable!("an allocation of its own"),
            }
        };
        let mut begun = vec![false; plan.buffers.len()];
        for (launch, made) in plan.launches.iter().zip(&self.launches) {
            // What lay in the arena before a buffer's first use is not that buffer's.
            for id in &launch.args {
                let is_temp = own[id.0 as usize].is_none();
                if is_temp && !std::mem::replace(&mut begun[id.0 as usize], true) {
                    let in_use = launch.args.iter().any(|o| o != id && begun[o.0 as usize] && overlap(plan, *o, *id));
                    if !in_use {
                        buffer(*id).forget();
                    }
                }
            }
            let workspaces: Vec<Allocation> = made.workspaces.iter().map(|&n| Allocation::new(n)).collect();
            for stage in &made.stages {
                let argument = |a: &StageArg| match *a {
                    StageArg::Arg(i) => buffer(launch.args[i]),
                    StageArg::Workspace(i) => workspaces[i].whole(),
                };
                let args: Vec<Buffer<'_>> = stage.args.iter().map(argument).collect();
                let kernel = self.index[&stage.kernel.hash()];
                self.kernels.run(kernel, &args, stage.grid, order).map_err(|e| {
                    let text = source(&stage.kernel).text;
                    format!("{e}: {} of {}, {order:?}\n{text}", stage.kernel.name(), launch.note)
                })?;
            }
        }
        let externals = plan.buffers.iter().enumerate().filter_map(|(i, b)| match &b.place {
            Place::External(slot) => Some((slot.clone(), buffer(BufferId(i as u32)).read(b.dtype))),
            _ => None,
        });
        Ok(externals.collect())
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
