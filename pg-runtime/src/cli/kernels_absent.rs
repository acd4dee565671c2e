//! `pg kernels` of a binary that generates none.

use anyhow::bail;
use clap::Args;

use super::ui::Ui;

/// Whatever was asked for.
#[derive(Args, Debug)]
pub(crate) struct KernelsArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _anything: Vec<String>,
}

/// Says how to get a binary that does.
pub(crate) fn kernels(_: KernelsArgs, _: &Ui) -> anyhow::Result<()> {
    bail!(
        "this pg was built without kernels; build it with `cargo build --release -p pg-runtime --features cube`"
    )
}
