//! The reference interpreter.

/// Elements of a value in row-major order. Integers and booleans are exact in float64.
pub type Tensor = Vec<f64>;
