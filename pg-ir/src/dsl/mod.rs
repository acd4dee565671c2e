//! The DSL front end.

/// A parsed model with everything it derives from, kept for tracing.
#[derive(Debug)]
pub struct Program {}
