//! Generated CUDA C++ compiled for Hopper on a machine without a GPU: source to PTX and cubin as CubeCL's
//! CUDA server would compile it, what the kernel uses of a multiprocessor, and its instructions.
//!
//! The compiler and the disassembler are fetched by `scripts/cuda-tools` and found by [`Tools::find`].
//! Nothing here starts a driver or a device, and nothing here changes a kernel's source.

mod compile;
mod nvrtc;
mod sass;
#[cfg(test)]
mod tests;
mod tools;

pub use self::compile::{Compiled, Resources, server_options};
pub use self::sass::{Instruction, Sass};
pub use self::tools::{Tools, ToolsError};
