//! Contractions: the portable kernel, which every device runs, and the one for tensor cores, a main loop over k with
//! an epilogue on its sums.

mod epilogue;
pub(crate) mod mainloop;
pub(crate) mod portable;
mod regions;
pub(crate) mod tensor_core;
