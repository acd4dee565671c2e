//! Runs a plan on a device.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use cubecl::prelude::*;
use pg_codegen::kernels::{Extent, Generated, Generation, Generator, StageArg, extents};
use pg_codegen::plan::{Place, Plan};
use pg_codegen::region::Instr;
use pg_ir::slot::{Slot, Space};

use super::device::{Device, Memory};
use super::error::CubeExecError;
use super::memory::Buffers;
use crate::executor::{ExecError, Executor, Inputs, Observe, Timed};
use crate::state::State;

/// Runs one plan on a GPU.
#[derive(Debug)]
pub struct CubeExecutor<R: Runtime> {
    plan: Arc<Plan>,
    device: Device<R>,
    buffers: Buffers,
    /// Tables that data is looked up in, with their rows: checked before a run.
    tables: Vec<(Slot, usize)>,
    generator: Generator,
    /// Generated for the state of this id.
    prepared: Option<(u64, Vec<Generation>)>,
    kernels: HashMap<[u64; 4], Arc<Generated>>,
    workspaces: Vec<Memory>,
    /// Results of the last run.
    results: Vec<Vec<f32>>,
}

impl<R: Runtime> CubeExecutor<R> {
    /// Allocates a plan's memory on a device and generates its kernels, as far as they do not depend on
    /// where state lies.
    ///
    /// # Errors
    /// If a buffer or a kernel does not fit the device.
    pub fn new(plan: Arc<Plan>, device: &Device<R>) -> Result<Self, CubeExecError> {
        let buffers = Buffers::new(&plan, device)?;
        let tables = tables(&plan);
        let results = vec![Vec::new(); buffers.result_count()];
        // What a launch lacks is found now rather than in the middle of a run, as far as it does not depend on
        // where state lies.
        let mut generator = Generator::default();
        let found = generator.generate(&plan, &extents(&plan, |_| None), device.machine());
        found.map_err(|e| CubeExecError::launch(&plan, e))?;
        Ok(CubeExecutor {
            plan,
            device: device.clone(),
            buffers,
            tables,
            generator,
            prepared: None,
            kernels: HashMap::new(),
            workspaces: Vec::new(),
            results,
        })
    }

    /// Queues the launches of one run.
    fn launch_all(
        &mut self,
        state: &mut State,
        inputs: Inputs<'_>,
        mut observe: Option<&mut Observe<'_>>,
    ) -> Result<(), CubeExecError> {
        self.check_ids(inputs.data)?;
        let ranges = self.buffers.bind(&self.plan, &self.device, state, inputs)?;
        if self.prepared.as_ref().is_none_or(|(id, _)| *id != state.id()) {
            let extents: Vec<Extent> = ranges.iter().map(|r| r.extent).collect();
            self.prepare(state.id(), &extents)?;
        }
        let align = self.device.machine().limits.binding_align;
        let handles: Vec<_> = ranges.iter().map(|r| r.handle(align)).collect();
        let Some((_, prepared)) = &self.prepared else { return Ok(()) };
        if observe.is_some() {
            self.device.wait()?;
        }
        let begin = Instant::now();
        for of_launch in prepared.chunk_by(|a, b| a.launch == b.launch) {
            let (index, start) = (of_launch[0].launch, begin.elapsed());
            let launch = &self.plan.launches[index];
            for Generation { stage, .. } in of_launch {
                let buffer = |arg: &StageArg| match *arg {
                    StageArg::Arg(i) => handles[launch.args[i].0 as usize].clone(),
                    StageArg::Workspace(i) => self.workspaces[i].handle.clone(),
                };
                self.device.launch(&stage.kernel, stage.args.iter().map(buffer).collect(), stage.grid)?;
            }
            if let Some(observe) = &mut observe {
                self.device.wait()?;
                observe(Timed { index, launch, start, duration: begin.elapsed() - start });
            }
        }
        Ok(())
    }

    /// Brings the results to the host, which waits for the device.
    fn fetch(&mut self) -> Result<(), CubeExecError> {
        for (result, (memory, len)) in self.results.iter_mut().zip(self.buffers.results()) {
            *result = bytemuck::pod_collect_to_vec(&self.device.read(memory, 4 * len)?);
        }
        Ok(())
    }

