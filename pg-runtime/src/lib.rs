//! The runtime of pg: executors, data, training, export and evaluation. The `pg` binary is a thin
//! command line over this library. It does not know how any op is lowered.

pub mod init;
pub mod report;
pub mod run;
pub mod weights;
