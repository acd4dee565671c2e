//! The kernel families: one place where a plan's kernels become something to run.

use std::sync::atomic::{AtomicBool, Ordering};

use pg_codegen::plan::{AttentionShape, Kernel, Matmul};

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

/// What kernels run with: the instruction set, and scratch memory for the greediest of them.
#[derive(Debug)]
pub(crate) struct Machine {
    isa: Isa,
    scratch: region::Scratch,
    workspace: Workspace,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Machine { isa: Isa::detect(), scratch: region::Scratch::default(), workspace: Workspace::default() }
    }

    /// Allocates scratch memory for so many threads, if it is not there already.
    pub(crate) fn allocate(&mut self, threads: usize) {
        self.scratch.allocate(threads);
        self.workspace.allocate(threads);
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.scratch.bytes() + self.workspace.bytes()
    }
}

impl Compiled {
    pub(crate) fn new(kernel: &Kernel) -> Result<Self, Problem> {
        Ok(match *kernel {
            Kernel::Region(ref region) => Compiled::Region(Box::new(region::Program::new(region)?)),
            Kernel::Matmul(ref matmul) => Compiled::Matmul(matmul.clone()),
            Kernel::MatmulRegion(..) => {
                return Err(Problem::Shape("regions on a matmul's result are for targets with epilogues"));
            }
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
            Compiled::Matmul(_) | Compiled::Copy(_) => {}
        }
    }

    /// Runs on checked arguments. Sets `outside` if an id was outside its table.
    pub(crate) fn run(&self, args: &[Arg], machine: &mut Machine, outside: &AtomicBool) {
        let Machine { isa, scratch, workspace } = machine;
        match self {
            Compiled::Region(program) => region::run(program, args, scratch, *isa, outside),
            Compiled::Matmul(matmul) => matmul::run(matmul, args),
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
