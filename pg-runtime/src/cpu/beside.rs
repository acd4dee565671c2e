//! Products that share an operand, with the regions on their results, one after the other.
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
type Own<T> = SmallVec<[T; 32]>;

/// Products of one operand.
#[derive(Debug)]
pub(crate) struct Beside {
    products: Vec<Compiled>,
    /// Positions of each one's arguments.
    positions: Vec<Vec<usize>>,
}

impl Beside {
    pub(crate) fn new(all: &Matmuls) -> Result<Self, Problem> {
        if all.products().count() != all.members.len() {
            return Err(Problem::Shape("something beside products is no product"));
        }
        let products: Result<_, _> = all.members.iter().map(Compiled::new).collect();
        Ok(Beside { products: products?, positions: (0..all.members.len()).map(|i| all.args(i)).collect() })
    }

    /// Each product with its arguments.
    fn each<'a, T: Copy>(&'a self, args: &'a [T]) -> impl Iterator<Item = (&'a Compiled, Own<T>)> {
        let own = |at: &Vec<usize>| at.iter().filter_map(|&at| args.get(at).copied()).collect();
        self.products.iter().zip(&self.positions).map(move |(product, at)| (product, own(at)))
    }

    /// How each runs on arguments of these types.
    pub(crate) fn way(&self, dtypes: &[DType]) -> String {
        let words: Vec<String> = self.each(dtypes).map(|(product, own)| product.in_words(&own)).collect();
        words.join("; ")
    }

    /// The arguments that it writes.
    pub(crate) fn written(&self) -> Vec<usize> {
        let of = |(product, at): (&Compiled, &Vec<usize>)| -> Vec<usize> {
            product.written().into_iter().map(|own| at[own]).collect()
        };
        self.products.iter().zip(&self.positions).flat_map(of).collect()
    }

    pub(crate) fn check(&self, args: &[Arg]) -> Result<(), Problem> {
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

    pub(crate) fn reserve(&self, args: &[(DType, usize)], machine: &mut Machine) {
        self.each(args).for_each(|(product, own)| product.reserve(&own, machine));
    }

    /// Runs on checked arguments.
    pub(crate) fn run(&self, args: &[Arg], machine: &mut Machine, outside: &AtomicBool) {
        self.each(args).for_each(|(product, own)| product.run(&own, machine, outside));
    }
}
