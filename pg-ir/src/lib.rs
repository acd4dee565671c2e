//! The compiler's middle: the DSL front end, ops, types, graph, autodiff, quantiser grids, budgets and
//! the reference interpreter. It knows no device and no file of data.

pub mod autodiff;
pub mod causality;
pub mod config;
pub mod footprint;
pub mod graph;
pub mod input;
pub mod interp;
pub mod lang;
pub mod op;
pub mod ops;
pub mod optim;
pub mod programs;
pub mod quant;
pub mod refusal;
pub mod slot;
pub mod text;
pub mod ty;
pub mod verify;
