//! Kernels against naive float64 loops.
