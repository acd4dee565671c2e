//! Runs a plan on a device.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use cubecl::prelude::*;
use pg_codegen::cube::{ArgInfo, CubeError, Generated, Launches, StageArg, lower};
use pg_codegen::plan::{Kernel, Place, Plan};
use pg_codegen::region::Instr;
use pg_ir::slot::{Slot, Space};

use super::device::{Device, Memory};
use super::error::CubeExecError;
use super::memory::{Buffers, Range, bytes_of};
use super::state::DeviceState;

/// Runs one plan on a GPU.
#[derive(Debug)]
pub struct CubeExecutor<R: Runtime> {
    plan: Arc<Plan>,
    device: Device<R>,
    buffers: Buffers,
    /// Tables that data is looked up in, with their rows: checked before a run.
    tables: Vec<(Slot, usize)>,
    /// Generated for the state of this id.
    prepared: Option<(u64, Vec<Prepared>)>,
    kernels: HashMap<[u64; 4], Arc<Generated>>,
    workspaces: Vec<Memory>,
    /// Results of the last run that were asked for.
    results: Vec<OnceCell<Vec<f32>>>,
}

/// A generated launch, and where its buffers come from.
#[derive(Clone, Debug)]
struct Prepared {
    launch: usize,
    kernel: Arc<Generated>,
    args: Vec<StageArg>,
    grid: [u32; 3],
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
        let results = vec![OnceCell::new(); buffers.result_count()];
        let executor = CubeExecutor {
            plan,
            device: device.clone(),
            buffers,
            tables,
            prepared: None,
            kernels: HashMap::new(),
            workspaces: Vec::new(),
            results,
        };
        // What a launch lacks is found now rather than in the middle of a run.
        let plan = executor.plan.clone();
        let mut memo = HashMap::new();
        for launch in 0..plan.launches.len() {
            let info = |b: &pg_codegen::plan::BufferId| {
                plan.buffers.get(b.0 as usize).map(|b| ArgInfo::whole(b.dtype, b.len))
            };
            let infos: Option<Vec<ArgInfo>> = plan.launches[launch].args.iter().map(info).collect();
            let infos =
                infos.ok_or_else(|| executor.malformed(launch, "an argument is no buffer of the plan"))?;
            executor.generate(launch, &infos, &mut memo)?;
        }
        Ok(executor)
    }

    /// The plan that it runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The device.
    pub fn device(&self) -> &Device<R> {
        &self.device
    }

    /// Runs the program once. `data` are token ids by name, `scalars` the run-time scalars; what the
    /// program does not read is ignored. Launches are queued: a result waits for them.
    ///
    /// # Errors
    /// If an input or state is missing or does not fit.
    pub fn run(
        &mut self,
        state: &mut DeviceState<R>,
        data: &[(&str, &[i32])],
        scalars: &[(&str, f32)],
    ) -> Result<(), CubeExecError> {
        self.check_ids(data)?;
        let ranges = self.buffers.bind(&self.plan, &self.device, state, data, scalars)?;
        if self.prepared.as_ref().is_none_or(|(id, _)| *id != state.id()) {
            self.prepare(state.id(), &ranges)?;
        }
        self.results.iter_mut().for_each(|r| *r = OnceCell::new());
        let align = self.device.target().binding_align;
        let handles: Vec<_> = ranges.iter().map(|r| r.handle(align)).collect();
        let Some((_, prepared)) = &self.prepared else { return Ok(()) };
        for p in prepared {
            let args = &self.plan.launches[p.launch].args;
            let buffer = |arg: &StageArg| match *arg {
                StageArg::Arg(i) => handles[args[i].0 as usize].clone(),
                StageArg::Workspace(i) => self.workspaces[i].handle.clone(),
            };
            let buffers: Vec<_> = p.args.iter().map(buffer).collect();
            self.device.launch(&p.kernel, &buffers, p.grid);
        }
        Ok(())
    }

    /// What the last run gave back under a name: `loss`, `nll`, `logits`, … Waits for the device.
    ///
    /// # Errors
    /// If the device failed.
    pub fn result(&self, name: &str) -> Result<Option<&[f32]>, CubeExecError> {
        let Some((at, memory, len)) = self.buffers.result(name) else { return Ok(None) };
        if self.results[at].get().is_none() {
            let bytes = self.device.read(memory, 4 * len)?;
            let _ = self.results[at].set(bytemuck::pod_collect_to_vec(&bytes));
        }
        Ok(self.results[at].get().map(Vec::as_slice))
    }

    /// Bytes of temporaries, results, constants and workspaces.
    pub fn bytes(&self) -> usize {
        self.buffers.bytes() + self.workspaces.iter().map(|w| w.capacity).sum::<usize>()
    }

    /// The generated kernels, each once, in the order of their names.
    pub fn kernels(&self) -> Vec<Arc<Generated>> {
        let mut all: Vec<_> = self.kernels.values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Generates every launch for where its arguments lie.
    fn prepare(&mut self, state: u64, ranges: &[Range]) -> Result<(), CubeExecError> {
        self.prepared = None;
        let plan = self.plan.clone();
        let target = self.device.target().clone();
        let mut prepared = Vec::new();
        let mut memo = HashMap::new();
        for (launch, l) in plan.launches.iter().enumerate() {
            let args: Vec<&Range> = l.args.iter().map(|b| &ranges[b.0 as usize]).collect();
            let written = written(&plan.kernels[l.kernel.0 as usize]);
            let mut infos = Vec::new();
            for (i, (range, id)) in args.iter().zip(&l.args).enumerate() {
                let buffer = &plan.buffers[id.0 as usize];
                let size = bytes_of(buffer.dtype);
                let (shift, bytes) = range.key(target.binding_align);
                if shift % size != 0 {
                    return Err(self.malformed(launch, "an argument does not begin at an element"));
                }
                let bound = range.bound_bytes(target.binding_align) as u64;
                target.check_binding("", bound).map_err(|e| self.launch_error(launch, e))?;
                let aliased = written.iter().any(|&w| w != i && w < args.len() && args[w].overlaps(range));
                infos.push(ArgInfo { dtype: buffer.dtype, len: bytes / size, shift: shift / size, aliased });
            }
            let launches = self.generate(launch, &infos, &mut memo)?;
            for stage in launches.stages {
                let kernel = self.kernels.entry(stage.kernel.hash()).or_insert(stage.kernel).clone();
                prepared.push(Prepared { launch, kernel, args: stage.args, grid: stage.grid });
            }
            for (i, &bytes) in launches.workspaces.iter().enumerate() {
                // Workspaces live within a launch, so launches share them.
                match self.workspaces.get(i) {
                    Some(w) if w.capacity >= bytes => {}
                    Some(_) => self.workspaces[i] = self.device.allocate(bytes)?,
                    None => self.workspaces.push(self.device.allocate(bytes)?),
                }
            }
        }
        self.prepared = Some((state, prepared));
        Ok(())
    }

    fn generate(
        &self,
        launch: usize,
        infos: &[ArgInfo],
        memo: &mut HashMap<(u32, Vec<ArgInfo>), Launches>,
    ) -> Result<Launches, CubeExecError> {
        let l = &self.plan.launches[launch];
        if let Some(known) = memo.get(&(l.kernel.0, infos.to_vec())) {
            return Ok(known.clone());
        }
        let kernel = self.plan.kernels.get(l.kernel.0 as usize);
        let kernel = kernel.ok_or_else(|| self.malformed(launch, "it runs no kernel of the plan"))?;
        let launches =
            lower(kernel, infos, self.device.target()).map_err(|e| self.launch_error(launch, e))?;
        memo.insert((l.kernel.0, infos.to_vec()), launches.clone());
        Ok(launches)
    }

    fn malformed(&self, launch: usize, what: &str) -> CubeExecError {
        self.launch_error(launch, CubeError::Malformed { kernel: "launch".into(), what: what.into() })
    }

    fn launch_error(&self, launch: usize, error: CubeError) -> CubeExecError {
        let note = self.plan.launches[launch].note();
        CubeExecError::Launch { program: self.plan.program.clone(), launch, note, error: Box::new(error) }
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

/// Data whose elements are used as rows of a table, and the rows that the smallest such table has.
fn tables(plan: &Plan) -> Vec<(Slot, usize)> {
    let mut found: HashMap<Slot, usize> = HashMap::new();
    for launch in &plan.launches {
        let Some(Kernel::Region(region)) = plan.kernels.get(launch.kernel.0 as usize) else { continue };
        let buffer = |arg: u32| launch.args.get(arg as usize).and_then(|b| plan.buffers.get(b.0 as usize));
        for instr in &region.body {
            let Instr::Gather { arg, row, stride, .. } = instr else { continue };
            let Some(Instr::Load { arg: ids, map }) = region.body.get(*row as usize) else { continue };
            let (Some(table), Some(ids)) = (buffer(*arg), buffer(*ids)) else { continue };
            if let (Place::External(slot), true, true) = (&ids.place, map.guards.is_empty(), *stride > 0)
                && slot.space == Space::Data
            {
                let rows = table.len.div_ceil(*stride as usize);
                let known = found.entry(slot.clone()).or_insert(rows);
                *known = rows.min(*known);
            }
        }
    }
    let mut all: Vec<_> = found.into_iter().collect();
    all.sort();
    all
}
