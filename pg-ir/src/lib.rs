//! Placeholder.

pub mod budget;
pub mod quant;
