//! The kernel families: one place where a plan's kernels become something to run.

use std::sync::atomic::{AtomicBool, Ordering};

use pg_codegen::plan::{AttentionShape, Kernel, Matmul, Member};
use pg_ir::ty::DType;
use smallvec::{SmallVec, smallvec};

use super::aligned::Aligned;
use super::amx::{self, Amx};
use super::contraction::{Epilogue, Shared};
use super::error::Problem;
use super::raw::Arg;
use super::scatter::Scatter;
use super::simd::Isa;
use super::workspace::Workspace;
use super::{attention, matmul, narrow, region, scatter};

/// Types of a launch's arguments; as many as a region has fit without an allocation.
type Types = SmallVec<[DType; 32]>;

/// How a kernel runs on its arguments.
struct Way {
    /// Types of the arguments as the kernel sees them.
    dtypes: Types,
    /// Whether bfloat16 arguments are float32 copies.
    widened: bool,
    /// AMX, if it runs on them.
    units: Option<Amx>,
}

/// A kernel ready to run.
#[derive(Debug)]
pub(crate) enum Compiled {
    Region(Box<region::CompiledRegion>),
    Matmul(Matmul),
    /// Products that are added, one for each segment of k.
    Segments(Vec<Matmul>),
    Epilogue(Box<Epilogue>),
    Shared(Box<Shared>),
    Attention(AttentionShape),
    AttentionGrad(AttentionShape),
    Scatter(Scatter),
    Copy(usize),
}

/// What plans run with: the instruction set, AMX, an arena for the temporaries of the greediest plan, and
/// scratch memory for the greediest kernel. Programs that run one after the other share one.
#[derive(Debug)]
pub(crate) struct Machine {
    isa: Isa,
    amx: Option<Amx>,
    arena_bytes: usize,
    arena: Aligned,
    widened_len: usize,
    /// float32 copies of bfloat16 arguments.
    widened: Aligned,
    result_len: usize,
    /// A product's result for the region on it.
    result: Aligned,
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

impl Compiled {
    pub(crate) fn new(kernel: &Kernel) -> Result<Self, Problem> {
        Ok(match *kernel {
            Kernel::Region(ref region) => Compiled::Region(Box::new(region::CompiledRegion::new(region)?)),
            Kernel::Contraction(ref contraction) => match contraction.single() {
                Some(member) => Compiled::product(member)?,
                None => Compiled::Shared(Box::new(Shared::new(contraction)?)),
            },
            Kernel::Attention(shape) => Compiled::Attention(shape),
            Kernel::AttentionGrad(shape) => Compiled::AttentionGrad(shape),
            Kernel::ScatterAdd { rows, width, count } => Compiled::Scatter(Scatter { rows, width, count }),
            Kernel::Copy { len } => Compiled::Copy(len),
        })
    }

    /// A product of a contraction, with its own arguments.
    pub(crate) fn product(member: &Member) -> Result<Self, Problem> {
        Ok(match &member.epilogue {
            Some(region) => Compiled::Epilogue(Box::new(Epilogue::new(member, region)?)),
            None if member.segments.is_empty() => Compiled::Matmul(member.matmul.clone()),
            None => Compiled::Segments(member.products().collect()),
        })
    }

    /// The arguments that it writes.
    pub(crate) fn written(&self) -> Vec<usize> {
        match self {
            Compiled::Region(program) => program.written().collect(),
            Compiled::Epilogue(both) => both.written(),
            Compiled::Shared(all) => all.written(),
            _ => self.written_by_family().to_vec(),
        }
    }

    /// The arguments that it writes because of its family: none where its description says it.
    fn written_by_family(&self) -> SmallVec<[usize; 3]> {
        match self {
            Compiled::Region(_) | Compiled::Epilogue(_) | Compiled::Shared(_) => smallvec![],
            Compiled::Matmul(_) | Compiled::Scatter(_) => smallvec![2],
            Compiled::Segments(products) => smallvec![2 * products.len()],
            Compiled::Attention(_) => smallvec![3, 4],
            Compiled::AttentionGrad(_) => smallvec![6, 7, 8],
            Compiled::Copy(_) => smallvec![1],
        }
    }

    /// Each product of a sum over segments with its arguments; all but the first add to the result.
    fn segments<T: Copy>(products: &[Matmul], args: &[T]) -> Vec<(Matmul, [T; 3])> {
        let [pairs @ .., c] = args else { return Vec::new() };
        let each = products.iter().zip(pairs.chunks_exact(2)).enumerate();
        each.map(|(i, (m, pair))| {
            (Matmul { accumulate: m.accumulate || i > 0, ..m.clone() }, [pair[0], pair[1], *c])
        })
        .collect()
    }

    /// AMX, if it runs on them with arguments of these types.
    fn on_units(&self, dtypes: &[DType], amx: Option<Amx>) -> Option<Amx> {
        let suits = match (self, dtypes) {
            (Compiled::Matmul(mm), &[a, b, c]) => {
                Amx::suits([mm.m, mm.n, mm.k], [a, b, c], [mm.c.row, mm.c.col])
            }
            (Compiled::Attention(shape) | Compiled::AttentionGrad(shape), _) => {
                Amx::suits_attention(*shape, dtypes)
            }
            _ => false,
        };
        amx.filter(|_| suits)
    }

