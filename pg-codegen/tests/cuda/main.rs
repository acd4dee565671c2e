//! Generated CUDA C++ proven without a GPU: compiled for Hopper at full size, and executed on the CPU at
//! small and odd sizes.
//!
//! Tests that need CUDA's compiler say so where it is missing (`scripts/cuda-tools` fetches it) and pass,
//! unless PG_REQUIRE_CUDA_TOOLS=1. The executor on the CPU needs a C++ compiler, and nothing else.

#![cfg(feature = "cube")]

mod bundle;
mod device;
mod epilogue;
mod executed;
mod flash;
mod heads;
mod horizontal;
mod host;
mod identity;
mod matrix;
mod models;
mod offline;
mod planted;
mod predicted;
mod random_models;
mod segments;
mod step;
mod streams;
