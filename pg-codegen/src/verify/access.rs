//! What launches touch: the regions and products of a kernel with the places of their arguments among the launch's.
//!
//! It relies on nothing but the shape of kernels that `plan` documents, and must never say less than what is touched.

use crate::plan::{Kernel, Matmul};
use crate::region::Region;

/// A member of a contraction.
pub(super) struct Product<'a> {
    /// Its sizes, and where its result goes if no region takes it.
    pub(super) matmul: &'a Matmul,
    /// Its segments of k.
    pub(super) segments: Vec<Matmul>,
    pub(super) region: Option<&'a Region>,
    /// Where its own arguments are among the launch's: operands in pairs, then c or the region's from 1 on.
    pub(super) args: Vec<usize>,
}

impl Product<'_> {
    /// Where its operands are among the launch's arguments, a pair for each segment.
    pub(super) fn operands(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        self.args[..2 * self.segments.len()].chunks(2).map(|pair| [pair[0], pair[1]])
    }

    /// Its own arguments behind the operands: c, or the region's from 1 on.
    pub(super) fn rest(&self) -> &[usize] {
        &self.args[2 * self.segments.len()..]
    }
}

/// A region of a kernel.
pub(super) struct Part<'a> {
    pub(super) region: &'a Region,
    /// Where its arguments are among the launch's; a product's result is in none.
    pub(super) args: Vec<Option<usize>>,
    /// The product whose result is its argument 0, by position among the kernel's.
    pub(super) product: Option<usize>,
}

/// The products of a kernel.
pub(super) fn products(kernel: &Kernel) -> Vec<Product<'_>> {
    let Kernel::Contraction(contraction) = kernel else { return Vec::new() };
    let members = contraction.members.iter().enumerate();
    members
        .map(|(i, member)| Product {
            matmul: &member.matmul,
            segments: member.products().collect(),
            region: member.epilogue.as_ref(),
            args: contraction.args(i),
        })
        .collect()
}

/// The regions of a kernel.
pub(super) fn regions(kernel: &Kernel) -> Vec<Part<'_>> {
    if let Kernel::Region(region) = kernel {
        return vec![Part { region, args: (0..region.args.len()).map(Some).collect(), product: None }];
    }
    let mut parts = Vec::new();
    for (i, product) in products(kernel).into_iter().enumerate() {
        let Some(region) = product.region else { continue };
        let args = [None].into_iter().chain(product.rest().iter().copied().map(Some)).collect();
        parts.push(Part { region, args, product: Some(i) });
    }
    parts
}
