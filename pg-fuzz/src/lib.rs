//! Random model texts, and what they are held to. A seed becomes a text ([`generate`]) in the language itself; the
//! [`harness`] runs each of its programs on executors and holds them to the float64 interpreter; what fails is cut
//! down by [`shrink`] to the least text that still fails. [`graphs`] are random graphs below the language,
//! [`regions`] random programs of fused kernels, and [`exec`] runs plans in float64; [`causality`] holds a proof to what
//! changed tokens change. Nothing of this is part of `pg`.

pub mod attention;
pub mod cases;
pub mod causality;
pub mod compare;
pub mod coverage;
pub mod exec;
pub mod generate;
pub mod graphs;
pub mod harness;
pub mod metamorphic;
pub mod mutate;
pub mod regions;
pub mod rng;
pub mod rules;
pub mod search;
pub mod shrink;
pub mod text;
