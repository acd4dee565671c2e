//! What plans run with on the CPU, beside their own memory.

use super::aligned::Aligned;
use super::amx::Amx;
use super::region;
use super::simd::Isa;
use super::workspace::Workspace;

/// Memory that one launch at a time has, as large as the greediest asked for.
#[derive(Default, Debug)]
pub(crate) struct Loan {
    words: usize,
    memory: Aligned,
}

impl Loan {
    /// Makes room for so many words.
    pub(crate) fn reserve(&mut self, words: usize) {
        self.words = self.words.max(words);
    }

    /// The memory, until it is [given back](Self::give_back).
    pub(crate) fn take(&mut self) -> Aligned {
        std::mem::take(&mut self.memory)
    }

    /// Takes the memory of [`Self::take`] back.
    pub(crate) fn give_back(&mut self, memory: Aligned) {
        self.memory = memory;
    }

    fn allocate(&mut self) -> Result<(), usize> {
        if self.memory.len() < self.words {
            self.memory = zeroed(self.words)?;
        }
        Ok(())
    }
}

fn zeroed(words: usize) -> Result<Aligned, usize> {
    Aligned::try_zeroed(words).map_err(|_| words.saturating_mul(4))
}

/// What plans run with: the instruction set, AMX, an arena for the temporaries of the greediest plan, and
/// scratch memory for the greediest kernel. Programs that run one after the other share one.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) isa: Isa,
    pub(super) amx: Option<Amx>,
    arena_bytes: usize,
    arena: Aligned,
    /// float32 copies of bfloat16 arguments.
    pub(super) widened: Loan,
    /// A product's result for the region on it.
    pub(super) result: Loan,
    pub(super) scratch: region::Scratch,
    pub(super) workspace: Workspace,
}

impl Default for Machine {
    fn default() -> Self {
        Machine {
            isa: Isa::detect(),
            amx: Amx::detect(),
            arena_bytes: 0,
            arena: Aligned::default(),
            widened: Loan::default(),
            result: Loan::default(),
            scratch: region::Scratch::default(),
            workspace: Workspace::default(),
        }
    }
}

impl Machine {
    /// Makes room for a plan's temporaries.
    pub(crate) fn reserve_arena(&mut self, bytes: usize) {
        self.arena_bytes = self.arena_bytes.max(bytes);
    }

    /// Allocates what was reserved, for so many threads, if it is not there already. What the arena held
    /// is lost: nothing in it outlives a run.
    ///
    /// # Errors
    /// The bytes that the system would not give.
    pub(crate) fn allocate(&mut self, threads: usize) -> Result<(), usize> {
        if 4 * self.arena.len() < self.arena_bytes {
            // The old one goes first, so that there are never two.
            self.arena = Aligned::default();
            self.arena = zeroed(self.arena_bytes.div_ceil(4))?;
        }
        self.widened.allocate()?;
        self.result.allocate()?;
        self.scratch.allocate(threads);
        self.workspace.allocate(threads)
    }

    /// The first byte of the arena.
    pub(crate) fn arena(&mut self) -> *mut u8 {
        self.arena.as_mut_ptr().cast()
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.arena.len() + self.widened.memory.len() + self.result.memory.len())
            + self.scratch.bytes()
            + self.workspace.bytes()
    }
}
