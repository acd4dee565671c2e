//! What tests and benchmarks of several packages share. Nothing of this is part of `pg`.

pub mod commands;
pub mod device;
pub mod faults;
pub mod files;
pub mod host_source;
pub mod hostile;
pub mod models;
pub mod oracle;
pub mod plans;
pub mod programs;
pub mod runs;
pub mod wrong_models;
