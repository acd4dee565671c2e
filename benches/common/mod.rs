//! What the benches share: the model, its shape, the device.

use std::sync::Arc;

use pg_codegen::Options;
use pg_runtime::device::Device;
use pg_runtime::session::Session;
use pg_testing::device::chosen;
use pg_testing::models::model;

/// Sequences.
pub(crate) const BATCH: usize = 4;
/// Tokens of a sequence.
pub(crate) const SEQ: usize = 512;

/// The device that `PG_DEVICE` names; the CPU without it.
pub(crate) fn device() -> Device {
    let name = chosen("cpu");
    name.open().unwrap_or_else(|e| panic!("PG_DEVICE={name}: {e}"))
}

/// int4mlp_12l at full size.
pub(crate) fn session(fuse: bool) -> Session {
    Session::on(device(), Arc::new(model("int4mlp_12l.rs", &[])), Options { fuse, ..Options::default() })
}
