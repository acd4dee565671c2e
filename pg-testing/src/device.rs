//! The device that tests and benchmarks run on.

use pg_runtime::device::DeviceName;

/// The device that `PG_DEVICE` names, or the other one.
pub fn chosen(otherwise: &str) -> DeviceName {
    let name = std::env::var("PG_DEVICE").unwrap_or_else(|_| otherwise.into());
    name.parse().unwrap_or_else(|e| panic!("PG_DEVICE: {e}"))
}
