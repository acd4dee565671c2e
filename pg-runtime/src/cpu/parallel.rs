//! Tasks on all cores.

use rayon::prelude::*;

/// Work, in elementary operations, below which handing a task to another thread does not pay.
const GRAIN: usize = 32 * 1024;

/// Runs `f` for every task, on the threads of the current rayon pool. `work` is about what one task
/// costs; small tasks are handed out in groups. What a task computes must not depend on which thread
/// runs it or on how tasks are grouped.
pub(crate) fn parallel(tasks: usize, work: usize, f: impl Fn(usize) + Sync) {
    let group = (GRAIN / work.max(1)).max(1);
    if tasks <= group {
        (0..tasks).for_each(f);
    } else {
        (0..tasks).into_par_iter().with_min_len(group).for_each(&f);
    }
}

/// Number of the current thread in its pool.
pub(crate) fn thread_index() -> usize {
    rayon::current_thread_index().unwrap_or(0)
}
