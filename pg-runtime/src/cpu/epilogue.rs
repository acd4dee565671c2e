//! A product and the region on its result, one after the other, with the result in memory of the machine's own.
//!
//! Targets with epilogues keep the result in registers. No plan for the CPU asks for this: it is here so that
//! the CPU can run their plans and say what they must compute. It never writes the result to an argument.

use std::sync::atomic::AtomicBool;

use pg_codegen::plan::Matmul;
use pg_codegen::region::Region;
use pg_ir::ty::DType;
use smallvec::SmallVec;

use super::error::Problem;
use super::kernel::{Compiled, Machine};
use super::raw::Arg;
use super::region;

/// As many arguments as a region has.
type List<T> = SmallVec<[T; 32]>;

/// A product, then a region whose argument 0 is its result.
#[derive(Debug)]
pub(crate) struct Epilogue {
    product: Compiled,
    region: Compiled,
    result: (DType, usize),
}

impl Epilogue {
    pub(crate) fn new(matmul: &Matmul, region: &Region) -> Result<Self, Problem> {
        let len = matmul.batch * matmul.m * matmul.n;
        if region.row_count() * region.lanes != len {
            return Err(Problem::Shape("the region on a product's result is of another size"));
        }
        let dtype =
            *region.args.first().ok_or(Problem::Shape("a region on a product's result reads none"))?;
        let region = Compiled::Region(Box::new(region::Program::new(region)?));
        Ok(Epilogue { product: Compiled::Matmul(matmul.densely()), region, result: (dtype, len) })
    }

    /// Words of memory for the result.
    fn words(&self) -> usize {
        (self.result.0.size() * self.result.1).div_ceil(4)
    }

    /// The arguments of both, given what stands for the result; those that are missing are missed by the checks.
    fn args<T: Copy>(args: &[T], result: T) -> (List<T>, List<T>) {
        let (operands, rest) = args.split_at(args.len().min(2));
        let own = |first: &[T], second: &[T]| first.iter().chain(second).copied().collect();
        (own(operands, &[result]), own(&[result], rest))
    }

    /// How both run on arguments of these types.
    pub(crate) fn way(&self, dtypes: &[DType]) -> String {
        let (product, region) = Self::args(dtypes, self.result.0);
        format!("{}; then {}", self.product.in_words(&product), self.region.in_words(&region))
    }

    /// The arguments that it writes.
    pub(crate) fn written(&self) -> Vec<usize> {
        self.region.written().into_iter().map(|arg| arg + 1).collect()
    }

    pub(crate) fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        // The result is apart from every argument, wherever it will be.
        let result = Arg::new(std::ptr::dangling_mut(), self.result.1, self.result.0);
        let (product, region) = Self::args(args, result);
        self.product.check(&product)?;
        self.region.check(&region)
    }

    pub(crate) fn reserve(&self, args: &[(DType, usize)], machine: &mut Machine) {
        let (product, region) = Self::args(args, self.result);
        self.product.reserve(&product, machine);
        self.region.reserve(&region, machine);
        machine.reserve_result(self.words());
    }

    /// Runs on checked arguments. Sets `outside` if an id was outside its table.
    pub(crate) fn run(&self, args: &[Arg], machine: &mut Machine, outside: &AtomicBool) {
        let mut memory = machine.take_result();
        let result = Arg::new(memory.as_mut_ptr().cast(), self.result.1, self.result.0);
        let (product, region) = Self::args(args, result);
        self.product.run(&product, machine, outside);
        self.region.run(&region, machine, outside);
        machine.give_back(memory);
    }
}
