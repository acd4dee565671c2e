//! What the compiler asks of a kernel family: one implementation for each. How plans print, what launches are held to,
//! which roof bounds them and which kernels are of one structure follows from it. Lowering, executors and the
//! verifier's comparison with the graph match on [`Kernel`].
//!
//! An implementation says what a kernel is, never how it runs: that is the executors' business.

use std::hash::{DefaultHasher, Hash, Hasher};

use pg_ir::ty::DType;

use super::Kernel;

/// What element type a kernel takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParamType {
    /// This one.
    Of(DType),
    /// Any float.
    Float,
    /// That of the first argument.
    First,
    /// Any.
    Any,
}

impl std::fmt::Display for ParamType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ParamType::Of(dtype) => write!(f, "{dtype}"),
            ParamType::Float => write!(f, "floats"),
            ParamType::First => write!(f, "the type of argument 0"),
            ParamType::Any => write!(f, "any type"),
        }
    }
}

/// An argument that a kernel takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Param {
    /// Its element type.
    pub ty: ParamType,
    /// Its elements; `None` where index maps say what is touched.
    pub len: Option<usize>,
    /// Whether the kernel reads it.
    pub is_read: bool,
    /// Whether the kernel writes it.
    pub is_written: bool,
}

impl Param {
    /// One that is read, of any length.
    pub(super) fn read(ty: ParamType) -> Param {
        Param { ty, len: None, is_read: true, is_written: false }
    }

    /// One that is written, of any length.
    pub(super) fn written(ty: ParamType) -> Param {
        Param { ty, len: None, is_read: false, is_written: true }
    }

    /// The same, of so many elements.
    pub(super) fn of_len(self, len: usize) -> Param {
        Param { len: Some(len), ..self }
    }
}

/// A kernel of one family.
pub(super) trait Family {
    /// The family's name.
    fn name(&self) -> &'static str;

    /// What it takes, in order.
    fn params(&self) -> Vec<Param>;

    /// The problem's shape in a few characters.
    fn shape(&self) -> String;

    /// Hashes all that decides its code except sizes, as [`Kernel::structure`] says.
    fn structure(&self, to: &mut DefaultHasher);

    /// Whether its floating point operations are those of products of matrices, which tensor cores do.
    fn multiplies_matrices(&self) -> bool {
        false
    }

    /// # Errors
    /// What is wrong with the kernel itself, whatever its arguments, as in "has no members". Nothing else here may be asked
    /// of such a kernel.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Kernel {
    /// Name of the family.
    pub fn family(&self) -> &'static str {
        self.with(|family| family.name())
    }

    /// What it takes, in order.
    pub fn params(&self) -> Vec<Param> {
        self.with(|family| family.params())
    }

    /// Number of arguments.
    pub fn arg_count(&self) -> usize {
        self.params().len()
    }

    /// Whether the kernel writes an argument.
    pub fn writes(&self, arg: usize) -> bool {
        self.params().get(arg).is_some_and(|param| param.is_written)
    }

    /// The problem's shape in a few characters.
    pub fn shape(&self) -> String {
        self.with(|family| family.shape())
    }

    /// Whether its floating point operations are those of products of matrices, which tensor cores do.
    pub fn multiplies_matrices(&self) -> bool {
        self.with(|family| family.multiplies_matrices())
    }

    /// # Errors
    /// What is wrong with the kernel itself, whatever its arguments, as in "has no members".
    pub fn check(&self) -> Result<(), String> {
        self.with(|family| family.check())
    }

    /// A digest of what kind of code the kernel is, whatever its sizes, good within one process. Two kernels of one
    /// structure run the same instructions in the same order on operands that lie alike; only how often differs.
    ///
    /// Validation takes a small program for a large one by it, so it must say of any two kernels that differ in more than
    /// sizes and constants that they differ. It may say so of more.
    pub fn structure(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.family().hash(&mut hasher);
        self.with(|family| family.structure(&mut hasher));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Contraction, Matmul, MatrixView};
    use crate::region::{Affine, IndexMap, Instr, Region};

    fn product(m: usize, n: usize, k: usize) -> Matmul {
        let view = |row: usize, col: usize| MatrixView { offset: 0, batch: 0, row, col };
        let (a, b, c) = (view(k, 1), view(1, k), view(n, 1));
        Matmul { batch: 1, m, n, k, a, b, c, accumulate: false, symmetric: false }
    }

    #[test]
    fn sizes_do_not_matter_and_the_rest_does() {
        let of = |m: Matmul| Kernel::Contraction(Contraction::of(m)).structure();
        assert_eq!(of(product(128, 64, 64)), of(product(2048, 64, 64)));
        let added = Matmul { accumulate: true, ..product(128, 64, 64) };
        let turned =
            Matmul { a: MatrixView { offset: 0, batch: 0, row: 1, col: 128 }, ..product(128, 64, 64) };
        let single = product(1, 64, 64);
        for other in [added, turned, single] {
            assert_ne!(of(product(128, 64, 64)), of(other));
        }
    }

    #[test]
    fn instructions_and_how_they_walk_matter() {
        let load = |stride: i64| {
            let at = Affine { offset: 0, strides: [stride, 1].into_iter().collect() };
            Instr::Load { arg: 0, map: IndexMap { at, guards: Vec::new() } }
        };
        let region = |rows: usize, body: Vec<Instr>| {
            Kernel::Region(Region { rows: vec![rows], reduced: 0, columns: 8, body, args: Vec::new() })
        };
        let scaled = |stride, by: f32| {
            vec![load(stride), Instr::Const(by), Instr::Binary(pg_ir::op::Binary::Mul, 0, 1)]
        };
        let one = region(128, scaled(8, 0.5)).structure();
        assert_eq!(one, region(4096, scaled(64, 0.25)).structure());
        assert_ne!(one, region(1, scaled(8, 0.5)).structure());
        assert_ne!(one, region(128, scaled(0, 0.5)).structure());
        let swapped = vec![load(8), Instr::Const(0.5), Instr::Binary(pg_ir::op::Binary::Mul, 1, 0)];
        assert_ne!(one, region(128, swapped).structure());
    }
}