    /// How it runs on arguments of these types.
    fn way(&self, dtypes: impl Iterator<Item = DType>, amx: Option<Amx>) -> Way {
        let mut dtypes: Types = dtypes.collect();
        let takes_storage = matches!(
            self,
            Compiled::Region(_) | Compiled::Copy(_) | Compiled::Epilogue(_) | Compiled::Shared(_)
        );
        let units = self.on_units(&dtypes, amx);
        let widened = !takes_storage && units.is_none() && dtypes.contains(&DType::BF16);
        if !widened {
            return Way { dtypes, widened, units };
        }
        dtypes.iter_mut().filter(|d| **d == DType::BF16).for_each(|d| *d = DType::F32);
        let units = self.on_units(&dtypes, amx);
        Way { dtypes, widened, units }
    }

    /// How it runs on arguments of these types, as far as sizes decide it.
    pub(crate) fn in_words(&self, dtypes: &[DType]) -> String {
        match self {
            Compiled::Region(program) => program.way(),
            Compiled::Epilogue(both) => both.way(dtypes),
            Compiled::Shared(all) => all.way(dtypes),
            _ => {
                let Way { widened, units, .. } = self.way(dtypes.iter().copied(), Amx::detect());
                let many = matches!(self, Compiled::Matmul(mm) if matmul::is_many(mm, units.is_some()));
                format!("units: {}, widened: {widened}, a product a thread: {many}", units.is_some())
            }
        }
    }

    /// Checks the arguments of a launch: number, types, extents, and that nothing is written which
    /// another task touches. Everything that the unchecked accesses of `run` rely on.
    pub(crate) fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        match self {
            Compiled::Region(program) => program.check(args),
            Compiled::Matmul(matmul) => matmul::check(matmul, args),
            Compiled::Segments(products) => {
                let (want, have) = (2 * products.len() + 1, args.len());
                if want != have {
                    return Err(Problem::ArgCount { want, have });
                }
                let mut each = Self::segments(products, args).into_iter();
                each.try_for_each(|(m, args)| matmul::check(&m, &args))
            }
            Compiled::Epilogue(both) => both.check(args),
            Compiled::Shared(all) => all.check(args),
            Compiled::Attention(shape) => attention::check(shape, args),
            Compiled::AttentionGrad(shape) => attention::check_grad(shape, args),
            Compiled::Scatter(scatter) => scatter.check(args),
            Compiled::Copy(len) => scatter::check_copy(*len, args),
        }
    }

    /// Asks for the scratch memory that it needs on arguments of these types and lengths.
    pub(crate) fn reserve(&self, args: &[(DType, usize)], machine: &mut Machine) {
        let Way { dtypes, widened, units } = self.way(args.iter().map(|a| a.0), machine.amx);
        if widened {
            machine.widened_len = machine.widened_len.max(narrow::elements(args.iter().copied()));
        }
        match self {
            Compiled::Region(program) => machine.scratch.reserve(program.scratch()),
            Compiled::Attention(shape) => machine.workspace.reserve(match units {
                Some(_) => amx::attention::workspace(*shape, dtypes[0]),
                None => attention::workspace(*shape),
            }),
            Compiled::AttentionGrad(shape) => machine.workspace.reserve(match units {
                Some(_) => amx::attention::grad_workspace(*shape, dtypes[0]),
                None => attention::grad_workspace(*shape),
            }),
            Compiled::Scatter(scatter) => machine.workspace.reserve(scatter.workspace()),
            Compiled::Matmul(mm) => {
                if let [a, b, c] = dtypes[..] {
                    machine.workspace.reserve(matmul::workspace(mm, [a, b, c], units));
                }
            }
            Compiled::Segments(products) => {
                for (m, dtypes) in Self::segments(products, &dtypes) {
                    machine.workspace.reserve(matmul::workspace(&m, dtypes, None));
                }
            }
            Compiled::Epilogue(both) => both.reserve(args, machine),
            Compiled::Shared(all) => all.reserve(args, machine),
            Compiled::Copy(_) => {}
        }
    }

    /// Runs on checked arguments. Sets `outside` if an id was outside its table.
    pub(crate) fn run(&self, args: &[Arg], machine: &mut Machine, outside: &AtomicBool) {
        let Way { widened, units, .. } = self.way(args.iter().map(Arg::dtype), machine.amx);
        if !widened {
            return self.run_with(units, args, machine, outside);
        }
        let mut memory = std::mem::take(&mut machine.widened);
        narrow::widened(args, &self.written_by_family(), &mut memory, |args| {
            self.run_with(units, args, machine, outside);
        });
        machine.widened = memory;
    }

    fn run_with(&self, units: Option<Amx>, args: &[Arg], machine: &mut Machine, outside: &AtomicBool) {
        let Machine { isa, scratch, workspace, .. } = machine;
        match self {
            Compiled::Region(program) => region::run(program, args, scratch, *isa, outside),
            Compiled::Matmul(matmul) => matmul::run(matmul, args, workspace, units),
            Compiled::Segments(products) => {
                for (m, args) in Self::segments(products, args) {
                    matmul::run(&m, &args, workspace, None);
                }
            }
            Compiled::Attention(shape) => match units {
                Some(amx) => amx::attention::run(amx, *shape, args, workspace, *isa),
                None => attention::run(*shape, args, workspace, *isa),
            },
            Compiled::AttentionGrad(shape) => match units {
                Some(amx) => amx::attention::run_grad(amx, *shape, args, workspace, *isa),
                None => attention::run_grad(*shape, args, workspace, *isa),
            },
            Compiled::Scatter(scatter) => {
                if !scatter.run(args, workspace) {
                    outside.store(true, Ordering::Relaxed);
                }
            }
            Compiled::Copy(len) => scatter::copy(*len, args),
            Compiled::Epilogue(both) => both.run(args, machine, outside),
            Compiled::Shared(all) => all.run(args, machine, outside),
        }
    }
}
