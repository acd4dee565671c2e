//! Causal attention and its gradient: portable kernels, which every device runs, and those for tensor cores.

pub(crate) mod portable;
pub(crate) mod portable_grad;
pub(crate) mod tensor_core;
pub(crate) mod tensor_core_grad;
