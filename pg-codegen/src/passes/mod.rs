//! The passes, in the order in which [`pipeline`](crate::pipeline) runs them, and what they share.

// From a graph to a graph.
pub(crate) mod cached_weights;
pub(crate) mod canonicalize;
pub(crate) mod concatenate_k;
pub mod precision;
pub(crate) mod rematerialize;

// From a graph to launches.
pub(crate) mod fold_constants;
pub(crate) mod fuse;
pub(crate) mod fuse_epilogues;
pub(crate) mod fuse_horizontally;
pub(crate) mod materialize;

// From launches to a plan.
pub(crate) mod schedule;

// Shared: values as region instructions, launches that wait for each other, counters of rewrites.
pub(crate) mod dag;
pub(crate) mod emit;
pub mod rewrites;
