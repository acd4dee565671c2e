//! The kernel families: what each implements, and where a plan's kernels become something to run.

use std::fmt;
use std::sync::atomic::AtomicBool;

use pg_codegen::plan::{Kernel, Member};
use pg_ir::ty::DType;
use smallvec::SmallVec;

use super::amx::Amx;
use super::attention_kernel::Attention;
use super::contraction::{Epilogue, Shared};
use super::error::Problem;
use super::machine::Machine;
use super::matmul::Segments;
use super::narrow;
use super::raw::Arg;
use super::region::CompiledRegion;
use super::scatter::{Copy, Scatter};

/// Types of a launch's arguments; as many as a region has fit without an allocation.
type Types = SmallVec<[DType; 32]>;

/// Positions of arguments.
pub(crate) type Positions = SmallVec<[usize; 4]>;

/// A kernel of one family, ready to run. Types of arguments are as the kernel sees them: as stored, or float32 copies.
pub(crate) trait CpuKernel: fmt::Debug + Send + Sync {
    /// The arguments that it writes.
    fn written(&self) -> Positions;

    /// Whether it takes bfloat16 arguments as they are stored. Another gets float32 copies, unless it runs on AMX.
    fn takes_storage(&self) -> bool {
        false
    }

    /// Whether AMX suits it on arguments of these types.
    fn suits_amx(&self, _dtypes: &[DType]) -> bool {
        false
    }

    /// How it runs on arguments of these types, as far as sizes decide it, beside AMX and copies.
    fn in_words(&self, _dtypes: &[DType], _amx: Option<Amx>) -> String {
        String::new()
    }

    /// Checks the arguments of a launch: number, types, extents, and that nothing is written which another task touches.
    /// Everything that the unchecked accesses of [`Self::run`] rely on.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self, args: &[Arg]) -> Result<(), Problem>;

    /// Asks for the scratch memory that it needs on arguments of these types and lengths.
    fn reserve(&self, args: &[(DType, usize)], amx: Option<Amx>, machine: &mut Machine);

    /// Runs on checked arguments, on AMX if it is given. Sets `outside` if an id was outside its table.
    fn run(&self, args: &[Arg], amx: Option<Amx>, machine: &mut Machine, outside: &AtomicBool);
}

/// How a kernel runs on its arguments.
struct Way {
    /// Types of the arguments as the kernel sees them.
    dtypes: Types,
    /// Whether bfloat16 arguments are float32 copies.
    widened: bool,
    /// AMX, if it runs on it.
    amx: Option<Amx>,
}

/// A kernel of any family.
#[derive(Debug)]
pub(crate) struct Compiled(Box<dyn CpuKernel>);

impl Compiled {
    pub(crate) fn new(kernel: &Kernel) -> Result<Self, Problem> {
        Ok(match *kernel {
            Kernel::Region(ref region) => Compiled::of(CompiledRegion::new(region)?),
            Kernel::Contraction(ref contraction) => match contraction.single() {
                Some(member) => Compiled::product(member)?,
                None => Compiled::of(Shared::new(contraction)?),
            },
            Kernel::Attention(shape) => Compiled::of(Attention { shape, is_gradient: false }),
            Kernel::AttentionGrad(shape) => Compiled::of(Attention { shape, is_gradient: true }),
            Kernel::ScatterAdd { rows, width, count } => Compiled::of(Scatter { rows, width, count }),
            Kernel::Copy { len } => Compiled::of(Copy { len }),
        })
    }

    pub(crate) fn of(kernel: impl CpuKernel + 'static) -> Self {
        Compiled(Box::new(kernel))
    }

    /// A product of a contraction, with its own arguments.
    pub(crate) fn product(member: &Member) -> Result<Self, Problem> {
        Ok(match &member.epilogue {
            Some(region) => Compiled::of(Epilogue::new(member, region)?),
            None if member.segments.is_empty() => Compiled::of(member.matmul.clone()),
            None => Compiled::of(Segments::new(member.products().collect())),
        })
    }

    /// The arguments that it writes.
    pub(crate) fn written(&self) -> Positions {
        self.0.written()
    }

    /// How it runs on arguments of these types.
    fn way(&self, dtypes: impl Iterator<Item = DType>, amx: Option<Amx>) -> Way {
        let mut dtypes: Types = dtypes.collect();
        let on_amx = |dtypes: &[DType]| amx.filter(|_| self.0.suits_amx(dtypes));
        let found = on_amx(&dtypes);
        let widened = !self.0.takes_storage() && found.is_none() && dtypes.contains(&DType::BF16);
        if !widened {
            return Way { dtypes, widened, amx: found };
        }
        dtypes.iter_mut().filter(|d| **d == DType::BF16).for_each(|d| *d = DType::F32);
        let amx = on_amx(&dtypes);
        Way { dtypes, widened, amx }
    }

    /// How it runs on arguments of these types, as far as sizes decide it.
    pub(crate) fn in_words(&self, dtypes: &[DType]) -> String {
        let Way { dtypes, widened, amx } = self.way(dtypes.iter().copied(), Amx::detect());
        format!("AMX: {}, widened: {widened}; {}", amx.is_some(), self.0.in_words(&dtypes, amx))
    }

    /// [`CpuKernel::check`].
    pub(crate) fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        self.0.check(args)
    }

    /// Asks for the scratch memory that it needs on arguments of these types and lengths.
    pub(crate) fn reserve(&self, args: &[(DType, usize)], machine: &mut Machine) {
        let Way { dtypes, widened, amx } = self.way(args.iter().map(|a| a.0), machine.amx);
        if widened {
            machine.widened.reserve(narrow::elements(args.iter().copied()));
        }
        let seen: Vec<(DType, usize)> = dtypes.into_iter().zip(args).map(|(d, a)| (d, a.1)).collect();
        self.0.reserve(&seen, amx, machine);
    }

    /// Runs on checked arguments. Sets `outside` if an id was outside its table.
    pub(crate) fn run(&self, args: &[Arg], machine: &mut Machine, outside: &AtomicBool) {
        let Way { widened, amx, .. } = self.way(args.iter().map(Arg::dtype), machine.amx);
        if !widened {
            return self.0.run(args, amx, machine, outside);
        }
        let mut memory = machine.widened.take();
        narrow::widened(args, &self.0.written(), &mut memory, |args| self.0.run(args, amx, machine, outside));
        machine.widened.give_back(memory);
    }
}
