//! Regions as a kernel family: cuts a region's domain into tasks, runs them on all cores, and combines partial results in order.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use pg_ir::op::Reduction;
use pg_ir::ty::DType;

use super::super::aligned::Aligned;
use super::super::amx::Amx;
use super::super::error::Problem;
use super::super::kernel::{CpuKernel, Positions};
use super::super::machine::Machine;
use super::super::math;
use super::super::parallel::{parallel, thread_index};
use super::super::raw::Arg;
use super::super::simd::Isa;
use super::access;
use super::check::{check_touches, check_types};
use super::compile::{Class, CompiledRegion, ScratchSize};
use super::interpret::{Interpreter, Reductions, ThreadScratch};
use super::lines::{AccumulateKernel, View, identity};

/// Scratch memory of all threads, and partial results.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    size: ScratchSize,
    /// What the threads' scratch was allocated for.
    allocated: ScratchSize,
    threads: Vec<Mutex<ThreadScratch>>,
    partials: Aligned,
}

impl Scratch {
    /// Makes room for a region.
    pub(crate) fn reserve(&mut self, size: ScratchSize) {
        let have = &mut self.size;
        have.vectors = have.vectors.max(size.vectors);
        have.accumulators = have.accumulators.max(size.accumulators);
        have.block = have.block.max(size.block);
        have.partials = have.partials.max(size.partials);
    }

    /// Allocates what was reserved, for so many threads. Does nothing when it is there already.
    pub(crate) fn allocate(&mut self, threads: usize) {
        let ScratchSize { vectors, accumulators, block, partials } = self.size;
        if self.allocated != self.size {
            self.threads.clear();
            self.allocated = self.size;
        }
        while self.threads.len() < threads {
            let zeroed = |n: usize| (0..n).map(|_| Aligned::zeroed(block)).collect();
            let thread = ThreadScratch { vectors: zeroed(vectors), accumulators: zeroed(accumulators) };
            self.threads.push(Mutex::new(thread));
        }
        if self.partials.len() < partials {
            self.partials = Aligned::zeroed(partials);
        }
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        let ScratchSize { vectors, accumulators, block, .. } = self.size;
        4 * (self.threads.len() * (vectors + accumulators) * block + self.partials.len())
    }
}

/// What the tasks of a launch share.
struct Launch<'a> {
    region: &'a CompiledRegion,
    args: &'a [Arg],
    isa: Isa,
    threads: &'a [Mutex<ThreadScratch>],
    outside: &'a AtomicBool,
}

impl CpuKernel for CompiledRegion {
    fn written(&self) -> Positions {
        self.touches.iter().filter(|t| t.write).map(|t| t.arg).collect()
    }

    fn takes_storage(&self) -> bool {
        true
    }

    fn in_words(&self, _: &[DType], _: Option<Amx>) -> String {
        let blocks = self.columns > self.block_columns;
        let pieces = !self.accumulators.is_empty() && self.pieces() > 1;
        format!("{} passes, rows cut: {blocks}, sums cut: {pieces}", self.passes.len())
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        check_types(&self.types, args)?;
        check_touches(&self.touches, &self.domain(), args)
    }

    fn reserve(&self, _: &[(DType, usize)], _: Option<Amx>, machine: &mut Machine) {
        machine.scratch.reserve(self.scratch());
    }

    fn run(&self, args: &[Arg], _: Option<Amx>, machine: &mut Machine, outside: &AtomicBool) {
        let Scratch { threads, partials, .. } = &mut machine.scratch;
        let launch = Launch { region: self, args, isa: machine.isa, threads, outside };
        if self.passes.len() > 1 {
            launch.run_passes(partials.view_mut());
        } else {
            launch.run_blocks(partials.view_mut());
        }
    }
}

