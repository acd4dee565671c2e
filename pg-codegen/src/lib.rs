//! From a graph to a plan: views folded into loads, ops fused into regions, matmuls and attention
//! scheduled, memory laid out. It knows no training, no data and no optimiser policy.

pub mod plan;
pub mod region;
