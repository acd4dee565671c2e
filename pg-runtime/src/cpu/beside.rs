//! Products that share an operand, one after the other.
//!
//! Targets with matrix units run them side by side. No plan for the CPU asks for this: it is here so that the CPU
//! can run their plans and say what they must compute. No product may write what another one reads.

use std::sync::atomic::AtomicBool;

use pg_codegen::plan::Matmuls;
use pg_ir::ty::DType;
use smallvec::SmallVec;

use super::error::Problem;
use super::kernel::{Compiled, Machine};
use super::raw::Arg;

/// A product's own arguments; those that are missing are missed by the checks.
type Own<T> = SmallVec<[T; 3]>;

/// Products of one operand.
#[derive(Debug)]
pub(crate) struct Beside {
    shape: Matmuls,
    products: Vec<Compiled>,
}

impl Beside {
    pub(crate) fn new(shape: &Matmuls) -> Self {
        let products = shape.members.iter().map(|m| Compiled::Matmul(m.clone())).collect();
        Beside { shape: shape.clone(), products }
    }

    /// Each product with its arguments.
    fn each<'a, T: Copy>(&'a self, args: &'a [T]) -> impl Iterator<Item = (&'a Compiled, Own<T>)> {
        let own = |i: usize| self.shape.args(i).into_iter().filter_map(|at| args.get(at).copied()).collect();
        self.products.iter().enumerate().map(move |(i, product)| (product, own(i)))
    }

    /// The arguments that it writes.
    pub(crate) fn written(&self) -> Vec<usize> {
        (0..self.products.len()).map(|i| self.shape.args(i)[2]).collect()
    }

    pub(crate) fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        let want = 1 + 2 * self.products.len();
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

    pub(crate) fn reserve(&self, args: &[(DType, usize)], machine: &mut Machine) {
        self.each(args).for_each(|(product, own)| product.reserve(&own, machine));
    }

    /// Runs on checked arguments.
    pub(crate) fn run(&self, args: &[Arg], machine: &mut Machine, outside: &AtomicBool) {
        self.each(args).for_each(|(product, own)| product.run(&own, machine, outside));
    }
}
