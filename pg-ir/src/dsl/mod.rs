//! The DSL front end.

/// A parsed model with everything it derives from, kept for tracing.
#[derive(Debug)]
pub struct Program {}
use crate::graph::{Builder, ValueId};
/// Errors.
#[derive(Debug)]
pub struct Diagnostics;
/// What.
#[derive(Clone, Copy, Debug)]
pub enum Head {
    /// Logits.
    Logits,
    /// Nll.
    Nll,
    /// Loss.
    Loss,
}
/// Request.
#[derive(Clone, Debug)]
pub struct Trace {
    /// p
    pub phase: usize,
    /// b
    pub batch: usize,
    /// s
    pub seq: usize,
    /// q
    pub qat: bool,
    /// h
    pub head: Head,
}
/// Traced.
#[derive(Debug)]
pub struct Traced {
    /// b
    pub builder: Builder,
    /// v
    pub value: ValueId,
    /// p
    pub params: indexmap::IndexMap<String, ValueId>,
}
impl crate::model::Model {
    /// Placeholder.
    pub fn trace(&self, _: &Trace) -> Result<Traced, Diagnostics> {
        Err(Diagnostics)
    }
}
