//! Executors, data, training, export and evaluation. How an op is lowered is not known here: programs
//! arrive as plans. The `pg` binary is a command line over this library.

pub mod artifact;
pub mod audit;
pub mod challenge;
pub mod checkpoint;
pub mod cpu;
pub mod data;
pub mod device;
pub mod eval;
pub mod executor;
pub mod export;
#[cfg(feature = "cube")]
pub mod gpu;
pub mod init;
pub mod memory;
pub mod profile;
pub mod report;
pub mod run;
pub mod session;
pub mod state;
pub mod statistics;
pub mod submit;
pub mod sweep;
pub mod tensorboard;
pub mod train;
pub mod validate;
pub mod weights;
