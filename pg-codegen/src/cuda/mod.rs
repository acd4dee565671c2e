//! Generated CUDA C++ compiled for Hopper on a machine without a GPU: source to PTX and cubin as CubeCL's
//! CUDA server would compile it, what the kernel uses of a multiprocessor, its instructions, and bundles of
//! binaries from which that server runs without compiling anything.
//!
//! The compiler and the disassembler are fetched by `scripts/cuda-tools` and found by [`Tools::find`].
//! Nothing here starts a driver or a device, and nothing here changes a kernel's source.

mod batch;
mod bound;
mod bundle;
mod compile;
mod nvrtc;
mod occupancy;
mod pipes;
mod sass;
#[cfg(test)]
mod tests;
mod tools;
mod walk;

pub use self::batch::{BuildError, Builds, Built, distinct};
pub use self::bound::{Binds, IssueBound, Loop, Predicted, Walked};
pub use self::bundle::{Bundle, BundleError, Entry, Manifest, Recipe};
pub use self::compile::{Compiled, Resources, server_options};
pub use self::occupancy::{Limit, Occupancy};
pub use self::pipes::{Cycles, Pipe};
pub use self::sass::{Instruction, Sass};
pub use self::tools::{Part, Tools, ToolsError};
pub use self::walk::{Walk, WalkError};
