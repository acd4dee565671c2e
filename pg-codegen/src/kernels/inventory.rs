//! The kernels of a plan: what each is launched for and what it costs, equal ones counted together.
//!
//! Costs are the plan's, times are predicted from a machine's peaks. It must account for every launch once.

use std::collections::HashMap;
use std::sync::Arc;

use super::generate::{Generation, Generations, element_bytes};
use super::kernel::Generated;
use super::stage::StageArg;
use crate::machine::Machine;
use crate::machine::roofline::{Bound, Prediction, predict};
use crate::plan::Plan;

/// A kernel of a plan.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The kernel.
    pub kernel: Arc<Generated>,
    /// Launches of the plan that it is a part of, each as often as it is launched for it.
    pub launches: Vec<usize>,
    /// Buffers of the first of them, by position among [`Entry::launches`]' arguments, or a workspace.
    pub args: Vec<StageArg>,
    /// Thread blocks along each axis.
    pub grid: [u32; 3],
    /// Floating point operations of all launches.
    pub flops: f64,
    /// Bytes that all launches read and write.
    pub bytes: f64,
    /// Seconds that all launches take at the machine's peak rates.
    pub seconds: f64,
    /// Those of them that being launched takes, beside all work.
    pub launch_seconds: f64,
    /// What most of that time is spent waiting for.
    pub bound: Bound,
}

/// Bytes of the plan's buffers that a launch passes over that has no part of the plan's own bytes.
fn unshared_bytes(plan: &Plan, Generation { launch, stage }: &Generation) -> f64 {
    let bytes = |arg: &StageArg| match *arg {
        StageArg::Arg(a) => {
            let buffer = &plan.buffers[plan.launches[*launch].args[a].0 as usize];
            (buffer.len * element_bytes(buffer.dtype)) as f64
        }
        StageArg::Workspace(_) => 0.0,
    };
    if stage.share == 0.0 { stage.args.iter().map(bytes).sum() } else { 0.0 }
}

/// Every kernel of a plan, in order of its first launch, on a machine.
pub fn inventory(plan: &Plan, generations: &Generations, machine: &Machine) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut predictions: Vec<Prediction> = Vec::new();
    let mut known: HashMap<[u64; 4], usize> = HashMap::new();
    for generation in &generations.launches {
        let (stage, launch) = (&generation.stage, &plan.launches[generation.launch]);
        let at = *known.entry(stage.kernel.hash()).or_insert_with(|| {
            predictions.push(Prediction::default());
            entries.push(Entry {
                kernel: stage.kernel.clone(),
                launches: Vec::new(),
                args: stage.args.clone(),
                grid: stage.grid,
                flops: 0.0,
                bytes: 0.0,
                seconds: 0.0,
                launch_seconds: 0.0,
                bound: Bound::Launch,
            });
            entries.len() - 1
        });
        let (entry, sum) = (&mut entries[at], &mut predictions[at]);
        let one = predict(plan, launch, machine);
        let one = Prediction {
            compute: one.compute * stage.share,
            memory: (one.memory * stage.share)
                .max(unshared_bytes(plan, generation) / machine.rates.bandwidth),
            launch: one.launch,
        };
        entry.launches.push(generation.launch);
        entry.flops += launch.flops * stage.share;
        entry.bytes += launch.bytes * stage.share;
        entry.seconds += one.seconds();
        entry.launch_seconds += one.launch;
        sum.compute += one.compute;
        sum.memory += one.memory;
        sum.launch += one.launch;
        entry.bound = sum.bound();
    }
    entries
}
