//! Scratch memory of kernels other than regions: one piece for each thread, and one for partial results.

use std::sync::Mutex;

use super::aligned::Aligned;
use super::parallel::thread_index;

/// Elements that a kernel needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct WorkspaceSize {
    /// For each thread.
    pub(crate) thread: usize,
    /// For all tasks together.
    pub(crate) shared: usize,
}

/// Scratch memory, grown to the greatest need of any kernel and kept.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    size: WorkspaceSize,
    /// Elements of each thread's piece.
    allocated: usize,
    threads: Vec<Mutex<Aligned>>,
    shared: Aligned,
}

impl Workspace {
    /// Makes room for a kernel.
    pub(crate) fn reserve(&mut self, size: WorkspaceSize) {
        self.size.thread = self.size.thread.max(size.thread);
        self.size.shared = self.size.shared.max(size.shared);
    }

    /// Allocates what was reserved, for so many threads. Does nothing when it is there already.
    ///
    /// # Errors
    /// The bytes that the system would not give.
    pub(crate) fn allocate(&mut self, threads: usize) -> Result<(), usize> {
        let zeroed = |len: usize| Aligned::try_zeroed(len).map_err(|_| len.saturating_mul(4));
        if self.allocated != self.size.thread {
            self.threads.clear();
            self.allocated = self.size.thread;
        }
        while self.threads.len() < threads {
            self.threads.push(Mutex::new(zeroed(self.size.thread)?));
        }
        if self.shared.len() < self.size.shared {
            self.shared = zeroed(self.size.shared)?;
        }
        Ok(())
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.threads.len() * self.size.thread + self.shared.len())
    }

    /// The threads' pieces and the shared one.
    pub(crate) fn split(&mut self) -> (ThreadMemory<'_>, &mut Aligned) {
        (ThreadMemory(&self.threads), &mut self.shared)
    }
}

/// The threads' pieces of a [`Workspace`].
#[derive(Clone, Copy)]
pub(crate) struct ThreadMemory<'a>(&'a [Mutex<Aligned>]);

impl ThreadMemory<'_> {
    /// Runs `f` with the piece of the current thread. `f` must not wait for other tasks.
    pub(crate) fn with(self, f: impl FnOnce(&mut [f32])) {
        let mut memory = self.0[thread_index()].lock().unwrap_or_else(|e| e.into_inner());
        f(memory.view_mut());
    }
}
