//! Executors, data, training, export and evaluation. How an op is lowered is not known here: programs
//! arrive as plans.

pub mod cpu;
pub mod state;
