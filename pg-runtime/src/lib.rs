//! Placeholder.

pub mod artifact;
pub mod data;
