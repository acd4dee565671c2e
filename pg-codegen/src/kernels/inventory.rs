//! The kernels of a plan: what each is launched for and what it costs, equal ones counted together.
//!
//! Costs are the plan's, times are predicted from a machine's peaks. It must account for every launch once.

use std::collections::HashMap;
use std::sync::Arc;

use super::generate::Generations;
use super::kernel::Generated;
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
    pub args: Vec<super::StageArg>,
    /// Thread blocks along each axis.
    pub grid: [u32; 3],
    /// Floating point operations of all launches.
    pub flops: f64,
    /// Bytes that all launches read and write.
    pub bytes: f64,
    /// Predicted seconds of all launches.
    pub seconds: f64,
    /// What most of that time is spent waiting for.
    pub bound: Bound,
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
                bound: Bound::Launch,
            });
            entries.len() - 1
        });
        let (entry, sum) = (&mut entries[at], &mut predictions[at]);
        let one = predict(plan, launch, machine);
        let one = Prediction {
            compute: one.compute * stage.share,
            memory: one.memory * stage.share,
            launch: one.launch,
        };
        entry.launches.push(generation.launch);
        entry.flops += launch.flops * stage.share;
        entry.bytes += launch.bytes * stage.share;
        entry.seconds += one.seconds();
        sum.compute += one.compute;
        sum.memory += one.memory;
        sum.launch += one.launch;
        entry.bound = sum.bound();
    }
    entries
}
