//! Regions on the CPU: a block-vectorised interpreter.
//!
//! A region is compiled once: brought to [canonical](pg_codegen::region::canonical) form, typed, its registers classed by what
//! they vary with and given vectors of a small scratch memory. It then runs block by block: a block is so
//! many rows (or such a piece of a long row) that a register is some thousand elements, and every
//! instruction is one vectorised loop over a block. The interpreter's overhead is paid once a block, and
//! intermediate values never leave the cache.
//!
//! Blocks and the pieces that reductions are cut into depend on the shapes alone, never on the number of
//! threads, and partial results are combined in order: the same bits come out for any thread count.

mod access;
mod build;
pub(crate) mod check;
mod compile;
mod interpret;
mod lines;
mod registers;
mod run;
mod unary;

pub(crate) use compile::CompiledRegion;
pub(crate) use lines::reduce;
pub(crate) use run::Scratch;
