//! Sums of rows by id, and copies.

use std::sync::atomic::{AtomicBool, Ordering};

use pg_ir::ty::DType;

use super::amx::Amx;
use super::error::Problem;
use super::kernel::{CpuKernel, Positions};
use super::machine::Machine;
use super::parallel::parallel;
use super::raw::Arg;
use super::region::check::{check_computed_types, check_types};
use super::workspace::{Workspace, WorkspaceSize};

/// Rows of the result that a task owns.
const ROWS: usize = 64;

/// Shapes of a sum of rows by id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scatter {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) count: usize,
}

impl Scatter {
    /// Ends of each row's list of positions, and the lists.
    fn workspace(self) -> WorkspaceSize {
        WorkspaceSize { thread: 0, shared: self.rows + 1 + self.count }
    }

    /// Runs on checked arguments; `false` if an id is not a row, which is then left out.
    ///
    /// Positions are sorted by id first (an integer operation, stable), then every row of the result adds
    /// its own in order: no two tasks write one row, and the order of additions is that of positions.
    fn sum(self, args: &[Arg], workspace: &mut Workspace) -> bool {
        let &[ids, values, out] = args else { unreachable!("checked") };
        let (_, shared) = workspace.split();
        let (ends, sorted) = shared.view_mut::<u32>().split_at_mut(self.rows + 1);
        let sorted = &mut sorted[..self.count];
        // SAFETY: lengths are checked and nothing writes ids or values while this runs.
        let (ids, values) =
            unsafe { (ids.read::<i32>(0, self.count), values.read::<f32>(0, self.count * self.width)) };
        let row_of = |id: i32| usize::try_from(id).ok().filter(|&r| r < self.rows);
        ends.fill(0);
        let mut all_inside = true;
        for &id in ids {
            match row_of(id) {
                Some(row) => ends[row + 1] += 1,
                None => all_inside = false,
            }
        }
        for row in 0..self.rows {
            ends[row + 1] += ends[row];
        }
        // ends[row] is where the row's list begins, and moves to its end as positions are entered.
        for (position, &id) in ids.iter().enumerate() {
            if let Some(row) = row_of(id) {
                sorted[ends[row] as usize] = position as u32;
                ends[row] += 1;
            }
        }
        let work = (self.count / self.rows.div_ceil(ROWS) + ROWS) * self.width;
        parallel(self.rows.div_ceil(ROWS), work, |task| {
            for row in task * ROWS..self.rows.min((task + 1) * ROWS) {
                let begin = if row == 0 { 0 } else { ends[row - 1] as usize };
                // SAFETY: the row is inside, and this task's own.
                let out = unsafe { out.write::<f32>(row * self.width, self.width) };
                out.fill(0.0);
                for &position in &sorted[begin..ends[row] as usize] {
                    let value = &values[position as usize * self.width..][..self.width];
                    out.iter_mut().zip(value).for_each(|(o, v)| *o += v);
                }
            }
        });
        all_inside
    }
}

impl CpuKernel for Scatter {
    fn written(&self) -> Positions {
        Positions::from_slice(&[2])
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        check_computed_types(&[DType::I32, DType::F32, DType::F32], args)?;
        if self.rows == 0 || self.width == 0 {
            return Err(Problem::Shape("the result is empty"));
        }
        if self.count > i32::MAX as usize {
            return Err(Problem::Shape("more than 2^31 ids"));
        }
        check_lengths(&[self.count, self.count * self.width, self.rows * self.width], args)?;
        check_apart(args, 2)
    }

    fn reserve(&self, _: &[(DType, usize)], _: Option<Amx>, machine: &mut Machine) {
        machine.workspace.reserve(self.workspace());
    }

    fn run(&self, args: &[Arg], _: Option<Amx>, machine: &mut Machine, outside: &AtomicBool) {
        if !self.sum(args, &mut machine.workspace) {
            outside.store(true, Ordering::Relaxed);
        }
    }
}

/// The same elements in another place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Copy {
    pub(crate) len: usize,
}

impl CpuKernel for Copy {
    fn written(&self) -> Positions {
        Positions::from_slice(&[1])
    }

    fn takes_storage(&self) -> bool {
        true
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        let dtype = args.first().map_or(DType::F32, Arg::dtype);
        check_types(&[dtype; 2], args)?;
        if args.iter().any(|a| a.len() < self.len) {
            return Err(Problem::Shape("an argument is shorter than the copy"));
        }
        check_apart(args, 1)
    }

    fn reserve(&self, _: &[(DType, usize)], _: Option<Amx>, _: &mut Machine) {}

    fn run(&self, args: &[Arg], _: Option<Amx>, _: &mut Machine, _: &AtomicBool) {
        const PIECE: usize = 1 << 16;
        let &[from, to] = args else { unreachable!("checked") };
        let size = from.dtype().size();
        let (from, to) = (from.as_bytes(), to.as_bytes());
        let bytes = self.len * size;
        parallel(bytes.div_ceil(PIECE), PIECE, |task| {
            let (start, n) = (task * PIECE, PIECE.min(bytes - task * PIECE));
            // SAFETY: in bounds; the arguments do not overlap and each task has its own piece.
            unsafe { to.write::<u8>(start, n).copy_from_slice(from.read::<u8>(start, n)) };
        });
    }
}

/// Checks the exact lengths of arguments.
pub(crate) fn check_lengths(want: &[usize], args: &[Arg]) -> Result<(), Problem> {
    let wrong = want.iter().zip(args).enumerate().find(|(_, (want, arg))| **want != arg.len());
    match wrong {
        Some((arg, (&want, have))) => Err(Problem::ArgLength { arg, want, have: have.len() }),
        None => Ok(()),
    }
}

/// Checks that the arguments from `outputs` on overlap with no other.
pub(crate) fn check_apart(args: &[Arg], outputs: usize) -> Result<(), Problem> {
    for written in outputs..args.len() {
        for read in (0..args.len()).filter(|&r| r < outputs || r > written) {
            let (w, r) = (args[written].addresses(), args[read].addresses());
            if w.start < r.end && r.start < w.end {
                return Err(Problem::Hazard { written, read });
            }
        }
    }
    Ok(())
}
