//! Contractions that are more than a product: products that share an operand, and products with an epilogue.
//!
//! Machines with tensor cores run the products of one launch together and keep results in registers. No plan for the CPU
//! asks for either: they are here so that the CPU can run such plans and say what they must compute. One product runs
//! after the other, and before its epilogue, with the result in memory of the executor's own. No product may write what
//! another one reads.

use std::sync::atomic::AtomicBool;

use pg_codegen::plan::result_regions::on_sum_of_parts;
use pg_codegen::plan::{Contraction, Member};
use pg_codegen::region::Region;
use pg_ir::ty::DType;
use smallvec::SmallVec;

use super::amx::Amx;
use super::error::Problem;
use super::kernel::{Compiled, CpuKernel, Positions};
use super::machine::Machine;
use super::matmul::Segments;
use super::raw::Arg;
use super::region::CompiledRegion;

/// A product's own arguments; those that are missing are missed by the checks.
type List<T> = SmallVec<[T; 32]>;

/// Products that share an operand.
#[derive(Debug)]
pub(crate) struct Shared {
    products: Vec<Compiled>,
    /// Positions of each one's arguments.
    positions: Vec<Vec<usize>>,
}

impl Shared {
    pub(crate) fn new(contraction: &Contraction) -> Result<Self, Problem> {
        let products = contraction.members.iter().map(Compiled::product).collect::<Result<Vec<_>, _>>()?;
        let positions = (0..products.len()).map(|i| contraction.args(i)).collect();
        Ok(Shared { products, positions })
    }

    /// Each product with its arguments.
    fn each<'a, T: Copy>(&'a self, args: &'a [T]) -> impl Iterator<Item = (&'a Compiled, List<T>)> {
        let own = |at: &Vec<usize>| at.iter().filter_map(|&at| args.get(at).copied()).collect();
        self.products.iter().zip(&self.positions).map(move |(product, at)| (product, own(at)))
    }
}

impl CpuKernel for Shared {
    fn takes_storage(&self) -> bool {
        true
    }

    fn in_words(&self, dtypes: &[DType], _: Option<Amx>) -> String {
        let words: Vec<String> = self.each(dtypes).map(|(product, own)| product.in_words(&own)).collect();
        words.join("; ")
    }

    fn written(&self) -> Positions {
        let of = |(product, at): (&Compiled, &Vec<usize>)| -> Positions {
            product.written().into_iter().map(|own| at[own]).collect()
        };
        self.products.iter().zip(&self.positions).flat_map(of).collect()
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        let want = 1 + self.positions.iter().map(|at| at.len() - 1).sum::<usize>();
        if args.len() != want {
            return Err(Problem::ArgCount { want, have: args.len() });
        }
        self.each(args).try_for_each(|(product, own)| product.check(&own))?;
        for written in self.written() {
            let of_another = |&(read, _): &(usize, &Arg)| read != written;
            for (read, arg) in args.iter().enumerate().filter(of_another) {
                let (w, r) = (args[written].addresses(), arg.addresses());
                if w.start < r.end && r.start < w.end {
                    return Err(Problem::Hazard { written, read });
                }
            }
        }
        Ok(())
    }

    fn reserve(&self, args: &[(DType, usize)], _: Option<Amx>, machine: &mut Machine) {
        self.each(args).for_each(|(product, own)| product.reserve(&own, machine));
    }

    fn run(&self, args: &[Arg], _: Option<Amx>, machine: &mut Machine, outside: &AtomicBool) {
        self.each(args).for_each(|(product, own)| product.run(&own, machine, outside));
    }
}

/// A product, then a region whose argument 0 is its result.
#[derive(Debug)]
pub(crate) struct Epilogue {
    product: Compiled,
    region: Compiled,
    /// Operands of the product: the first arguments.
    operands: usize,
    result: (DType, usize),
}

impl Epilogue {
    pub(crate) fn new(member: &Member, region: &Region) -> Result<Self, Problem> {
        let matmul = &member.matmul;
        let len = matmul.batch * matmul.m * matmul.n;
        if region.row_count() * region.columns != len {
            return Err(Problem::Shape("the region on a product's result is of another size"));
        }
        let dtype =
            *region.args.first().ok_or(Problem::Shape("a region on a product's result reads none"))?;
        let operands = member.operand_count();
        let compiled = |region: &Region| CompiledRegion::new(region).map(Compiled::of);
        if member.segments.is_empty() {
            let (product, region) = (Compiled::of(matmul.densely()), compiled(region)?);
            return Ok(Epilogue { product, region, operands, result: (dtype, len) });
        }
        // The sum over all segments is rounded once.
        let product = Compiled::of(Segments::new(member.products().map(|m| m.densely()).collect()));
        let region = compiled(&on_sum_of_parts(region, 1))?;
        Ok(Epilogue { product, region, operands, result: (DType::F32, len) })
    }

    /// Words of memory for the result.
    fn words(&self) -> usize {
        (self.result.0.size() * self.result.1).div_ceil(4)
    }

    /// The arguments of both, given what stands for the result; those that are missing are missed by the checks.
    fn args<T: Copy>(&self, args: &[T], result: T) -> (List<T>, List<T>) {
        let (operands, rest) = args.split_at(args.len().min(self.operands));
        let own = |first: &[T], second: &[T]| first.iter().chain(second).copied().collect();
        (own(operands, &[result]), own(&[result], rest))
    }
}

impl CpuKernel for Epilogue {
    fn takes_storage(&self) -> bool {
        true
    }

    fn in_words(&self, dtypes: &[DType], _: Option<Amx>) -> String {
        let (product, region) = self.args(dtypes, self.result.0);
        format!("{}; then {}", self.product.in_words(&product), self.region.in_words(&region))
    }

    fn written(&self) -> Positions {
        self.region.written().into_iter().map(|arg| arg + self.operands - 1).collect()
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        // The result is apart from every argument, wherever it will be.
        let result = Arg::new(std::ptr::dangling_mut(), self.result.1, self.result.0);
        let (product, region) = self.args(args, result);
        self.product.check(&product)?;
        self.region.check(&region)
    }

    fn reserve(&self, args: &[(DType, usize)], _: Option<Amx>, machine: &mut Machine) {
        let (product, region) = self.args(args, self.result);
        self.product.reserve(&product, machine);
        self.region.reserve(&region, machine);
        machine.result.reserve(self.words());
    }

    fn run(&self, args: &[Arg], _: Option<Amx>, machine: &mut Machine, outside: &AtomicBool) {
        let mut memory = machine.result.take();
        let result = Arg::new(memory.as_mut_ptr().cast(), self.result.1, self.result.0);
        let (product, region) = self.args(args, result);
        self.product.run(&product, machine, outside);
        self.region.run(&region, machine, outside);
        machine.result.give_back(memory);
    }
}
