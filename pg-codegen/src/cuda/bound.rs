//! How long a launch takes at least, by the instructions that its warps issue: a walk of the compiled kernel, times what
//! each instruction costs each unit of a multiprocessor.
//!
//! It is a bound, not a simulation: units overlap perfectly, nothing waits for memory, and every thread block is an
//! average one. The roofline bounds the same launch by other means, and the larger of the two is predicted.

use std::fmt;

use super::compile::Compiled;
use super::occupancy::Occupancy;
use super::pipes::{Cycles, Pipe, TENSOR_FLOPS, flops};
use super::sass::Sass;
use super::walk::{Shape, Walk, WalkError};
use crate::kernels::Entry;
use crate::machine::Machine;
use crate::machine::roofline::Bound;

/// The units of the busiest multiprocessor.
const QUARTERS: u32 = 4;

/// What the instructions of a launch come to.
#[derive(Clone, PartialEq, Debug)]
pub struct IssueBound {
    /// Seconds.
    pub seconds: f64,
    /// The unit that takes them.
    pub pipe: Pipe,
    /// Floating-point operations that are executed, useful or not.
    pub executed_flops: f64,
    /// Branches whose outcome depends on data, which were taken both ways in turn.
    pub assumed_branches: usize,
}

/// What a kernel's launches are predicted to take: by its instructions or by the roofline, whichever is longer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Predicted {
    /// Seconds of all launches.
    pub seconds: f64,
    /// What takes most of them.
    pub binds: Binds,
}

/// What binds a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binds {
    /// Arithmetic at its peak, main memory, or being launched.
    Roofline(Bound),
    /// A unit of the multiprocessors.
    Pipe(Pipe),
}

impl fmt::Display for Binds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Binds::Roofline(bound) => bound.fmt(f),
            Binds::Pipe(pipe) => pipe.fmt(f),
        }
    }
}

impl Predicted {
    /// Of a kernel of a plan; without a walk of its instructions, by the roofline alone.
    pub fn new(entry: &Entry, issue: Option<&IssueBound>) -> Predicted {
        let work = entry.seconds - entry.launch_seconds;
        match issue.map(|issue| (issue.seconds * entry.launches.len() as f64, issue.pipe)) {
            Some((seconds, pipe)) if seconds > work => {
                let binds = if seconds > entry.launch_seconds {
                    Binds::Pipe(pipe)
                } else {
                    Binds::Roofline(Bound::Launch)
                };
                Predicted { seconds: seconds + entry.launch_seconds, binds }
            }
            _ => Predicted { seconds: entry.seconds, binds: Binds::Roofline(entry.bound) },
        }
    }
}

/// A loop of a kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Loop {
    /// Positions of its first and last instruction.
    pub range: std::ops::RangeInclusive<usize>,
    /// Times that a warp runs through it, the mean over the warps of the launch that enter it.
    pub trips: f64,
    /// What one trip of one warp costs.
    pub cycles: Cycles,
    /// Of the kernel's instructions issued, the share that is in it and in no loop inside it.
    pub share: f64,
}

/// A kernel's instructions as a launch issues them.
#[derive(Clone, PartialEq, Debug)]
pub struct Walked {
    /// The instructions.
    pub sass: Sass,
    /// How often each is issued.
    pub walk: Walk,
    /// What they come to.
    pub bound: IssueBound,
}

impl Compiled {
    /// Disassembles a kernel and walks its launch on a machine.
    ///
    /// # Errors
    /// If the disassembler does not run, or the kernel cannot be walked.
    pub fn walked(&self, entry: &Entry, machine: &Machine) -> Result<Walked, WalkError> {
        let threads = entry.kernel.threads();
        let sass = self.sass()?;
        let walk = sass.walk(Shape { grid: entry.grid, threads })?;
        let occupancy = self.resources.occupancy(threads, entry.kernel.shared_bytes());
        let bound = IssueBound::new(&sass, &walk, entry.grid, &occupancy, machine);
        Ok(Walked { sass, walk, bound })
    }
}

impl IssueBound {
    fn new(sass: &Sass, walk: &Walk, grid: [u32; 3], occupancy: &Occupancy, machine: &Machine) -> IssueBound {
        let mut of_block = Cycles::default();
        let mut executed_flops = 0.0;
        for ((i, &issued), &executed) in sass.instructions.iter().zip(&walk.issued).zip(&walk.executed) {
            of_block.add(i, issued, executed);
            executed_flops += flops(&i.name) * executed;
        }
        let blocks: f64 = grid.iter().map(|&n| f64::from(n)).product();
        // A warp stays on its quarter.
        let idle = f64::from(QUARTERS) / f64::from(occupancy.warps.clamp(1, QUARTERS));
        let cycles = of_block.times((blocks / f64::from(machine.processors)).ceil() * idle);
        let (pipe, longest) = cycles.longest();
        IssueBound {
            seconds: longest / clock(machine),
            pipe,
            executed_flops: executed_flops * blocks,
            assumed_branches: walk.assumed.len(),
        }
    }
}

impl Walked {
    /// The loops, as they stand in the kernel.
    pub fn loops(&self) -> Vec<Loop> {
        let Walked { sass, walk, .. } = self;
        let loops = sass.loops();
        let total: f64 = walk.issued.iter().sum();
        let is_inside = |inner: &std::ops::RangeInclusive<usize>, outer: &std::ops::RangeInclusive<usize>| {
            inner != outer && outer.contains(inner.start()) && outer.contains(inner.end())
        };
        let one = |range: &std::ops::RangeInclusive<usize>| {
            let inner: Vec<_> = loops.iter().filter(|l| is_inside(l, range)).collect();
            let own = |at: &usize| !inner.iter().any(|l| l.contains(at));
            let head = walk.issued[*range.start()];
            let entered = head - walk.taken[*range.end()];
            let mut cycles = Cycles::default();
            let mut issued = 0.0;
            for at in range.clone().filter(own) {
                issued += walk.issued[at];
                cycles.add(&sass.instructions[at], walk.issued[at], walk.executed[at]);
            }
            let trips = if entered > 0.0 { head / entered } else { 0.0 };
            Loop {
                range: range.clone(),
                trips,
                cycles: cycles.times(if head > 0.0 { 1.0 / head } else { 0.0 }),
                share: if total > 0.0 { issued / total } else { 0.0 },
            }
        };
        loops.iter().map(one).collect()
    }
}

/// Cycles a second at which the machine reaches the peak of its data sheet.
fn clock(machine: &Machine) -> f64 {
    machine.rates.matrix_flops / f64::from(machine.processors) / TENSOR_FLOPS
}
