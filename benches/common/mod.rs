//! What the benches share: the model, its shape, the device.

#[path = "../../tests/common/device.rs"]
mod device;

use std::path::Path;
use std::sync::Arc;

use pg_codegen::Options;
use pg_ir::dsl::{self, Source, elaborate};
use pg_runtime::device::Device;
use pg_runtime::session::Session;

/// Sequences.
pub(crate) const BATCH: usize = 4;
/// Tokens of a sequence.
pub(crate) const SEQ: usize = 512;

/// The device that `PG_DEVICE` names; the CPU without it.
pub(crate) fn device() -> Device {
    let name = device::chosen("cpu");
    name.open().unwrap_or_else(|e| panic!("PG_DEVICE={name}: {e}"))
}

/// int4mlp_12l at full size.
pub(crate) fn session(fuse: bool) -> Session {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/int4mlp_12l.rs");
    let source = Source::load(file).unwrap_or_else(|e| panic!("{e}"));
    let model = elaborate(&source, &dsl::Options::default()).unwrap_or_else(|e| panic!("{e}"));
    Session::on(device(), Arc::new(model), Options { fuse })
}