impl<'a> Launch<'a> {
    /// Runs `f` with an interpreter that has this thread's scratch.
    fn with(
        &self,
        reductions: Option<Reductions<'_>>,
        f: impl FnOnce(&mut Interpreter<'_>) -> Result<(), access::Outside>,
    ) {
        // Uncontended: tasks never wait for other tasks while they hold it.
        let mut scratch = self.threads[thread_index()].lock().unwrap_or_else(|e| e.into_inner());
        let (region, args, isa) = (self.region, self.args, self.isa);
        let mut interpreter =
            Interpreter { region, args, isa, scratch: &mut scratch, reductions, results: &mut [] };
        if f(&mut interpreter).is_err() {
            self.outside.store(true, Ordering::Relaxed);
        }
    }

    fn run_blocks(&self, partials: &mut [f32]) {
        let p = self.region;
        let column_tasks = p.column_tasks();
        let accumulates = !p.accumulators.is_empty();
        let (groups, group) = if accumulates { (p.kept, p.reduced) } else { (1, p.kept) };
        let pieces = group.div_ceil(p.task_rows);
        let width = p.partial_width();
        let partials = Arg::new(partials.as_mut_ptr().cast(), partials.len(), DType::F32);
        let work = p.task_rows.min(group) * (p.block_columns * p.task_column_blocks).min(p.columns);
        parallel(groups * pieces * column_tasks, work * p.steps.len(), |task| {
            let (part, column_task) = (task / column_tasks, task % column_tasks);
            let (kept, piece) = (part / pieces, part % pieces);
            let rows =
                kept * group + piece * p.task_rows..kept * group + group.min((piece + 1) * p.task_rows);
            let columns_from = column_task * p.task_column_blocks * p.block_columns;
            let columns_to = p.columns.min(columns_from + p.task_column_blocks * p.block_columns);
            self.with(None, |interpreter| {
                interpreter.reset();
                for column in (columns_from..columns_to).step_by(p.block_columns) {
                    let columns = column..columns_to.min(column + p.block_columns);
                    let first = interpreter.block(rows.start..rows.start + 1, columns.clone());
                    interpreter.run(&p.prologue, &first)?;
                    for row in rows.clone().step_by(p.block_rows) {
                        let block = interpreter.block(row..rows.end.min(row + p.block_rows), columns.clone());
                        interpreter.run(&p.passes[0], &block)?;
                    }
                }
                for (i, a) in p.accumulators.iter().enumerate() {
                    let wide = a.width > 1;
                    if !wide && columns_from > 0 {
                        continue;
                    }
                    let bits: &[u32] = interpreter.scratch.accumulators[i].view();
                    let class = Class { row: false, column: wide };
                    if pieces == 1 {
                        let block = interpreter.block(rows.start..rows.start + 1, columns_from..columns_to);
                        access::store(View { bits, class }, self.args[a.arg], &a.at, false, &block, self.isa);
                    } else {
                        let len = if wide { columns_to - columns_from } else { 1 };
                        let at = part * width + a.offset + if wide { columns_from } else { 0 };
                        // SAFETY: tasks differ in part or columns, so in the elements written.
                        unsafe { partials.write::<u32>(at, len) }.copy_from_slice(&bits[..len]);
                    }
                }
                Ok(())
            });
        });
        if accumulates && pieces > 1 {
            self.combine(partials, pieces);
        }
    }

    /// Combines the partial results of an accumulation: for each kept row and piece of the columns, the
    /// pieces of the reduced rows in order.
    fn combine(&self, partials: Arg, pieces: usize) {
        let p = self.region;
        let width = p.partial_width();
        let column_blocks = p.columns.div_ceil(p.block_columns);
        parallel(p.kept * column_blocks, pieces * p.block_columns, |task| {
            let (kept, column_block) = (task / column_blocks, task % column_blocks);
            let columns = column_block * p.block_columns..p.columns.min((column_block + 1) * p.block_columns);
            self.with(None, |interpreter| {
                interpreter.reset();
                let block = interpreter.block(kept * p.reduced..kept * p.reduced + 1, columns.clone());
                for (i, a) in p.accumulators.iter().enumerate() {
                    let wide = a.width > 1;
                    if !wide && columns.start > 0 {
                        continue;
                    }
                    let class = Class { row: false, column: wide };
                    let len = if wide { columns.len() } else { 1 };
                    for piece in 0..pieces {
                        let at =
                            (kept * pieces + piece) * width + a.offset + if wide { columns.start } else { 0 };
                        // SAFETY: all writers have finished.
                        let bits = unsafe { partials.read::<u32>(at, len) };
                        let into = &mut interpreter.scratch.accumulators[i].view_mut()[..len];
                        let x = View { bits, class };
                        self.isa.run(AccumulateKernel { kind: a.kind, rows: 1, columns: len, into, x });
                    }
                    let bits: &[u32] = interpreter.scratch.accumulators[i].view();
                    access::store(View { bits, class }, self.args[a.arg], &a.at, false, &block, self.isa);
                }
                Ok(())
            });
        });
    }

    /// Long rows, cut: each pass finds the row reductions of one level piece by piece; the last one
    /// stores.
    fn run_passes(&self, partials: &mut [f32]) {
        let p = self.region;
        let (column_tasks, count) = (p.column_tasks(), p.reductions);
        let (known, pieces) = partials.split_at_mut(p.kept * count);
        let pieces = Arg::new(pieces.as_mut_ptr().cast(), pieces.len(), DType::F32);
        let task_columns = p.task_column_blocks * p.block_columns;
        for (pass, steps) in p.passes.iter().enumerate() {
            let found = &p.pass_reductions[pass];
            let reductions = Some(Reductions { known, pass });
            parallel(p.kept * column_tasks, task_columns * steps.len(), |task| {
                let (row, column_task) = (task / column_tasks, task % column_tasks);
                let columns_to = p.columns.min((column_task + 1) * task_columns);
                // SAFETY: each task writes its own results.
                let results = unsafe { pieces.write::<f32>(task * count, count) };
                self.with(reductions, |interpreter| {
                    found.iter().for_each(|&(number, kind)| results[number] = identity(kind));
                    interpreter.results = results;
                    for column in (column_task * task_columns..columns_to).step_by(p.block_columns) {
                        let block =
                            interpreter.block(row..row + 1, column..columns_to.min(column + p.block_columns));
                        interpreter.run(steps, &block)?;
                    }
                    Ok(())
                });
            });
            for row in 0..p.kept {
                for &(number, kind) in found {
                    let parts = (0..column_tasks).map(|t| {
                        // SAFETY: all writers have finished.
                        unsafe { pieces.read::<f32>((row * column_tasks + t) * count + number, 1)[0] }
                    });
                    known[row * count + number] = match kind {
                        // A row of 30 million columns has thousands of pieces: float64 costs nothing here.
                        Reduction::Sum => parts.map(f64::from).sum::<f64>() as f32,
                        Reduction::Max => parts.fold(f32::NEG_INFINITY, math::max),
                    };
                }
            }
        }
    }
}
