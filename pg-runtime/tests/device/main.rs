//! Every distinct kernel of every model on a GPU, one at a time, against the reference executor in float64 on
//! the same arguments: small models with odd sizes. And whole runs against the CPU.
//!
//! The device is `PG_DEVICE`, `vulkan` by default. Where it cannot be opened the tests say so and pass, unless
//! PG_REQUIRE_DEVICE=1. `--ignored` runs more sizes.

#![cfg(any(feature = "vulkan", feature = "cuda"))]

mod kernels;
mod runs;

use pg_runtime::device::Device;
use pg_testing::device::chosen;

/// The device under test, or nothing if it cannot be opened here.
fn device() -> Option<Device> {
    match chosen("vulkan").open() {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("PG_REQUIRE_DEVICE").is_some_and(|v| v == "1") => {
            panic!("PG_REQUIRE_DEVICE=1, but {error}")
        }
        Err(error) => {
            eprintln!("NOT RUN: {error}");
            None
        }
    }
}