    /// The generated kernels, each once, in the order of their names.
    pub fn kernels(&self) -> Vec<Arc<Generated>> {
        let mut all: Vec<_> = self.kernels.values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Generates every launch for where its arguments lie.
    fn prepare(&mut self, state: u64, extents: &[Extent]) -> Result<(), CubeExecError> {
        self.prepared = None;
        let generated = self.generator.generate(&self.plan, extents, self.device.machine());
        let mut generated = generated.map_err(|e| CubeExecError::launch(&self.plan, e))?;
        for Generation { stage, .. } in &mut generated.launches {
            // One value for each kernel, so that CubeCL compiles it once.
            let known = self.kernels.entry(stage.kernel.hash()).or_insert_with(|| stage.kernel.clone());
            stage.kernel = known.clone();
        }
        for (i, bytes) in generated.workspaces.into_iter().enumerate() {
            match self.workspaces.get(i) {
                Some(w) if w.capacity >= bytes => {}
                Some(_) => self.workspaces[i] = self.device.allocate(bytes)?,
                None => self.workspaces.push(self.device.allocate(bytes)?),
            }
        }
        self.prepared = Some((state, generated.launches));
        Ok(())
    }

    /// Kernels read zeros for an id outside its table; a caller should hear of it.
    fn check_ids(&self, data: &[(&str, &[i32])]) -> Result<(), CubeExecError> {
        for (slot, rows) in &self.tables {
            let Some((_, ids)) = data.iter().find(|(name, _)| *name == slot.name) else { continue };
            let outside = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= *rows));
            if let Some(&id) = outside {
                let (program, slot) = (self.plan.program.clone(), slot.clone());
                return Err(CubeExecError::Index { program, slot, id, rows: *rows });
            }
        }
        Ok(())
    }
}

impl<R: Runtime> Executor for CubeExecutor<R> {
    fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    fn run(
        &mut self,
        state: &mut State,
        inputs: Inputs<'_>,
        observe: Option<&mut Observe<'_>>,
    ) -> Result<(), ExecError> {
        self.launch_all(state, inputs, observe)?;
        Ok(self.fetch()?)
    }

    fn result(&self, name: &str) -> Option<&[f32]> {
        Some(&self.results[self.buffers.result(name)?])
    }

    fn bytes(&self) -> usize {
        self.buffers.bytes() + self.workspaces.iter().map(|w| w.capacity).sum::<usize>()
    }

    fn host_launches(&self) -> usize {
        let Some((_, prepared)) = &self.prepared else { return 0 };
        let on_device = prepared.chunk_by(|a, b| a.launch == b.launch).count();
        self.plan.launches.len() - on_device
    }
}

/// Data whose elements are used as rows of a table, and the rows that the smallest such table has.
fn tables(plan: &Plan) -> Vec<(Slot, usize)> {
    let mut found: HashMap<Slot, usize> = HashMap::new();
    for launch in &plan.launches {
        let Some(kernel) = plan.kernels.get(launch.kernel.0 as usize) else { continue };
        for (region, args) in kernel.regions() {
            let buffer = |arg: u32| {
                let at = (*args.get(arg as usize)?)?;
                launch.args.get(at).and_then(|b| plan.buffers.get(b.0 as usize))
            };
            for instr in &region.body {
                let Instr::Gather { row, rows, .. } = instr else { continue };
                let Some(Instr::Load { arg: ids, .. }) = region.body.get(*row as usize) else { continue };
                if let Some(Place::External(slot)) = buffer(*ids).map(|b| &b.place)
                    && slot.space == Space::Data
                {
                    let known = found.entry(slot.clone()).or_insert(*rows);
                    *known = (*rows).min(*known);
                }
            }
        }
    }
    let mut all: Vec<_> = found.into_iter().collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use pg_codegen::machine::{CPU, Epilogues, Machine};
    use pg_codegen::{Options, compile_for};
    use pg_ir::graph::Builder;
    use pg_ir::op::{DotDims, Op};
    use pg_ir::ty::{DType, Type};

    use super::*;

    /// A row by id, added to a product: the region that looks it up is its epilogue where a machine runs them.
    #[test]
    fn tables_are_known_wherever_they_are_looked_up() {
        let mut b = Builder::default();
        let param = |b: &mut Builder, name: &str, shape: &[usize]| {
            b.input(Slot::new(Space::Param, name), Type::channels(shape))
        };
        let ids = Type { dtype: DType::I32, ..Type::channels(&[12]) };
        let ids = b.input(Slot::new(Space::Data, "tokens"), ids);
        let table = param(&mut b, "table", &[7, 40]);
        let (x, w) = (param(&mut b, "x", &[12, 16]), param(&mut b, "w", &[40, 16]));
        let product = b.dot(DotDims::contract(1, 1), x, w);
        let row = b.op(Op::Gather, &[table, ids]);
        let sum = b.add(product, row);
        b.output(Slot::new(Space::Result, "sum"), sum);
        let graph = b.finish();
        let epilogues = Some(Epilogues { rows: &[], of: DType::F32, chunk: 1 });
        for (machine, launches) in [(CPU, 2), (Machine { epilogues, ..CPU }, 1)] {
            let plan = compile_for("lookup", &graph, &Options::default(), &machine).unwrap();
            assert_eq!(plan.launches.len(), launches);
            assert_eq!(tables(&plan), [(Slot::new(Space::Data, "tokens"), 7)], "{plan}");
        }
    }
}
