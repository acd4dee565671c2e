//! Executors, data, training, export and evaluation. How an op is lowered is not known here: programs
//! arrive as plans.

pub mod artifact;
pub mod data;
pub mod report;
pub mod run;
