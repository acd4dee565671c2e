//! The kernel families: one place where a plan's kernels become something to run.

use std::sync::atomic::{AtomicBool, Ordering};

use pg_codegen::plan::{AttentionShape, Kernel, Matmul};

use super::aligned::Aligned;
use super::amx::Amx;
use super::error::Problem;
use super::raw::Arg;
use super::scatter::Scatter;
use super::simd::Isa;
use super::workspace::Workspace;
use super::{attention, matmul, region, scatter};

/// A kernel ready to run.
#[derive(Debug)]
pub(crate) enum Compiled {
    Region(Box<region::Program>),
    Matmul(Matmul),
    Attention(AttentionShape),
    AttentionGrad(AttentionShape),
    Scatter(Scatter),
    Copy(usize),
}

/// What plans run with: the instruction set, the matrix units, an arena for the temporaries of the greediest plan, and
/// scratch memory for the greediest kernel. Programs that run one after the other share one.
#[derive(Debug)]
pub(crate) struct Machine {
    isa: Isa,
    amx: Option<Amx>,
    arena_bytes: usize,
    arena: Aligned,
    scratch: region::Scratch,
    workspace: Workspace,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Machine {
            isa: Isa::detect(),
            amx: Amx::detect(),
            arena_bytes: 0,
            arena: Aligned::default(),
            scratch: region::Scratch::default(),
            workspace: Workspace::default(),
        }
    }

    /// Makes room for a plan's temporaries.
    pub(crate) fn reserve_arena(&mut self, bytes: usize) {
        self.arena_bytes = self.arena_bytes.max(bytes);
    }

    /// Allocates what was reserved, for so many threads, if it is not there already. What the arena held
    /// is lost: nothing in it outlives a run.
    pub(crate) fn allocate(&mut self, threads: usize) {
        if 4 * self.arena.len() < self.arena_bytes {
            // The old one goes first, so that there are never two.
            self.arena = Aligned::default();
            self.arena = Aligned::zeroed(self.arena_bytes.div_ceil(4));
        }
        self.scratch.allocate(threads);
        self.workspace.allocate(threads);
    }

    /// The first byte of the arena.
    pub(crate) fn arena(&mut self) -> *mut u8 {
        self.arena.as_mut_ptr().cast()
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.arena.len() + self.scratch.bytes() + self.workspace.bytes()
    }
}

impl Compiled {
    pub(crate) fn new(kernel: &Kernel) -> Result<Self, Problem> {
        Ok(match *kernel {
            Kernel::Region(ref region) => Compiled::Region(Box::new(region::Program::new(region)?)),
            Kernel::Matmul(ref matmul) => Compiled::Matmul(matmul.clone()),
            Kernel::Attention(shape) => Compiled::Attention(shape),
            Kernel::AttentionGrad(shape) => Compiled::AttentionGrad(shape),
            Kernel::ScatterAdd { rows, width, count } => Compiled::Scatter(Scatter { rows, width, count }),
            Kernel::Copy { len } => Compiled::Copy(len),
        })
    }

    /// The arguments that it writes.
    pub(crate) fn written(&self) -> Vec<usize> {
        match self {
            Compiled::Region(program) => program.written().collect(),
            Compiled::Matmul(_) | Compiled::Scatter(_) => vec![2],
            Compiled::Attention(_) => vec![3, 4],
            Compiled::AttentionGrad(_) => vec![6, 7, 8],
            Compiled::Copy(_) => vec![1],
        }
    }

    /// Checks the arguments of a launch: number, types, extents, and that nothing is written which
    /// another task touches. Everything that the unchecked accesses of `run` rely on.
    pub(crate) fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        match self {
            Compiled::Region(program) => program.check(args),
            Compiled::Matmul(matmul) => matmul::check(matmul, args),
            Compiled::Attention(shape) => attention::check(shape, args),
            Compiled::AttentionGrad(shape) => attention::check_grad(shape, args),
            Compiled::Scatter(scatter) => scatter.check(args),
            Compiled::Copy(len) => scatter::check_copy(*len, args),
        }
    }

    /// Asks for the scratch memory that it needs.
    pub(crate) fn reserve(&self, machine: &mut Machine) {
        match self {
            Compiled::Region(program) => machine.scratch.reserve(program.scratch()),
            Compiled::Attention(shape) => machine.workspace.reserve(attention::workspace(*shape)),
            Compiled::AttentionGrad(shape) => machine.workspace.reserve(attention::grad_workspace(*shape)),
            Compiled::Scatter(scatter) => machine.workspace.reserve(scatter.workspace()),
            Compiled::Matmul(mm) => machine.workspace.reserve(matmul::workspace(mm, machine.amx)),
            Compiled::Copy(_) => {}
        }
    }

    /// Runs on checked arguments. Sets `outside` if an id was outside its table.
    pub(crate) fn run(&self, args: &[Arg], machine: &mut Machine, outside: &AtomicBool) {
        let Machine { isa, amx, scratch, workspace, .. } = machine;
        match self {
            Compiled::Region(program) => region::run(program, args, scratch, *isa, outside),
            Compiled::Matmul(matmul) => matmul::run(matmul, args, workspace, *amx),
            Compiled::Attention(shape) => attention::run(*shape, args, workspace, *isa),
            Compiled::AttentionGrad(shape) => attention::run_grad(*shape, args, workspace, *isa),
            Compiled::Scatter(scatter) => {
                if !scatter.run(args, workspace) {
                    outside.store(true, Ordering::Relaxed);
                }
            }
            Compiled::Copy(len) => scatter::copy(*len, args),
        }
    }
}
