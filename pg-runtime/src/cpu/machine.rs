//! What plans run with on the CPU, beside their own memory.

use super::aligned::Aligned;
use super::amx::Amx;
use super::region;
use super::simd::Isa;
use super::workspace::Workspace;

/// What plans run with: the instruction set, AMX, an arena for the temporaries of the greediest plan, and
/// scratch memory for the greediest kernel. Programs that run one after the other share one.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) isa: Isa,
    pub(super) amx: Option<Amx>,
    arena_bytes: usize,
    arena: Aligned,
    widened_len: usize,
    /// float32 copies of bfloat16 arguments.
    widened: Aligned,
    result_len: usize,
    /// A product's result for the region on it.
    result: Aligned,
    pub(super) scratch: region::Scratch,
    pub(super) workspace: Workspace,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Machine {
            isa: Isa::detect(),
            amx: Amx::detect(),
            arena_bytes: 0,
            arena: Aligned::default(),
            widened_len: 0,
            widened: Aligned::default(),
            result_len: 0,
            result: Aligned::default(),
            scratch: region::Scratch::default(),
            workspace: Workspace::default(),
        }
    }

    /// Makes room for a plan's temporaries.
    pub(crate) fn reserve_arena(&mut self, bytes: usize) {
        self.arena_bytes = self.arena_bytes.max(bytes);
    }

    /// Makes room for float32 copies of so many words.
    pub(crate) fn reserve_widened(&mut self, words: usize) {
        self.widened_len = self.widened_len.max(words);
    }

    /// The memory for such copies, until it is [given back](Self::give_widened_back).
    pub(crate) fn take_widened(&mut self) -> Aligned {
        std::mem::take(&mut self.widened)
    }

    /// Takes the memory of [`Self::take_widened`] back.
    pub(crate) fn give_widened_back(&mut self, widened: Aligned) {
        self.widened = widened;
    }

    /// Makes room for so many words of a product's result.
    pub(crate) fn reserve_result(&mut self, words: usize) {
        self.result_len = self.result_len.max(words);
    }

    /// The memory for a product's result, until it is [given back](Self::give_back).
    pub(crate) fn take_result(&mut self) -> Aligned {
        std::mem::take(&mut self.result)
    }

    /// Takes the memory of [`Self::take_result`] back.
    pub(crate) fn give_back(&mut self, result: Aligned) {
        self.result = result;
    }

    /// Allocates what was reserved, for so many threads, if it is not there already. What the arena held
    /// is lost: nothing in it outlives a run.
    ///
    /// # Errors
    /// The bytes that the system would not give.
    pub(crate) fn allocate(&mut self, threads: usize) -> Result<(), usize> {
        let zeroed = |len: usize| Aligned::try_zeroed(len).map_err(|_| len.saturating_mul(4));
        if 4 * self.arena.len() < self.arena_bytes {
            // The old one goes first, so that there are never two.
            self.arena = Aligned::default();
            self.arena = zeroed(self.arena_bytes.div_ceil(4))?;
        }
        if self.widened.len() < self.widened_len {
            self.widened = zeroed(self.widened_len)?;
        }
        if self.result.len() < self.result_len {
            self.result = zeroed(self.result_len)?;
        }
        self.scratch.allocate(threads);
        self.workspace.allocate(threads)
    }

    /// The first byte of the arena.
    pub(crate) fn arena(&mut self) -> *mut u8 {
        self.arena.as_mut_ptr().cast()
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        4 * (self.arena.len() + self.widened.len() + self.result.len())
            + self.scratch.bytes()
            + self.workspace.bytes()
    }
}
